//! Chained proxies: plain requests in absolute form, everything else through a tunnel, including paid requests.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use http::{Response, StatusCode};
use http_body_util::Full;
use hyper::body::Bytes;
use tollpass::hosts::no_proxy::Bypass;
use tollpass::protocol::Amount;
use tollpass::proxy::ProxySettings;
use tollpass::proxy::upstream::egress::{Outbound, OutboundProxy};

use super::addresses::Names;
use crate::pays::QUICK;
use crate::support::curl::curl;
use crate::support::fair::{Fair, PRICE};
use crate::support::next::{Does, Next};
use crate::support::origins;
use crate::support::payer::{Alice, Program, program};
use crate::support::proxy::Proxy;
use crate::support::raw::{Raw, RawOrigin, field};

/// `me:pass` in Basic authentication.
const BASIC: &str = "Basic bWU6cGFzcw==";

/// Everything through the next proxy.
pub fn over(next: SocketAddr) -> Outbound {
    let proxy = Some(OutboundProxy::new(next.ip().to_string(), next.port(), Some("me:pass")));
    Outbound { http: proxy.clone(), tunnel: proxy, bypass: Bypass::default() }
}

/// A proxy in front of another one, which alone resolves names.
pub async fn before(next: SocketAddr) -> Proxy {
    Proxy::with(ProxySettings { outbound: over(next), resolver: Names::new([]), ..ProxySettings::default() })
        .await
}

/// An origin that echoes the proxy headers it received.
async fn origin() -> SocketAddr {
    origins::serve(|request| async move {
        let told = request.headers().keys().any(|name| name.as_str().starts_with("proxy-"));
        Response::new(Full::<Bytes>::from(format!("{} {told}", request.uri())))
    })
    .await
}

#[tokio::test]
async fn plain_requests_go_in_absolute_form_and_others_through_a_tunnel() {
    let next = Next::start(Does::PassTo(origin().await), Some(BASIC)).await;
    let proxy = before(next.address).await;
    let plain = curl(Some(proxy.address), &["http://origin.test:81/plain?a=b"]).await;
    assert_eq!((plain.got.status, plain.got.text()), (StatusCode::OK, "/plain?a=b false"));
    let tunnelled = curl(Some(proxy.address), &["-p", "http://origin.test:81/tunnelled"]).await;
    assert_eq!((tunnelled.got.status, tunnelled.got.text()), (StatusCode::OK, "/tunnelled false"));

    let heads = next.heads();
    assert_eq!(heads.len(), 2, "{heads:#?}");
    assert!(heads[0].starts_with("GET http://origin.test:81/plain?a=b HTTP/1.1\r\n"), "{heads:#?}");
    assert!(heads[1].starts_with("CONNECT origin.test:81 HTTP/1.1\r\n"), "{heads:#?}");
    for head in &heads {
        assert_eq!(field(head, "host"), Some("origin.test:81"), "{head}");
        assert_eq!(field(head, "proxy-authorization"), Some(BASIC), "{head}");
        assert!(field(head, "via").unwrap().starts_with("1.1 tollpass ("), "{head}");
    }
}

#[tokio::test]
async fn a_server_that_speaks_first_is_heard_through_the_next_proxy_too() {
    let server = RawOrigin::start().await;
    let next = Next::start(Does::PassTo(server.address), Some(BASIC)).await;
    let proxy = before(next.address).await;
    let mut client = Raw::asking(proxy.address, "CONNECT [2001:db8::1]:22 HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let mut server = server.accept().await;
    server.send("SSH-2.0-server\r\n").await;
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 200 ") && field(&head, "x-next").is_none(), "{head}");
    assert_eq!(client.line().await, "SSH-2.0-server\r\n");
    client.send("SSH-2.0-client\r\n").await;
    assert_eq!(server.line().await, "SSH-2.0-client\r\n");
    client.finish().await;
    assert_eq!(server.rest().await, b"");
    assert_eq!(next.lines(), ["CONNECT [2001:db8::1]:22 HTTP/1.1"]);
}

#[tokio::test]
async fn this_machine_and_no_proxy_hosts_are_reached_directly() {
    let next = Next::start(Does::Say("HTTP/1.1 500 Wrong way\r\nContent-Length: 0\r\n\r\n"), None).await;
    let origin = origin().await;
    let outbound = Outbound { bypass: Bypass::read("direct.test").0, ..over(next.address) };
    let names = Names::new([vec![origin]]);
    let proxy = Proxy::with(ProxySettings { outbound, resolver: names, ..ProxySettings::default() }).await;
    for host in ["127.0.0.1", "direct.test", "a.direct.test"] {
        for more in [&[][..], &["-p"]] {
            let url = format!("http://{host}:{}/", origin.port());
            let fetched = curl(Some(proxy.address), &[more, &[&url]].concat()).await;
            assert_eq!(fetched.got.status, StatusCode::OK, "{host} {more:?}");
        }
    }
    assert_eq!(next.lines(), Vec::<String>::new());
}

#[tokio::test]
async fn a_purchase_goes_over_the_next_proxy() {
    let fair = Fair::open().await;
    let next = Next::start(Does::PassTo(fair.origin.address()), Some(BASIC)).await;
    let rest = format!(
        "[upstream]\nproxy = \"http://{}\"\nproxy_auth_file = \"secret\"\n\
         [[pay]]\nhost = \"seller.test\"\nmax_price = 10000\nallow_plain_http = true\n{QUICK}",
        next.address
    );
    let alice = Alice::ruled(&fair.market, &rest).await;
    write_private(&alice.directory.path().join("secret"), "\u{feff}me:pass\r\n");
    let proxy = alice.start().await;
    for (times, path) in [(1, "/paid"), (2, "/paid")] {
        let fetched = curl(Some(proxy.address), &[&format!("http://seller.test{path}")]).await;
        assert_eq!(fetched.got.status, StatusCode::OK, "{}", fetched.told);
        assert_eq!(proxy.promised().await, Amount::from(PRICE * times));
    }
    // The second request carries its payment.
    let heads = next.heads();
    let paid = heads.iter().filter(|head| field(head, "rdn-balance").is_some()).count();
    assert!(heads.len() >= 3 && paid >= 2, "{heads:#?}");
    assert!(heads.iter().all(|head| head.starts_with("GET http://seller.test/paid ")), "{heads:#?}");
    proxy.stop().await;
}

#[tokio::test]
async fn our_own_program_is_a_good_next_proxy_and_takes_its_own_from_the_environment() {
    let next = Next::start(Does::PassTo(origin().await), Some(BASIC)).await;
    let directory = tempfile::tempdir().unwrap();
    let mut command = program(["serve", "--listen", "127.0.0.1:0"]);
    for name in ["http_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy"]
    {
        command.env_remove(name);
    }
    let url = format!("http://me:pass@{}", next.address);
    command.env("TOLLPASS_STATE_DIR", directory.path()).env("HTTP_PROXY", &url).env("https_proxy", &url);
    let middle = Program::start(command).await;
    let proxy = before(middle.address).await;
    for (more, expected) in [(&[][..], "/x false"), (&["-p"], "/x false")] {
        let fetched = curl(Some(proxy.address), &[more, &["http://origin.test/x"]].concat()).await;
        assert_eq!((fetched.got.status, fetched.got.text()), (StatusCode::OK, expected), "{}", fetched.told);
    }
    for head in next.heads() {
        // Each proxy has its own credentials.
        assert_eq!(field(&head, "proxy-authorization"), Some(BASIC), "{head}");
        assert_eq!(head.matches("\r\nvia: 1.1 tollpass (").count(), 2, "{head}");
    }
    assert_eq!(next.lines(), ["GET http://origin.test/x HTTP/1.1", "CONNECT origin.test:80 HTTP/1.1"]);
    middle.terminate();
    let (_, log) = middle.ended().await;
    assert!(log.contains(&format!("using upstream proxy proxy=http://{}", next.address)), "{log}");
    assert!(!log.contains("pass@") && !log.contains("bWU6"), "{log}");
}

#[tokio::test]
async fn a_readable_or_invalid_secret_is_refused_at_start() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("secret");
    for (text, mode, expected) in [
        ("me:hunter2", 0o644, "chmod 600"),
        ("hunter2", 0o600, "does not hold user:password"),
        ("me:hunter2\nmore\n", 0o600, "does not hold user:password"),
    ] {
        let _ = std::fs::remove_file(&path);
        write_with(&path, text, mode);
        let mut command = program(["serve", "--listen", "127.0.0.1:0"]);
        command.env("TOLLPASS_STATE_DIR", directory.path());
        command.env("TOLLPASS_UPSTREAM__PROXY", "http://127.0.0.1:9");
        command.env("TOLLPASS_UPSTREAM__PROXY_AUTH_FILE", &path);
        let output = command.kill_on_drop(true).output().await.unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && told.contains(expected), "{told}");
        assert!(!told.contains("hunter2"), "{told}");
    }
}

fn write_private(path: &Path, text: &str) {
    write_with(path, text, 0o600);
}

fn write_with(path: &Path, text: &str, mode: u32) {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}
