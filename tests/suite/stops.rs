//! Limits on concurrent connections, and the order of a shutdown.

use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::net::TcpStream;
use tollpass::limits::Limits;
use tollpass::proxy::ProxySettings;

use crate::support::proxy::Proxy;
use crate::support::raw::{PATIENCE, Raw, RawOrigin, field, soon};

#[tokio::test]
async fn a_client_above_the_limit_waits_for_a_seat() {
    let proxy = Proxy::with(ProxySettings {
        limits: Limits { connections: 1, ..Limits::default() },
        ..ProxySettings::default()
    })
    .await;
    let mut seated = Raw::asking(proxy.address, "GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let address = proxy.address;
    let waiting =
        tokio::spawn(async move { Raw::asking(address, "GET / HTTP/1.0\r\n\r\n").await.head().await });
    for _ in 0..50 {
        let head = seated.head().await;
        seated.exactly(field(&head, "content-length").unwrap().parse().unwrap()).await;
        seated.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    }
    assert!(!waiting.is_finished(), "the second client was served beside the first");
    drop(seated);
    assert!(soon("a seat", waiting).await.unwrap().starts_with("HTTP/1.0 200 "));
}

#[tokio::test]
async fn a_tunnel_keeps_its_seat() {
    let origin = RawOrigin::start().await;
    let proxy = Proxy::with(ProxySettings {
        limits: Limits { connections: 1, ..Limits::default() },
        ..ProxySettings::default()
    })
    .await;
    let mut tunnel =
        Raw::asking(proxy.address, format!("CONNECT {} HTTP/1.1\r\nHost: x\r\n\r\n", origin.address)).await;
    let mut server = origin.accept().await;
    tunnel.head().await;
    let address = proxy.address;
    let waiting =
        tokio::spawn(async move { Raw::asking(address, "GET / HTTP/1.0\r\n\r\n").await.head().await });
    for _ in 0..50 {
        tunnel.send("ping").await;
        server.exactly(4).await;
        server.send("pong").await;
        tunnel.exactly(4).await;
    }
    assert!(!waiting.is_finished(), "the second client was served beside the tunnel");
    drop((tunnel, server));
    assert!(soon("a seat", waiting).await.unwrap().starts_with("HTTP/1.0 200 "));
}

#[tokio::test]
async fn exchanges_in_flight_finish_and_new_ones_are_refused() {
    let origin = RawOrigin::start().await;
    // No other test listens on this address, so none gets the port once it is free.
    let mut proxy = Proxy::on(Ipv4Addr::new(127, 0, 5, 73).into(), ProxySettings::default()).await;
    let mut idle = Raw::asking(proxy.address, "GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    idle.head().await;
    let request = format!("GET http://{}/ HTTP/1.1\r\nHost: x\r\n\r\n", origin.address);
    let mut client = Raw::asking(proxy.address, request).await;
    let mut server = origin.accept().await;
    server.head().await;

    let shutdown = proxy.shutdown.clone();
    let drained = tokio::spawn(async move { shutdown.drain(PATIENCE).await });
    soon("the end of accepting", &mut proxy.accepting).await.unwrap();
    // A program that another test starts just now has a copy of the listener until it runs.
    let refused = async {
        while TcpStream::connect(proxy.address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    soon("new connections are refused", refused).await;
    idle.rest().await;

    assert!(!drained.is_finished(), "it did not wait for the request");
    server.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert_eq!(field(&head, "connection"), Some("close"), "{head}");
    assert_eq!(client.rest().await, b"ok");
    assert_eq!(soon("the end", drained).await.unwrap(), 0);
}

#[tokio::test]
async fn the_deadline_ends_exchanges_that_do_not_finish() {
    let origin = RawOrigin::start().await;
    let proxy = Proxy::start().await;
    let mut tunnel =
        Raw::asking(proxy.address, format!("CONNECT {} HTTP/1.1\r\nHost: x\r\n\r\n", origin.address)).await;
    let mut server = origin.accept().await;
    tunnel.head().await;
    let request = format!("GET http://{}/ HTTP/1.1\r\nHost: x\r\n\r\n", origin.address);
    let mut client = Raw::asking(proxy.address, request).await;
    let mut unanswered = origin.accept().await;
    unanswered.head().await;

    // The tunnel has ended by then: nothing was in flight in it.
    assert_eq!(soon("the deadline", proxy.shutdown.drain(Duration::from_secs(1))).await, 1);
    assert_eq!(tunnel.rest().await, b"");
    assert_eq!(server.rest().await, b"");
    assert_eq!(client.rest().await, b"");
}

#[tokio::test]
async fn idle_tunnels_end_at_once_and_active_ones_finish() {
    let origin = RawOrigin::start().await;
    let mut proxy = Proxy::start().await;
    let connect = format!("CONNECT {} HTTP/1.1\r\nHost: x\r\n\r\n", origin.address);
    let mut unused = Raw::asking(proxy.address, &connect).await;
    let mut before = origin.accept().await;
    unused.head().await;
    // One that was used, and one that waits for a response.
    let mut answered = Raw::asking(proxy.address, &connect).await;
    let mut done = origin.accept().await;
    answered.head().await;
    answered.send("ask").await;
    done.exactly(3).await;
    done.send("answer").await;
    answered.exactly(6).await;
    let mut asking = Raw::asking(proxy.address, &connect).await;
    let mut busy = origin.accept().await;
    asking.head().await;
    asking.send("ask").await;
    busy.exactly(3).await;

    let shutdown = proxy.shutdown.clone();
    let drained = tokio::spawn(async move { shutdown.drain(Duration::from_secs(3600)).await });
    for end in [&mut unused, &mut before, &mut answered, &mut done] {
        assert!(end.rest().await.is_empty());
    }
    assert!(!drained.is_finished());
    busy.send("answer").await;
    assert_eq!(asking.exactly(6).await, b"answer");
    assert!(asking.rest().await.is_empty());
    assert_eq!(soon("the end", drained).await.unwrap(), 0);
    soon("the end of accepting", &mut proxy.accepting).await.unwrap();
}
