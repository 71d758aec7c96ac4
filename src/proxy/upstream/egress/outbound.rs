//! The outbound proxy: which requests use it, and how tunnels through it are opened. Its refusals are typed errors, never
//! responses of the origin.

use std::fmt;
use std::net::{SocketAddr, UdpSocket};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use http::header::HeaderValue;
use http::{HeaderMap, StatusCode, header};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tracing::{info, warn};

use crate::hosts::host::Host;
use crate::hosts::no_proxy::{Bypass, is_here};
use crate::proxy::upstream::error::DialError;

/// The largest head of an answer to `CONNECT`, in bytes.
const LARGEST_HEAD: usize = 16 * 1024;

/// Which requests use which outbound proxy.
#[derive(Clone, Debug, Default)]
pub struct Outbound {
    /// The proxy for `http` requests.
    pub http: Option<OutboundProxy>,
    /// The proxy for tunnels, which is everything else.
    pub tunnel: Option<OutboundProxy>,
    /// The hosts that are reached directly.
    pub bypass: Bypass,
}

/// A proxy that speaks HTTP without TLS.
#[derive(Clone, Debug)]
pub struct OutboundProxy {
    pub(super) host: String,
    pub(super) port: u16,
    /// Marked as sensitive, so that no log shows it.
    pub(crate) authorization: Option<HeaderValue>,
}

impl OutboundProxy {
    /// A proxy at `host` (a name, or an address without brackets); `credentials` are `user:password`.
    #[must_use]
    pub fn new(host: impl Into<String>, port: u16, credentials: Option<&str>) -> Self {
        let authorization = credentials.and_then(|credentials| {
            let mut value =
                HeaderValue::try_from(format!("Basic {}", BASE64_STANDARD.encode(credentials))).ok()?;
            value.set_sensitive(true);
            Some(value)
        });
        Self { host: host.into(), port, authorization }
    }

    /// Whether this is ourselves, listening on `listen`: the environment may name our own address as proxy.
    fn is_at(&self, listen: SocketAddr) -> bool {
        if self.port != listen.port() {
            return false;
        }
        let ours = listen.ip().to_canonical();
        if is_here(&self.host) {
            return ours.is_loopback() || ours.is_unspecified();
        }
        let Some(address) = Host::read(&self.host).ok().and_then(Host::address) else { return false };
        // Only an address of this machine can be bound.
        address == ours || (ours.is_unspecified() && UdpSocket::bind((address, 0)).is_ok())
    }

    /// Opens a tunnel to `target` over a new connection to the proxy. Reads no byte of the tunnel.
    pub(super) async fn tunnel(
        &self,
        stream: &mut TcpStream,
        target: &str,
        via: &HeaderMap,
    ) -> Result<(), DialError> {
        let broken = |reason: String| DialError::BadProxy { proxy: self.to_string(), reason };
        let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n").into_bytes();
        let ours = self.authorization.iter().map(|value| (&header::PROXY_AUTHORIZATION, value));
        let received = via.get_all(header::VIA).iter().map(|value| (&header::VIA, value));
        for (name, value) in received.chain(ours) {
            request.extend_from_slice(name.as_str().as_bytes());
            request.extend_from_slice(b": ");
            request.extend_from_slice(value.as_bytes());
            request.extend_from_slice(b"\r\n");
        }
        request.extend_from_slice(b"\r\n");
        let exchange = async {
            stream.write_all(&request).await?;
            loop {
                let head = read_head(stream).await?;
                match status(&head) {
                    Some(status) if status.is_informational() => {}
                    status => return Ok(status),
                }
            }
        };
        let answered = exchange.await.map_err(|error: std::io::Error| broken(error.to_string()))?;
        match answered {
            Some(status) if status.is_success() => Ok(()),
            Some(status) => {
                Err(DialError::Denied { proxy: self.to_string(), target: target.to_owned(), status })
            }
            None => Err(broken("its response is not HTTP".to_owned())),
        }
    }
}

impl fmt::Display for OutboundProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", authority(&self.host, self.port))
    }
}

impl Outbound {
    /// Drops proxies that are ourselves, listening at these addresses; logs the others.
    #[must_use]
    pub fn other_than(mut self, listens: &[SocketAddr]) -> Self {
        for (proxy, what) in [(&mut self.http, "http"), (&mut self.tunnel, "tunnels")] {
            let Some(named) = proxy else { continue };
            if listens.iter().any(|listen| named.is_at(*listen)) {
                warn!(proxy = %named, what, "the outbound proxy is this proxy itself; connecting directly");
                *proxy = None;
            } else {
                info!(proxy = %named, what, "using upstream proxy");
            }
        }
        self
    }

    /// The proxy for `http` requests to a host.
    pub(super) fn http(&self, host: &str, port: u16) -> Option<&OutboundProxy> {
        self.http.as_ref().filter(|_| self.is_meant(host, port))
    }

    /// The proxy for tunnels to a host.
    pub(super) fn tunnel(&self, host: &str, port: u16) -> Option<&OutboundProxy> {
        self.tunnel.as_ref().filter(|_| self.is_meant(host, port))
    }

    fn is_meant(&self, host: &str, port: u16) -> bool {
        !is_here(host) && !self.bypass.covers(host, port)
    }
}

/// The authority for `CONNECT` and `Host`.
pub(super) fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Reads a head up to its empty line, and no byte of the tunnel after it.
async fn read_head(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut head = Vec::new();
    let mut seen = [0; 1024];
    while head.len() < LARGEST_HEAD {
        let count = stream.peek(&mut seen).await?;
        if count == 0 {
            return Err(std::io::Error::other("it closed the connection"));
        }
        let before = head.len();
        head.extend(seen.iter().take(count));
        // The empty line may have started in the previous read.
        let from = before.saturating_sub(3);
        let end =
            head.split_at(from).1.windows(4).position(|part| part == b"\r\n\r\n").map(|at| from + at + 4);
        head.truncate(end.unwrap_or(head.len()));
        // Consume the head, which has only been peeked at.
        stream.read_exact(seen.split_at_mut(head.len() - before).0).await?;
        if end.is_some() {
            return Ok(head);
        }
    }
    Err(std::io::Error::other(format!("the head of its response is larger than {LARGEST_HEAD} bytes")))
}

/// The status in a head of HTTP/1.
fn status(head: &[u8]) -> Option<StatusCode> {
    let rest = head.strip_prefix(b"HTTP/1.")?;
    let [b'0' | b'1', b' ', first, second, third, b' ' | b'\r', ..] = rest else { return None };
    StatusCode::from_bytes(&[*first, *second, *third]).ok()
}

#[cfg(test)]
mod tests {
    use crate::proxy::upstream::egress::outbound::*;
    use std::net::Ipv4Addr;
    use tokio::net::TcpListener;

    #[test]
    fn a_password_is_shown_nowhere() {
        let proxy = OutboundProxy::new("p", 1, Some("me:hunter2"));
        let shown =
            format!("{proxy} {proxy:?} {:?}", Outbound { http: Some(proxy.clone()), ..Outbound::default() });
        assert!(
            !shown.contains("hunter2") && !shown.contains(&BASE64_STANDARD.encode("me:hunter2")),
            "{shown}"
        );
    }

    #[test]
    fn we_know_ourselves_under_every_name() {
        let loopback = "127.0.0.1:8402";
        for (host, port, listen, expected) in [
            ("127.0.0.1", 8402, loopback, true),
            ("localhost", 8402, loopback, true),
            ("LocalHost.", 8402, loopback, true),
            ("::1", 8402, loopback, true),
            ("0.0.0.0", 8402, loopback, true),
            ("::ffff:127.0.0.1", 8402, loopback, true),
            ("127.0.0.1", 8403, loopback, false),
            ("10.0.0.1", 8402, loopback, false),
            ("proxy.example", 8402, loopback, false),
            ("localhost", 8402, "0.0.0.0:8402", true),
            ("127.0.0.1", 8402, "[::]:8402", true),
            ("10.1.2.3", 8402, "10.1.2.3:8402", true),
            ("localhost", 8402, "10.1.2.3:8402", false),
            // A documentation address (RFC 5737), which no machine has.
            ("203.0.113.1", 8402, "0.0.0.0:8402", false),
        ] {
            let proxy = OutboundProxy::new(host, port, None);
            assert_eq!(proxy.is_at(listen.parse().unwrap()), expected, "{host}:{port} {listen}");
        }
    }

    #[test]
    fn this_machine_and_listed_hosts_are_reached_directly() {
        let proxy = Some(OutboundProxy::new("proxy.example", 3128, None));
        let bypass = Bypass::read("internal.example 10.0.0.0/8").0;
        let outbound = Outbound { http: proxy.clone(), tunnel: proxy, bypass };
        for (host, is_direct) in [
            ("localhost", true),
            ("127.0.0.1", true),
            ("::1", true),
            ("a.internal.example", true),
            ("10.9.9.9", true),
            ("example.com", false),
            ("11.0.0.1", false),
        ] {
            assert_eq!(outbound.http(host, 80).is_none(), is_direct, "{host}");
            assert_eq!(outbound.tunnel(host, 443).is_none(), is_direct, "{host}");
        }
    }

    /// The result of a tunnel whose response arrives in these pieces, and the unread rest.
    async fn answered(pieces: &[&[u8]]) -> (Result<(), DialError>, Vec<u8>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let mut stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        server.set_nodelay(true).unwrap();
        let proxy = OutboundProxy::new("p", 1, None);
        let serve = async {
            for piece in pieces {
                server.write_all(piece).await.unwrap();
                // On one thread, this lets the other side read each piece alone.
                for _ in 0..20 {
                    tokio::task::yield_now().await;
                }
            }
            server.shutdown().await.unwrap();
        };
        let via = HeaderMap::new();
        let (result, ()) = tokio::join!(proxy.tunnel(&mut stream, "a:1", &via), serve);
        let mut rest = Vec::new();
        // A reset is as good as an end here.
        let _ = stream.read_to_end(&mut rest).await;
        (result, rest)
    }

    #[tokio::test]
    async fn bytes_after_the_head_belong_to_the_tunnel() {
        for pieces in [
            &[&b"HTTP/1.1 200 OK\r\n\r\nSSH-2.0"[..]][..],
            &[b"HTTP/1.0 200 Connection established\r\nX: y\r\n\r", b"\nSSH-2.0"],
            &[b"H", b"TTP/1.1 299\r\n", b"\r\nSSH", b"-2.0"],
            &[b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\nSSH-2.0"],
        ] {
            let (result, rest) = answered(pieces).await;
            assert!(result.is_ok(), "{result:?}");
            assert_eq!(rest, b"SSH-2.0");
        }
    }

    #[tokio::test]
    async fn any_answer_except_success_is_an_error() {
        let long = "x".repeat(2 * LARGEST_HEAD);
        for (answer, expected) in [
            ("HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n", "407"),
            ("HTTP/1.1 302 Found\r\n\r\n", "302"),
            ("HTTP/1.1 502\r\n\r\n", "502"),
            ("SSH-2.0-OpenSSH\r\n\r\n", "not HTTP"),
            ("HTTP/1.1 2000 OK\r\n\r\n", "not HTTP"),
            ("HTTP/1.1 200 OK\r\n", "closed"),
            ("", "closed"),
            (&format!("HTTP/1.1 200 OK\r\nX: {long}"), "larger than"),
        ] {
            let (result, _) = answered(&[answer.as_bytes()]).await;
            let error = result.unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains("http://p:1"), "{answer:.40}: {error}");
        }
    }
}
