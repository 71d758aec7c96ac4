//! Names with several addresses, and one whose addresses change.

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tollpass::limits::Limits;
use tollpass::proxy::ProxySettings;
use tollpass::proxy::upstream::egress::Resolve;

use crate::support::proxy::Proxy;
use crate::support::raw::{Raw, soon};

/// A resolver that returns its answers in order, and then the last one forever.
#[derive(Debug)]
pub struct Names(Mutex<VecDeque<Vec<SocketAddr>>>);

impl Names {
    pub fn new(answers: impl IntoIterator<Item = Vec<SocketAddr>>) -> Arc<Self> {
        Arc::new(Self(Mutex::new(answers.into_iter().collect())))
    }
}

impl Resolve for Names {
    fn resolve<'a>(&'a self, _: &'a str, port: u16) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        let mut answers = self.0.lock().unwrap();
        let mut answer = if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() };
        answer.iter_mut().flatten().for_each(|address| address.set_port(port));
        async move { Ok(answer.unwrap_or_default()) }.boxed()
    }
}

/// Keeps an address unresponsive while held.
pub type Queue = (TcpListener, Vec<TcpStream>);

/// An address to which a connection neither succeeds nor fails.
pub async fn deaf() -> (SocketAddr, Queue) {
    let address = (Ipv4Addr::LOCALHOST, 0).into();
    let queue = deafen(address).await.unwrap();
    (queue.0.local_addr().unwrap(), queue)
}

async fn deafen(address: SocketAddr) -> io::Result<Queue> {
    let socket = if address.is_ipv6() { TcpSocket::new_v6()? } else { TcpSocket::new_v4()? };
    socket.bind(address)?;
    let listener = socket.listen(1)?;
    let address = listener.local_addr()?;
    // Never accepted, so the queue fills up.
    let mut queue = Vec::new();
    while let Ok(stream) = tokio::time::timeout(Duration::from_millis(200), TcpStream::connect(address)).await
    {
        queue.push(stream?);
        assert!(queue.len() < 100, "the queue does not fill up");
    }
    Ok((listener, queue))
}

/// Two listeners on one port: one on 127.0.0.1, and an unresponsive one on `[::1]`.
async fn hearing_and_deaf() -> (TcpListener, Queue) {
    for _ in 0..100 {
        let hearing = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = hearing.local_addr().unwrap().port();
        if let Ok(queue) = deafen((Ipv6Addr::LOCALHOST, port).into()).await {
            return (hearing, queue);
        }
    }
    panic!("no port is free on both");
}

async fn resolving(names: Arc<Names>) -> Proxy {
    // So long that only a race gets past an unresponsive address within a test's time.
    let connect_timeout = Duration::from_secs(60);
    Proxy::with(ProxySettings {
        limits: Limits { connect_timeout, ..Limits::default() },
        resolver: names,
        ..ProxySettings::default()
    })
    .await
}

#[tokio::test]
async fn an_address_that_is_deaf_does_not_hold_up_the_next_one() {
    let (hearing, _deaf) = hearing_and_deaf().await;
    let address = hearing.local_addr().unwrap();
    let both = vec![(Ipv6Addr::LOCALHOST, 0).into(), (Ipv4Addr::LOCALHOST, 0).into()];
    let proxy = resolving(Names::new([both])).await;
    for request in [
        format!("GET http://two.test:{}/ HTTP/1.1\r\nHost: x\r\n\r\n", address.port()),
        format!("CONNECT two.test:{} HTTP/1.1\r\nHost: x\r\n\r\n", address.port()),
    ] {
        let mut client = Raw::asking(proxy.address, &request).await;
        let mut server: Raw = soon("the next address", hearing.accept()).await.unwrap().0.into();
        if request.starts_with("GET") {
            server.head().await;
            server.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
        }
        let head = client.head().await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    }
}

#[tokio::test]
async fn a_name_is_resolved_again_for_each_connection() {
    let hearing = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = hearing.local_addr().unwrap().port();
    let proxy = resolving(Names::new([vec![], vec![(Ipv4Addr::LOCALHOST, 0).into()]])).await;
    let request = format!("CONNECT late.test:{port} HTTP/1.1\r\nHost: x\r\n\r\n");
    let head = Raw::asking(proxy.address, &request).await.head().await;
    assert!(head.starts_with("HTTP/1.1 502 ") && head.contains("error=dns_error"), "{head}");
    let head = Raw::asking(proxy.address, &request).await.head().await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
}
