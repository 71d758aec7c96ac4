//! No request reaches an address that `deny` prohibits, and none of another machine's clients one that is not public,
//! whichever way it takes.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use http::{Request, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::client::TlsStream;
use tollpass::app::App;
use tollpass::config::Config;
use tollpass::hosts::address_rules::AddressRules;
use tollpass::protocol::policy::{HostPattern, Hosts};
use tollpass::proxy::ProxySettings;
use tollpass::proxy::interception::Interception;
use tollpass::shutdown::Shutdown;
use tollpass::tls::{Authority, Leaves};

use super::addresses::Names;
use super::proxies::over;
use crate::support::next::{Does, Next};
use crate::support::own::own_address;
use crate::support::proxy::Proxy;
use crate::support::raw::{Raw, RawOrigin, field, soon};
use crate::support::secure;
use crate::support::secure::{Notary, Secure, connect};
use crate::support::wire::{Body, whole};

const HTTP_1: &[&str] = &["http/1.1"];
const HTTP_2: &[&str] = &["h2"];
/// Another address of this machine, for the second answer of a resolver.
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// A proxy without a wallet, on all addresses of this machine, that reads its configuration from a file.
struct Plain {
    port: u16,
    shutdown: Shutdown,
    task: JoinHandle<()>,
    _directory: TempDir,
}

impl Plain {
    async fn start(rest: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("proxy.toml");
        std::fs::write(&path, format!("listen = \"0.0.0.0:0\"\nstate_dir = \"state\"\n{rest}")).unwrap();
        let shutdown = Shutdown::new();
        let config = Config::load(Some(&path)).unwrap();
        let app = App::build(config, None, shutdown.clone()).await.unwrap();
        let port = app.address().port();
        let task = tokio::spawn(async move { app.run().await.unwrap() });
        Self { port, shutdown, task, _directory: directory }
    }

    /// Sends a request from this machine, or as from another one, and returns the head of the response.
    async fn ask(&self, from: IpAddr, request: &str) -> String {
        let mut client = Raw::asking((from, self.port).into(), request).await;
        soon("a response", client.head()).await
    }

    async fn stop(self) {
        self.shutdown.cut();
        self.task.await.unwrap();
    }
}

/// The requests that lead to `origin`: plain, blind tunnel, intercepted tunnel, `https` in a plain request, route,
/// `upgrade`, WebSocket.
fn all_ways(origin: SocketAddr, proxy: IpAddr) -> Vec<String> {
    let port = origin.port();
    [
        format!("GET http://{origin}/ HTTP/1.1\r\nHost: {origin}\r\n"),
        format!("GET http://[::ffff:{}]:{port}/ HTTP/1.1\r\nHost: x\r\n", origin.ip()),
        format!("GET http://0.0.0.0:{port}/ HTTP/1.1\r\nHost: x\r\n"),
        format!("CONNECT localhost:{port} HTTP/1.1\r\nHost: x\r\n"),
        format!("CONNECT {origin} HTTP/1.1\r\nHost: x\r\n"),
        format!("GET /r/x HTTP/1.1\r\nHost: {proxy}\r\n"),
        format!("GET http://127.0.0.3:{port}/ HTTP/1.1\r\nHost: x\r\n"),
        format!("GET http://{origin}/ HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"),
    ]
    .map(|head| head + "\r\n")
    .into()
}

fn ways_config(origin: SocketAddr, upstream: &str) -> String {
    format!(
        "[upstream]\n{upstream}upgrade = [\"127.0.0.3\"]\n[intercept]\nhosts = [\"127.0.0.1\"]\n\
         [[route]]\nprefix = \"/r\"\norigin = \"http://{origin}\"\n"
    )
}

#[track_caller]
fn prohibited(head: &str, reasons: &[&str]) {
    assert!(head.starts_with("HTTP/1.1 403 "), "{head}");
    assert_eq!(head.to_ascii_lowercase().matches("\r\nproxy-status:").count(), 1, "{head}");
    let told = field(head, "proxy-status").unwrap();
    for reason in [&["error=destination_ip_prohibited"], reasons].concat() {
        assert!(told.contains(reason), "{reason}: {head}");
    }
    assert_eq!(field(head, "content-type"), Some("application/problem+json"), "{head}");
}

#[tokio::test]
async fn a_denied_address_is_reached_in_no_way() {
    let origin = RawOrigin::start().await;
    let proxy = Plain::start(&ways_config(origin.address, "deny = [\"loopback\"]\n")).await;
    for request in all_ways(origin.address, Ipv4Addr::LOCALHOST.into()) {
        let head = proxy.ask(Ipv4Addr::LOCALHOST.into(), &request).await;
        prohibited(&head, &["does not connect to", "upstream.deny"]);
        assert!(origin.is_left_alone().await, "{request}");
    }
    proxy.stop().await;
}

#[tokio::test]
async fn a_client_on_another_machine_does_not_get_in() {
    let Some(own) = own_address() else { return };
    let origin = RawOrigin::start().await;
    let proxy = Plain::start(&ways_config(origin.address, "")).await;
    // This machine's client may, and leaves a connection in the pool.
    let request = all_ways(origin.address, own).remove(0);
    let asking = tokio::spawn({
        let local: SocketAddr = (Ipv4Addr::LOCALHOST, proxy.port).into();
        let request = request.clone();
        async move { Raw::asking(local, request).await.head().await }
    });
    let mut server = origin.accept().await;
    server.head().await;
    server.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    assert!(soon("the answer", asking).await.unwrap().starts_with("HTTP/1.1 200 "));
    for request in all_ways(origin.address, own) {
        let head = proxy.ask(own, &request).await;
        prohibited(&head, &["does not connect to", "loopback", "upstream.allow"]);
        assert!(origin.is_left_alone().await, "{request}");
    }
    // Nor to this machine by its other address, if that is not the proxy itself.
    let elsewhere = TcpListener::bind((own, 0)).await.unwrap();
    let place = elsewhere.local_addr().unwrap();
    let head = proxy.ask(own, &format!("CONNECT {place} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
    prohibited(&head, &[&own.to_string(), "upstream.allow"]);
    assert!(server.is_quiet().await, "the pooled connection is used");
    proxy.stop().await;

    let proxy = Plain::start(&ways_config(origin.address, "allow = [\"loopback\", \"own\"]\n")).await;
    let head = proxy.ask(own, &format!("CONNECT {place} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let head = proxy.ask(own, &format!("CONNECT {} HTTP/1.1\r\nHost: x\r\n\r\n", origin.address)).await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    proxy.stop().await;
}

/// A proxy that intercepts `sec.test`, and what its client needs to trust it.
struct Reader {
    proxy: Proxy,
    directory: TempDir,
    notary: Notary,
}

impl Reader {
    async fn start(ip: IpAddr, addresses: AddressRules, names: Arc<Names>) -> Self {
        let (directory, notary) = (tempfile::tempdir().unwrap(), Notary::new());
        let settings = ProxySettings {
            ca_file: Some(notary.ca_file()),
            resolver: names,
            addresses,
            ..ProxySettings::default()
        };
        let leaves = Leaves::new(Arc::new(Authority::open(directory.path(), &[]).unwrap()), 16).unwrap();
        let hosts = Hosts::listed([HostPattern::Exactly("sec.test".into())]);
        let proxy =
            Proxy::intercepting_on(ip, settings, Interception { hosts, leaves: Arc::new(leaves) }).await;
        Self { proxy, directory, notary }
    }

    async fn tunnel(&self, from: IpAddr, port: u16, alpn: &[&str]) -> TlsStream<TcpStream> {
        let proxy = (from, self.proxy.address.port()).into();
        let stream = connect(proxy, &format!("sec.test:{port}")).await;
        secure::trusting(&self.directory.path().join("ca.pem"), stream, "sec.test", alpn).await.unwrap()
    }
}

/// Sends requests inside a tunnel.
enum Inside {
    One(hyper::client::conn::http1::SendRequest<Body>),
    Two(hyper::client::conn::http2::SendRequest<Body>),
}

impl Inside {
    async fn over(stream: TlsStream<TcpStream>) -> Self {
        let is_http_2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        let stream = TokioIo::new(stream);
        if is_http_2 {
            let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream);
            let (sender, connection) = handshake.await.unwrap();
            tokio::spawn(connection);
            return Self::Two(sender);
        }
        let (sender, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        Self::One(sender)
    }

    /// The status of a response, and its `Proxy-Status`.
    async fn get(&mut self, port: u16) -> (StatusCode, String) {
        let request = Request::get(format!("https://sec.test:{port}/"));
        let answer = match self {
            Self::Two(sender) => sender.send_request(request.body(whole("")).unwrap()).await,
            Self::One(sender) => {
                let request = request.uri("/").header("host", format!("sec.test:{port}"));
                sender.send_request(request.body(whole("")).unwrap()).await
            }
        };
        let answer = answer.unwrap();
        let status = answer.status();
        let told = answer.headers().get("proxy-status").map(|told| told.to_str().unwrap().to_owned());
        http_body_util::BodyExt::collect(answer.into_body()).await.unwrap();
        (status, told.unwrap_or_default())
    }
}

fn rules(deny: &[&str], allow: &[&str]) -> AddressRules {
    let read = |entries: &[&str]| entries.iter().map(|entry| entry.parse().unwrap()).collect();
    AddressRules { deny: read(deny), allow: read(allow) }
}

#[tokio::test]
async fn a_name_that_changes_inside_a_tunnel_does_not_help() {
    let mut clients = vec![(IpAddr::from(Ipv4Addr::LOCALHOST), rules(&["127.0.0.2"], &[]), "upstream.deny")];
    if let Some(own) = own_address() {
        clients.push((own, rules(&[], &["127.0.0.1"]), "upstream.allow"));
    }
    for (client, addresses, key) in clients {
        for of_client in [HTTP_1, HTTP_2] {
            let names = Names::new([[Ipv4Addr::LOCALHOST], [ELSEWHERE]].map(|ip| vec![(ip[0], 0).into()]));
            let reader = Reader::start(client, addresses.clone(), names).await;
            let config = reader.notary.certify("sec.test", HTTP_1).await;
            // Each connection carries one request, so the next one resolves the name again.
            let origin = Secure::serve(config, |_| async {
                http::Response::builder().header("connection", "close").body(String::new()).unwrap()
            })
            .await;
            let port = origin.address.port();
            let there = TcpListener::bind((ELSEWHERE, port)).await.unwrap();
            let mut inside = Inside::over(reader.tunnel(client, port, of_client).await).await;
            assert_eq!(soon("the first answer", inside.get(port)).await.0, StatusCode::OK);
            let (status, told) = soon("a refusal", inside.get(port)).await;
            assert_eq!(status, StatusCode::FORBIDDEN, "{told}");
            for reason in ["error=destination_ip_prohibited", "127.0.0.2", key] {
                assert!(told.contains(reason), "{reason}: {told}");
            }
            let quiet = tokio::time::timeout(std::time::Duration::from_millis(20), there.accept()).await;
            assert!(quiet.is_err(), "connected to the prohibited address");
        }
    }
}

#[tokio::test]
async fn a_remote_client_shares_no_http_2_connection_of_a_local_one() {
    let Some(own) = own_address() else { return };
    let names = Names::new([[Ipv4Addr::LOCALHOST], [ELSEWHERE]].map(|ip| vec![(ip[0], 0).into()]));
    let everywhere = IpAddr::from(Ipv4Addr::UNSPECIFIED);
    let reader = Reader::start(everywhere, rules(&[], &["127.0.0.2"]), names).await;
    let config = reader.notary.certify("sec.test", HTTP_2).await;
    let origin = Secure::serve(config, |_| async { http::Response::new(String::new()) }).await;
    let port = origin.address.port();
    let there = TcpListener::bind((ELSEWHERE, port)).await.unwrap();
    // The origin only speaks HTTP/2, and the connection to it stays.
    let mut local = Inside::over(reader.tunnel(Ipv4Addr::LOCALHOST.into(), port, HTTP_1).await).await;
    assert_eq!(soon("the local client's answer", local.get(port)).await.0, StatusCode::OK);
    assert_eq!(soon("the local client's answer", local.get(port)).await.0, StatusCode::OK);
    assert_eq!(origin.accepted(), 1);

    let mut remote = Inside::over(reader.tunnel(own, port, HTTP_1).await).await;
    let asking = tokio::spawn(async move { remote.get(port).await });
    // It has a connection of its own, to the address that the name has now.
    let mut hello: Raw = soon("the remote client's connection", there.accept()).await.unwrap().0.into();
    assert_eq!(hello.exactly(1).await, [0x16]);
    drop(hello);
    drop(there);
    assert_eq!(soon("a failure", asking).await.unwrap().0, StatusCode::BAD_GATEWAY);
    assert_eq!(origin.accepted(), 1);
}

#[tokio::test]
async fn of_several_addresses_only_those_that_are_permitted_are_tried() {
    let origin = RawOrigin::start().await;
    let port = origin.address.port();
    let there = TcpListener::bind((ELSEWHERE, port)).await.unwrap();
    let both = vec![(ELSEWHERE, port).into(), origin.address];
    let settings = |deny: &[&str]| ProxySettings {
        resolver: Names::new([both.clone()]),
        addresses: rules(deny, &[]),
        ..ProxySettings::default()
    };
    let request = format!("CONNECT both.test:{port} HTTP/1.1\r\nHost: x\r\n\r\n");
    let proxy = Proxy::with(settings(&["127.0.0.2"])).await;
    let mut client = Raw::asking(proxy.address, &request).await;
    origin.accept().await;
    assert!(client.head().await.starts_with("HTTP/1.1 200 "));

    let proxy = Proxy::with(settings(&["127.0.0.0/8"])).await;
    let head = Raw::asking(proxy.address, &request).await.head().await;
    prohibited(&head, &["both.test port", "127.0.0.2 is denied by", "127.0.0.0/8"]);
    assert!(origin.is_left_alone().await);
    drop(there);
}

#[tokio::test]
async fn an_outbound_proxy_gets_no_request_for_a_denied_address() {
    let says = "HTTP/1.1 299 Reached\r\nContent-Length: 0\r\n\r\n";
    let next = Next::start(Does::Say(says), None).await;
    // The proxy itself is on loopback, and exempt: the configuration names it.
    let addresses = rules(&["10.0.0.0/8", "loopback"], &[]);
    let outbound = over(next.address);
    let proxy = Proxy::with(ProxySettings { outbound, addresses, ..ProxySettings::default() }).await;
    for host in ["10.1.2.3", "10.66051", "[::ffff:10.1.2.3]", "[64:ff9b::10.1.2.3]"] {
        for request in [
            format!("GET http://{host}/ HTTP/1.1\r\nHost: x\r\n\r\n"),
            format!("CONNECT {host}:443 HTTP/1.1\r\nHost: x\r\n\r\n"),
        ] {
            let head = Raw::asking(proxy.address, &request).await.head().await;
            prohibited(&head, &["10.1.2.3", "10.0.0.0/8"]);
        }
    }
    assert_eq!(next.lines(), Vec::<String>::new());
    // Names are the outbound proxy's to resolve.
    let request = "GET http://ten.test/ HTTP/1.1\r\nHost: x\r\n\r\n";
    let head = Raw::asking(proxy.address, request).await.head().await;
    assert!(head.starts_with("HTTP/1.1 299 "), "{head}");
}
