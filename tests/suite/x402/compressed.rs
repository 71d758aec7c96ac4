//! Sellers of version 1 whose responses are compressed for clients that accept it, offers included.

use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE};

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
        if header(presented, &ACCEPT_ENCODING).contains("gzip") {
            return compressed();
        }
        V1.asks("X-PAYMENT header is required", &[V1.entry(price)])
    }
}

/// What a client gets that accepts gzip, and `Accept` and `Accept-Encoding` of each request that reached the seller.
async fn fetch(
    script: impl FnMut(&Presented) -> Answer + Send + 'static,
    method: Method,
    accept: &'static str,
) -> (Got, Vec<[String; 2]>) {
    let seller = Mallory::spawn(script).await;
    let (_alice, proxy) = alice("browsers = \"any\"\n").await;
    let headers = [(ACCEPT, accept), (ACCEPT_ENCODING, "gzip, br")];
    let headers = headers.map(|(name, value)| (name, http::HeaderValue::from_static(value)));
    let got = send(&proxy, &seller, method, headers.into_iter().collect()).await;
    proxy.stop().await;
    let asked =
        |presented: &Presented| [ACCEPT, ACCEPT_ENCODING].map(|name| header(presented, &name).to_owned());
    (got, seller.presented().iter().map(asked).collect())
}

#[tokio::test]
async fn compressed_offers_are_asked_for_again_and_paid() {
    for (accept, again) in [("*/*", "*/*"), ("text/html", "application/json")] {
        let chain = Chain::default();
        let (got, asked) = fetch(compressing(PRICE, &chain), Method::GET, accept).await;
        assert_eq!((got.status, got.text()), (StatusCode::OK, "goods\n"), "{got:?}");
        assert_eq!(asked, [[accept, "gzip, br"], [again, "identity"], [accept, "gzip, br"]]);
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
    unpaid(fetch(compressing(2001, &chain), Method::GET, "*/*").await, "reason=above-max-price;", 2);
    // A request that may not be repeated, and a seller that compresses whatever it is asked.
    let why = "the content coding gzip";
    unpaid(fetch(compressing(PRICE, &chain), Method::POST, "*/*").await, why, 1);
    unpaid(fetch(|_: &Presented| compressed(), Method::GET, "*/*").await, why, 2);
    assert!(chain.transfers().is_empty());
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
