//! Traffic without paywalls passes unchanged, except for what an intermediary must do.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use http::{Method, Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tollpass::limits::Limits;
use tollpass::proxy::{Body, CarriesPayment, Forward, ForwardError, ProxySettings};
use tower::ServiceExt;

use crate::support::origins;
use crate::support::proxy::Proxy;
use crate::support::raw::{Raw, RawOrigin, field, soon};

/// Sends `request` through a new proxy; `{o}` stands for the origin's address. Returns both ends, the origin and the
/// proxy.
async fn through(request: &str) -> (Raw, Raw, RawOrigin, Proxy) {
    let proxy = Proxy::start().await;
    let origin = RawOrigin::start().await;
    let client = Raw::asking(proxy.address, request.replace("{o}", &origin.address.to_string())).await;
    let server = origin.accept().await;
    (client, server, origin, proxy)
}

#[tokio::test]
async fn absolute_form_becomes_origin_form() {
    let (mut client, mut server, origin, _proxy) =
        through("GET http://{o}/a%20b?c=d&e HTTP/1.1\r\nHost: elsewhere\r\nX-Mine: 1\r\nX-Mine: 2\r\n\r\n")
            .await;
    let head = server.head().await;
    assert!(head.starts_with("GET /a%20b?c=d&e HTTP/1.1\r\n"), "{head}");
    assert_eq!(field(&head, "host"), Some(origin.address.to_string().as_str()));
    assert_eq!(head.matches("\r\nhost:").count(), 1, "{head}");
    assert!(head.contains("x-mine: 1\r\nx-mine: 2\r\n"), "{head}");
    assert!(field(&head, "via").unwrap().starts_with("1.1 tollpass ("), "{head}");

    server.send("HTTP/1.0 203 Whatever\r\nX-Theirs: 3\r\nContent-Length: 2\r\n\r\nok").await;
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 203 "), "{head}");
    assert_eq!(field(&head, "x-theirs"), Some("3"));
    assert_eq!(field(&head, "content-length"), Some("2"));
    assert!(field(&head, "via").unwrap().starts_with("1.0 tollpass"), "{head}");
    assert_eq!(client.exactly(2).await, b"ok");
}

#[tokio::test]
async fn a_client_of_http_1_0_gets_no_chunks() {
    let (mut client, mut server, _origin, _proxy) = through("GET http://{o}/ HTTP/1.0\r\n\r\n").await;
    let head = server.head().await;
    assert!(head.starts_with("GET / HTTP/1.1\r\n"), "{head}");
    assert!(field(&head, "via").unwrap().starts_with("1.0 tollpass"), "{head}");
    server
        .send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n")
        .await;
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.0 200 "), "{head}");
    assert_eq!(field(&head, "transfer-encoding"), None);
    assert_eq!(client.rest().await, b"onetwo");
}

#[tokio::test]
async fn chunks_and_trailers_pass_both_ways() {
    for method in ["POST", "GET"] {
        let (mut client, mut server, _origin, _proxy) = through(&format!(
            "{method} http://{{o}}/ HTTP/1.1\r\nHost: x\r\nTE: trailers\r\nConnection: TE\r\nTrailer: X-Sum\r\n\
             Transfer-Encoding: chunked\r\n\r\n3\r\none\r\n3\r\ntwo\r\n0\r\nX-Sum: 6\r\n\r\n"
        ))
        .await;
        let head = server.head().await;
        assert_eq!(field(&head, "transfer-encoding"), Some("chunked"), "{head}");
        assert_eq!(field(&head, "content-length"), None, "{head}");
        assert_eq!(field(&head, "te"), Some("trailers"), "{head}");
        assert_eq!(field(&head, "connection"), Some("te"), "{head}");
        assert_eq!(server.chunked().await, (b"onetwo".to_vec(), "x-sum: 6\r\n".to_owned()));

        server
            .send("HTTP/1.1 200 OK\r\nTrailer: X-End\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-End: 9\r\n\r\n")
            .await;
        client.head().await;
        assert_eq!(client.chunked().await, (b"ok".to_vec(), "x-end: 9\r\n".to_owned()));
    }
}

#[tokio::test]
async fn a_declared_length_stays_declared() {
    let (mut client, mut server, _origin, _proxy) =
        through("PUT http://{o}/ HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello").await;
    let head = server.head().await;
    assert_eq!(field(&head, "content-length"), Some("5"));
    assert_eq!(field(&head, "transfer-encoding"), None);
    assert_eq!(server.exactly(5).await, b"hello");
    server.send("HTTP/1.1 200 OK\r\n\r\nuntil the close").await;
    drop(server);
    let head = client.head().await;
    assert_eq!(field(&head, "transfer-encoding"), Some("chunked"));
    assert_eq!(client.chunked().await.0, b"until the close");
}

#[tokio::test]
async fn fields_of_one_hop_stay_on_it() {
    let (mut client, mut server, _origin, _proxy) = through(
        "GET http://{o}/ HTTP/1.1\r\nHost: x\r\nConnection: X-Named, keep-alive\r\nX-Named: 1\r\nKeep-Alive: 5\r\n\
         Proxy-Connection: keep-alive\r\nProxy-Authorization: Basic eA==\r\nUpgrade: h2c\r\nX-End-To-End: 1\r\n\r\n",
    )
    .await;
    let head = server.head().await;
    for gone in ["x-named", "keep-alive", "proxy-connection", "proxy-authorization", "upgrade", "connection"]
    {
        assert_eq!(field(&head, gone), None, "{head}");
    }
    assert_eq!(field(&head, "x-end-to-end"), Some("1"));
    server
        .send(
            "HTTP/1.1 200 OK\r\nConnection: X-Theirs\r\nX-Theirs: 1\r\nProxy-Authenticate: Basic\r\nKeep-Alive: 9\r\n\
             Content-Length: 0\r\nX-Stays: 1\r\n\r\n",
        )
        .await;
    let head = client.head().await;
    for gone in ["x-theirs", "proxy-authenticate", "keep-alive", "connection"] {
        assert_eq!(field(&head, gone), None, "{head}");
    }
    assert_eq!(field(&head, "x-stays"), Some("1"));
}

#[tokio::test]
async fn answers_without_a_body_have_none() {
    for (request, answer, length) in [
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", Some("1000")),
        ("HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", None),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n", None),
        ("GET", "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n\r\n", None),
    ] {
        let (mut client, mut server, origin, _proxy) =
            through(&format!("{request} http://{{o}}/ HTTP/1.1\r\nHost: x\r\n\r\n")).await;
        server.head().await;
        server.send(answer).await;
        let head = client.head().await;
        assert_eq!(field(&head, "content-length"), length, "{head}");
        // The connection is in sync: it accepts another request.
        client.send(format!("GET http://{}/2 HTTP/1.1\r\nHost: x\r\n\r\n", origin.address)).await;
        server.head().await;
        server.send("HTTP/1.1 299 Next\r\nContent-Length: 0\r\n\r\n").await;
        let head = client.head().await;
        assert!(head.starts_with("HTTP/1.1 299 "), "{head}");
    }
}

#[tokio::test]
async fn an_answer_during_an_upload_arrives() {
    let (mut client, mut server, _origin, _proxy) =
        through("POST http://{o}/ HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nbeginning").await;
    server.head().await;
    server.send("HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno").await;
    assert!(client.head().await.starts_with("HTTP/1.1 413 "));
    assert_eq!(client.exactly(2).await, b"no");
}

/// The proxy's response to a request that it does not forward.
async fn refused(request: &str) -> (String, String) {
    let proxy = Proxy::start().await;
    let request = request.replace("{p}", &proxy.address.to_string());
    let mut client = Raw::asking(proxy.address, request).await;
    let head = client.head().await;
    let length = field(&head, "content-length").map_or(0, |length| length.parse().unwrap());
    let body = String::from_utf8(client.exactly(length).await).unwrap();
    (head, body)
}

#[tokio::test]
async fn targets_that_cannot_be_forwarded_are_refused_with_a_reason() {
    for (target, status, reason) in [
        ("ftp://example.com/", "501", "ftp"),
        ("http://user:word@example.com/", "400", "user name"),
        ("http://example.com:99999/", "400", "port"),
    ] {
        let (head, body) = refused(&format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{target}: {head}");
        assert!(field(&head, "proxy-status").unwrap_or_default().contains(reason), "{target}: {head}");
        assert_eq!(field(&head, "content-type"), Some("application/problem+json"));
        assert!(body.contains(reason), "{target}: {body}");
        assert!(!head.contains("word") && !body.contains("word"), "no password in an answer");
    }
    let (head, _) = refused(
        "POST http://127.0.0.1:1/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    )
    .await;
    assert!(head.starts_with("HTTP/1.1 501 "), "{head}");
}

#[tokio::test]
async fn the_proxy_explains_itself_and_never_loops() {
    // Its own address is not forwarded: it responds itself.
    for target in ["/", "http://{p}/"] {
        let (head, body) = refused(&format!("GET {target} HTTP/1.1\r\nHost: {{p}}\r\n\r\n")).await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert!(body.contains("curl -x http://127.0.0.1:"), "{body}");
    }

    // Another proxy in between returns a request to its sender.
    let proxy = Proxy::start().await;
    let origin = RawOrigin::start().await;
    let mut client =
        Raw::asking(proxy.address, format!("GET http://{}/ HTTP/1.1\r\nHost: x\r\n\r\n", origin.address))
            .await;
    let mut between = origin.accept().await;
    let head = between.head().await;
    let via = field(&head, "via").unwrap();
    let back = format!("GET http://{}/ HTTP/1.1\r\nHost: x\r\nVia: {via}\r\n\r\n", origin.address);
    let looped = Raw::asking(proxy.address, back).await.head().await;
    assert!(looped.starts_with("HTTP/1.1 508 ") && looped.contains("proxy_loop_detected"), "{looped}");
    between.send("HTTP/1.1 508 Loop\r\nContent-Length: 0\r\n\r\n").await;
    assert!(client.head().await.starts_with("HTTP/1.1 508 "));
}

#[tokio::test]
async fn an_origin_that_is_not_there_is_a_502_and_a_slow_one_a_504() {
    // A port that was free a moment ago.
    let gone = RawOrigin::start().await.address;
    for request in [
        format!("GET http://{gone}/ HTTP/1.1\r\nHost: x\r\n\r\n"),
        format!("CONNECT {gone} HTTP/1.1\r\nHost: x\r\n\r\n"),
    ] {
        let (head, _) = refused(&request).await;
        assert!(head.starts_with("HTTP/1.1 502 "), "{head}");
        assert!(head.contains("tollpass; error=connection_refused"), "{head}");
    }

    let (deaf, _queue) = deaf().await;
    let proxy = Proxy::with(ProxySettings {
        limits: Limits { connect_timeout: Duration::from_millis(100), ..Limits::default() },
        ..ProxySettings::default()
    })
    .await;
    for request in [
        format!("GET http://{deaf}/ HTTP/1.1\r\nHost: x\r\n\r\n"),
        format!("CONNECT {deaf} HTTP/1.1\r\nHost: x\r\n\r\n"),
    ] {
        let head = Raw::asking(proxy.address, request).await.head().await;
        assert!(head.starts_with("HTTP/1.1 504 "), "{head}");
        assert!(head.contains("tollpass; error=connection_timeout"), "{head}");
    }
}

/// An address to which a connection neither succeeds nor fails while the rest is held.
async fn deaf() -> (SocketAddr, (TcpListener, Vec<TcpStream>)) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    // Never accepted, so the queue fills up.
    let mut queue = Vec::new();
    while let Ok(stream) = tokio::time::timeout(Duration::from_millis(200), TcpStream::connect(address)).await
    {
        queue.push(stream.unwrap());
        assert!(queue.len() < 100, "the queue does not fill up");
    }
    (address, (listener, queue))
}

#[tokio::test]
async fn a_malformed_or_missing_answer_is_a_502() {
    for (answer, error) in [
        ("", "http_response_incomplete"),
        ("HTTP/1.1 200 OK\r\nHalf", "http_response_incomplete"),
        ("SSH-2.0-nonsense\r\n\r\n", "http_protocol_error"),
        (
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
            "http_protocol_error",
        ),
        (
            &format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(2_000_000)),
            "http_response_header_section_size",
        ),
    ] {
        let (mut client, mut server, origin, _proxy) =
            through("GET http://{o}/ HTTP/1.1\r\nHost: x\r\n\r\n").await;
        server.head().await;
        // The proxy may close before it has read all of it.
        let _ = server.stream.write_all(answer.as_bytes()).await;
        let _ = server.stream.shutdown().await;
        let head = client.head().await;
        assert!(head.starts_with("HTTP/1.1 502 "), "{head}");
        assert!(head.contains(error), "{error}: {head}");
        assert!(origin.is_left_alone().await, "a fresh connection that failed is not tried again");
    }
}

#[tokio::test]
async fn heads_are_limited_in_size_number_and_time() {
    let settings = || ProxySettings {
        limits: Limits { head_bytes: 8192, head_timeout: Duration::from_millis(200), ..Limits::default() },
        ..ProxySettings::default()
    };
    let proxy = Proxy::with(settings()).await;
    for fields in ["X: ".to_owned() + &"x".repeat(9000) + "\r\n", "X: 1\r\n".repeat(101)] {
        let request = format!("GET http://127.0.0.1:1/ HTTP/1.1\r\nHost: x\r\n{fields}\r\n");
        let head = Raw::asking(proxy.address, request).await.head().await;
        assert!(head.starts_with("HTTP/1.1 431 "), "{head}");
    }
    let mut endless = Raw::asking(proxy.address, "GET http://127.0.0.1:1/ HTTP/1.1\r\nX: ").await;
    let flood = async { while endless.stream.write_all(&[b'x'; 65536]).await.is_ok() {} };
    soon("the end of an endless head", flood).await;

    let mut slow = Raw::asking(proxy.address, "GET http://127.0.0.1:1/ HTTP/1.1\r\nHo").await;
    assert_eq!(slow.rest().await, b"", "closed without an answer once the time is up");
}

/// Two requests over one connection to the origin, which closes it after reading the second.
async fn stale(second: Request<Body>) -> (Result<Response<Body>, ForwardError>, RawOrigin) {
    let origin = RawOrigin::start().await;
    let forward = Forward::new(&ProxySettings::default());
    let pays = second.extensions().get::<CarriesPayment>().is_some();
    let mut first = request(Method::GET, &origin, Body::Empty);
    if pays {
        first.extensions_mut().insert(CarriesPayment);
    }
    let serve = async {
        let mut server = origin.accept().await;
        server.head().await;
        server.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
        server.head().await;
        drop(server);
        // If it is resent, it gets a response on the new connection.
        let mut server = origin.accept().await;
        server.head().await;
        server.send("HTTP/1.1 299 Again\r\nContent-Length: 0\r\n\r\n").await;
        std::future::pending::<()>().await;
    };
    let ask = async {
        let response = forward.clone().oneshot(first).await.unwrap();
        response.into_body().collect().await.unwrap();
        // All runs on one thread: this lets the connection return to the pool.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        let (mut parts, body) = second.into_parts();
        parts.uri = format!("http://{}/2", origin.address).parse().unwrap();
        forward.clone().oneshot(Request::from_parts(parts, body)).await
    };
    let result = tokio::select! {
        result = soon("an answer", ask) => result,
        () = serve => unreachable!("it never ends"),
    };
    (result, origin)
}

fn request(method: Method, origin: &RawOrigin, body: Body) -> Request<Body> {
    Request::builder().method(method).uri(format!("http://{}/", origin.address)).body(body).unwrap()
}

#[tokio::test]
async fn a_dead_pooled_connection_is_tried_once_more_where_that_does_no_harm() {
    let any = RawOrigin::start().await;
    for method in [Method::GET, Method::HEAD, Method::OPTIONS, Method::PUT, Method::DELETE] {
        let (result, _) = stale(request(method.clone(), &any, Body::Empty)).await;
        assert_eq!(result.unwrap().status(), 299, "{method}");
    }
}

#[tokio::test]
async fn a_connection_that_its_origin_closes_while_it_is_idle_is_closed_at_once() {
    let origin = RawOrigin::start().await;
    let forward = Forward::new(&ProxySettings::default());
    for method in [Method::GET, Method::PUT] {
        let body = if method == Method::PUT { Body::full("x") } else { Body::Empty };
        let asked = tokio::spawn(forward.clone().oneshot(request(method, &origin, body)));
        let mut server = origin.accept().await;
        server.head().await;
        server.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab").await;
        let response = asked.await.unwrap().unwrap();
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "ab");
        server.finish().await;
        assert!(soon("the other side's close", server.rest()).await.len() <= 1);
    }
}

#[tokio::test]
async fn a_request_that_the_origin_may_have_received_is_not_sent_again() {
    let any = RawOrigin::start().await;
    let mut paying = request(Method::GET, &any, Body::Empty);
    paying.extensions_mut().insert(CarriesPayment);
    for (why, second) in [
        ("not idempotent", request(Method::POST, &any, Body::Empty)),
        ("it has a body", request(Method::PUT, &any, Body::full("x"))),
        ("it carries a payment", paying),
    ] {
        let (result, origin) = stale(second).await;
        let error = result.unwrap_err();
        assert!(matches!(error, ForwardError::Lost(_)), "{why}: {error:?}");
        assert!(!error.is_unsent(), "{why}");
        assert!(origin.is_left_alone().await, "{why}");
    }
}

#[tokio::test]
async fn a_request_body_that_breaks_off_is_the_clients_fault() {
    let origin = RawOrigin::start().await;
    let proxy = Proxy::start().await;
    let request =
        format!("POST http://{}/ HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf", origin.address);
    let client = Raw::asking(proxy.address, &request).await;
    let mut server = origin.accept().await;
    server.head().await;
    server.exactly(4).await;
    drop(client);
    assert_eq!(server.rest().await, b"", "the origin sees the connection end, not a whole body");

    let mut client = Raw::asking(proxy.address, request).await;
    let mut server = origin.accept().await;
    server.head().await;
    client.finish().await;
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 400 "), "{head}");
    assert!(head.contains("http_request_error"), "{head}");
}

#[tokio::test]
async fn a_tunnel_passes_bytes_blindly_and_each_half_closes_alone() {
    let (mut client, mut server, _origin, _proxy) =
        through("CONNECT {o} HTTP/1.1\r\nHost: {o}\r\n\r\nsent together with the head").await;
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert_eq!(field(&head, "content-length"), None);
    assert_eq!(server.exactly(27).await, b"sent together with the head");
    server.send("220 hello\r\n").await;
    assert_eq!(client.line().await, "220 hello\r\n");

    client.finish().await;
    assert_eq!(server.rest().await, b"");
    let big = vec![b'z'; 3_000_000];
    let send = async {
        server.send(&big).await;
        server.finish().await;
    };
    let (_, received) = tokio::join!(send, client.rest());
    assert!(received == big, "{} bytes", received.len());
}

#[tokio::test]
async fn a_server_that_speaks_first_is_heard() {
    let (mut client, mut server, _origin, _proxy) =
        through("CONNECT {o} HTTP/1.1\r\nHost: {o}\r\n\r\n").await;
    server.send("SSH-2.0-x\r\n").await;
    client.head().await;
    assert_eq!(client.line().await, "SSH-2.0-x\r\n");
}

#[tokio::test]
async fn a_tunnel_needs_a_port() {
    let (head, _) = refused("CONNECT example.com HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 400 "), "{head}");
}

const WEBSOCKET: &str = "GET http://{o}/ws HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\n\
                         Upgrade: websocket\r\nSec-WebSocket-Key: a\r\n\r\n";

#[tokio::test]
async fn an_upgrade_joins_both_sides() {
    let (mut client, mut server, _origin, _proxy) = through(WEBSOCKET).await;
    let head = server.head().await;
    assert_eq!(field(&head, "upgrade"), Some("websocket"), "{head}");
    assert_eq!(field(&head, "connection"), Some("upgrade"), "{head}");
    assert_eq!(field(&head, "sec-websocket-key"), Some("a"), "{head}");
    server
        .send(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: b\r\n\r\nfirst",
        )
        .await;
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert_eq!(field(&head, "upgrade"), Some("websocket"), "{head}");
    assert_eq!(field(&head, "connection"), Some("upgrade"), "{head}");
    assert_eq!(field(&head, "sec-websocket-accept"), Some("b"), "{head}");
    assert_eq!(client.exactly(5).await, b"first");
    client.send("ping").await;
    assert_eq!(server.exactly(4).await, b"ping");
    server.send("pong").await;
    assert_eq!(client.exactly(4).await, b"pong");
    drop(server);
    assert_eq!(client.rest().await, b"");
}

#[tokio::test]
async fn an_upgrade_that_is_refused_is_an_answer_like_others() {
    let (mut client, mut server, _origin, _proxy) = through(WEBSOCKET).await;
    server.head().await;
    server.send("HTTP/1.1 426 Upgrade Required\r\nContent-Length: 2\r\n\r\nno").await;
    assert!(client.head().await.starts_with("HTTP/1.1 426 "));
    assert_eq!(client.exactly(2).await, b"no");
}

/// Writes until nothing more is accepted; returns how much was written.
async fn stuff(raw: &mut Raw, piece: &[u8], at_most: usize) -> usize {
    let mut taken = 0;
    while taken < at_most {
        let write = raw.stream.write(&piece[..piece.len().min(at_most - taken)]);
        match tokio::time::timeout(Duration::from_secs(1), write).await {
            Ok(written) => taken += written.unwrap(),
            Err(_) => break,
        }
    }
    taken
}

const PLENTY: usize = 200_000_000;
/// The kernel's buffers of four sockets, and some of the proxy.
const BUFFERED: usize = 40_000_000;

#[tokio::test]
async fn an_origin_that_does_not_read_holds_up_the_client() {
    let (mut client, mut server, _origin, _proxy) =
        through(&format!("PUT http://{{o}}/ HTTP/1.1\r\nHost: x\r\nContent-Length: {PLENTY}\r\n\r\n")).await;
    server.head().await;
    let taken = stuff(&mut client, &[b'x'; 65536], PLENTY).await;
    assert!(taken < BUFFERED, "{taken} bytes were taken for an origin that reads none");
    assert_eq!(server.exactly(taken).await.len(), taken);
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_up_the_origin() {
    let (mut client, mut server, _origin, _proxy) =
        through("GET http://{o}/ HTTP/1.1\r\nHost: x\r\n\r\n").await;
    server.head().await;
    server.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {PLENTY}\r\n\r\n")).await;
    let taken = stuff(&mut server, &[b'x'; 65536], PLENTY).await;
    assert!(taken < BUFFERED, "{taken} bytes were taken for a client that reads none");
    client.head().await;
    assert_eq!(client.exactly(taken).await.len(), taken);
}

const GIGABYTE: u64 = 1_000_000_000;
const ALONE: &str = "TOLLPASS_TEST_ALONE";

/// Runs a test in a separate process, since it measures its memory. False in that process.
async fn is_delegated(test: &str) -> bool {
    if std::env::var_os(ALONE).is_some() {
        return false;
    }
    let mut alone = std::process::Command::new(std::env::current_exe().unwrap());
    alone.args(["--exact", test, "--test-threads=1"]).env(ALONE, "1");
    // Every wait in the child is bounded.
    let output = tokio::task::spawn_blocking(move || alone.output()).await.unwrap().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    true
}

/// The resident memory of this process in bytes; `None` if the system does not report it.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()? * 1024)
}

fn gigabyte() -> impl hyper::body::Body<Data = Bytes, Error = std::convert::Infallible> + Send {
    let piece = Bytes::from(vec![b'g'; 64_000]);
    let pieces = (0..GIGABYTE / 64_000).map(move |_| Ok(Frame::data(piece.clone())));
    StreamBody::new(futures_util::stream::iter(pieces))
}

async fn count(mut body: Incoming) -> u64 {
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        bytes += frame.unwrap().data_ref().map_or(0, |data| data.len() as u64);
    }
    bytes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gigabyte_passes_in_little_memory() {
    if is_delegated("transparent::a_gigabyte_passes_in_little_memory").await {
        return;
    }
    let origin = origins::serve(|request: Request<Incoming>| async move {
        if request.method() == Method::GET {
            return Response::new(gigabyte().boxed());
        }
        let counted = count(request.into_body()).await.to_string();
        Response::new(http_body_util::Full::new(Bytes::from(counted)).boxed())
    })
    .await;
    let proxy = Proxy::start().await;
    let before = resident();

    let mut download =
        Raw::asking(proxy.address, format!("GET http://{origin}/ HTTP/1.1\r\nHost: x\r\n\r\n")).await;
    download.head().await;
    let mut received = 0;
    let mut buffer = vec![0; 256 * 1024];
    // The framing of the chunks comes on top.
    while received < GIGABYTE {
        use tokio::io::AsyncReadExt;
        let read = soon("a piece", download.stream.read(&mut buffer)).await.unwrap();
        assert!(read > 0, "closed after {received} bytes");
        received += read as u64;
    }

    let request = format!("PUT http://{origin}/ HTTP/1.1\r\nHost: x\r\nContent-Length: {GIGABYTE}\r\n\r\n");
    let mut upload = Raw::asking(proxy.address, request).await;
    let piece = vec![b'u'; 64_000];
    for _ in 0..GIGABYTE / 64_000 {
        upload.send(&piece).await;
    }
    upload.head().await;
    assert_eq!(upload.exactly(10).await, GIGABYTE.to_string().as_bytes());

    if let (Some(before), Some(after)) = (before, resident()) {
        let growth = after.saturating_sub(before);
        assert!(growth < 20_000_000, "grew by {growth} bytes");
    }
}
