//! The set-up page, as fetched with curl, and what it hides from other sites.

use std::process::Stdio;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{Request, StatusCode, header};
use tokio::process::Command;
use tollpass::proxy::frontend::{CaFiles, FrontendLayer, Page, Promises, Readiness};
use tollpass::proxy::{Body, ErrorResponder, Forward, ProxySettings, RemoteClient};
use tollpass::shutdown::Shutdown;
use tower::{Layer as _, ServiceExt as _};

use crate::support::curl::curl;
use crate::support::proxy::Proxy;
use crate::support::raw::{Raw, field, soon};
use crate::support::wire::Got;

/// A proxy that shows a certificate.
async fn proxy(pays: bool) -> Proxy {
    Proxy::behind(ProxySettings::default(), |address, inner| {
        let ca = CaFiles { pem: Bytes::from_static(b"-----BEGIN"), der: Bytes::from_static(b"\x30\x82der") };
        let since = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        FrontendLayer::proxy(address, Page { ca: Some(ca), pays, since }, Vec::new(), None, Vec::new())
            .layer(inner)
    })
    .await
}

fn told(got: &Got, name: header::HeaderName) -> &str {
    got.header(&name).unwrap_or_default()
}

#[tokio::test]
async fn the_page_shows_whether_the_proxy_works_and_the_next_steps() {
    let proxy = proxy(true).await;
    let address = proxy.address;
    let through = curl(Some(address), &["http://tollpass.local/"]).await.got;
    let direct = curl(None, &[&format!("http://{address}/")]).await.got;
    for (got, greeting) in [(&through, "It works"), (&direct, "did not go through it")] {
        assert_eq!(got.status, StatusCode::OK);
        assert_eq!(told(got, header::CONTENT_TYPE), "text/plain; charset=utf-8");
        let text = got.text();
        let lines: Vec<String> =
            text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        for line in [
            &format!("proxy http://{address}"),
            &format!("listens on {address}"),
            "since 2001-09-09T01:46:40Z",
            "pays within your [[pay]] rules",
            &format!("curl -x http://{address} --cacert bundle.pem URL"),
            "tollpass run -- COMMAND",
        ] {
            assert!(lines.iter().any(|found| found == line), "{line} is not in {text}");
        }
        assert!(text.contains(greeting), "{text}");
        // The SHA-256 of the certificate, as other tools show it.
        assert!(text.contains("SHA-256 8C:32:D2:7F:"), "{text}");
    }

    let poor = self::proxy(false).await;
    let got = curl(None, &[&format!("http://localhost:{}/", poor.address.port())]).await.got;
    assert!(got.text().contains("never (no wallet)"), "{}", got.text());
    let command = format!("curl -x http://localhost:{} ", poor.address.port());
    assert!(got.text().contains(&command), "{}", got.text());
}

#[tokio::test]
async fn browsers_get_a_page_in_which_nothing_can_run() {
    let proxy = proxy(true).await;
    let url = format!("http://{}/", proxy.address);
    let got = curl(None, &["-H", "Accept: text/html,*/*;q=0.8", &url]).await.got;
    assert_eq!(told(&got, header::CONTENT_TYPE), "text/html; charset=utf-8");
    let policy = told(&got, header::CONTENT_SECURITY_POLICY);
    assert!(policy.starts_with("default-src 'none'; style-src 'sha256-"), "{policy}");
    assert!(!policy.contains("unsafe"), "{policy}");
    for (name, value) in [
        (header::CACHE_CONTROL, "no-store"),
        (header::VARY, "accept"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        assert_eq!(told(&got, name), value);
    }
    assert_eq!(got.header(&header::ACCESS_CONTROL_ALLOW_ORIGIN), None);
    let page = got.text();
    assert!(page.starts_with("<!doctype html>") && page.ends_with("</html>\n"), "{page}");
    for part in ["<script", "<form", "<img", "<link", " style=", " onload=", " onclick="] {
        assert!(!page.contains(part), "{part} is in {page}");
    }
    for path in ["/proxy.pac", "/ca.pem", "/ca.crt"] {
        assert!(page.contains(&format!("href=\"{path}\"")), "{path}");
    }
    assert!(page.contains("eval &quot;$(tollpass env)&quot;"), "{page}");
}

#[tokio::test]
async fn files_have_their_content_types_and_are_read_only() {
    let proxy = proxy(true).await;
    for (path, kind, content) in [
        ("/ca.pem", "application/x-pem-file", &b"-----BEGIN"[..]),
        ("/ca.der", "application/x-x509-ca-cert", b"\x30\x82der"),
        ("/ca.crt", "application/x-x509-ca-cert", b"\x30\x82der"),
    ] {
        let got = curl(Some(proxy.address), &[&format!("http://tollpass.local{path}")]).await.got;
        assert_eq!((got.status, &got.body[..]), (StatusCode::OK, content), "{path}");
        assert_eq!(told(&got, header::CONTENT_TYPE), kind);
    }
    for (method, path, status) in [
        ("GET", "/", 200),
        ("HEAD", "/", 200),
        ("HEAD", "/ca.pem", 200),
        ("OPTIONS", "/proxy.pac", 204),
        ("OPTIONS", "*", 204),
        ("POST", "/", 405),
        ("PUT", "/ca.pem", 405),
        ("DELETE", "/proxy.pac", 405),
        ("GET", "/health", 200),
        ("HEAD", "/ready", 200),
        ("OPTIONS", "/ready", 204),
        ("POST", "/ready", 405),
        ("GET", "/ready/", 404),
        ("GET", "/elsewhere", 404),
        ("POST", "/elsewhere", 404),
        ("GET", "/ca.pem/", 404),
        ("GET", "*", 400),
    ] {
        let request = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
        let mut client = Raw::asking(proxy.address, request).await;
        let head = client.head().await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{method} {path}: {head}");
        assert_eq!(field(&head, "allow").is_some(), matches!(status, 204 | 405), "{head}");
    }
    let plain = Proxy::start().await;
    for path in ["/ca.pem", "/ca.crt"] {
        let got = curl(Some(plain.address), &[&format!("http://tollpass.local{path}")]).await.got;
        assert_eq!(got.status, StatusCode::NOT_FOUND);
    }
    let page = curl(Some(plain.address), &["http://tollpass.local/"]).await.got;
    assert!(!page.text().contains("ca.pem") && !page.text().contains("bundle"), "{}", page.text());
}

/// `Host` contains a foreign name that was rebound to this address.
#[tokio::test]
async fn only_its_own_names_are_answered() {
    let proxy = proxy(true).await;
    let port = proxy.address.port();
    for (lines, status) in [
        (format!("GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n"), 200),
        (format!("GET / HTTP/1.1\r\nHost: evil.example:{port}\r\n\r\n"), 421),
        (format!("GET /ca.pem HTTP/1.1\r\nHost: evil.example:{port}\r\n\r\n"), 421),
        ("OPTIONS * HTTP/1.1\r\nHost: evil.example\r\n\r\n".to_owned(), 421),
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.0\r\n\r\n".to_owned(), 200),
        // The target wins over Host.
        ("GET http://tollpass.local/ HTTP/1.1\r\nHost: evil.example\r\n\r\n".to_owned(), 200),
        // The name is never resolved.
        ("GET http://tollpass.local:81/ HTTP/1.1\r\nHost: tollpass.local\r\n\r\n".to_owned(), 404),
        ("CONNECT tollpass.local:443 HTTP/1.1\r\nHost: tollpass.local:443\r\n\r\n".to_owned(), 404),
        ("CONNECT / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), 400),
    ] {
        let head = Raw::asking(proxy.address, &lines).await.head().await;
        let (status, version) = (status.to_string(), head.split(' ').next().unwrap());
        assert!(head.starts_with(&format!("{version} {status} ")), "{lines}: {head}");
    }
}

#[tokio::test]
async fn the_pac_file_leads_browsers_to_the_address_that_they_know() {
    let proxy = proxy(true).await;
    let port = proxy.address.port();
    for (url, through, at) in [
        (format!("http://127.0.0.1:{port}/proxy.pac"), None, format!("127.0.0.1:{port}")),
        (format!("http://localhost:{port}/proxy.pac"), None, format!("localhost:{port}")),
        ("http://tollpass.local/proxy.pac".to_owned(), Some(proxy.address), format!("127.0.0.1:{port}")),
    ] {
        let got = curl(through, &["-4", &url]).await.got;
        assert_eq!(told(&got, header::CONTENT_TYPE), "application/x-ns-proxy-autoconfig");
        let ways = [
            ("api.example.com", format!("PROXY {at}; DIRECT")),
            ("tollpass.local", format!("PROXY {at}")),
            ("192.168.1.5", format!("PROXY {at}; DIRECT")),
            ("2001:db8::1", format!("PROXY {at}; DIRECT")),
            ("127.example.com", format!("PROXY {at}; DIRECT")),
            ("localhost", "DIRECT".to_owned()),
            ("app.localhost", "DIRECT".to_owned()),
            ("printer", "DIRECT".to_owned()),
            ("127.0.0.1", "DIRECT".to_owned()),
            ("127.9.8.7", "DIRECT".to_owned()),
            ("::1", "DIRECT".to_owned()),
        ];
        let hosts: Vec<&str> = ways.iter().map(|(host, _)| *host).collect();
        assert_eq!(run_pac(got.text(), &hosts).await, ways.clone().map(|(_, way)| way));
    }
}

/// Runs a PAC file like a browser does: Node's engine is Chromium's.
async fn run_pac(file: &str, hosts: &[&str]) -> Vec<String> {
    let script = format!(
        "{file}\nfor (const host of {hosts:?}) console.log(FindProxyForURL(`https://${{host}}/`, host));"
    );
    let node = Command::new("node").args(["-e", &script]).stdin(Stdio::null()).kill_on_drop(true).output();
    let output = soon("node", node).await.unwrap_or_else(|error| {
        panic!("this test needs the program node in PATH (apt-get install nodejs): {error}")
    });
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// Unencrypted requests of a remote client could be read on the network: it must use CONNECT.
#[tokio::test]
async fn secure_targets_are_taken_in_the_clear_from_this_machine_only() {
    let front = || {
        let page = Page { ca: None, pays: false, since: SystemTime::now() };
        let inner = ErrorResponder::new(Forward::new(&ProxySettings::default()));
        FrontendLayer::proxy("0.0.0.0:8402".parse().unwrap(), page, Vec::new(), None, Vec::new()).layer(inner)
    };
    for (target, is_remote, denied) in [
        ("https://127.0.0.1:1/", true, true),
        ("https://127.0.0.1:1/", false, false),
        ("http://127.0.0.1:1/", true, false),
    ] {
        let mut request = Request::get(target).body(Body::Empty).unwrap();
        if is_remote {
            request.extensions_mut().insert(RemoteClient);
        }
        let answer = front().oneshot(request).await.unwrap();
        assert_eq!(answer.status() == StatusCode::FORBIDDEN, denied, "{target} {is_remote}");
    }
}

#[tokio::test]
async fn names_of_the_user_are_answered_too() {
    let proxy = Proxy::behind(ProxySettings::default(), |address, inner| {
        let page = Page { ca: None, pays: false, since: SystemTime::now() };
        FrontendLayer::proxy(address, page, Vec::new(), None, Vec::new())
            .with_names(["proxy.internal".to_owned()].into())
            .layer(inner)
    })
    .await;
    let port = proxy.address.port();
    for (target, host, status) in [
        ("/health", format!("proxy.internal:{port}"), 200),
        ("/", "Proxy.Internal.".to_owned(), 200),
        ("/health", format!("internal:{port}"), 421),
        ("/health", format!("a.proxy.internal:{port}"), 421),
        // The proxy is asked for itself, as by a program that uses it for everything.
        (&format!("http://proxy.internal:{port}/health"), "x".to_owned(), 200),
    ] {
        let request = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        let head = Raw::asking(proxy.address, &request).await.head().await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {head}");
    }
}

#[tokio::test]
async fn a_proxy_that_shuts_down_is_not_ready() {
    let (shutdown, page) = (Shutdown::new(), Page { ca: None, pays: false, since: SystemTime::now() });
    let layer = FrontendLayer::proxy("127.0.0.1:8402".parse().unwrap(), page, Vec::new(), None, Vec::new())
        .with_readiness(Readiness::new(Promises::default(), shutdown.clone()));
    let front = layer.layer(ErrorResponder::new(Forward::new(&ProxySettings::default())));
    shutdown.begin();
    for (path, status) in [("/ready", StatusCode::SERVICE_UNAVAILABLE), ("/health", StatusCode::OK)] {
        let request = Request::get(path).header("host", "localhost").body(Body::Empty).unwrap();
        assert_eq!(front.clone().oneshot(request).await.unwrap().status(), status);
    }
}
