//! Tunnels that are not intercepted: the client gets the origin's own bytes and certificate.

use http::Response;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{HTTP_1, Shop, trusting};
use crate::pays::QUICK;
use crate::support::curl::curl;
use crate::support::fair::Fair;
use crate::support::payer::Alice;
use crate::support::raw::{RawOrigin, soon};
use crate::support::secure;
use crate::support::secure::{Notary, Secure, connect};

#[tokio::test]
async fn a_host_outside_the_list_shows_its_own_certificate() {
    for hosts in ["[intercept]\nhosts = [\"bob.example\", \"*.example.org\"]\n", "[intercept]\nhosts = []\n"]
    {
        let shop = Shop::open(HTTP_1, hosts).await;
        let (url, own) = (shop.url("/paid"), shop.notary.ca_file());
        // curl trusts only Bob's CA: had the certificate been ours, curl would have rejected it.
        let fetched = curl(Some(shop.proxy.address), &["--cacert", own.to_str().unwrap(), &url]).await;
        assert_eq!(fetched.got.status, 402, "{fetched:?}");
        assert!(!fetched.got.headers.contains_key("via"), "{fetched:?}");
        assert_eq!(shop.fair.origin.payments(), 0);
        shop.close().await;
    }
}

#[tokio::test]
async fn only_hosts_of_paying_rules_are_intercepted_by_default() {
    let notary = Notary::new();
    let config = notary.certify("127.0.0.1", HTTP_1).await;
    let bob = Secure::serve(config, |_| async { Response::new("bob\n".to_owned()) }).await;
    let fair = Fair::open().await;
    let port = bob.address.port();
    for (rules, is_read) in [
        ("host = \"127.0.0.1\"\nmax_price = 1\n".to_owned(), true),
        (format!("host = \"127.0.0.1\"\nport = {port}\nmax_price = 1\n"), true),
        ("host = \"127.0.0.1\"\nport = 1\nmax_price = 1\n".to_owned(), false),
        ("host = \"127.0.0.1\"\ndeny = true\n".to_owned(), false),
        ("host = \"bob.example\"\nmax_price = 1\n".to_owned(), false),
    ] {
        let rest = format!("[[pay]]\n{rules}{QUICK}{}", trusting(&notary));
        let alice = Alice::ruled(&fair.market, &rest).await;
        let proxy = alice.start().await;
        let ca = if is_read { alice.state_dir().join("ca.pem") } else { notary.ca_file() };
        let url = format!("https://{}/", bob.address);
        let fetched = curl(Some(proxy.address), &["--cacert", ca.to_str().unwrap(), &url]).await;
        assert_eq!(fetched.got.text(), "bob\n", "{rules}");
        assert_eq!(fetched.got.headers.contains_key("via"), is_read, "{rules}");
        proxy.stop().await;
    }
    fair.origin.stop().await;
}

#[tokio::test]
async fn a_server_that_speaks_first_is_heard() {
    let shop = Shop::open(HTTP_1, "").await;
    let bob = RawOrigin::start().await;
    let mut client = connect(shop.proxy.address, &bob.address.to_string()).await;
    let mut server = bob.accept().await;
    server.send("220 bob.example ready\r\n").await;
    let mut greeting = [0; 23];
    soon("the greeting", client.read_exact(&mut greeting)).await.unwrap();
    assert_eq!(&greeting, b"220 bob.example ready\r\n");
    client.write_all(b"EHLO alice\r\n").await.unwrap();
    assert_eq!(server.line().await, "EHLO alice\r\n");
    shop.close().await;
}

#[tokio::test]
async fn other_protocols_than_tls_and_http_pass_byte_for_byte() {
    let shop = Shop::open(HTTP_1, "").await;
    let bob = RawOrigin::start().await;
    for words in [&b"SSH-2.0-alice\r\n"[..], b"\x00\x01\x02", b"P", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let mut client = connect(shop.proxy.address, &bob.address.to_string()).await;
        client.write_all(words).await.unwrap();
        client.shutdown().await.unwrap();
        let mut server = bob.accept().await;
        assert_eq!(server.rest().await, words);
        server.send("goodbye").await;
        server.finish().await;
        let mut heard = Vec::new();
        soon("the answer", client.read_to_end(&mut heard)).await.unwrap();
        assert_eq!(heard, b"goodbye", "{words:?}");
    }
    shop.close().await;
}

#[tokio::test]
async fn another_name_behind_a_covered_host_is_left_alone() {
    let shop = Shop::open(HTTP_1, "").await;
    let config = shop.notary.certify("carol.example", HTTP_1).await;
    let carol = Secure::serve(config, |_| async { Response::new("carol\n".to_owned()) }).await;
    let stream = connect(shop.proxy.address, &carol.address.to_string()).await;
    let mut stream = secure::trusting(&shop.notary.ca_file(), stream, "carol.example", HTTP_1)
        .await
        .expect("her own certificate");
    stream.write_all(b"GET / HTTP/1.1\r\nHost: carol.example\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    soon("the answer", stream.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.ends_with("carol\n") && !answer.contains("via:"), "{answer}");
    shop.close().await;
}

#[tokio::test]
async fn a_broken_greeting_is_answered_with_an_alert() {
    let shop = Shop::open(HTTP_1, "").await;
    let bob = RawOrigin::start().await;
    let mut client = connect(shop.proxy.address, &bob.address.to_string()).await;
    client.write_all(b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00").await.unwrap();
    let mut heard = Vec::new();
    soon("the end", client.read_to_end(&mut heard)).await.unwrap();
    assert_eq!(heard.first(), Some(&21), "an alert record: {heard:?}");
    shop.close().await;
}

#[tokio::test]
async fn an_unreachable_origin_is_reported_before_the_tunnel_opens() {
    let shop = Shop::open(HTTP_1, "").await;
    let gone = {
        let bob = RawOrigin::start().await;
        bob.address
    };
    let mut raw = crate::support::raw::Raw::asking(
        shop.proxy.address,
        format!("CONNECT {gone} HTTP/1.1\r\nHost: {gone}\r\n\r\n"),
    )
    .await;
    let head = raw.head().await;
    assert!(head.starts_with("HTTP/1.1 502 ") && head.contains("error=connection_refused"), "{head}");
    shop.close().await;
}

#[tokio::test]
async fn tls_for_another_protocol_than_http_is_left_alone() {
    let shop = Shop::open(HTTP_1, "").await;
    let config = shop.notary.certify("127.0.0.1", &["mqtt"]).await;
    let bob = Secure::accept(config, |mut stream| async move {
        let mut word = [0; 5];
        stream.read_exact(&mut word).await.unwrap();
        stream.write_all(&word).await.unwrap();
        stream.shutdown().await.unwrap();
    })
    .await;
    let stream = connect(shop.proxy.address, &bob.address.to_string()).await;
    let mut stream = secure::trusting(&shop.notary.ca_file(), stream, "127.0.0.1", &["mqtt"])
        .await
        .expect("his own certificate");
    stream.write_all(b"\x10\0\0\0\0").await.unwrap();
    let mut heard = Vec::new();
    soon("the answer", stream.read_to_end(&mut heard)).await.unwrap();
    assert_eq!(heard, b"\x10\0\0\0\0");
    shop.close().await;
}
