//! Many spellings of one host, each of which goes to the host it means and follows its rules; and addresses with a
//! zone.

use std::net::Ipv6Addr;

use http::{Request, StatusCode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tollpass::proxy::ProxySettings;

use super::addresses::Names;
use crate::pays::QUICK;
use crate::support::fair::{Fair, empty};
use crate::support::payer::Alice;
use crate::support::proxy::Proxy;
use crate::support::raw::{Raw, RawOrigin, field, soon};
use crate::support::secure::{Notary, Secure, connect, trusting};
use crate::support::wire::ask;

/// All of them are 127.0.0.1.
const HERE: [&str; 9] = [
    "127.1",
    "127.0.1",
    "2130706433",
    "0x7f.1",
    "0x7F000001",
    "0177.0.0.1",
    "017700000001.",
    "127.0.0.1.",
    "[::ffff:127.0.0.1]",
];

/// Neither a name nor an address.
const NOWHERE: [&str; 10] = [
    "127.0.0.256",
    "1.2.3.4.5",
    "4294967296",
    "08.0.0.1",
    "0x",
    "127..1",
    "a..b",
    ".example",
    "[127.0.0.1]",
    "[::1%25]x",
];

#[tokio::test]
async fn every_spelling_of_an_address_reaches_it_and_is_reported_alike() {
    let origin = RawOrigin::start().await;
    let proxy = Proxy::start().await;
    let port = origin.address.port();
    for host in HERE {
        let request =
            format!("GET http://{host}:{port}/ HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n");
        let mut client = Raw::asking(proxy.address, request).await;
        let mut server = origin.accept().await;
        assert_eq!(field(&server.head().await, "host"), Some(&*origin.address.to_string()), "{host}");
        server.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
        assert!(client.head().await.starts_with("HTTP/1.1 200 "), "{host}");
        connect(proxy.address, &format!("{host}:{port}")).await;
        origin.accept().await;
    }
}

#[tokio::test]
async fn invalid_hosts_are_refused() {
    let proxy = Proxy::start().await;
    for host in NOWHERE {
        for request in [
            format!("GET http://{host}:1/ HTTP/1.1\r\nHost: a.example\r\n\r\n"),
            format!("CONNECT {host}:1 HTTP/1.1\r\nHost: a.example\r\n\r\n"),
        ] {
            let head = Raw::asking(proxy.address, &request).await.head().await;
            assert!(head.starts_with("HTTP/1.1 400 "), "{request}: {head}");
        }
    }
    for host in ["127.0.0.256", "1.2.3.4.5", "0x1ffffffff", "[127.0.0.1]"] {
        let request = format!("GET http://a.example/ HTTP/1.1\r\nHost: {host}:1\r\n\r\n");
        let head = Raw::asking(proxy.address, &request).await.head().await;
        assert!(head.starts_with("HTTP/1.1 400 "), "{request}: {head}");
    }
}

#[tokio::test]
async fn names_go_on_as_they_are_written() {
    let origin = RawOrigin::start().await;
    let resolver = Names::new([vec![origin.address]]);
    let proxy = Proxy::with(ProxySettings { resolver, ..ProxySettings::default() }).await;
    let port = origin.address.port();
    for host in ["a_b.example", "db", "Api.Example.", "xn--bcher-kva.example", "127.0.0.1.example", "web.1"] {
        let request =
            format!("GET http://{host}:{port}/ HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        let mut client = Raw::asking(proxy.address, request).await;
        let mut server = origin.accept().await;
        assert_eq!(field(&server.head().await, "host"), Some(&*format!("{host}:{port}")));
        server.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
        assert!(client.head().await.starts_with("HTTP/1.1 200 "), "{host}");
    }
}

#[tokio::test]
async fn no_spelling_passes_by_a_rule_and_all_share_one_channel() {
    let fair = Fair::open().await;
    let url = |host: &str| fair.origin.url().replace("127.0.0.1", host) + "/paid";
    let everyone = "[[pay]]\nhost = \"*\"\nmax_price = 10000\n";
    for denied in ["127.0.0.1", "127.1", "0177.0.0.1", "[::ffff:7f00:1]"] {
        let rules = format!("[[pay]]\nhost = \"{denied}\"\ndeny = true\n{everyone}{QUICK}");
        let alice = Alice::ruled(&fair.market, &rules).await;
        let proxy = alice.start().await;
        for host in HERE {
            let got = ask(proxy.address, Request::get(url(host)).body(empty()).unwrap()).await;
            assert_eq!(got.status, StatusCode::PAYMENT_REQUIRED, "{denied}: {host}: {got:?}");
        }
        proxy.stop().await;
    }
    let alice = Alice::with(&fair.market, QUICK).await;
    let proxy = alice.start().await;
    for host in HERE {
        let got = ask(proxy.address, Request::get(url(host)).body(empty()).unwrap()).await;
        assert_eq!(got.status, StatusCode::OK, "{host}: {got:?}");
    }
    let channels = proxy.channels().await;
    assert_eq!((channels.len(), channels[0].host.as_deref()), (1, Some("127.0.0.1")), "{channels:?}");
    proxy.stop().await;
}

#[tokio::test]
async fn every_spelling_is_read_in_a_tunnel() {
    let notary = Notary::new();
    let config = notary.certify("127.0.0.1", &["http/1.1"]).await;
    let bob = Secure::serve(config, |request| async move {
        http::Response::new(request.headers()["host"].to_str().unwrap().to_owned())
    })
    .await;
    let fair = Fair::open().await;
    let upstream = format!("[upstream]\nca_file = \"{}\"\n", notary.ca_file().display());
    let alice = Alice::with(&fair.market, &format!("{QUICK}{upstream}")).await;
    let proxy = alice.start().await;
    let port = bob.address.port();
    for (outside, inside) in [("127.1", "127.0.0.1"), ("127.0.0.1", "2130706433"), ("0x7f.1", "127.1")] {
        let stream = connect(proxy.address, &format!("{outside}:{port}")).await;
        let ca = alice.state_dir().join("ca.pem");
        let mut client = trusting(&ca, stream, "127.0.0.1", &["http/1.1"]).await.unwrap();
        let request = format!("GET / HTTP/1.1\r\nHost: {inside}:{port}\r\nConnection: close\r\n\r\n");
        client.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        soon("the answer", client.read_to_string(&mut answer)).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert!(answer.ends_with(&format!("127.0.0.1:{port}")), "{answer}");
    }
    proxy.stop().await;
}

#[tokio::test]
async fn an_address_in_a_zone_is_reached_and_the_zone_stays_here() {
    let listener = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let proxy = Proxy::start().await;
    for host in ["[::1%25lo]", "[::1%lo]", "[::1%251]"] {
        let request =
            format!("GET http://{host}:{port}/ HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n");
        let mut client = Raw::asking(proxy.address, request).await;
        let mut server: Raw = soon("a connection", listener.accept()).await.unwrap().0.into();
        assert_eq!(field(&server.head().await, "host"), Some(&*format!("[::1]:{port}")), "{host}");
        server.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
        assert!(client.head().await.starts_with("HTTP/1.1 200 "), "{host}");
        connect(proxy.address, &format!("{host}:{port}")).await;
        soon("a connection", listener.accept()).await.unwrap();
    }
    let request = "GET http://[fe80::1%25nowhere0]/ HTTP/1.1\r\nHost: x\r\n\r\n";
    let mut client = Raw::asking(proxy.address, request).await;
    let head = client.head().await;
    assert!(
        head.starts_with("HTTP/1.1 502 ") && head.contains("network interface nowhere0 not found"),
        "{head}"
    );
}

#[tokio::test]
async fn a_tunnel_needs_no_host_beside_its_target() {
    let origin = RawOrigin::start().await;
    let proxy = Proxy::start().await;
    for version in ["1.0", "1.1"] {
        let request = format!("CONNECT {} HTTP/{version}\r\n\r\n", origin.address);
        let mut client = Raw::asking(proxy.address, request).await;
        let mut server = origin.accept().await;
        let head = client.head().await;
        assert!(head.contains(" 200 "), "{version}: {head}");
        client.send("ping").await;
        assert_eq!(server.exactly(4).await, b"ping");
    }
    let head = Raw::asking(proxy.address, "GET http://a.example/ HTTP/1.1\r\n\r\n").await.head().await;
    assert!(head.starts_with("HTTP/1.1 400 "), "{head}");
}
