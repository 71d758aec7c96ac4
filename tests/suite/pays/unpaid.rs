//! Requests that are not paid get the seller's own 402 with one header that says why; messages that do not request a
//! resource pass unchanged.

use http::{HeaderMap, HeaderName, Request, StatusCode, header};
use tollpass::protocol::schemes::microraiden::headers as rdn;

use super::{QUICK, Scene};
use crate::support::curl::curl;
use crate::support::fair::{Fair, empty};
use crate::support::payer::Alice;
use crate::support::raw::{Raw, RawOrigin, field};
use crate::support::wire::{Got, ask};

const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");

/// The end-to-end headers, without those that a proxy adds and the date.
fn end_to_end(got: &Got) -> HeaderMap {
    let mut fields = got.headers.clone();
    for name in [header::VIA, header::DATE, header::CONNECTION, PROXY_STATUS] {
        fields.remove(name);
    }
    fields
}

#[tokio::test]
async fn the_sellers_own_402_comes_back_with_a_reason() {
    let fair = Fair::open().await;
    let url = format!("{}/paid/html", fair.origin.url());
    let page = ["-H", "Accept: text/html"];
    let direct = curl(None, &[page[0], page[1], &url]).await.got;
    assert_eq!(direct.status, StatusCode::PAYMENT_REQUIRED);
    assert_eq!(direct.rdn().len(), 5, "{direct:?}");
    assert_eq!(direct.headers.get_all(header::SET_COOKIE).iter().count(), 5, "{direct:?}");
    let port = fair.origin.address().port();
    for (rules, reason, details) in [
        ("[[pay]]\nhost = \"127.0.0.1\"\ndeny = true\n", "denied-by-rule", "a [[pay]] rule denies"),
        ("", "no-rule", "no [[pay]] rule matches"),
        (
            "[[pay]]\nhost = \"127.0.0.1\"\nport = 1\nmax_price = 10000\n",
            "no-rule",
            "no [[pay]] rule matches",
        ),
    ] {
        let alice = Alice::ruled(&fair.market, rules).await;
        let proxy = alice.start().await;
        let got = curl(Some(proxy.address), &[page[0], page[1], &url]).await.got;
        assert_eq!(got.status, direct.status, "{rules}");
        assert_eq!(got.body, direct.body, "{rules}");
        assert_eq!(end_to_end(&got), end_to_end(&direct), "{rules}");
        let status = got.header(&PROXY_STATUS).expect("a reason");
        assert_eq!(status, format!("tollpass; reason={reason}; details=\"{details} 127.0.0.1:{port}\""));
        proxy.stop().await;
    }
    assert_eq!(fair.market.openings().await, 0);
}

#[tokio::test]
async fn a_price_above_the_rules_is_not_paid() {
    let scene = Scene::with(|_| {}, QUICK).await;
    scene.fair.origin.set_price("/paid", 10_001.into()).unwrap();
    let got = scene.get("/paid").await;
    assert_eq!(got.status, StatusCode::PAYMENT_REQUIRED);
    let told = got.header(&PROXY_STATUS).unwrap();
    assert_eq!(
        told,
        "tollpass; reason=above-max-price; details=\"the price 10001 is above max_price 10000\""
    );
    assert_eq!(got.header(&rdn::PRICE), Some("10001"));
    scene.expect_paid(0).await;
    scene.close().await;
}

#[tokio::test]
async fn payment_fields_and_cookies_stay_between_the_proxy_and_the_seller() {
    let scene = Scene::open().await;
    // The seller responds 409 to these, and its cookies take precedence over headers.
    let spoiled = |path: &str| {
        let request = scene.request(path).header(&rdn::PRICE, "x").header("RDN-Payment", "1");
        request.header(header::COOKIE, "RDN-Balance=7; a=1").header(header::ACCEPT, "text/html")
    };
    for path in ["/paid", "/paid/html", "/free"] {
        let got = ask(scene.proxy.address, spoiled(path).body(empty()).unwrap()).await;
        assert_eq!(got.status, StatusCode::OK, "{path}: {got:?}");
        assert!(got.rdn().is_empty(), "{got:?}");
        assert!(!got.headers.contains_key(header::SET_COOKIE), "{got:?}");
    }
    scene.expect_paid(2).await;
    // An unpaid 402 keeps its headers, but not the cookies, which a browser would send back.
    scene.fair.origin.set_price("/paid", 10_001.into()).unwrap();
    let got = ask(scene.proxy.address, spoiled("/paid").body(empty()).unwrap()).await;
    assert_eq!(got.status, StatusCode::PAYMENT_REQUIRED, "{got:?}");
    assert!(got.rdn().len() >= 5, "{got:?}");
    assert!(!got.headers.contains_key(header::SET_COOKIE), "{got:?}");
    scene.close().await;
}

/// The payment would use another connection, on which the seller does not know the client, and be lost.
#[tokio::test]
async fn who_proves_itself_for_one_connection_is_not_paid_for() {
    let scene = Scene::open().await;
    for (proof, status) in [
        ("NTLM TlRMTVNTUAAB", StatusCode::PAYMENT_REQUIRED),
        ("negotiate YII=", StatusCode::PAYMENT_REQUIRED),
        ("Basic YTpi", StatusCode::OK),
    ] {
        let request = Request::get(format!("{}/paid", scene.fair.origin.url()));
        let request = request.header("authorization", proof).body(empty()).unwrap();
        let got = ask(scene.proxy.address, request).await;
        assert_eq!(got.status, status, "{proof}: {got:?}");
        if status == StatusCode::PAYMENT_REQUIRED {
            let reason = got.headers["proxy-status"].to_str().unwrap();
            assert!(reason.contains("NTLM or Negotiate"), "{reason}");
        }
    }
    scene.expect_paid(1).await;
    scene.close().await;
}

#[tokio::test]
async fn another_protocol_passes_a_rule_untouched() {
    let scene = Scene::open().await;
    let origin = RawOrigin::start().await;
    let request = format!(
        "GET http://{}/chat HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         RDN-Balance: 7\r\nCookie: RDN-Price=3\r\n\r\n",
        origin.address
    );
    let mut client = Raw::asking(scene.proxy.address, request).await;
    let mut server = origin.accept().await;
    let head = server.head().await;
    assert!(head.starts_with("GET /chat HTTP/1.1\r\n"), "{head}");
    for (name, value) in [("upgrade", "websocket"), ("rdn-balance", "7"), ("cookie", "RDN-Price=3")] {
        assert_eq!(field(&head, name), Some(value), "{head}");
    }
    let switch = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                  RDN-Price: 1000\r\n\r\nhello";
    server.send(switch).await;
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert_eq!(field(&head, "rdn-price"), Some("1000"), "{head}");
    assert_eq!(client.exactly(5).await, b"hello");
    client.send(b"\0\xff and back").await;
    assert_eq!(server.exactly(11).await, b"\0\xff and back");
    drop((client, server));
    scene.expect_paid(0).await;
    scene.close().await;
}

#[tokio::test]
async fn a_wish_for_http_2_is_not_passed_on_where_a_rule_matches() {
    let scene = Scene::open().await;
    let origin = RawOrigin::start().await;
    let request = format!(
        "GET http://{}/ HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\
         HTTP2-Settings: AAMAAABk\r\n\r\n",
        origin.address
    );
    let mut client = Raw::asking(scene.proxy.address, request).await;
    let mut server = origin.accept().await;
    let head = server.head().await;
    assert_eq!((field(&head, "upgrade"), field(&head, "http2-settings")), (None, None), "{head}");
    server.send("HTTP/1.1 204 No Content\r\n\r\n").await;
    assert!(client.head().await.starts_with("HTTP/1.1 204 "));
    drop((client, server));
    scene.close().await;
}

#[tokio::test]
async fn who_asks_a_seller_for_another_protocol_is_told_why_it_is_not_paid() {
    let scene = Scene::open().await;
    let request = scene.request("/paid").header(header::CONNECTION, "Upgrade");
    let request = request.header(header::UPGRADE, "websocket").body(empty()).unwrap();
    let got = ask(scene.proxy.address, request).await;
    assert_eq!(got.status, StatusCode::PAYMENT_REQUIRED, "{got:?}");
    let reason = got.header(&PROXY_STATUS).unwrap();
    assert!(reason.contains("it requests another protocol (Upgrade)"), "{reason}");
    assert_eq!(got.header(&rdn::PRICE), Some("1000"));
    scene.expect_paid(0).await;
    scene.close().await;
}

#[tokio::test]
async fn a_tunnel_that_is_not_read_passes_a_402_untouched() {
    let scene = Scene::with(|_| {}, &format!("{QUICK}[intercept]\nhosts = []\n")).await;
    let address = scene.fair.origin.address();
    let direct = ask(address, Request::get("/paid").body(empty()).unwrap()).await;
    let mut tunnel =
        Raw::asking(scene.proxy.address, format!("CONNECT {address} HTTP/1.1\r\nHost: {address}\r\n\r\n"))
            .await;
    assert!(tunnel.head().await.starts_with("HTTP/1.1 200 "));
    tunnel.send(format!("GET /paid HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")).await;
    let head = tunnel.head().await;
    assert!(head.starts_with("HTTP/1.1 402 "), "{head}");
    assert_eq!(field(&head, "rdn-price"), direct.header(&rdn::PRICE), "{head}");
    assert_eq!((field(&head, "proxy-status"), field(&head, "via")), (None, None), "{head}");
    assert_eq!(tunnel.rest().await, direct.body);
    drop(tunnel);
    scene.expect_paid(0).await;
    scene.close().await;
}

#[tokio::test]
async fn a_wish_for_another_protocol_that_is_not_for_this_hop_is_paid_like_others() {
    let scene = Scene::open().await;
    let request = format!(
        "GET {}/paid HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: close\r\n\r\n",
        scene.fair.origin.url()
    );
    let head = Raw::asking(scene.proxy.address, request).await.head().await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    scene.expect_paid(1).await;
    scene.close().await;
}
