//! Faults of the facilitator and of the seller, with and without an application that retries: no purchase is paid for
//! twice, and each that can be served is.

use super::*;
use crate::support::mallory::Demand;
use crate::support::market::Market;
use crate::support::raw::{Raw, RawOrigin, field};

/// What happens to the first payment that the seller is presented.
#[derive(Clone, Copy, Debug)]
struct Fault {
    name: &'static str,
    /// Whether the authorization is redeemed.
    settles: bool,
    answer: fn(Version) -> Answer,
    /// Whether it comes in this version.
    versions: &'static [Version],
}

const BOTH: &[Version] = &[V1, V2];

fn failed_receipt(reason: &str) -> Answer {
    let receipt = V2.stated(false, Some(reason));
    Answer::new(StatusCode::PAYMENT_REQUIRED, "{}").header(&V2.receipt(), receipt)
}

fn status(status: u16) -> Answer {
    Answer::new(StatusCode::from_u16(status).unwrap(), "{\"error\":\"so it is\"}")
}

fn json(code: u16, text: &'static str) -> Answer {
    Answer::new(StatusCode::from_u16(code).unwrap(), text)
        .header(&http::header::CONTENT_TYPE, "application/json; charset=utf-8")
}

fn html() -> Answer {
    Answer::new(StatusCode::PAYMENT_REQUIRED, "<html>").header(&http::header::CONTENT_TYPE, "text/html")
}

fn redirect() -> Answer {
    Answer::new(StatusCode::TEMPORARY_REDIRECT, "").header(&http::header::LOCATION, "/elsewhere")
}

const FAULTS: &[Fault] = &[
    Fault { name: "settled, then 504", settles: true, answer: |_| status(504), versions: BOTH },
    Fault { name: "settled, then 502", settles: true, answer: |_| status(502), versions: BOTH },
    Fault { name: "settled, then 500", settles: true, answer: |_| status(500), versions: BOTH },
    Fault { name: "settled, then cut", settles: true, answer: |_| Answer::CutBeforeHead, versions: BOTH },
    Fault { name: "settled, then silent", settles: true, answer: |_| Answer::Never, versions: BOTH },
    Fault {
        name: "settled, then asks as if unpaid",
        settles: true,
        answer: |version| version.offer("Payment required"),
        versions: BOTH,
    },
    Fault {
        name: "settled, then 402 without anything",
        settles: true,
        answer: |_| status(402),
        versions: BOTH,
    },
    Fault {
        name: "settled, the facilitator's answer lost",
        settles: true,
        answer: |_| failed_receipt("fetch failed"),
        versions: &[V2],
    },
    Fault {
        name: "settled, the facilitator answers garbage",
        settles: true,
        answer: |_| failed_receipt(""),
        versions: &[V2],
    },
    Fault {
        name: "settled, the facilitator fails",
        settles: true,
        answer: |_| failed_receipt("unexpected_settle_error"),
        versions: &[V2],
    },
    Fault {
        name: "settled, fetch failed",
        settles: true,
        answer: |_| V1.offer("fetch failed"),
        versions: &[V1],
    },
    Fault {
        name: "settled, bad gateway",
        settles: true,
        answer: |_| V1.offer("Failed to settle payment: 502 Bad Gateway"),
        versions: &[V1],
    },
    Fault {
        name: "settled, garbage",
        settles: true,
        answer: |_| V1.offer("Unexpected token '<', \"<html>\" is not valid JSON"),
        versions: &[V1],
    },
    Fault {
        name: "not settled, the facilitator fails",
        settles: false,
        answer: |_| failed_receipt("unexpected_settle_error"),
        versions: &[V2],
    },
    Fault {
        name: "pending",
        settles: false,
        answer: |_| failed_receipt("settlement_pending"),
        versions: &[V2],
    },
    Fault { name: "not settled, 500", settles: false, answer: |_| status(500), versions: BOTH },
    Fault { name: "not settled, 503", settles: false, answer: |_| status(503), versions: BOTH },
    Fault { name: "not settled, 429", settles: false, answer: |_| status(429), versions: BOTH },
    Fault { name: "not settled, cut", settles: false, answer: |_| Answer::CutBeforeHead, versions: BOTH },
    Fault { name: "not settled, silent", settles: false, answer: |_| Answer::Never, versions: BOTH },
    Fault {
        name: "not settled, an unknown error",
        settles: false,
        answer: |version| version.offer("the node is busy"),
        versions: BOTH,
    },
    Fault { name: "settled, then an empty 402", settles: true, answer: |_| json(402, "{}"), versions: BOTH },
    Fault { name: "settled, then HTML", settles: true, answer: |_| html(), versions: BOTH },
    Fault { name: "settled, then redirected", settles: true, answer: |_| redirect(), versions: BOTH },
    Fault {
        name: "settled, then fails with a receipt",
        settles: true,
        answer: |version| version.served().with_status(StatusCode::INTERNAL_SERVER_ERROR),
        versions: BOTH,
    },
    Fault { name: "not settled, an empty 402", settles: false, answer: |_| json(402, "{}"), versions: BOTH },
    Fault { name: "not settled, redirected", settles: false, answer: |_| redirect(), versions: BOTH },
];

/// Sells honestly after this fault.
fn faulty(
    fault: Fault,
    version: Version,
    chain: &Chain,
) -> impl FnMut(&Presented) -> Answer + Send + 'static {
    let chain = chain.clone();
    let mut is_first = true;
    move |presented| {
        let Some(payment) = version.payment(presented) else { return version.offer("Payment required") };
        if !std::mem::replace(&mut is_first, false) {
            return version.serve(&chain, &payment);
        }
        if fault.settles {
            chain.settle(&payment);
        }
        (fault.answer)(version)
    }
}

#[tokio::test]
async fn no_fault_makes_a_purchase_cost_twice_and_what_can_be_served_is() {
    let every = FAULTS.iter().flat_map(|fault| fault.versions.iter().map(move |version| (*fault, *version)));
    let cases = every.flat_map(|case| [Method::GET, Method::POST].map(|method| (case, method)));
    let checks = cases.map(|((fault, version), method)| async move {
        let about = format!("{}, {version:?}, {method}", fault.name);
        let chain = Chain::default();
        let seller = Mallory::spawn(faulty(fault, version, &chain)).await;
        let (alice, proxy) = alice(QUICK).await;
        let mut got = send(&proxy, &seller, method.clone(), HeaderMap::new()).await;
        // The application retries; a purchase that went through is over.
        for _ in 0..2 {
            if got.status == StatusCode::OK {
                break;
            }
            got = send(&proxy, &seller, method.clone(), HeaderMap::new()).await;
        }
        assert_eq!(chain.transfers(), [PRICE], "{about}: {got:?}");
        assert_eq!(nonces(version, &seller).len(), 1, "{about}");
        let state = if fault.settles {
            assert_eq!(got.status, StatusCode::BAD_GATEWAY, "{about}: {got:?}");
            assert!(reason(&got).contains("reason=paid-not-delivered"), "{about}: {got:?}");
            assert!(got.headers.contains_key("retry-after"), "{about}: {got:?}");
            LedgerState::PaidNotDelivered
        } else {
            assert_eq!((got.status, got.text()), (StatusCode::OK, "goods\n"), "{about}: {got:?}");
            LedgerState::Paid
        };
        proxy.stop().await;
        let rows = ledger::rows(&alice);
        assert_eq!(last_states(&rows), [state], "{about}: {rows:?}");
    });
    // A few at a time: each has a proxy of its own.
    futures_util::StreamExt::collect::<Vec<()>>(futures_util::StreamExt::buffer_unordered(
        futures_util::stream::iter(checks),
        8,
    ))
    .await;
}

#[tokio::test]
async fn without_a_retry_the_answer_says_what_is_known() {
    // A request that may be repeated finds out by itself; a POST is left to the application.
    for (method, settles, status, code, state) in [
        (Method::GET, true, 502, "reason=paid-not-delivered", LedgerState::PaidNotDelivered),
        (Method::GET, false, 200, "", LedgerState::Paid),
        (Method::POST, true, 504, "", LedgerState::InDoubt),
        (Method::POST, false, 504, "", LedgerState::InDoubt),
    ] {
        let chain = Chain::default();
        let answer = |_| super::faults::status(504);
        let fault = Fault { name: "504", settles, answer, versions: BOTH };
        let seller = Mallory::spawn(faulty(fault, V2, &chain)).await;
        let (alice, proxy) = alice(QUICK).await;
        let got = send(&proxy, &seller, method.clone(), HeaderMap::new()).await;
        assert_eq!(got.status, status, "{method} {settles}: {got:?}");
        assert!(reason(&got).contains(code), "{method} {settles}: {got:?}");
        assert_eq!(chain.transfers().len(), usize::from(settles || got.status == StatusCode::OK));
        proxy.stop().await;
        assert_eq!(last_states(&ledger::rows(&alice)), [state], "{method} {settles}");
    }
}

/// A payment that the seller has read is in doubt, although the seller cannot be reached to present it again.
#[tokio::test]
async fn a_payment_to_a_seller_that_has_died_is_in_doubt() {
    let seller = RawOrigin::start().await;
    let (alice, proxy) = alice(QUICK).await;
    let url = format!("http://localhost:{}/goods", seller.address.port());
    let asking = ask(proxy.address, Request::get(url).body(empty()).unwrap());
    let dying = async {
        let mut server = seller.accept().await;
        server.head().await;
        server.send(raw_offer()).await;
        drop(server);
        let mut server = seller.accept().await;
        let paid = server.head().await;
        assert!(field(&paid, "payment-signature").is_some(), "{paid}");
        // Nobody listens any more once the payment's connection ends.
        drop(seller);
        drop(server);
    };
    let (got, ()) = tokio::time::timeout(PATIENCE, async { tokio::join!(asking, dying) }).await.unwrap();
    assert_eq!(got.status, StatusCode::BAD_GATEWAY, "{got:?}");
    assert!(reason(&got).contains("reason=payment-in-doubt"), "{got:?}");
    proxy.stop().await;
    assert_eq!(last_states(&ledger::rows(&alice)), [LedgerState::InDoubt]);
}

#[tokio::test]
async fn a_post_with_an_idempotency_key_is_repeated_like_a_get() {
    let chain = Chain::default();
    let fault = Fault { name: "504", settles: false, answer: |_| status(504), versions: BOTH };
    let seller = Mallory::spawn(faulty(fault, V2, &chain)).await;
    let (_alice, proxy) = alice(QUICK).await;
    let mut headers = HeaderMap::new();
    headers.insert("idempotency-key", http::HeaderValue::from_static("one"));
    let got = send(&proxy, &seller, Method::POST, headers).await;
    assert_eq!(got.status, StatusCode::OK, "{got:?}");
    assert_eq!(chain.transfers(), [PRICE]);
    proxy.stop().await;
}

#[tokio::test]
async fn another_request_is_another_purchase() {
    let chain = Chain::default();
    let fault = Fault { name: "504", settles: true, answer: |_| status(504), versions: BOTH };
    let seller = Mallory::spawn(faulty(fault, V2, &chain)).await;
    let (_alice, proxy) = alice(QUICK).await;
    let got = send(&proxy, &seller, Method::POST, HeaderMap::new()).await;
    assert_eq!(got.status, StatusCode::GATEWAY_TIMEOUT, "{got:?}");
    let mut headers = HeaderMap::new();
    headers.insert("authorization", http::HeaderValue::from_static("Bearer somebody-else"));
    let got = send(&proxy, &seller, Method::POST, headers).await;
    assert_eq!(got.status, StatusCode::OK, "{got:?}");
    assert_eq!(chain.transfers(), [PRICE, PRICE]);
    proxy.stop().await;
}

/// Retries that come at the same time present the one payment in doubt once; the others are purchases of their own.
#[tokio::test]
async fn one_payment_in_doubt_is_presented_by_one_request_at_a_time() {
    let chain = Chain::default();
    let fault = Fault { name: "504", settles: false, answer: |_| status(504), versions: BOTH };
    let seller = Mallory::spawn(faulty(fault, V2, &chain)).await;
    let (_alice, proxy) = alice(QUICK).await;
    let post = || send(&proxy, &seller, Method::POST, HeaderMap::new());
    assert_eq!(post().await.status, StatusCode::GATEWAY_TIMEOUT);
    let got = futures_util::future::join_all((0..5).map(|_| post())).await;
    assert!(got.iter().all(|got| got.status == StatusCode::OK), "{got:?}");
    assert_eq!(chain.transfers(), [PRICE; 5]);
    assert_eq!(nonces(V2, &seller).len(), 5, "the one in doubt, and four others");
    proxy.stop().await;
}

/// A slow purchase whose client has left; opening the gate lets the seller answer.
struct Slow {
    chain: Chain,
    gate: Arc<tokio::sync::Semaphore>,
    seller: Mallory,
    alice: Alice,
    proxy: Running,
    /// The tasks that run without a request.
    idle: usize,
}

impl Slow {
    async fn begin(cookie: &str) -> Self {
        let (chain, gate) = (Chain::default(), Arc::new(tokio::sync::Semaphore::new(0)));
        let (of_seller, held) = (chain.clone(), Arc::clone(&gate));
        let seller = Mallory::spawn(move |presented| match V2.payment(presented) {
            Some(payment) => Answer::Held(Arc::clone(&held), Box::new(V2.serve(&of_seller, &payment))),
            None => V2.offer("Payment required"),
        })
        .await;
        let (alice, proxy) = alice("").await;
        let idle = proxy.shutdown.running();
        let slow = Self { chain, gate, seller, alice, proxy, idle };
        leave(slow.ask(cookie, 2).await).await;
        slow
    }

    /// Sends a request, and waits until the seller has seen this many in all.
    async fn ask(&self, cookie: &str, seen: usize) -> Raw {
        let head = format!(
            "GET http://localhost:{}/goods HTTP/1.1\r\nHost: localhost\r\nCookie: {cookie}\r\n\r\n",
            self.seller.address().port()
        );
        let client = Raw::asking(self.proxy.address, head).await;
        tokio::time::timeout(PATIENCE, self.seller.await_presented(seen)).await.expect("no request");
        client
    }

    /// Waits until what a client left behind is over.
    async fn end(&self) {
        let is_over = async {
            while self.proxy.shutdown.running() > self.idle {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, is_over).await.expect("the exchange does not end");
    }

    async fn expect_served(&self, mut client: Raw, transfers: &[u64]) {
        let head = client.head().await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert_eq!(client.exactly(6).await, b"goods\n");
        assert_eq!(self.chain.transfers(), transfers);
    }
}

/// The proxy has noticed it once it closes the connection.
async fn leave(mut client: Raw) {
    client.finish().await;
    client.rest().await;
}

/// A client that gives up pays once, whether it comes back before the seller has answered or after it.
#[tokio::test]
async fn a_client_that_gives_up_and_comes_back_gets_what_it_has_paid_for() {
    for is_back_early in [true, false] {
        let slow = Slow::begin("a=1").await;
        let client = if is_back_early {
            let client = slow.ask("a=1", 3).await;
            slow.gate.add_permits(1);
            client
        } else {
            slow.gate.add_permits(1);
            slow.end().await;
            // The price is known by now, so that the seller is not asked.
            slow.ask("a=1", 2).await
        };
        slow.expect_served(client, &[PRICE]).await;
        // It was given out: the next request is another purchase.
        slow.gate.add_permits(1);
        let client = slow.ask("a=1", if is_back_early { 4 } else { 3 }).await;
        slow.expect_served(client, &[PRICE, PRICE]).await;
        slow.proxy.stop().await;
        assert_eq!(last_states(&ledger::rows(&slow.alice)), [LedgerState::Paid; 2]);
    }
}

#[tokio::test]
async fn a_client_that_gives_up_again_and_again_pays_once() {
    let slow = Slow::begin("a=1").await;
    for seen in [3, 4] {
        leave(slow.ask("a=1", seen).await).await;
    }
    let client = slow.ask("a=1", 5).await;
    slow.gate.add_permits(1);
    slow.expect_served(client, &[PRICE]).await;
    slow.proxy.stop().await;
}

/// Cookies say who somebody is: another user behind the same client never gets the response.
#[tokio::test]
async fn what_was_paid_for_goes_to_no_request_with_other_headers() {
    let slow = Slow::begin("user=alice").await;
    let other = slow.ask("user=mallory", 4).await;
    assert_eq!(slow.chain.transfers(), [PRICE, PRICE], "it is another purchase");
    slow.gate.add_permits(2);
    slow.expect_served(other, &[PRICE, PRICE]).await;
    // The first one is still there for its own user.
    let client = slow.ask("user=alice", 4).await;
    slow.expect_served(client, &[PRICE, PRICE]).await;
    slow.proxy.stop().await;
}

/// A seller that offers another scheme after a payment in this one is not paid in that one meanwhile.
#[tokio::test]
async fn a_purchase_in_doubt_is_not_paid_for_in_another_scheme() {
    let market = Market::open().await;
    let demand = Demand {
        contract: market.manager,
        receiver: tollpass::protocol::Address([0x77; 20]),
        token: market.token,
    };
    let chain = Chain::default();
    let of_seller = chain.clone();
    let seller = Mallory::spawn(move |presented| match V2.payment(presented) {
        Some(payment) => {
            of_seller.settle(&payment);
            status(504)
        }
        None if presented.number == 0 => V2.offer("Payment required"),
        None => demand.base(10),
    })
    .await;
    let asset = |symbol: &str, token: &str, more: &str| {
        format!(
            "[[asset]]\nsymbol = \"{symbol}\"\nnetwork = \"eip155:31337\"\ntoken = \"{token}\"\ndecimals = 3\nusd = \"0.001\"\n{more}"
        )
    };
    let rest = [
        asset("TKN", &market.token.to_string(), ""),
        asset("TOY", TOKEN, "eip712_name = \"Toy Dollar\"\neip712_version = \"2\"\n"),
        format!("[[pay]]\nhost = \"localhost\"\nmax_price = \"$0.01\"\n{QUICK}"),
    ];
    let alice = Alice::ruled(&market, &rest.concat()).await;
    let proxy = alice.start().await;
    proxy.ready().await;
    let got = send(&proxy, &seller, Method::POST, HeaderMap::new()).await;
    assert_eq!(got.status, StatusCode::GATEWAY_TIMEOUT, "{got:?}");
    let got = send(&proxy, &seller, Method::POST, HeaderMap::new()).await;
    assert!(reason(&got).contains("reason=payment-in-doubt"), "{got:?}");
    assert_eq!((chain.transfers(), seller.highest()), (vec![PRICE], 0.into()));
    proxy.stop().await;
}
