//! TLS between clients and the proxy: the real curl and rustls, certificates that are wrong or renewed, and clients that
//! speak the other protocol. The six ways in are in `tells::tokens`.

mod files;
mod shown;

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tollpass::config::Config;
use tollpass::devnet::origin;
use tollpass::limits::Limits;
use tollpass::protocol::Amount;
use tollpass::proxy::ProxySettings;
use tollpass::tls::ServerTls;

use crate::pays::QUICK;
use crate::support::curl::curl_of;
use crate::support::fair::{Fair, PRICE};
use crate::support::office::{NAME, Office, connect};
use crate::support::own::own_address;
use crate::support::payer::{Alice, Program, Running, program};
use crate::support::proxy::Proxy;
use crate::support::raw::{Raw, RawOrigin, field, soon};
use crate::support::secure::{Notary, trusting};
use crate::support::wire::Got;

/// A user that has no files and runs nothing.
const OTHER: u32 = 54_321;

/// A seller, also over TLS with HTTP/2, and Alice's proxy, which speaks TLS.
struct Scene {
    office: Office,
    fair: Fair,
    alice: Alice,
    proxy: Running,
    _notary: Notary,
}

impl Scene {
    /// `rule` is appended to the entry that pays.
    async fn open(rule: &str, change: impl FnOnce(&mut Config)) -> Self {
        let office = Office::new();
        let notary = Notary::new();
        let secure = notary.certify("127.0.0.1", &["h2", "http/1.1"]).await;
        let secure = origin::Secure { listen: ([127, 0, 0, 1], 0).into(), config: secure };
        let fair = Fair::with(|settings| settings.secure = Some(secure)).await;
        let route = |more: &str| format!("[[route]]\n{more}origin = \"{}\"\n", fair.origin.url());
        let more = format!(
            "{rule}{QUICK}{}{}{}[upstream]\nca_file = \"{}\"\n",
            route("prefix = \"/seller\"\n"),
            route("listen = \"127.0.0.1:0\"\n"),
            route("prefix = \"/plain\"\nlisten = \"[::1]:0\"\ntls = false\n"),
            notary.ca_file().display()
        );
        let mut alice = Alice::with(&fair.market, &more).await;
        alice.change(
            "listen = \"127.0.0.1:0\"\nstate",
            &format!("{}listen = \"127.0.0.1:0\"\nstate", office.keys()),
        );
        let proxy = alice.start_with(change).await;
        Self { office, fair, alice, proxy, _notary: notary }
    }

    /// Runs curl with the proxy, as this user.
    async fn curl(&self, user: Option<u32>, more: &[&str]) -> Got {
        let proxy = self.office.curl(self.proxy.address);
        let all: Vec<&str> = proxy.iter().map(String::as_str).chain(more.iter().copied()).collect();
        curl_of(user, None, &all).await.got
    }
}

/// A proxy without a wallet that speaks TLS.
async fn plain_proxy(office: &Office, limits: Limits) -> Proxy {
    let tls = ServerTls::load(&office.at("cert.pem"), &office.at("key.pem")).unwrap();
    Proxy::with(ProxySettings { limits, server_tls: Some(tls), ..ProxySettings::default() }).await
}

#[tokio::test]
async fn curl_pays_through_a_proxy_with_tls() {
    let scene = Scene::open("", |_| {}).await;
    let ca = scene.alice.state_dir().join("ca.pem");
    let ca = ca.to_str().unwrap();
    let [plain, secure] =
        [scene.fair.origin.url(), scene.fair.origin.secure_url().unwrap()].map(|at| format!("{at}/paid"));
    let blind = plain.replace("127.0.0.1", "localhost");
    let mut bought = 0;
    for (more, status) in [
        (&[plain.as_str()][..], 200),
        (&["--proxytunnel", &blind], 402),
        (&["--proxytunnel", &plain], 200),
        (&["--http1.1", "--cacert", ca, &secure], 200),
        (&["--http2", "--cacert", ca, &secure], 200),
    ] {
        // In one connection, too.
        let twice = [more, &[more[more.len() - 1]]].concat();
        let got = scene.curl(None, &twice).await;
        assert_eq!(got.status, status, "{more:?}: {got:?}");
        bought += if status == 200 { 2 } else { 0 };
        assert_eq!(scene.proxy.promised().await, Amount::from(bought * PRICE), "{more:?}");
    }
    scene.proxy.stop().await;
}

#[tokio::test]
async fn the_user_of_a_client_is_found_behind_tls() {
    // Other users cannot read the file of the CA.
    let scene = Scene::open("", |_| {}).await;
    let url = format!("{}/paid", scene.fair.origin.url());
    let us = scene.curl(None, &[&url]).await;
    assert_eq!(us.status, 200, "{us:?}");
    if rustix::process::geteuid().is_root() {
        let got = scene.curl(Some(OTHER), &["--proxy-insecure", "--proxy-cacert", "/dev/null", &url]).await;
        assert_eq!(got.status, 402, "{got:?}");
        let told = got.headers.get("proxy-status").unwrap().to_str().unwrap();
        assert!(told.contains("reason=other-user"), "{told}");
    }
    assert_eq!(scene.proxy.promised().await, Amount::from(PRICE));
    scene.proxy.stop().await;
}

#[tokio::test]
async fn routes_are_reached_by_a_name_in_the_certificate() {
    let scene = Scene::open("", |_| {}).await;
    let token = std::fs::read_to_string(scene.alice.state_dir().join("route-token")).unwrap();
    let token = token.trim_end();
    let ca = scene.office.ca_file();
    let [own, separate, plain] =
        [scene.proxy.address, scene.proxy.routes[0], scene.proxy.routes[1]].map(|address| address.port());
    for (url, status) in [
        (format!("https://127.0.0.1:{own}/seller/paid"), 200),
        (format!("https://{NAME}:{own}/{token}/seller/paid"), 200),
        (format!("https://{NAME}:{own}/seller/paid"), 403),
        (format!("https://127.0.0.1:{separate}/paid"), 200),
        (format!("https://{NAME}:{separate}/{token}/paid"), 200),
        (format!("http://[::1]:{plain}/plain/paid"), 200),
        (format!("http://127.0.0.1:{own}/seller/paid"), 400),
    ] {
        let port = if url.contains(&separate.to_string()) { separate } else { own };
        let resolve = format!("{NAME}:{port}:127.0.0.1");
        let more = ["--resolve", &resolve, "--cacert", ca.to_str().unwrap(), &url];
        let got = curl_of(None, None, &more).await.got;
        assert_eq!(got.status, status, "{url}: {got:?}");
    }
    assert_eq!(scene.proxy.promised().await, Amount::from(5 * PRICE));
    // Another name could be rebound to the proxy, if the client does not verify it.
    let mut client = Raw::over(scene.office.connect(scene.proxy.address).await);
    client.send(format!("GET / HTTP/1.1\r\nHost: evil.example:{own}\r\n\r\n")).await;
    assert!(client.head().await.starts_with("HTTP/1.1 421 "));
    scene.proxy.stop().await;
}

#[tokio::test]
async fn a_page_that_came_over_tls_is_of_the_same_site() {
    let scene = Scene::open("browsers = \"any\"\n", |_| {}).await;
    let (ca, base) = (scene.office.ca_file(), format!("//{}", scene.proxy.address));
    let url = format!("https:{base}/seller/paid");
    for (scheme, status) in [("https", 200), ("http", 402)] {
        for header in ["Origin", "Referer"] {
            let page = format!("{header}: {scheme}:{base}");
            let more = ["-A", "Mozilla/5.0", "-H", &page, "--cacert", ca.to_str().unwrap(), &url];
            let got = curl_of(None, None, &more).await.got;
            assert_eq!(got.status, status, "{page}: {got:?}");
        }
    }
    assert_eq!(scene.proxy.promised().await, Amount::from(2 * PRICE));
    scene.proxy.stop().await;
}

#[tokio::test]
async fn a_client_on_another_machine_may_ask_for_https_targets_over_tls() {
    let Some(own) = own_address() else { return };
    let office = Office::new();
    for (is_tls, status) in [(false, "403"), (true, "502")] {
        let directory = tempfile::tempdir().unwrap();
        let keys = if is_tls { office.keys() } else { String::new() };
        let path = directory.path().join("proxy.toml");
        // An address that nothing listens on: the request goes there, or is refused before.
        let rest = format!("[upstream]\nallow = [\"{own}\"]\n");
        std::fs::write(&path, format!("listen = \"{}\"\nstate_dir = \"state\"\n{keys}{rest}", at(own, 0)))
            .unwrap();
        let mut command = program(["serve", "--config"]);
        command.arg(&path);
        let proxy = Program::start(command).await;
        let request = format!("GET https://{}/ HTTP/1.1\r\nHost: x\r\n\r\n", at(own, 1));
        let mut client = match is_tls {
            true => Raw::over(office.connect(proxy.address).await),
            false => Raw::connect(proxy.address).await,
        };
        client.send(request).await;
        let head = client.head().await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "TLS {is_tls}: {head}");
        proxy.kill().await;
    }
}

fn at(ip: IpAddr, port: u16) -> SocketAddr {
    (ip, port).into()
}

#[tokio::test]
async fn tunnels_and_upgrades_carry_bytes_both_ways_until_both_ends_close() {
    const MUCH: usize = 3_000_000;
    let office = Office::new();
    let proxy = plain_proxy(&office, Limits::default()).await;
    let origin = RawOrigin::start().await;
    for is_tunnel in [true, false] {
        let mut client = Raw::over(office.connect(proxy.address).await);
        let place = origin.address;
        client
            .send(match is_tunnel {
                true => format!("CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n\r\nearly"),
                false => format!(
                    "GET http://{place}/ HTTP/1.1\r\nHost: {place}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
                ),
            })
            .await;
        let mut server = origin.accept().await;
        if is_tunnel {
            assert!(client.head().await.starts_with("HTTP/1.1 200 "));
            assert_eq!(server.exactly(5).await, b"early");
        } else {
            server.head().await;
            server
                .send("HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nfirst")
                .await;
            assert!(client.head().await.starts_with("HTTP/1.1 101 "));
            assert_eq!(client.exactly(5).await, b"first");
        }
        let (there, back) = (vec![7; MUCH], vec![9; MUCH]);
        let client_sends = async {
            client.send(&there).await;
            client.finish().await;
            client.rest().await
        };
        let server_sends = async {
            let received = server.rest().await;
            // The client has closed its side only.
            server.send(&back).await;
            drop(server);
            received
        };
        let (received, sent) = tokio::join!(client_sends, server_sends);
        assert!(sent == there && received == back, "{} there, {} back", sent.len(), received.len());
    }
}

#[tokio::test]
async fn a_slow_handshake_ends_and_counts_as_a_connection() {
    let office = Office::new();
    let head_timeout = Duration::from_millis(300);
    let proxy = plain_proxy(&office, Limits { connections: 1, head_timeout, ..Limits::default() }).await;
    for begins in [&b""[..], b"\x16", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"] {
        let start = Instant::now();
        let mut slow = TcpStream::connect(proxy.address).await.unwrap();
        slow.write_all(begins).await.unwrap();
        // The only seat is taken.
        let (ca, address) = (office.ca_file(), proxy.address);
        let waiting = tokio::spawn(async move { connect(address, &ca, NAME).await.unwrap() });
        let mut rest = Vec::new();
        // A reset is an end, too.
        let _ = soon("the end", slow.read_to_end(&mut rest)).await;
        let waited = start.elapsed();
        assert!(waited >= head_timeout && rest.is_empty(), "{begins:?}: {waited:?} {rest:?}");
        let mut client = Raw::over(soon("a seat", waiting).await.unwrap());
        assert!(start.elapsed() >= head_timeout, "{begins:?}: served beside the first");
        client.send("GET / HTTP/1.0\r\n\r\n").await;
        assert!(client.head().await.starts_with("HTTP/1.0 200 "), "{begins:?}");
    }
}

#[tokio::test]
async fn a_shutdown_waits_for_no_handshake_and_for_no_idle_client() {
    let office = Office::new();
    let proxy = plain_proxy(&office, Limits::default()).await;
    let _silent = TcpStream::connect(proxy.address).await.unwrap();
    let mut idle = Raw::over(office.connect(proxy.address).await);
    idle.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let head = idle.head().await;
    idle.exactly(field(&head, "content-length").unwrap().parse().unwrap()).await;
    assert_eq!(soon("the end", proxy.shutdown.drain(Duration::from_secs(60))).await, 0);
    assert!(idle.rest().await.is_empty());
}

#[tokio::test]
async fn each_side_is_told_of_the_wrong_protocol_once() {
    let office = Office::new();
    for is_tls in [true, false] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("proxy.toml");
        let keys = if is_tls { office.keys() } else { String::new() };
        std::fs::write(&path, format!("listen = \"127.0.0.1:0\"\nstate_dir = \"state\"\n{keys}")).unwrap();
        let mut command = program(["serve", "--config"]);
        command.arg(&path);
        let proxy = Program::start(command).await;
        for _ in 0..3 {
            if is_tls {
                // A whole upload, so that closing would reset the connection.
                let upload = [
                    b"POST http://a.example/ HTTP/1.1\r\nHost: a.example\r\nContent-Length: 8000000\r\n\r\n"
                        .as_slice(),
                    &[b'x'; 8_000_000],
                ]
                .concat();
                let mut client = Raw::connect(proxy.address).await;
                client.send(&upload).await;
                let head = client.head().await;
                assert!(
                    head.starts_with("HTTP/1.1 400 ") && head.contains("\r\nconnection: close\r\n"),
                    "{head}"
                );
                let length = field(&head, "content-length").unwrap().parse().unwrap();
                let told = String::from_utf8(client.exactly(length).await).unwrap();
                assert!(told.contains("https:// in the URL of the proxy"), "{told}");
                client.finish().await;
                assert!(client.rest().await.is_empty());
                // What is not HTTP gets no answer.
                let mut socks = Raw::asking(proxy.address, b"\x05\x01\x00").await;
                assert!(socks.rest().await.is_empty());
            } else {
                let refused = connect(proxy.address, &office.ca_file(), NAME).await.unwrap_err();
                assert_eq!(refused.kind(), std::io::ErrorKind::InvalidData, "{refused}");
            }
        }
        proxy.terminate();
        let (status, log) = proxy.ended().await;
        assert!(status.success(), "{status} {log}");
        let told = match is_tls {
            true => "does not speak TLS to a port of tollpass that does: write https://",
            false => {
                "speaks TLS to a port of tollpass that does not: write http:// in the URL of the proxy, or set tls_cert"
            }
        };
        assert_eq!(log.matches(told).count(), 1, "{log}");
        assert!(log.contains("peer=127.0.0.1:"), "{log}");
    }
}

#[tokio::test]
async fn a_client_that_rejects_the_certificate_is_told_of() {
    let office = Office::new();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("proxy.toml");
    std::fs::write(
        &path,
        format!("workers = 1\nlisten = \"127.0.0.1:0\"\nstate_dir = \"state\"\n{}", office.keys()),
    )
    .unwrap();
    let mut command = program(["serve", "--config"]);
    command.arg(&path);
    let proxy = Program::start(command).await;
    let stranger = Office::new();
    for (ca, name) in [(stranger.ca_file(), NAME), (office.ca_file(), "other.test")] {
        connect(proxy.address, &ca, name).await.unwrap_err();
    }
    // Without a protocol in common.
    let stream = TcpStream::connect(proxy.address).await.unwrap();
    trusting(&office.ca_file(), stream, NAME, &["h2"]).await.unwrap_err();
    // The same thread has seen the others before this one.
    connect(proxy.address, &office.ca_file(), NAME).await.unwrap();
    proxy.terminate();
    let (_, log) = proxy.ended().await;
    assert_eq!(log.matches("a client rejects the certificate of the proxy (tls_cert)").count(), 1, "{log}");
}

#[tokio::test]
async fn a_new_certificate_applies_without_a_restart_and_a_bad_one_does_not() {
    let scene = Scene::open("", |config| {
        config.tls.as_mut().unwrap().check_every = Duration::from_millis(10);
    })
    .await;
    let (office, address) = (&scene.office, scene.proxy.address);
    let mut before = Raw::over(office.connect(address).await);
    let accepts = async |name: &str| connect(address, &office.ca_file(), name).await.is_ok();
    assert!(!accepts("new.test").await);
    office.put(&office.issue(&["new.test"]));
    soon("the renewal", async { while !accepts("new.test").await {} }).await;
    assert!(!accepts(NAME).await);

    // The key of another certificate, a file that is none, and a missing one; then all is well again.
    office.write("key.pem", &office.issue(&["x.test"]).key, 0o600);
    assert!(accepts("new.test").await);
    office.write("cert.pem", "not a certificate", 0o644);
    assert!(accepts("new.test").await);
    std::fs::remove_file(office.at("cert.pem")).unwrap();
    assert!(accepts("new.test").await);
    office.put(&office.issue(&["last.test"]));
    soon("the renewal", async { while !accepts("last.test").await {} }).await;

    // Connections outlive their certificate.
    before.send("GET / HTTP/1.0\r\n\r\n").await;
    assert!(before.head().await.starts_with("HTTP/1.0 200 "));
    scene.proxy.stop().await;
}
