//! What an origin receives for any bytes that a client sends: well-formed, unambiguous requests, or nothing.
//!
//! An input is all that a client sends on one connection. The proxy's own code parses it and prepares what is sent;
//! client and origin are in-memory streams. The origin's bytes are checked with `strict`; if the input is valid under
//! `strict` itself, both must agree.

use std::convert::Infallible;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::uri::PathAndQuery;
use http::{Request, Response, Uri};
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1::handshake;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex, join, sink};
use tollpass::protocol::ReasonCode;
use tollpass::proxy::dry_run::{Disposition, dispose, http1_builder};
use tollpass::proxy::{Body, Forward, ProxySettings, error_response};

use super::strict;
use super::strict::Framing;

/// Hop-by-hop headers, which no origin sees; others are checked one by one.
const OF_ONE_HOP: [&str; 4] = ["keep-alive", "proxy-connection", "proxy-authorization", "proxy-authenticate"];
/// Headers that would take effect if a recipient accepted them as trailers.
const NEVER_TRAILING: [&str; 6] =
    ["content-length", "transfer-encoding", "host", "connection", "te", "authorization"];

/// Lets the proxy process `input` to its end.
pub fn run(input: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(async {
        let served = serve(input);
        tokio::time::timeout(Duration::from_secs(5), served).await.expect("the proxy waits for something");
    });
}

async fn serve(input: &[u8]) {
    // It connects to nothing here, so one instance is enough.
    static PROXY: LazyLock<Forward> = LazyLock::new(|| Forward::new(&ProxySettings::default()));
    let asked = read_strictly(input);
    let count = AtomicUsize::new(0);
    let service = service_fn(|request: Request<Incoming>| {
        let asked = asked.get(count.fetch_add(1, Ordering::Relaxed));
        async move { Ok::<_, Infallible>(answer(&PROXY, request.map(Body::from), asked).await) }
    });
    // Everything has been sent and must be answered before the end of the stream is noticed.
    let served = http1_builder(&ProxySettings::default())
        .half_close(true)
        .serve_connection(TokioIo::new(join(input, sink())), service);
    // Invalid HTTP from a client is not an error of the proxy.
    let _ = served.await;
}

/// The requests that `input` begins with, as far as they are unambiguous.
fn read_strictly(input: &[u8]) -> Vec<(strict::Head, Option<strict::Body>)> {
    let mut requests = Vec::new();
    let mut rest = input;
    while let Ok(Some((head, length))) = strict::head(rest) {
        rest = &rest[length..];
        let body = strict::body(head.framing, rest);
        let is_whole = matches!(body, Ok(Some(_)));
        let body = body.ok().flatten().map(|(body, length)| {
            rest = &rest[length..];
            body
        });
        requests.push((head, body));
        if !is_whole {
            break;
        }
    }
    requests
}

async fn answer(
    forward: &Forward,
    request: Request<Body>,
    asked: Option<&(strict::Head, Option<strict::Body>)>,
) -> Response<Body> {
    let named: Vec<String> = request.headers().get_all("connection").iter().flat_map(names).collect();
    let request = match dispose(forward, request) {
        Err(error) => return error_response::response(&error),
        Ok(Disposition::Tunnel(host, port)) => {
            let is_host = !host.is_empty() && !host.contains(['@', '[', ']', '/', '?', '#', ' ']);
            assert!(is_host && port > 0, "a tunnel to {host} port {port}");
            return problem("no tunnels here");
        }
        Ok(Disposition::Answer(answer)) => return answer,
        Ok(Disposition::Send(request)) => *request,
    };
    let expected = Expected::of(&request);
    let (answer, received) = exchange(request).await;
    if let Some((head, body)) = received {
        expected.holds_for(&head, &named);
        if let Some((asked, asked_body)) = asked {
            is_what_was_asked(&head, asked);
            if let (Some(body), Some(asked_body)) = (body, asked_body) {
                assert_eq!(body.bytes, asked_body.bytes, "another body");
            }
        }
    }
    answer
}

/// The names listed in a `Connection` header, in lower case.
fn names(line: &http::HeaderValue) -> Vec<String> {
    let names = line.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    names.filter_map(|name| std::str::from_utf8(name).ok()).map(str::to_ascii_lowercase).collect()
}

type Received = (strict::Head, Option<strict::Body>);

/// Sends a request like the pool does, to an origin that sends no response.
async fn exchange(mut request: Request<Body>) -> (Response<Body>, Option<Received>) {
    let path = request.uri().path_and_query().filter(|path| path.as_str() != "/").cloned();
    *request.uri_mut() = path.map_or_else(Uri::default, Uri::from);
    let (near, far) = duplex(64 * 1024);
    let (mut sender, connection) = handshake(TokioIo::new(near)).await.expect("a connection");
    let sent = async {
        let answer = sender.send_request(request).await;
        drop(sender);
        answer
    };
    let (answer, _, received) = tokio::join!(sent, connection, origin(far));
    let answer = match answer {
        Ok(_) => Response::new(Body::Empty),
        Err(error) => problem(&error.to_string()),
    };
    (answer, received)
}

/// Receives one request and nothing after it. A body that the client never finished is missing.
async fn origin(mut stream: DuplexStream) -> Option<Received> {
    let mut bytes = Vec::new();
    let head = next(&mut stream, &mut bytes, strict::head).await?;
    if head.all("expect").next().is_some() {
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.ok()?;
    }
    let read = |bytes: &[u8]| strict::body(head.framing, bytes);
    let Some(body) = next(&mut stream, &mut bytes, read).await else { return Some((head, None)) };
    let bad = body.trailers.iter().find(|field| NEVER_TRAILING.contains(&&*field.0));
    assert!(bad.is_none(), "{bad:?} trails");
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.ok()?;
    // A broken connection counts like its end.
    let _ = stream.read_buf(&mut bytes).await;
    assert!(bytes.is_empty(), "there is something behind the request: {}", bytes.escape_ascii());
    Some((head, Some(body)))
}

/// The next item, which must be unambiguous; `None` if it is incomplete.
async fn next<T>(
    stream: &mut DuplexStream,
    bytes: &mut Vec<u8>,
    read: impl Fn(&[u8]) -> Result<Option<(T, usize)>, strict::Doubt>,
) -> Option<T> {
    loop {
        match read(bytes) {
            Err(doubt) => panic!("{doubt}: {}", bytes.escape_ascii()),
            Ok(Some((found, length))) => {
                bytes.drain(..length);
                return Some(found);
            }
            Ok(None) if stream.read_buf(bytes).await.unwrap_or(0) == 0 => return None,
            Ok(None) => {}
        }
    }
}

/// The expected content of the request to be sent.
struct Expected {
    method: String,
    target: String,
    authority: String,
    framing: Framing,
}

impl Expected {
    fn of(request: &Request<Body>) -> Self {
        let (uri, body) = (request.uri(), request.body());
        let framing = match body.size_hint().exact() {
            _ if body.is_end_stream() => Framing::Absent,
            Some(length) => Framing::Length(usize::try_from(length).unwrap_or(usize::MAX)),
            None => Framing::Chunked,
        };
        Self {
            method: request.method().to_string(),
            target: uri.path_and_query().map_or("/".to_owned(), PathAndQuery::to_string),
            authority: uri.authority().expect("a target with a host").to_string(),
            framing,
        }
    }

    fn holds_for(&self, head: &strict::Head, named: &[String]) {
        assert_eq!((&head.method, &head.target), (&self.method, &self.target));
        let is_path = head.target.starts_with('/') || (head.target == "*" && head.method == "OPTIONS");
        assert!(is_path && !head.target.contains('#'), "{}", head.target);
        assert_eq!(head.all("host").collect::<Vec<_>>(), [without_zone(&self.authority).as_bytes()]);
        assert!(!self.authority.contains(['@', '/', '?', '#', ' ', '\\']), "{}", self.authority);
        let is_nothing = self.framing == Framing::Absent && head.framing == Framing::Length(0);
        assert!(head.framing == self.framing || is_nothing, "{:?} became {:?}", self.framing, head.framing);

        for name in OF_ONE_HOP {
            assert!(head.all(name).next().is_none(), "{name} is of one hop: {head:?}");
        }
        let own: Vec<&[u8]> = head.all("connection").collect();
        assert!(matches!(own[..], [] | [b"te"] | [b"upgrade"] | [b"te, upgrade"]), "{own:?}");
        let says = |option: &[u8]| {
            own.iter().any(|own| own.split(|byte| *byte == b',').any(|one| one.trim_ascii() == option))
        };
        for (name, option) in [("te", &b"te"[..]), ("upgrade", b"upgrade")] {
            assert_eq!(
                head.all(name).next().is_some(),
                says(option),
                "{name} and Connection differ: {head:?}"
            );
        }
        assert!(head.all("te").all(|te| te == b"trailers"), "{head:?}");
        assert!(head.all("via").last().is_some_and(|via| via.windows(10).any(|part| part == b" tollpass ")));
        // A private name that has no other meaning.
        let left = named.iter().find(|name| name.starts_with("x-") && head.all(name).next().is_some());
        assert!(left.is_none(), "{left:?} was named by Connection: {head:?}");
    }
}

/// The target of a request in absolute form, split by hand.
fn is_what_was_asked(head: &strict::Head, asked: &strict::Head) {
    let (_, rest) = asked.target.split_once("://").expect("absolute form");
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let path = path.split('#').next().unwrap_or_default();
    let target = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    // Without a path, the request is for the whole server. RFC 9112 section 3.2.4.
    let is_whole_server = asked.method == "OPTIONS" && path.is_empty() && head.target == "*";
    assert!(head.target == target || is_whole_server, "{} instead of {}", head.target, asked.target);
    assert_eq!(head.method, asked.method);
    assert_eq!(
        head.all("host").next(),
        Some(&*without_zone(authority).into_bytes()),
        "asked for {}",
        asked.target
    );
}

/// The zone of an address is local to this machine.
fn without_zone(authority: &str) -> String {
    match (authority.find('%'), authority.find(']')) {
        (Some(zone), Some(end)) if zone < end => format!("{}{}", &authority[..zone], &authority[end..]),
        _ => authority.to_owned(),
    }
}

fn problem(details: &str) -> Response<Body> {
    error_response::problem(http::StatusCode::BAD_GATEWAY, None, ReasonCode::BadTarget, details)
}
