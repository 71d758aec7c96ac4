//! Sellers of version 1 whose responses are compressed for clients that accept it, offers included.

use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE};
use http_body_util::{BodyExt as _, Full};

use super::*;

/// Stands for what only a client can decompress.
const COMPRESSED: &str = "\u{1f}compressed";

fn compressed() -> Answer {
    Answer::new(StatusCode::PAYMENT_REQUIRED, COMPRESSED)
        .header(&CONTENT_TYPE, "application/json; charset=utf-8")
        .header(&CONTENT_ENCODING, "gzip")
}

fn header<'a>(presented: &'a Presented, name: &HeaderName) -> &'a str {
    presented.headers.get(name).map_or("", |value| value.to_str().unwrap())
}

/// Sells at this price, compressed for whoever accepts that, and shows pages to browsers.
fn compressing(price: u64, chain: &Chain) -> impl FnMut(&Presented) -> Answer + Send + 'static {
    let chain = chain.clone();
    move |presented| {
        if let Some(payment) = V1.payment(presented) {
            return V1.serve(&chain, &payment);
        }
        if header(presented, &ACCEPT).contains("text/html") {
            return compressed().header(&CONTENT_TYPE, "text/html");
        }
        asks(presented, "X-PAYMENT header is required", price)
    }
}

fn asks(presented: &Presented, error: &str, price: u64) -> Answer {
    match header(presented, &ACCEPT_ENCODING).contains("gzip") {
        true => compressed(),
        false => V1.asks(error, &[V1.entry(price)]),
    }
}

/// Sends a request of a client that accepts gzip.
async fn fetch_from(
    (proxy, seller): (&Running, &Mallory),
    method: Method,
    accept: &'static str,
    body: &'static str,
) -> Got {
    let url = format!("http://localhost:{}/goods", seller.address().port());
    let body = Full::new(Bytes::from_static(body.as_bytes())).map_err(|never| match never {}).boxed();
    let request = Request::builder().method(method).uri(url).header(ACCEPT, accept);
    let request = request.header(ACCEPT_ENCODING, "gzip, br").body(body).unwrap();
    tokio::time::timeout(PATIENCE, ask(proxy.address, request)).await.expect("no answer")
}

/// What a client gets that accepts gzip, and `Accept` and `Accept-Encoding` of each request that reached the seller.
async fn fetch(
    script: impl FnMut(&Presented) -> Answer + Send + 'static,
    method: Method,
    accept: &'static str,
) -> (Got, Vec<[String; 2]>) {
    let seller = Mallory::spawn(script).await;
    let (_alice, proxy) = alice("browsers = \"any\"\n").await;
    let body = if method == Method::GET { "" } else { "a question" };
    let got = fetch_from((&proxy, &seller), method, accept, body).await;
    proxy.stop().await;
    let asked =
        |presented: &Presented| [ACCEPT, ACCEPT_ENCODING].map(|name| header(presented, &name).to_owned());
    let presented = seller.presented();
    assert!(presented.iter().all(|presented| presented.body == body), "{presented:?}");
    (got, presented.iter().map(asked).collect())
}

#[tokio::test]
async fn compressed_offers_are_asked_for_again_and_paid() {
    for (method, accept, again) in [
        (Method::GET, "*/*", "*/*"),
        (Method::GET, "text/html", "application/json"),
        (Method::POST, "*/*", "*/*"),
    ] {
        let chain = Chain::default();
        let (got, asked) = fetch(compressing(PRICE, &chain), method, accept).await;
        assert_eq!((got.status, got.text()), (StatusCode::OK, "goods\n"), "{got:?}");
        assert_eq!(asked, [[accept, "gzip, br"], [again, "identity"], [accept, "identity"]]);
        assert_eq!(chain.transfers(), [PRICE]);
    }
}

#[tokio::test]
async fn the_client_gets_the_first_answer_with_the_reason_if_nothing_is_paid() {
    let unpaid = |(got, asked): (Got, Vec<[String; 2]>), why: &str, times: usize| {
        assert_eq!((got.status, got.text()), (StatusCode::PAYMENT_REQUIRED, COMPRESSED), "{got:?}");
        assert_eq!(got.headers[CONTENT_ENCODING], "gzip", "{got:?}");
        assert!(reason(&got).contains(why), "{why}: {got:?}");
        assert_eq!(asked.len(), times, "{why}: {asked:?}");
    };
    let chain = Chain::default();
    for method in [Method::GET, Method::POST] {
        let above = fetch(compressing(2001, &chain), method.clone(), "*/*").await;
        unpaid(above, "reason=above-max-price;", 2);
        // A seller that compresses whatever it is asked.
        unpaid(fetch(|_: &Presented| compressed(), method, "*/*").await, "the content coding gzip", 2);
    }
    assert!(chain.transfers().is_empty());
}

/// A POST has effects, other than a page that programs get.
#[tokio::test]
async fn a_post_that_is_served_when_it_asks_for_plain_offers_has_its_answer() {
    let script = |presented: &Presented| match presented.number {
        0 => compressed(),
        _ => Answer::new(StatusCode::OK, "free"),
    };
    for (method, status) in [(Method::POST, StatusCode::OK), (Method::GET, StatusCode::PAYMENT_REQUIRED)] {
        let (got, asked) = fetch(script, method, "*/*").await;
        assert_eq!((got.status, asked.len()), (status, 2), "{got:?}");
    }
}

/// What a seller says of a payment, compressed for whoever accepts that, is read: also if the payment was sent ahead.
#[tokio::test]
async fn compressed_answers_to_a_payment_are_read() {
    const REFUSED: &str = "invalid_exact_evm_insufficient_balance";
    for (is_ahead, settles, why) in [
        (false, true, "reason=paid-not-delivered;"),
        (true, true, "reason=paid-not-delivered;"),
        (false, false, "reason=seller-refused;"),
        // The first answer could not be read: it may have taken the payment.
        (true, false, "reason=payment-in-doubt;"),
    ] {
        let chain = Chain::default();
        let of_seller = chain.clone();
        let mut is_honest = is_ahead;
        let seller = Mallory::spawn(move |presented| {
            let Some(payment) = V1.payment(presented) else {
                return asks(presented, "X-PAYMENT header is required", PRICE);
            };
            if std::mem::replace(&mut is_honest, false) {
                return V1.serve(&of_seller, &payment);
            }
            match settles {
                true if of_seller.settle(&payment) => Answer::CutBeforeHead,
                true => asks(presented, "invalid_exact_evm_nonce_already_used", PRICE),
                false => asks(presented, REFUSED, PRICE),
            }
        })
        .await;
        let (alice, proxy) = alice(QUICK).await;
        let about = format!("ahead: {is_ahead}, settles: {settles}");
        if is_ahead {
            let got = fetch_from((&proxy, &seller), Method::GET, "*/*", "").await;
            assert_eq!((got.status, got.text()), (StatusCode::OK, "goods\n"), "{about}: {got:?}");
        }
        let before = seller.presented().len();
        let got = fetch_from((&proxy, &seller), Method::GET, "*/*", "").await;
        assert!(reason(&got).contains(why), "{about}: {got:?}");
        let presented = seller.presented();
        assert_eq!(presented[before].headers.contains_key(V1.header()), is_ahead, "{about}");
        assert!(presented.len() - before <= 4, "{about}: {presented:?}");
        proxy.stop().await;
        let state = match (settles, is_ahead) {
            (true, _) => LedgerState::PaidNotDelivered,
            (false, true) => LedgerState::InDoubt,
            (false, false) => LedgerState::Refused,
        };
        assert_eq!(last_states(&ledger::rows(&alice)).last(), Some(&state), "{about}");
        assert_eq!(nonces(V1, &seller).len(), 1 + usize::from(is_ahead), "{about}");
    }
}

#[tokio::test]
async fn offers_in_a_header_are_read_at_once_whatever_the_coding_of_the_body() {
    let chain = Chain::default();
    let of_seller = chain.clone();
    let script = move |presented: &Presented| match V2.payment(presented) {
        Some(payment) => V2.serve(&of_seller, &payment),
        None => V2
            .offer("Payment required")
            .header(&CONTENT_TYPE, "application/json")
            .header(&CONTENT_ENCODING, "gzip"),
    };
    let (got, asked) = fetch(script, Method::GET, "*/*").await;
    assert_eq!((got.status, asked.len()), (StatusCode::OK, 2), "{got:?}");
    assert_eq!(chain.transfers(), [PRICE]);
}
