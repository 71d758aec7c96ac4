//! The six ways in to the proxy, each as a client takes it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};

use tokio::net::TcpStream;

use super::raw::{Raw, Stream, field, soon};
use super::secure::trusting;
use super::wire::{Body, Got, Wire, whole};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WayIn {
    Plain,
    /// A `CONNECT` that the proxy does not intercept.
    Tunnel,
    /// HTTP/1.1 in an intercepted `CONNECT`.
    Http1,
    /// HTTP/2 in an intercepted `CONNECT`.
    Http2,
    Route,
    WebSocket,
}

pub const WAYS_IN: [WayIn; 6] =
    [WayIn::Plain, WayIn::Tunnel, WayIn::Http1, WayIn::Http2, WayIn::Route, WayIn::WebSocket];

/// What a client asks for.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: Method,
    pub path: &'static str,
    pub headers: Vec<(&'static str, String)>,
    /// The `Proxy-Authorization` of the request, or of its `CONNECT`.
    pub credentials: Vec<String>,
    /// What comes before the path of the route: its token, with a slash.
    pub route_token: String,
    pub body: Bytes,
}

impl Default for Asked {
    fn default() -> Self {
        Self {
            method: Method::GET,
            path: "/paid",
            headers: Vec::new(),
            credentials: Vec::new(),
            route_token: String::new(),
            body: Bytes::new(),
        }
    }
}

/// A proxy, and a seller behind it that has the same resources with TLS and without, at one address. The proxy has the route
/// `/seller` to it, and reads the tunnels to that address only, not those to localhost.
#[derive(Clone, Debug)]
pub struct Entrances {
    pub proxy: SocketAddr,
    /// The certificate of the proxy's CA.
    pub ca: PathBuf,
    pub plain: SocketAddr,
    pub secure: SocketAddr,
    /// The certificate of the seller's CA.
    pub seller_ca: PathBuf,
}

const UPGRADE: &[(&str, &str)] = &[("connection", "Upgrade"), ("upgrade", "websocket")];

impl Entrances {
    /// Asks by this way; the response is that to the `CONNECT` if it is refused.
    pub async fn ask(&self, way: WayIn, asked: &Asked) -> Got {
        soon("a response", async {
            match way {
                WayIn::Plain => self.ask_plainly(asked, &[]).await,
                WayIn::WebSocket => self.ask_plainly(asked, UPGRADE).await,
                WayIn::Tunnel => {
                    let place = format!("localhost:{}", self.plain.port());
                    match self.connect(&place, asked).await {
                        Ok(stream) => send(stream, false, asked.request(asked.path, &[])).await,
                        Err(refused) => refused,
                    }
                }
                WayIn::Http1 | WayIn::Http2 => {
                    let place = self.secure.to_string();
                    let stream = match self.connect(&place, asked).await {
                        Ok(stream) => stream,
                        Err(refused) => return refused,
                    };
                    self.ask_over_tls(stream, &self.ca, way == WayIn::Http2, asked).await
                }
                WayIn::Route => {
                    let host = format!("localhost:{}", self.proxy.port());
                    let target = format!("{}/seller{}", asked.route_token, asked.path);
                    let mut request = asked.request(&target, &[("host", &host)]);
                    authorize(&mut request, &asked.credentials);
                    Wire::connect(self.proxy).await.ask(request).await.unwrap()
                }
            }
        })
        .await
    }

    /// Asks the seller for the same, without the proxy.
    pub async fn ask_seller(&self, way: WayIn, asked: &Asked) -> Got {
        soon("a response", async {
            let more = if way == WayIn::WebSocket { UPGRADE } else { &[] };
            if matches!(way, WayIn::Http1 | WayIn::Http2) {
                let stream = TcpStream::connect(self.secure).await.unwrap();
                return self.ask_over_tls(stream, &self.seller_ca, way == WayIn::Http2, asked).await;
            }
            let stream = TcpStream::connect(self.plain).await.unwrap();
            send(stream, false, asked.request(asked.path, more)).await
        })
        .await
    }

    async fn ask_over_tls<S: Stream + 'static>(
        &self,
        stream: S,
        ca: &Path,
        is_http2: bool,
        asked: &Asked,
    ) -> Got {
        let (place, alpn) = (self.secure.to_string(), if is_http2 { "h2" } else { "http/1.1" });
        let stream = trusting(ca, stream, &self.secure.ip().to_string(), &[alpn]).await.unwrap();
        let request = if is_http2 {
            asked.request(&format!("https://{place}{}", asked.path), &[])
        } else {
            asked.request(asked.path, &[("host", &place)])
        };
        send(stream, is_http2, request).await
    }

    async fn ask_plainly(&self, asked: &Asked, more: &[(&str, &str)]) -> Got {
        let mut request = asked.request(&format!("http://{}{}", self.plain, asked.path), more);
        authorize(&mut request, &asked.credentials);
        Wire::connect(self.proxy).await.ask(request).await.unwrap()
    }

    async fn connect(&self, place: &str, asked: &Asked) -> Result<Box<dyn Stream>, Got> {
        let lines: String =
            asked.credentials.iter().map(|line| format!("Proxy-Authorization: {line}\r\n")).collect();
        let request = format!("CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n{lines}\r\n");
        let mut raw = Raw::asking(self.proxy, request).await;
        let head = raw.head().await;
        if head.starts_with("HTTP/1.1 200 ") {
            return Ok(raw.stream);
        }
        let status: StatusCode = head[9..12].parse().unwrap();
        let mut headers = HeaderMap::new();
        for line in head.trim_end().lines().skip(1) {
            let (name, value) = line.split_once(':').unwrap();
            headers.append(name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value.trim()).unwrap());
        }
        let length = field(&head, "content-length").map_or(0, |length| length.parse().unwrap());
        Err(Got { status, headers, body: raw.exactly(length).await.into() })
    }
}

impl Asked {
    fn request(&self, target: &str, more: &[(&str, &str)]) -> Request<Body> {
        let mut request = Request::builder().method(&self.method).uri(target);
        let own = self.headers.iter().map(|(name, value)| (*name, value.as_str()));
        for (name, value) in own.chain(more.iter().copied()) {
            request = request.header(name, value);
        }
        request.body(whole(self.body.clone())).unwrap()
    }
}

fn authorize(request: &mut Request<Body>, credentials: &[String]) {
    for line in credentials {
        request.headers_mut().append("proxy-authorization", line.parse().unwrap());
    }
}

/// Sends one request on a connection of its own.
async fn send(stream: impl Stream + 'static, is_http2: bool, request: Request<Body>) -> Got {
    let stream = TokioIo::new(stream);
    let response = if is_http2 {
        let (mut sender, connection) = http2::handshake(TokioExecutor::new(), stream).await.unwrap();
        tokio::spawn(connection);
        sender.send_request(request).await
    } else {
        let (mut sender, connection) = http1::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let mut request = request;
        if !request.headers().contains_key("host") {
            request.headers_mut().insert("host", HeaderValue::from_static("localhost"));
        }
        sender.send_request(request).await
    };
    let (parts, body) = response.unwrap().into_parts();
    Got { status: parts.status, headers: parts.headers, body: body.collect().await.unwrap().to_bytes() }
}
