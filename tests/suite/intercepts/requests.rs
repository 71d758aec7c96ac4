//! Requests inside TLS: which are accepted, and what happens to the connection.

use std::sync::{Arc, Mutex};

use http::{Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_rustls::server;

use super::{HTTP_1, HTTP_2, Shop};
use crate::support::curl::curl;
use crate::support::raw::soon;
use crate::support::secure;
use crate::support::secure::{Secure, connect};
use crate::support::wire::{Body, whole};

/// An origin that echoes the request.
async fn mirror(shop: &Shop, alpn: &[&str]) -> Secure {
    let config = shop.notary.certify("127.0.0.1", alpn).await;
    Secure::serve(config, |request: Request<Incoming>| async move {
        let (head, _) = request.into_parts();
        let mut text = format!("{} {} {:?}\n", head.method, head.uri, head.version);
        for (name, value) in &head.headers {
            text += &format!("{name}: {}\n", value.to_str().unwrap());
        }
        Response::new(text)
    })
    .await
}

async fn tunnel(shop: &Shop, origin: &Secure, alpn: &[&str]) -> TlsStream<TcpStream> {
    let stream = connect(shop.proxy.address, &origin.address.to_string()).await;
    secure::trusting(&shop.ca_file(), stream, "127.0.0.1", alpn).await.unwrap()
}

/// Sends bytes and reads to the close.
async fn talk(stream: &mut TlsStream<TcpStream>, bytes: &str) -> String {
    stream.write_all(bytes.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // A close without a TLS close_notify is also a close.
    let _ = soon("the close", stream.read_to_end(&mut answer)).await;
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn a_request_for_another_host_is_misdirected() {
    let shop = Shop::open(HTTP_1, "").await;
    let bob = mirror(&shop, HTTP_1).await;
    let here = bob.address;
    for (line, host, expected) in [
        ("GET / HTTP/1.1", format!("{here}"), "200"),
        (&format!("GET https://{here}/x HTTP/1.1"), format!("{here}"), "200"),
        ("GET / HTTP/1.1", "mallory.example".to_owned(), "421"),
        ("GET / HTTP/1.1", "127.0.0.1".to_owned(), "421"),
        ("GET https://mallory.example/ HTTP/1.1", format!("{here}"), "421"),
        (&format!("GET http://{here}/ HTTP/1.1"), format!("{here}"), "421"),
        (&format!("CONNECT {here} HTTP/1.1"), format!("{here}"), "400"),
        ("GET / HTTP/1.1", format!("{here}\r\nHost: mallory.example"), "400"),
    ] {
        let mut stream = tunnel(&shop, &bob, HTTP_1).await;
        let answer = talk(&mut stream, &format!("{line}\r\nHost: {host}\r\nConnection: close\r\n\r\n")).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {expected} ")), "{line} {host}: {answer}");
    }
    shop.close().await;
}

#[tokio::test]
async fn the_request_arrives_unchanged_in_either_version() {
    for (of_bob, of_alice) in [(HTTP_1, HTTP_1), (HTTP_1, HTTP_2), (HTTP_2, HTTP_1), (HTTP_2, HTTP_2)] {
        let shop = Shop::open(HTTP_1, "").await;
        let bob = mirror(&shop, of_bob).await;
        let stream = TokioIo::new(tunnel(&shop, &bob, of_alice).await);
        let url = format!("https://{}/a?b=c", bob.address);
        let ask = |version| {
            let mut request = Request::get(&url).header("x-some", "thing").header(header::COOKIE, "a=1");
            if version == HTTP_1 {
                request = request.uri("/a?b=c").header(header::HOST, bob.address.to_string());
            }
            request.body(whole("")).unwrap()
        };
        let answer = if of_alice == HTTP_2 {
            let executor = hyper_util::rt::TokioExecutor::new();
            let (mut sender, connection) =
                hyper::client::conn::http2::handshake::<_, _, Body>(executor, stream).await.unwrap();
            tokio::spawn(connection);
            sender.send_request(ask(HTTP_2)).await.unwrap()
        } else {
            let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
            tokio::spawn(connection);
            sender.send_request(ask(HTTP_1)).await.unwrap()
        };
        assert_eq!(answer.status(), StatusCode::OK);
        assert!(answer.headers()[header::VIA].to_str().unwrap().contains("tollpass"), "{answer:?}");
        let body = http_body_util::BodyExt::collect(answer.into_body()).await.unwrap().to_bytes();
        let text = String::from_utf8(body.to_vec()).unwrap();
        assert!(text.contains("/a?b=c "), "{text}");
        assert!(text.contains("x-some: thing\n") && text.contains("cookie: a=1\n"), "{text}");
        assert!(text.contains(if of_bob == HTTP_2 { "HTTP/2.0" } else { "HTTP/1.1" }), "{text}");
        shop.close().await;
    }
}

#[tokio::test]
async fn tunnels_share_the_pool_and_dial_for_nothing() {
    let shop = Shop::open(HTTP_1, "").await;
    let bob = mirror(&shop, HTTP_1).await;
    for _ in 0..5 {
        let mut stream = tunnel(&shop, &bob, HTTP_1).await;
        let here = bob.address;
        let answer =
            talk(&mut stream, &format!("GET / HTTP/1.1\r\nHost: {here}\r\nConnection: close\r\n\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    assert_eq!(bob.accepted(), 1);
    shop.close().await;
}

#[tokio::test]
async fn another_protocol_passes_through_tls() {
    let shop = Shop::open(HTTP_1, "").await;
    // Over HTTP/2, which has no Upgrade.
    let config = shop.notary.certify("127.0.0.1", HTTP_2).await;
    let heads = Arc::new(Mutex::new(String::new()));
    let seen = Arc::clone(&heads);
    let bob = Secure::accept(config, move |mut stream: server::TlsStream<TcpStream>| {
        let seen = Arc::clone(&seen);
        async move {
            assert_ne!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            *seen.lock().unwrap() = String::from_utf8(head).unwrap();
            stream
                .write_all(
                    b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\nhello ",
                )
                .await
                .unwrap();
            let mut bytes = [0; 5];
            stream.read_exact(&mut bytes).await.unwrap();
            stream.write_all(&bytes).await.unwrap();
            stream.shutdown().await.unwrap();
        }
    })
    .await;
    let mut stream = tunnel(&shop, &bob, HTTP_1).await;
    let here = bob.address;
    let answer = talk(
        &mut stream,
        &format!("GET /chat HTTP/1.1\r\nHost: {here}\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\nalice"),
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    assert!(answer.to_lowercase().contains("upgrade: echo\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\nhello alice"), "{answer}");
    let head = heads.lock().unwrap().clone();
    assert!(
        head.starts_with("GET /chat HTTP/1.1\r\n") && head.to_lowercase().contains("upgrade: echo"),
        "{head}"
    );
    shop.close().await;
}

#[tokio::test]
async fn the_stream_limit_is_announced_over_http_2() {
    let shop = Shop::open(HTTP_1, "[limits]\nstreams = 7\n").await;
    let bob = mirror(&shop, HTTP_1).await;
    let mut stream = tunnel(&shop, &bob, HTTP_2).await;
    // The client preface and default settings.
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let mut head = [0; 9];
    soon("settings", stream.read_exact(&mut head)).await.unwrap();
    assert_eq!(head[3], 4, "a SETTINGS frame: {head:?}");
    let mut settings = vec![0; usize::from(head[2])];
    soon("settings", stream.read_exact(&mut settings)).await.unwrap();
    // SETTINGS_MAX_CONCURRENT_STREAMS, RFC 9113 section 6.5.2.
    assert!(settings.chunks(6).any(|setting| setting == [0, 3, 0, 0, 0, 7]), "{settings:?}");
    shop.close().await;
}

#[tokio::test]
async fn a_client_that_goes_quiet_is_ended() {
    let shop =
        Shop::open(HTTP_1, "[limits]\nhead_timeout = \"300ms\"\nkeepalive_timeout = \"300ms\"\n").await;
    let bob = mirror(&shop, HTTP_2).await;
    // Idle, after a handshake only, and after a request over HTTP/2.
    let mut silent = connect(shop.proxy.address, &bob.address.to_string()).await;
    assert_eq!(soon("the end", silent.read(&mut [0])).await.unwrap(), 0);
    let mut greeted = tunnel(&shop, &bob, HTTP_1).await;
    assert_eq!(soon("the end", greeted.read(&mut [0])).await.unwrap_or(0), 0);
    let stream = TokioIo::new(tunnel(&shop, &bob, HTTP_2).await);
    let executor = hyper_util::rt::TokioExecutor::new();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake::<_, _, Body>(executor, stream).await.unwrap();
    let request = Request::get(format!("https://{}/", bob.address)).body(whole("")).unwrap();
    let (answer, ended) = soon("the end", async {
        let answer = async {
            let answer = sender.send_request(request).await.unwrap();
            answer.status()
        };
        tokio::join!(answer, connection)
    })
    .await;
    assert_eq!(answer, StatusCode::OK);
    assert!(ended.is_ok(), "{ended:?}");
    shop.close().await;
}

#[tokio::test]
async fn endless_exchanges_over_http_2_are_cut() {
    let shop =
        Shop::open(HTTP_1, "[limits]\nkeepalive_timeout = \"300ms\"\nexchange_timeout = \"300ms\"\n").await;
    let config = shop.notary.certify("127.0.0.1", HTTP_1).await;
    let bob = Secure::serve(config, |_| std::future::pending::<Response<String>>()).await;
    let stream = TokioIo::new(tunnel(&shop, &bob, HTTP_2).await);
    let executor = hyper_util::rt::TokioExecutor::new();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake::<_, _, Body>(executor, stream).await.unwrap();
    let request = Request::get(format!("https://{}/", bob.address)).body(whole("")).unwrap();
    let both = async { tokio::join!(sender.send_request(request), connection) };
    let (answer, _) = soon("the end", both).await;
    assert!(answer.is_err(), "{answer:?}");
    shop.close().await;
}

#[tokio::test]
async fn the_end_of_the_proxy_lets_requests_inside_of_tls_finish() {
    for alpn in [HTTP_1, HTTP_2] {
        let shop = Shop::open(HTTP_1, "").await;
        let gate = Arc::new(tokio::sync::Semaphore::new(0));
        let asked = Arc::new(tokio::sync::Notify::new());
        let config = shop.notary.certify("127.0.0.1", HTTP_1).await;
        let (held, told) = (Arc::clone(&gate), Arc::clone(&asked));
        let bob = Secure::serve(config, move |_| {
            let (held, told) = (Arc::clone(&held), Arc::clone(&told));
            async move {
                told.notify_one();
                let _permit = held.acquire().await.unwrap();
                Response::new("late\n".to_owned())
            }
        })
        .await;
        let (ca, url) = (shop.ca_file(), format!("https://{}/", bob.address));
        let version = if alpn == HTTP_2 { "--http2" } else { "--http1.1" };
        let more = ["--cacert", ca.to_str().unwrap(), version, &url].map(str::to_owned);
        let address = shop.proxy.address;
        let fetching = tokio::spawn(async move {
            let more = more.each_ref().map(String::as_str);
            crate::support::curl::curl(Some(address), &more).await
        });
        soon("the request", asked.notified()).await;
        shop.proxy.shutdown.begin();
        gate.add_permits(1);
        let fetched = soon("the answer", fetching).await.unwrap();
        assert_eq!(fetched.got.text(), "late\n", "{version}");
        shop.close().await;
    }
}

#[tokio::test]
async fn only_options_asks_for_the_server_as_a_whole_in_either_version() {
    for (of_bob, of_curl) in
        [(HTTP_1, "--http1.1"), (HTTP_1, "--http2"), (HTTP_2, "--http1.1"), (HTTP_2, "--http2")]
    {
        let shop = Shop::open(HTTP_1, "").await;
        let bob = mirror(&shop, of_bob).await;
        let (ca, url) = (shop.ca_file(), format!("https://{}/", bob.address));
        for (method, status) in [("OPTIONS", StatusCode::OK), ("GET", StatusCode::BAD_REQUEST)] {
            let more =
                ["--cacert", ca.to_str().unwrap(), of_curl, "-X", method, "--request-target", "*", &url];
            let fetched = curl(Some(shop.proxy.address), &more).await;
            assert_eq!(fetched.got.status, status, "{of_bob:?} {of_curl} {method}: {fetched:?}");
            if status == StatusCode::OK {
                let line = fetched.got.text().lines().next().unwrap();
                let target =
                    if of_bob == HTTP_2 { format!("https://{}*", bob.address) } else { "*".to_owned() };
                assert!(line.starts_with(&format!("OPTIONS {target} ")), "{line}");
            }
        }
        shop.close().await;
    }
}

#[tokio::test]
async fn a_request_has_no_more_fields_than_allowed_in_either_version() {
    let shop = Shop::open(HTTP_1, "").await;
    // HTTP/2, because most HTTP/1 servers have a limit of their own.
    let bob = mirror(&shop, HTTP_2).await;
    let (ca, url) = (shop.ca_file(), format!("https://{}/", bob.address));
    for of_curl in ["--http1.1", "--http2"] {
        for (count, status) in [(80, StatusCode::OK), (120, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE)] {
            let fields: Vec<String> = (0..count).map(|number| format!("x-{number}: 1")).collect();
            let fields = fields.iter().flat_map(|field| ["-H", field]);
            let more: Vec<&str> =
                ["--cacert", ca.to_str().unwrap(), of_curl, &url].into_iter().chain(fields).collect();
            let fetched = curl(Some(shop.proxy.address), &more).await;
            assert_eq!(fetched.got.status, status, "{of_curl} {count}: {fetched:?}");
        }
    }
    // HTTP/2 may split a cookie, as browsers do.
    let crumbs: Vec<String> = (0..120).map(|number| format!("cookie: c{number}=1")).collect();
    let mut more = vec!["--cacert", ca.to_str().unwrap(), "--http2", &url];
    more.extend(crumbs.iter().flat_map(|crumb| ["-H", crumb]));
    let fetched = curl(Some(shop.proxy.address), &more).await;
    assert_eq!(fetched.got.status, StatusCode::OK, "{fetched:?}");
    assert!(fetched.got.text().contains("cookie: c0=1; c1=1; "), "{fetched:?}");
    shop.close().await;
}
