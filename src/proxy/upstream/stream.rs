//! A connection to an origin, with or without TLS, and how much it has been used.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;

use super::egress::PinnedAddr;
use super::parked::LiveOrigin;
use super::tcp::TcpLink;

/// A connection to an origin.
#[derive(Debug)]
pub(crate) struct UpstreamStream {
    stream: Either<TcpLink, Box<TlsStream<TcpLink>>>,
    reuse: Reuse,
    /// Marks the origin as live while this connection exists.
    _live: Option<LiveOrigin>,
}

impl UpstreamStream {
    pub(crate) fn plain(link: TcpLink, reuse: Reuse) -> Self {
        Self { stream: Either::Left(link), reuse, _live: None }
    }

    pub(crate) fn secure(stream: TlsStream<TcpLink>, live: LiveOrigin) -> Self {
        let reuse = Reuse::new(None, false);
        Self { stream: Either::Right(Box::new(stream)), reuse, _live: Some(live) }
    }

    /// The transport: TCP, or TLS over it.
    pub(crate) fn into_stream(self) -> Either<TcpLink, Box<TlsStream<TcpLink>>> {
        self.stream
    }

    pub(crate) fn reuse(&self) -> &Reuse {
        &self.reuse
    }

    /// Whether ALPN selected HTTP/2.
    pub(crate) fn speaks_http2(&self) -> bool {
        match &self.stream {
            Either::Left(_) => false,
            Either::Right(stream) => stream.get_ref().1.alpn_protocol() == Some(b"h2"),
        }
    }
}

const UNUSED: u8 = 0;
const FIRST_REQUEST: u8 = 1;
const ANSWERED: u8 = 2;
const REUSED: u8 = 3;

/// What a connection has been used for (first request, response, further request; TLS records of the handshake do not
/// count), and where it ends.
#[derive(Clone, Debug)]
pub(crate) struct Reuse(Arc<ReuseState>);

#[derive(Debug)]
struct ReuseState {
    stage: AtomicU8,
    /// Bytes read; `heard` is when, in milliseconds after `since`, over HTTP/2 only.
    read: AtomicU64,
    heard: AtomicU64,
    since: Instant,
    peer: Option<PinnedAddr>,
    is_proxied: bool,
}

impl Reuse {
    /// Of a new connection; `peer` is the address that answers, if it is known.
    pub(crate) fn new(peer: Option<PinnedAddr>, is_proxied: bool) -> Self {
        let (stage, read, heard) = (AtomicU8::new(UNUSED), AtomicU64::new(0), AtomicU64::new(0));
        Self(Arc::new(ReuseState { stage, read, heard, since: Instant::now(), peer, is_proxied }))
    }

    /// The address that answers.
    pub(crate) fn peer(&self) -> Option<PinnedAddr> {
        self.0.peer
    }

    /// Whether it ends at the outbound proxy, which may answer on its own behalf.
    pub(crate) fn is_proxied(&self) -> bool {
        self.0.is_proxied
    }

    /// Whether a connection that had carried a response was written to again and returned no byte: the origin closed it
    /// while it was idle.
    pub(crate) fn went_stale(&self) -> bool {
        self.0.stage.load(Ordering::Relaxed) == REUSED
    }

    /// How many bytes have been read.
    pub(crate) fn bytes_read(&self) -> u64 {
        self.0.read.load(Ordering::Relaxed)
    }

    /// How long an HTTP/2 connection has been silent.
    pub(crate) fn silent_for(&self) -> Duration {
        let heard = Duration::from_millis(self.0.heard.load(Ordering::Relaxed));
        self.0.since.elapsed().saturating_sub(heard)
    }

    fn written(&self) {
        // One task drives a connection, so nothing comes between the load and the store.
        match self.0.stage.load(Ordering::Relaxed) {
            UNUSED => self.0.stage.store(FIRST_REQUEST, Ordering::Relaxed),
            ANSWERED => self.0.stage.store(REUSED, Ordering::Relaxed),
            _ => {}
        }
    }

    fn received(&self, bytes: usize) {
        self.0.stage.store(ANSWERED, Ordering::Relaxed);
        let read = self.0.read.load(Ordering::Relaxed).wrapping_add(bytes as u64);
        self.0.read.store(read, Ordering::Relaxed);
    }

    fn heard(&self) {
        let since = u64::try_from(self.0.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.heard.store(since, Ordering::Relaxed);
    }
}

impl AsyncRead for UpstreamStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        let bytes = buffer.filled().len() - before;
        if bytes > 0 {
            self.reuse.received(bytes);
            if self.speaks_http2() {
                self.reuse.heard();
            }
        }
        read
    }
}

impl AsyncWrite for UpstreamStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.reuse.written();
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.reuse.written();
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
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
