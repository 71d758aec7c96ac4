//! Bodies that clients hold back until they are asked for.

use super::*;
use crate::support::raw::{Raw, RawOrigin, field};

/// Why the request of a client that waits for `100 Continue` is not paid.
async fn held_back(limits: &str, length: usize, is_asked_for_body: bool) -> String {
    let seller = RawOrigin::start().await;
    let (alice, proxy) = alice(limits).await;
    let port = seller.address.port();
    let head = format!(
        "POST http://localhost:{port}/goods HTTP/1.1\r\nHost: localhost:{port}\r\nExpect: 100-continue\r\n\
         Content-Length: {length}\r\n\r\n"
    );
    let mut client = Raw::asking(proxy.address, head).await;
    let mut server = seller.accept().await;
    server.head().await;
    server.send(raw_offer()).await;
    let mut head = client.head().await;
    if is_asked_for_body {
        assert_eq!(head, "HTTP/1.1 100 Continue\r\n\r\n");
        head = client.head().await;
    }
    proxy.stop().await;
    assert!(ledger::rows(&alice).is_empty(), "nothing was signed");
    assert!(head.starts_with("HTTP/1.1 402 "), "{head}");
    field(&head, "proxy-status").unwrap().to_owned()
}

#[tokio::test]
async fn a_body_too_large_to_send_again_is_not_asked_for_and_nothing_is_signed() {
    let why = held_back("[limits]\nreplay_memory = \"4KiB\"\nreplay_file = \"4KiB\"\n", 8193, false).await;
    assert!(why.contains("larger than 8192 bytes"), "{why}");
}

#[tokio::test]
async fn a_client_that_never_sends_its_body_gets_an_answer_after_pay_timeout() {
    let why = held_back("[limits]\npay_timeout = \"1s\"\n", 9, true).await;
    assert!(why.contains("did not arrive within limits.pay_timeout"), "{why}");
}
