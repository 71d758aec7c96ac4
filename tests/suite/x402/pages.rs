//! Sellers of version 1 that answer browsers with a page, which holds no offers.

use http::header::{ACCEPT, CONTENT_TYPE, USER_AGENT};

use super::*;

const PAGE: &str = "<!DOCTYPE html><p>Connect your wallet";
const BROWSER: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";

fn of_browser(accept: &'static str) -> HeaderMap {
    let headers = [(ACCEPT, accept), (USER_AGENT, BROWSER)];
    headers.map(|(name, value)| (name, value.parse().unwrap())).into_iter().collect()
}

fn is_for_people(presented: &Presented) -> bool {
    let has = |name: HeaderName, word: &str| {
        presented.headers.get(name).is_some_and(|value| value.to_str().unwrap().contains(word))
    };
    has(ACCEPT, "text/html") && has(USER_AGENT, "Mozilla")
}

/// Sells at this price; whoever looks like a browser is shown the page instead of the offer.
fn with_page(price: u64, chain: &Chain) -> impl FnMut(&Presented) -> Answer + Send + 'static {
    let chain = chain.clone();
    move |presented| match V1.payment(presented) {
        Some(payment) => V1.serve(&chain, &payment),
        None if is_for_people(presented) => {
            Answer::new(StatusCode::PAYMENT_REQUIRED, PAGE).header(&CONTENT_TYPE, "text/html; charset=utf-8")
        }
        None => V1.asks("X-PAYMENT header is required", &[V1.entry(price)]),
    }
}

/// What a browser gets, and the `Accept` of each request that reached the seller.
async fn browse(
    script: impl FnMut(&Presented) -> Answer + Send + 'static,
    method: Method,
    accept: &'static str,
) -> (Got, Vec<String>) {
    let seller = Mallory::spawn(script).await;
    let (_alice, proxy) = alice("browsers = \"any\"\n").await;
    let got = send(&proxy, &seller, method, of_browser(accept)).await;
    proxy.stop().await;
    let accept = |presented: &Presented| presented.headers[ACCEPT].to_str().unwrap().to_owned();
    (got, seller.presented().iter().map(accept).collect())
}

#[tokio::test]
async fn a_page_in_place_of_an_offer_is_paid_and_the_browser_gets_what_it_asked_for() {
    let chain = Chain::default();
    let accept = "text/html,application/xhtml+xml,*/*;q=0.8";
    let (got, asked) = browse(with_page(PRICE, &chain), Method::GET, accept).await;
    assert_eq!((got.status, got.text()), (StatusCode::OK, "goods\n"), "{got:?}");
    assert_eq!(asked, [accept, "application/json", accept]);
    assert_eq!(chain.transfers(), [PRICE]);
}

#[tokio::test]
async fn the_browser_gets_the_page_with_the_reason_if_nothing_is_paid() {
    let chain = Chain::default();
    let (got, asked) = browse(with_page(2001, &chain), Method::GET, "text/html").await;
    assert_eq!((got.status, got.text()), (StatusCode::PAYMENT_REQUIRED, PAGE), "{got:?}");
    assert!(reason(&got).contains("reason=above-max-price;"), "{got:?}");
    assert_eq!(got.headers[CONTENT_TYPE], "text/html; charset=utf-8");
    assert_eq!((asked.len(), chain.transfers()), (2, vec![]));
}

#[tokio::test]
async fn only_a_request_that_is_safe_to_repeat_and_accepts_a_page_is_asked_again() {
    let wall =
        |_: &Presented| Answer::new(StatusCode::PAYMENT_REQUIRED, PAGE).header(&CONTENT_TYPE, "Text/HTML");
    for (method, accept, times) in
        [(Method::GET, "text/html", 2), (Method::POST, "text/html", 1), (Method::GET, "*/*", 1)]
    {
        let (got, asked) = browse(wall, method.clone(), accept).await;
        assert_eq!((got.status, got.text()), (StatusCode::PAYMENT_REQUIRED, PAGE), "{got:?}");
        assert!(reason(&got).contains("reason=unknown-scheme;"), "{got:?}");
        assert_eq!(asked.len(), times, "{method} {accept}: {asked:?}");
    }
    // A page that is served without a payment to programs is none of a seller's.
    let free = |presented: &Presented| match is_for_people(presented) {
        true => Answer::new(StatusCode::PAYMENT_REQUIRED, PAGE).header(&CONTENT_TYPE, "text/html"),
        false => Answer::new(StatusCode::OK, "free"),
    };
    let (got, asked) = browse(free, Method::GET, "text/html").await;
    assert_eq!((got.status, got.text(), asked.len()), (StatusCode::PAYMENT_REQUIRED, PAGE, 2), "{got:?}");
}
