//! One connection to an origin, plain or over TLS, as the pool sees it; and how far it got.

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

use super::dial::Link;
use super::egress::Peer;
use super::parked::Live;

/// A connection to an origin.
#[derive(Debug)]
pub(crate) struct Wire {
    stream: Either<Link, Box<TlsStream<Link>>>,
    history: History,
    /// Says that this origin is reached over TLS as long as the connection is there.
    _live: Option<Live>,
}

impl Wire {
    pub(crate) fn plain(link: Link, history: History) -> Self {
        Self { stream: Either::Left(link), history, _live: None }
    }

    pub(crate) fn secure(stream: TlsStream<Link>, live: Live) -> Self {
        let history = History::new(None, false);
        Self { stream: Either::Right(Box::new(stream)), history, _live: Some(live) }
    }

    /// What the bytes pass through: TCP, or TLS over it.
    pub(crate) fn into_stream(self) -> Either<Link, Box<TlsStream<Link>>> {
        self.stream
    }

    pub(crate) fn history(&self) -> &History {
        &self.history
    }

    /// Whether both sides agreed on HTTP/2.
    pub(crate) fn speaks_http2(&self) -> bool {
        match &self.stream {
            Either::Left(_) => false,
            Either::Right(stream) => stream.get_ref().1.alpn_protocol() == Some(b"h2"),
        }
    }
}

const UNUSED: u8 = 0;
const FIRST_ASKED: u8 = 1;
const ANSWERED: u8 = 2;
const ASKED_AGAIN: u8 = 3;

/// How far a connection got (first asked, answered, asked again; what TLS says for itself does not count), and where it
/// ends.
#[derive(Clone, Debug)]
pub(crate) struct History(Arc<Past>);

#[derive(Debug)]
struct Past {
    stage: AtomicU8,
    /// Bytes that came; the last of them so many milliseconds after `since`, counted over HTTP/2 only.
    read: AtomicU64,
    heard: AtomicU64,
    since: Instant,
    peer: Option<Peer>,
    is_proxied: bool,
}

impl History {
    /// That of a new connection, to this machine where it is known which one answers.
    pub(crate) fn new(peer: Option<Peer>, is_proxied: bool) -> Self {
        let (stage, read, heard) = (AtomicU8::new(UNUSED), AtomicU64::new(0), AtomicU64::new(0));
        Self(Arc::new(Past { stage, read, heard, since: Instant::now(), peer, is_proxied }))
    }

    /// The machine that answers.
    pub(crate) fn peer(&self) -> Option<Peer> {
        self.0.peer
    }

    /// Whether it ends at the outbound proxy, which may answer by itself.
    pub(crate) fn is_proxied(&self) -> bool {
        self.0.is_proxied
    }

    /// Whether the connection had been answered on before, was written to again, and then gave not one byte: it was
    /// closed while it lay idle.
    pub(crate) fn went_stale(&self) -> bool {
        self.0.stage.load(Ordering::Relaxed) == ASKED_AGAIN
    }

    /// How many bytes came.
    pub(crate) fn bytes_read(&self) -> u64 {
        self.0.read.load(Ordering::Relaxed)
    }

    /// How long nothing has come on a connection of HTTP/2.
    pub(crate) fn silent_for(&self) -> Duration {
        let heard = Duration::from_millis(self.0.heard.load(Ordering::Relaxed));
        self.0.since.elapsed().saturating_sub(heard)
    }

    fn asked(&self) {
        // One task drives a connection, so nothing comes between the load and the store.
        match self.0.stage.load(Ordering::Relaxed) {
            UNUSED => self.0.stage.store(FIRST_ASKED, Ordering::Relaxed),
            ANSWERED => self.0.stage.store(ASKED_AGAIN, Ordering::Relaxed),
            _ => {}
        }
    }

    fn answered(&self, bytes: usize) {
        self.0.stage.store(ANSWERED, Ordering::Relaxed);
        let read = self.0.read.load(Ordering::Relaxed).wrapping_add(bytes as u64);
        self.0.read.store(read, Ordering::Relaxed);
    }

    fn heard(&self) {
        let since = u64::try_from(self.0.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.heard.store(since, Ordering::Relaxed);
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        let bytes = buffer.filled().len() - before;
        if bytes > 0 {
            self.history.answered(bytes);
            if self.speaks_http2() {
                self.history.heard();
            }
        }
        read
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.history.asked();
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.history.asked();
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
