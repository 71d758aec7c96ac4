//! Reaching an origin, over TCP and, where it is asked for by `https`, over TLS.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::uri::Scheme;
use http::{StatusCode, Uri};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::client::TlsStream;

use super::egress::{Peer, Reach};
use super::parked::Lobby;
use super::stream::{History, Wire};
use super::tls::{Disagreed, Offer, Secure};
use crate::hosts::without_brackets;
use crate::proxy::message::target;

/// Why an origin was not reached. Nothing has been sent to it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum DialError {
    /// The name has no address.
    #[error("the name {host} cannot be resolved: {reason}")]
    Resolve {
        /// The name.
        host: String,
        /// What the resolver said.
        reason: String,
    },
    /// Resolving and connecting took too long.
    #[error("{host} port {port} was not reached within {} ms", within.as_millis())]
    Timeout {
        /// The name or address.
        host: String,
        /// The port.
        port: u16,
        /// The limit.
        within: Duration,
    },
    /// Nobody listens there.
    #[error("{host} port {port} refused the connection")]
    Refused {
        /// The name or address.
        host: String,
        /// The port.
        port: u16,
    },
    /// The outbound proxy was not reached, or did not answer in time.
    #[error("over the outbound proxy {proxy}: {reason}")]
    Outbound {
        /// The proxy.
        proxy: String,
        /// Why not: of the proxy itself, or of the host behind it.
        reason: Box<DialError>,
    },
    /// The outbound proxy does not open a tunnel.
    #[error("the outbound proxy {proxy} answered CONNECT {target} with {status}{}", hint(*status))]
    Denied {
        /// The proxy.
        proxy: String,
        /// The host and port it was asked for.
        target: String,
        /// Its answer.
        status: StatusCode,
    },
    /// What was named as outbound proxy does not answer like one.
    #[error("the outbound proxy {proxy} does not answer CONNECT as a proxy does: {reason}")]
    BadProxy {
        /// The proxy.
        proxy: String,
        /// What it did.
        reason: String,
    },
    /// The system could not connect.
    #[error("{host} port {port} cannot be reached: {reason}")]
    Unreachable {
        /// The name or address.
        host: String,
        /// The port.
        port: u16,
        /// What the system said.
        reason: String,
    },
    /// It did not prove who it is.
    #[error("the certificate of {host} is not trusted: {reason}")]
    Certificate {
        /// The name or address.
        host: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No keys were agreed on.
    #[error("TLS with {host} failed: {reason}")]
    Tls {
        /// The name or address.
        host: String,
        /// What went wrong.
        reason: String,
    },
    /// It is not known whom to trust.
    #[error("certificates cannot be checked: {0}")]
    Roots(String),
}

/// What to do about a proxy's answer.
pub(crate) fn hint(status: StatusCode) -> &'static str {
    if status == StatusCode::PROXY_AUTHENTICATION_REQUIRED {
        "; write its user:password into the file that upstream.proxy_auth_file names"
    } else {
        ""
    }
}

/// How the pool opens connections.
#[derive(Clone, Debug)]
pub(crate) struct Dialer {
    pub(crate) reach: Reach,
    pub(crate) within: Duration,
    /// Acknowledge at once what an origin sends: see [`Link`].
    pub(crate) acknowledges_at_once: bool,
    pub(crate) secure: Secure,
    pub(crate) lobby: Lobby,
}

impl Dialer {
    /// Opens a connection to an origin, and offers these protocols over TLS.
    pub(crate) async fn connect(&self, origin: &Uri, offer: Offer) -> Result<Wire, DialError> {
        let host = without_brackets(origin.host().unwrap_or_default());
        let port = target::port(origin);
        if origin.scheme() == Some(&Scheme::HTTPS) {
            self.secure(host, port, offer).await
        } else {
            self.plain(origin, host, port).await
        }
    }

    async fn plain(&self, origin: &Uri, host: &str, port: u16) -> Result<Wire, DialError> {
        // What waits there was opened for the name alone.
        let waiting = if self.reach.is_bound(origin) { None } else { self.lobby.take(host, port) };
        let (stream, is_proxied, is_direct) = match waiting {
            Some(stream) => (stream, false, self.reach.connects_directly(host, port)),
            None => {
                let (stream, is_proxied) = self.reach.connect_plain(origin).await?;
                (stream, is_proxied, !is_proxied)
            }
        };
        let peer = if is_direct { stream.peer_addr().ok().map(Peer) } else { None };
        Ok(Wire::plain(self.link(stream), History::new(peer, is_proxied)))
    }

    async fn secure(&self, host: &str, port: u16, offer: Offer) -> Result<Wire, DialError> {
        let connected = timeout_at(Instant::now() + self.within, self.agree(host, port, offer)).await;
        let timeout = || DialError::Timeout { host: host.to_owned(), port, within: self.within };
        Ok(Wire::secure(connected.unwrap_or_else(|_| Err(timeout()))?, self.lobby.live(host, port)))
    }

    async fn agree(&self, host: &str, port: u16, offer: Offer) -> Result<TlsStream<Link>, DialError> {
        if let Some(stream) = self.lobby.take(host, port) {
            match self.secure.agree(self.link(stream), (host, port), offer).await {
                Ok(stream) => return Ok(stream),
                Err(Disagreed::Refused(error)) => return Err(error),
                // It had waited too long for the origin; a fresh one may do.
                Err(Disagreed::Broken(_)) => {}
            }
        }
        let stream = self.reach.connect(host, port).await?;
        self.secure.agree(self.link(stream), (host, port), offer).await.map_err(|disagreed| match disagreed {
            Disagreed::Refused(error) => error,
            Disagreed::Broken(error) => DialError::Tls { host: host.to_owned(), reason: error.to_string() },
        })
    }

    fn link(&self, stream: TcpStream) -> Link {
        let acknowledges_at_once = self.acknowledges_at_once;
        Link { stream, acknowledges_at_once, pieces: Pieces::default() }
    }
}

/// A TCP connection to an origin.
///
/// Where an origin sends the head and the body of an answer in two segments and leaves Nagle's algorithm on, the body
/// waits for the acknowledgement of the head, which the system delays by 40 ms in the hope of something to send along.
/// The original seller does so, and each payment would take as long: connections that carry payments do not delay.
#[derive(Debug)]
pub(crate) struct Link {
    stream: TcpStream,
    acknowledges_at_once: bool,
    pieces: Pieces,
}

/// In how many pieces answers come. To acknowledge at once costs a segment of its own; an origin whose answers come
/// whole waits for none.
#[derive(Debug, Default)]
struct Pieces {
    /// Pieces that came since something was written.
    read: u32,
    /// Answers in a row that came whole.
    whole: u32,
}

impl Pieces {
    /// So many answers in a row show that an origin sends them whole.
    const ENOUGH: u32 = 8;

    fn written(&mut self) {
        match std::mem::take(&mut self.read) {
            0 => {}
            1 => self.whole = self.whole.saturating_add(1),
            _ => self.whole = 0,
        }
    }

    /// Counts a piece; whether it is to be acknowledged at once.
    fn came(&mut self) -> bool {
        self.read = self.read.saturating_add(1);
        self.read > 1 || self.whole < Self::ENOUGH
    }
}

impl Link {
    pub(crate) fn into_stream(self) -> TcpStream {
        self.stream
    }

    /// Sends the acknowledgement that is due. The system falls back to delaying by itself, so this is said every time.
    #[cfg(target_os = "linux")]
    fn acknowledge(&self) {
        if self.acknowledges_at_once {
            // Only a hint to the kernel: without it the answer comes later.
            let _ = self.stream.set_quickack(true);
        }
    }

    /// Other systems have no such switch.
    #[cfg(not(target_os = "linux"))]
    fn acknowledge(&self) {
        let _ = self.acknowledges_at_once;
    }
}

/// Lets a write succeed that the origin will not take any more: it may have answered before it hung up, and that answer
/// is still there to be read. Whoever reads next finds the answer, or the end.
fn or_lost(written: io::Result<usize>, length: usize) -> io::Result<usize> {
    match written {
        Err(error) if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {
            Ok(length)
        }
        written => written,
    }
}

impl AsyncRead for Link {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if buffer.filled().len() > before && self.pieces.came() {
            self.acknowledge();
        }
        read
    }
}

impl AsyncWrite for Link {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.pieces.written();
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        written.map(|written| or_lost(written, bytes.len()))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.pieces.written();
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        written.map(|written| or_lost(written, slices.iter().map(|slice| slice.len()).sum()))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use crate::proxy::upstream::dial::*;

    #[test]
    fn what_comes_whole_is_soon_not_acknowledged_at_once_any_more() {
        let mut pieces = Pieces::default();
        let mut answer = |count| {
            pieces.written();
            (0..count).map(|_| pieces.came()).collect::<Vec<_>>()
        };
        for _ in 0..Pieces::ENOUGH {
            assert_eq!(answer(1), [true]);
        }
        assert_eq!(answer(1), [false]);
        // One in pieces: from its second one on, and the next ones again.
        assert_eq!(answer(3), [false, true, true]);
        for _ in 0..Pieces::ENOUGH {
            assert_eq!(answer(1), [true]);
        }
        assert_eq!(answer(1), [false]);
    }
}
