//! Reverse routes: requests below a base URL on the proxy reach the origin of the route.

use std::sync::Arc;

use http::uri::Uri;
use http::{StatusCode, header};
use sha2::{Digest as _, Sha256};
use tollpass::limits::Limits;
use tollpass::protocol::Policy;
use tollpass::protocol::policy::{ClientKind, KnownClients, LocalSpenders, ProxyClient};
use tollpass::proxy::ProxySettings;
use tollpass::proxy::authenticator::Authenticator;
use tollpass::proxy::frontend::{FrontendLayer, Page, ReverseRoute, RouteToken};
use tollpass::proxy::rulebook::{CurrentRules, Rulebook};
use tower::Layer as _;

use crate::pays::QUICK;
use crate::support::curl::curl;
use crate::support::fair::Fair;
use crate::support::payer::Alice;
use crate::support::proxy::Proxy;
use crate::support::raw::{Raw, RawOrigin, field, soon};

fn route(prefix: &str, origin: &str) -> ReverseRoute {
    let uri: Uri = origin.parse().unwrap();
    ReverseRoute {
        prefix: prefix.to_owned(),
        scheme: uri.scheme().unwrap().clone(),
        authority: uri.authority().unwrap().clone(),
        base: uri.path().trim_end_matches('/').to_owned(),
        client: None,
    }
}

/// Rules that know one client with this token.
fn knowing(token: &str) -> CurrentRules {
    let (kind, rules, budgets) = (ClientKind::Any, None, Vec::new());
    let client = ProxyClient { name: "laptop".to_owned(), kind, rules, budgets };
    let known = KnownClients::new([(client.into(), Sha256::digest(token).into())]);
    let authenticator = Authenticator::new(known.into(), &Limits::default());
    let rules = Rulebook::new(Arc::new(Policy::builder().build()), LocalSpenders::Any);
    CurrentRules::new(Rulebook { authenticator: Some(authenticator.into()), ..rules })
}

/// A proxy with a route `/a` to `/v1` of an origin.
async fn routed() -> (Proxy, RawOrigin) {
    let origin = RawOrigin::start().await;
    let proxy = Proxy::behind(ProxySettings::default(), |address, inner| {
        let page = Page { ca: None, pays: false, since: std::time::SystemTime::now() };
        let routes = vec![route("/a", &format!("http://{}/v1", origin.address))];
        FrontendLayer::proxy(address, page, routes, None, Vec::new()).layer(inner)
    })
    .await;
    (proxy, origin)
}

/// A port that only serves a route to an origin.
async fn alone() -> (Proxy, RawOrigin) {
    let origin = RawOrigin::start().await;
    let proxy = Proxy::behind(ProxySettings::default(), |address, inner| {
        let routes = vec![route("", &format!("http://{}/v1", origin.address))];
        FrontendLayer::routes(address, routes, None, Vec::new()).layer(inner)
    })
    .await;
    (proxy, origin)
}

#[tokio::test]
async fn requests_arrive_as_the_origin_knows_itself() {
    for ((proxy, origin), prefix) in [(routed().await, "/a"), (alone().await, "")] {
        let request = format!(
            "POST {prefix}/chat//x%2Fy?q=/../1 HTTP/1.1\r\nHost: localhost:{}\r\nAuthorization: Bearer b\r\n\
             Referer: http://localhost/a\r\nContent-Length: 2\r\n\r\nhi",
            proxy.address.port()
        );
        let mut client = Raw::asking(proxy.address, request).await;
        let mut server = origin.accept().await;
        let head = server.head().await;
        assert!(head.starts_with("POST /v1/chat//x%2Fy?q=/../1 HTTP/1.1\r\n"), "{head}");
        assert_eq!(field(&head, "host"), Some(origin.address.to_string().as_str()));
        assert_eq!(field(&head, "authorization"), Some("Bearer b"));
        assert_eq!(field(&head, "referer"), Some("http://localhost/a"));
        assert_eq!(server.exactly(2).await, b"hi");

        let base = format!("http://{}/v1", origin.address);
        server
            .send(format!(
                "HTTP/1.1 307 Moved\r\nLocation: {base}/there?x\r\nContent-Location: /v1/here\r\n\
                 Set-Cookie: s=1; Path=/; Domain=api.example; Secure\r\nSet-Cookie: t=2; HttpOnly\r\n\
                 Content-Length: 0\r\n\r\n"
            ))
            .await;
        let head = client.head().await;
        assert_eq!(field(&head, "location"), Some(format!("{prefix}/there?x").as_str()), "{head}");
        assert_eq!(field(&head, "content-location"), Some(format!("{prefix}/here").as_str()), "{head}");
        let path = if prefix.is_empty() { "/" } else { prefix };
        assert!(
            head.contains(&format!("set-cookie: s=1; Path={path}\r\nset-cookie: t=2; HttpOnly\r\n")),
            "{head}"
        );
    }
}

/// An origin that sees the token could use the routes, too.
#[tokio::test]
async fn the_token_of_a_route_reaches_no_origin() {
    let origin = RawOrigin::start().await;
    let proxy = Proxy::behind(ProxySettings::default(), |address, inner| {
        let routes = vec![route("", &format!("http://{}/v1", origin.address))];
        let layer = FrontendLayer::routes(address, routes, Some(RouteToken::new("c0ffee")), Vec::new());
        layer.with_clients(knowing("a/client")).layer(inner)
    })
    .await;
    for (token, referrer, expected) in [
        ("c0ffee", "http://localhost/c0ffee/page", None),
        ("c0ffee", "http://localhost/a%2Fclient/page", None),
        ("a%2fclient", "http://localhost/c0ffee/page", None),
        ("a%2fclient", "http://localhost/a%2fclient/page", None),
        ("a%2fclient", "http://localhost/a%2Fclient", None),
        ("a%2fclient", "a%2fclient", Some("a%2fclient")),
        ("a%2fclient", "http://a.example/", Some("http://a.example/")),
        ("c0ffee", "http://a.example/", Some("http://a.example/")),
    ] {
        let request = format!(
            "GET /{token}/x HTTP/1.1\r\nHost: {}\r\nReferer: {referrer}\r\nConnection: close\r\n\r\n",
            proxy.address
        );
        let mut client = Raw::asking(proxy.address, request).await;
        let mut server = origin.accept().await;
        let head = server.head().await;
        assert!(head.starts_with("GET /v1/x HTTP/1.1\r\n"), "{head}");
        assert_eq!(field(&head, "referer"), expected, "{token} {referrer}: {head}");
        let answer = "HTTP/1.1 200 OK\r\nReferrer-Policy: unsafe-url\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        server.send(answer).await;
        let head = client.head().await;
        assert_eq!(field(&head, "referrer-policy"), Some("no-referrer"), "{head}");
    }
}

#[tokio::test]
async fn a_redirect_is_followed_through_the_route() {
    let (proxy, origin) = routed().await;
    let url = format!("http://{}/a/first", proxy.address);
    let fetched = tokio::spawn(async move { curl(None, &["-L", &url]).await });
    let mut server = origin.accept().await;
    server.head().await;
    let there = format!("Location: http://{}/v1/second\r\n", origin.address);
    server.send(format!("HTTP/1.1 302 Found\r\n{there}Content-Length: 0\r\n\r\n")).await;
    let head = server.head().await;
    assert!(head.starts_with("GET /v1/second HTTP/1.1\r\n"), "{head}");
    assert!(field(&head, "via").is_some(), "{head}");
    server.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    // curl shows both responses, one below the other.
    let fetched = fetched.await.unwrap().got;
    assert!(fetched.text().ends_with("\r\n\r\nok"), "{fetched:?}");
}

#[tokio::test]
async fn a_program_that_also_uses_the_proxy_is_not_sent_in_a_circle() {
    let (proxy, origin) = routed().await;
    for host in [
        proxy.address.to_string(),
        format!("localhost:{}", proxy.address.port()),
        "tollpass.local".to_owned(),
    ] {
        let request = format!("GET http://{host}/a/x HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        let mut client = Raw::asking(proxy.address, request).await;
        let mut server = origin.accept().await;
        let head = server.head().await;
        assert!(head.starts_with("GET /v1/x HTTP/1.1\r\n"), "{head}");
        server.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
        assert!(client.head().await.starts_with("HTTP/1.1 200 "));
    }
}

#[tokio::test]
async fn refused_requests_never_reach_the_origin() {
    let (proxy, origin) = routed().await;
    let (port, there) = (proxy.address.port(), origin.address);
    for (target, fields, status) in [
        ("/a/../secret".to_owned(), "", 400),
        ("/a/%2e%2e/secret".to_owned(), "", 400),
        ("/a/x/..%2f..%2fsecret".to_owned(), "", 400),
        ("/ab".to_owned(), "", 404),
        ("//a/x".to_owned(), "", 404),
        ("/%61/x".to_owned(), "", 404),
        ("/a/x".to_owned(), "Sec-Fetch-Site: cross-site\r\n", 403),
        ("/a/x".to_owned(), "Origin: https://evil.example\r\n", 403),
        ("/a/x".to_owned(), "Origin: null\r\n", 403),
    ] {
        let request = format!("GET {target} HTTP/1.1\r\nHost: localhost:{port}\r\n{fields}\r\n");
        let head = Raw::asking(proxy.address, request).await.head().await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{target} {fields}: {head}");
    }
    let rebound = format!("GET /a/x HTTP/1.1\r\nHost: evil.example:{port}\r\n\r\n");
    let head = Raw::asking(proxy.address, rebound).await.head().await;
    assert!(head.starts_with("HTTP/1.1 421 "), "{head}");

    // A port for routes is not a proxy.
    let (only, other) = alone().await;
    for request in [
        format!("GET http://{there}/ HTTP/1.1\r\nHost: {there}\r\n\r\n"),
        format!("CONNECT {there} HTTP/1.1\r\nHost: {there}\r\n\r\n"),
        format!("GET /x HTTP/1.1\r\nHost: {there}\r\n\r\n").replace("127.0.0.1", "evil.example"),
    ] {
        let head = Raw::asking(only.address, &request).await.head().await;
        assert!(head.starts_with("HTTP/1.1 421 "), "{request}: {head}");
    }
    assert!(origin.is_left_alone().await && other.is_left_alone().await);
}

#[tokio::test]
async fn another_protocol_passes_through_a_route() {
    let (proxy, origin) = routed().await;
    let request = "GET /a/ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Key: a\r\nOrigin: http://localhost:3000\r\n\r\n";
    let mut client = Raw::asking(proxy.address, request).await;
    let mut server = origin.accept().await;
    let head = server.head().await;
    assert!(head.starts_with("GET /v1/ws HTTP/1.1\r\n"), "{head}");
    assert_eq!(field(&head, "upgrade"), Some("websocket"));
    assert_eq!(field(&head, "origin"), Some("http://localhost:3000"));
    server
        .send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nhi")
        .await;
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert_eq!(client.exactly(2).await, b"hi");
    client.send("back").await;
    assert_eq!(server.exactly(4).await, b"back");
}

#[tokio::test]
async fn a_program_that_knows_only_a_base_url_pays() {
    let fair = Fair::with(|_| {}).await;
    let origin = fair.origin.url();
    let routes = format!(
        "[[route]]\nprefix = \"/seller\"\norigin = \"{origin}\"\n\
         [[route]]\nlisten = \"127.0.0.1:0\"\norigin = \"{origin}/\"\n"
    );
    let alice = Alice::with(&fair.market, &format!("{QUICK}{routes}")).await;
    let proxy = alice.start().await;
    let got = curl(None, &[&format!("http://{}/seller/paid", proxy.address)]).await.got;
    assert_eq!(got.status, StatusCode::OK, "{got:?}");
    let own = proxy.routes[0];
    assert_ne!(own, proxy.address);
    let got = curl(None, &[&format!("http://{own}/paid")]).await.got;
    assert_eq!(got.status, StatusCode::OK, "{got:?}");
    assert_eq!(proxy.promised().await, (2 * crate::support::fair::PRICE).into());
    // Marked as cross-site, it is rejected earlier.
    let got = curl(None, &["-H", "Sec-Fetch-Site: cross-site", &format!("http://{own}/paid")]).await.got;
    assert_eq!(got.status, StatusCode::FORBIDDEN, "{got:?}");
    let page = curl(Some(proxy.address), &["http://tollpass.local/"]).await.got;
    let base = format!("Base URL http://{}/seller\n  leads to {origin}\n", proxy.address);
    assert!(page.text().contains(&base), "{}", page.text());
    assert_eq!(page.header(&header::CONTENT_TYPE), Some("text/plain; charset=utf-8"));
    proxy.stop().await;
    // A program that another test starts just now has a copy of the listener until it runs.
    let closed = async {
        while tokio::net::TcpStream::connect(own).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    soon("its port is closed with it", closed).await;
}

#[tokio::test]
async fn a_port_that_is_taken_is_named_at_the_start() {
    let taken = RawOrigin::start().await;
    let directory = tempfile::tempdir().unwrap();
    let text = format!(
        "listen = \"127.0.0.1:0\"\nstate_dir = \"s\"\n[[route]]\nlisten = \"{}\"\norigin = \"https://api.example/v1\"\n",
        taken.address
    );
    let config = tollpass::config::Config::parse(&text, directory.path(), &Default::default()).unwrap();
    let started = tollpass::app::App::build(config, None, tollpass::shutdown::Shutdown::new()).await;
    let error = started.err().expect("the port is taken").to_string();
    assert!(error.contains(&taken.address.to_string()) && error.contains("https://api.example"), "{error}");
}

#[tokio::test]
async fn a_trace_shows_what_the_client_sent() {
    for ((proxy, origin), prefix) in [(routed().await, "/a"), (alone().await, "")] {
        let request = format!(
            "TRACE {prefix}/x?y HTTP/1.1\r\nHost: localhost\r\nMax-Forwards: 0\r\nConnection: close\r\n\r\n"
        );
        let got = Raw::asking(proxy.address, request).await.rest().await;
        let got = String::from_utf8(got).unwrap();
        assert!(got.contains(&format!("\r\n\r\nTRACE {prefix}/x?y HTTP/1.1\r\n")), "{got}");
        assert!(!got.contains("v1"), "{got}");
        assert!(origin.is_left_alone().await);
    }
}
