//! Payments inside TLS.

use std::io::Write as _;

use http::StatusCode;
use tollpass::protocol::Amount;

use super::{HTTP_1, HTTP_2, Shop, trusting};
use crate::pays::QUICK;
use crate::support::curl::curl;
use crate::support::fair::{Fair, PRICE};
use crate::support::payer::Alice;
use crate::support::secure::{Notary, Secure};

#[tokio::test]
async fn curl_pays_over_https_whichever_versions_both_sides_speak() {
    for (of_bob, of_curl) in
        [(HTTP_1, "--http1.1"), (HTTP_1, "--http2"), (HTTP_2, "--http1.1"), (HTTP_2, "--http2")]
    {
        let shop = Shop::open(of_bob, "").await;
        let (ca, url) = (shop.ca_file(), shop.url("/paid"));
        let mut first = 0;
        for paid in 1..=3 {
            let more = ["--cacert", ca.to_str().unwrap(), of_curl, &url];
            let fetched = curl(Some(shop.proxy.address), &more).await;
            assert_eq!(fetched.got.status, StatusCode::OK, "{of_bob:?} {of_curl}: {fetched:?}");
            assert!(fetched.got.text().starts_with("This text was paid for"), "{fetched:?}");
            assert_eq!(shop.fair.origin.payments(), paid, "{of_bob:?} {of_curl}");
            assert_eq!(shop.proxy.promised().await, Amount::from(paid * PRICE), "{of_bob:?} {of_curl}");
            if paid == 1 {
                first = shop.fair.origin.exchanges();
            }
        }
        // The first request learns the price and waits until the seller sees the channel; the others know both.
        assert_eq!(shop.fair.origin.exchanges(), first + 2, "{of_bob:?} {of_curl}");
        shop.close().await;
    }
}

#[tokio::test]
async fn a_large_upload_is_paid_over_https() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&vec![7; 5_000_000]).unwrap();
    let data = format!("@{}", file.path().display());
    for (of_bob, of_curl) in [(HTTP_1, "--http1.1"), (HTTP_2, "--http2")] {
        let shop = Shop::open(of_bob, "").await;
        let (ca, url) = (shop.ca_file(), shop.url("/paid/echo"));
        let more = ["--cacert", ca.to_str().unwrap(), of_curl, "--data-binary", &data, &url];
        let fetched = curl(Some(shop.proxy.address), &more).await;
        assert_eq!(fetched.got.status, StatusCode::OK, "{fetched:?}");
        assert!(fetched.got.text().starts_with("5000000 bytes, "), "{fetched:?}");
        assert_eq!(shop.fair.origin.payments(), 1);
        shop.close().await;
    }
}

#[tokio::test]
async fn an_unverified_origin_gets_neither_request_nor_money() {
    let (trusted, other) = (Notary::new(), Notary::new());
    let fair = Fair::open().await;
    let alice = Alice::with(&fair.market, &format!("{QUICK}{}", trusting(&trusted))).await;
    let proxy = alice.start().await;
    let ca = alice.state_dir().join("ca.pem");
    for (config, reason) in [
        (other.certify("127.0.0.1", HTTP_1).await, "UnknownIssuer"),
        (trusted.certify("bob.example", HTTP_1).await, "not valid for name"),
    ] {
        let bob = Secure::serve(config, |_| async { panic!("it was asked") as http::Response<String> }).await;
        let url = format!("https://{}/paid", bob.address);
        let fetched = curl(Some(proxy.address), &["--cacert", ca.to_str().unwrap(), &url]).await;
        assert_eq!(fetched.got.status, StatusCode::BAD_GATEWAY, "{fetched:?}");
        let told = fetched.got.headers["proxy-status"].to_str().unwrap();
        assert!(
            told.starts_with("tollpass; error=tls_certificate_error; reason=bad-certificate; details=\""),
            "{told}"
        );
        assert!(told.contains(reason), "{told}");
        assert!(fetched.got.text().contains("127.0.0.1"), "{}", fetched.got.text());
    }
    assert_eq!(proxy.channels().await.len(), 0);
    proxy.stop().await;
    fair.origin.stop().await;
}

#[tokio::test]
async fn plain_http_through_connect_is_paid_too() {
    let shop = Shop::open(HTTP_1, "").await;
    let url = format!("{}/paid", shop.fair.origin.url());
    let fetched = curl(Some(shop.proxy.address), &["--proxytunnel", &url]).await;
    assert_eq!(fetched.got.status, StatusCode::OK, "{fetched:?}");
    assert_eq!(shop.fair.origin.payments(), 1);
    shop.close().await;
}
