//! Bodies that clients hold back until requested, and the time limit for requests with a slow one.

use std::time::{Duration, Instant};

use http::Request;

use super::{QUICK, Scene};
use crate::support::fair::{Fair, empty};
use crate::support::payer::Alice;
use crate::support::raw::{Raw, RawOrigin, field};
use crate::support::wire::ask;

#[tokio::test]
async fn a_body_that_is_held_back_goes_once_with_the_payment_whatever_its_size() {
    let limits =
        "[limits]\nreplay_memory = \"4KiB\"\nreplay_file = \"60KiB\"\nexpect_continue_timeout = \"60s\"\n";
    let scene = Scene::with(|_| {}, &format!("{QUICK}{limits}")).await;
    let address = scene.fair.origin.address();
    let all = vec![b'x'; 1_000_000];
    let head = format!(
        "POST http://{address}/paid/echo HTTP/1.1\r\nHost: {address}\r\nExpect: 100-continue\r\n\
         Content-Length: {}\r\n\r\n",
        all.len()
    );
    // The first one meets the 402; for the second one the price is known.
    for paid in [1, 2] {
        let mut client = Raw::asking(scene.proxy.address, &head).await;
        assert_eq!(client.head().await, "HTTP/1.1 100 Continue\r\n\r\n");
        client.send(&all).await;
        let head = client.head().await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        let length = field(&head, "content-length").unwrap().parse().unwrap();
        assert!(client.exactly(length).await.starts_with(b"1000000 bytes, "));
        scene.expect_paid(paid).await;
    }
    scene.close().await;
}

#[tokio::test]
async fn a_body_that_is_held_back_is_not_asked_for_where_nothing_is_paid() {
    let scene = Scene::open().await;
    let address = scene.fair.origin.address();
    let mut client = Raw::asking(
        scene.proxy.address,
        format!(
            "POST http://{address}/paid/echo HTTP/1.1\r\nHost: {address}\r\nSec-Fetch-Site: cross-site\r\n\
             Expect: 100-continue\r\nContent-Length: 9\r\n\r\n"
        ),
    )
    .await;
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 402 "), "{head}");
    assert_eq!(field(&head, "connection"), Some("close"), "{head}");
    client.rest().await;
    scene.expect_paid(0).await;
    scene.close().await;
}

#[tokio::test]
async fn a_slow_body_and_the_payment_share_one_clock() {
    let fair = Fair::open().await;
    let mut alice = Alice::with(&fair.market, "[limits]\npay_timeout = \"4s\"\n").await;
    // No blocks are mined: the opening is never confirmed.
    alice.change("poll_every = \"10ms\"", "poll_every = \"10ms\"\nconfirmations = 1000");
    let proxy = alice.start().await;
    proxy.ready().await;
    // A seller that does not wait for the body and requires the same payment as the other.
    let seller = RawOrigin::start().await;
    let address = seller.address;
    let asked = ask(fair.origin.address(), Request::get("/paid").body(empty()).unwrap()).await;
    let mut demand = "HTTP/1.1 402 Payment Required\r\nContent-Length: 0\r\n".to_owned();
    for (name, value) in asked.headers.iter().filter(|(name, _)| name.as_str().starts_with("rdn-")) {
        demand += &format!("{name}: {}\r\n", value.to_str().unwrap());
    }
    let request =
        format!("POST http://{address}/ HTTP/1.1\r\nHost: {address}\r\nContent-Length: 10\r\n\r\n12345");
    let begun = Instant::now();
    let mut client = Raw::asking(proxy.address, request).await;
    let mut server = seller.accept().await;
    server.head().await;
    server.send(demand + "\r\n").await;
    // There is nothing to wait for: the test is that the clock counts this time.
    tokio::time::sleep(Duration::from_millis(3500)).await;
    client.send("67890").await;
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 402 "), "{head}");
    assert!(field(&head, "proxy-status").unwrap().contains("limits.pay_timeout"), "{head}");
    let took = begun.elapsed();
    assert!(took > Duration::from_secs(4) && took < Duration::from_millis(6500), "{took:?}");
    proxy.stop().await;
}
