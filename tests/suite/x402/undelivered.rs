//! Responses that were paid for and that no client gets whole: the seller breaks off, the client leaves in the middle, or
//! there is no place to keep them. None of them is paid for once more within `limits.retry_window`.

use tokio::sync::Semaphore;

use super::*;
use crate::support::raw::{Raw, RawOrigin, field};

/// Sends a GET for a path, with further header lines.
async fn asking(proxy: &Running, port: u16, path: &str, more: &str) -> Raw {
    let head = format!("GET http://localhost:{port}{path} HTTP/1.1\r\nHost: localhost\r\n{more}\r\n");
    Raw::asking(proxy.address, head).await
}

fn is_not_delivered(got: &Got) {
    assert_eq!(got.status, StatusCode::BAD_GATEWAY, "{got:?}");
    assert!(reason(got).contains("reason=paid-not-delivered"), "{got:?}");
    assert!(got.headers.contains_key("retry-after"), "{got:?}");
}

/// Serves each payment once in this way, and says so afterwards.
fn serving(
    chain: &Chain,
    served: impl Fn(Answer) -> Answer + Send + 'static,
) -> impl FnMut(&Presented) -> Answer + Send + 'static {
    let chain = chain.clone();
    move |presented| {
        let Some(payment) = V2.payment(presented) else { return V2.offer("Payment required") };
        match V2.serve(&chain, &payment) {
            answer @ Answer::Head { status: StatusCode::OK, .. } => served(answer),
            refusal => refusal,
        }
    }
}

#[tokio::test]
async fn a_response_that_breaks_off_is_not_paid_for_again_and_pauses_the_host() {
    let chain = Chain::default();
    let cut = |answer: Answer| answer.with_content(Content::Cut);
    let seller = Mallory::spawn(serving(&chain, cut)).await;
    let (alice, proxy) = alice(QUICK).await;
    let port = seller.address().port();
    let mut client = asking(&proxy, port, "/goods", "").await;
    assert!(client.head().await.starts_with("HTTP/1.1 200 "));
    client.rest().await;
    for _ in 0..2 {
        is_not_delivered(&get(&proxy, &seller).await);
    }
    assert_eq!(chain.transfers(), [PRICE]);
    for path in ["/2", "/3"] {
        let mut client = asking(&proxy, port, path, "").await;
        assert!(client.head().await.starts_with("HTTP/1.1 200 "));
        client.rest().await;
    }
    let mut client = asking(&proxy, port, "/4", "Connection: close\r\n").await;
    let head = client.head().await;
    assert!(field(&head, "proxy-status").unwrap().contains("reason=host-paused"), "{head}");
    assert_eq!(chain.transfers(), [PRICE; 3]);
    proxy.stop().await;
    assert_eq!(last_states(&ledger::rows(&alice)), [LedgerState::PaidNotDelivered; 3]);
}

/// A client that leaves in the middle has not got what it paid for, unless it may end the response when it likes.
#[tokio::test]
async fn a_client_that_leaves_in_the_middle_and_comes_back_pays_once() {
    for (media_type, is_stream) in
        [("application/octet-stream", false), ("text/event-stream; charset=utf-8", true)]
    {
        let chain = Chain::default();
        let dripping = move |answer: Answer| {
            let content = Content::Drip(std::time::Duration::from_millis(1));
            answer.header(&http::header::CONTENT_TYPE, media_type).with_content(content)
        };
        let seller = Mallory::spawn(serving(&chain, dripping)).await;
        let (alice, proxy) = alice(QUICK).await;
        let (idle, port) = (proxy.shutdown.running(), seller.address().port());
        let mut client = asking(&proxy, port, "/goods", "").await;
        assert!(client.head().await.starts_with("HTTP/1.1 200 "));
        client.exactly(1).await;
        drop(client);
        let is_over = async {
            while proxy.shutdown.running() > idle {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, is_over).await.expect("the proxy does not notice");
        if is_stream {
            let mut client = asking(&proxy, port, "/goods", "").await;
            assert!(client.head().await.starts_with("HTTP/1.1 200 "));
            assert_eq!(chain.transfers(), [PRICE, PRICE]);
        } else {
            is_not_delivered(&get(&proxy, &seller).await);
            assert_eq!(chain.transfers(), [PRICE]);
            assert_eq!(nonces(V2, &seller).len(), 1, "the same payment was presented again");
        }
        proxy.stop().await;
        let states = if is_stream { &[LedgerState::Paid; 2][..] } else { &[LedgerState::PaidNotDelivered] };
        assert_eq!(last_states(&ledger::rows(&alice)), states);
    }
}

/// The seller answers a payment once there is a permit.
async fn held(chain: &Chain, served: fn(Answer) -> Answer) -> (Mallory, Arc<Semaphore>) {
    let gate = Arc::new(Semaphore::new(0));
    let held = Arc::clone(&gate);
    let answer = move |answer: Answer| Answer::Held(Arc::clone(&held), Box::new(served(answer)));
    (Mallory::spawn(serving(chain, answer)).await, gate)
}

/// SDKs count their attempts in a header. A request that differs in that only is no other purchase, and its response may not
/// be meant for it.
#[tokio::test]
async fn a_repetition_with_another_header_is_not_paid_for_again() {
    let chain = Chain::default();
    let (seller, gate) = held(&chain, |answer| answer).await;
    let (_alice, proxy) = alice("").await;
    let port = seller.address().port();
    let seen = |count| tokio::time::timeout(PATIENCE, seller.await_presented(count));
    let mut first = asking(&proxy, port, "/goods", "X-Attempt: 1\r\n").await;
    seen(2).await.expect("no payment");
    first.finish().await;
    first.rest().await;
    // It waits for the one whose client has left, and learns what became of it.
    let mut second = asking(&proxy, port, "/goods", "X-Attempt: 2\r\n").await;
    seen(3).await.expect("no request");
    gate.add_permits(1);
    let head = second.head().await;
    assert!(head.starts_with("HTTP/1.1 502 "), "{head}");
    assert!(field(&head, "proxy-status").unwrap().contains("reason=paid-not-delivered"), "{head}");
    assert!((1..=60).contains(&field(&head, "retry-after").unwrap().parse().unwrap()), "{head}");
    // Headers that tell of the attempt only make no difference.
    let mut third = asking(&proxy, port, "/goods", "X-Attempt: 1\r\nX-Stainless-Retry-Count: 1\r\n").await;
    assert!(third.head().await.starts_with("HTTP/1.1 200 "));
    assert_eq!(third.exactly(6).await, b"goods\n");
    assert_eq!(chain.transfers(), [PRICE]);
    proxy.stop().await;
}

/// Without a place to keep the response, the payment is presented again, and the seller says that it took it.
#[tokio::test]
async fn what_is_not_kept_is_not_paid_for_again() {
    const WHOLE: fn(Answer) -> Answer = |answer| answer;
    const EMPTY: fn(Answer) -> Answer = |answer| answer.with_content(Content::Text(""));
    const STREAM: fn(Answer) -> Answer =
        |answer| answer.header(&http::header::CONTENT_TYPE, "text/event-stream");
    for served in [WHOLE, EMPTY, STREAM] {
        what_is_not_kept(served).await;
    }
}

async fn what_is_not_kept(served: fn(Answer) -> Answer) {
    let chain = Chain::default();
    let (seller, gate) = held(&chain, served).await;
    let (alice, proxy) = alice("[limits]\nkept_answers = 0\n").await;
    let idle = proxy.shutdown.running();
    let mut client = asking(&proxy, seller.address().port(), "/goods", "").await;
    tokio::time::timeout(PATIENCE, seller.await_presented(2)).await.expect("no payment");
    client.finish().await;
    client.rest().await;
    gate.add_permits(1);
    let is_over = async {
        while proxy.shutdown.running() > idle {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, is_over).await.expect("the exchange does not end");
    gate.add_permits(10);
    is_not_delivered(&get(&proxy, &seller).await);
    assert_eq!(chain.transfers(), [PRICE]);
    proxy.stop().await;
    assert_eq!(last_states(&ledger::rows(&alice)), [LedgerState::PaidNotDelivered]);
}

/// A response that a client gets while the proxy stops was delivered: the next request is another purchase.
#[tokio::test]
async fn what_is_delivered_during_a_shutdown_is_over() {
    let seller = RawOrigin::start().await;
    let (alice, proxy) = alice(QUICK).await;
    let port = seller.address.port();
    let mut nonces = Vec::new();
    let mut proxy = Some(proxy);
    for _ in 0..2 {
        let running = match proxy.take() {
            Some(running) => running,
            None => alice.start().await,
        };
        let mut client = asking(&running, port, "/goods", "Connection: close\r\n").await;
        let mut server = seller.accept().await;
        server.head().await;
        server.send(raw_offer()).await;
        let mut server = seller.accept().await;
        let paid = server.head().await;
        nonces.push(field(&paid, "payment-signature").expect("no payment").to_owned());
        let receipt = V2.stated(true, None);
        server
            .send(format!("HTTP/1.1 200 OK\r\nPAYMENT-RESPONSE: {receipt}\r\nContent-Length: 6\r\n\r\ngoo"))
            .await;
        assert!(client.head().await.starts_with("HTTP/1.1 200 "));
        let address = running.address;
        let stopping = tokio::spawn(running.stop());
        let is_stopping = async { while tokio::net::TcpStream::connect(address).await.is_ok() {} };
        tokio::time::timeout(PATIENCE, is_stopping).await.expect("it does not stop");
        server.send("ds\n").await;
        assert_eq!(client.exactly(6).await, b"goods\n");
        stopping.await.unwrap();
    }
    assert_ne!(nonces[0], nonces[1], "the payment of the first was presented again");
    assert_eq!(last_states(&ledger::rows(&alice)), [LedgerState::Paid; 2]);
}
