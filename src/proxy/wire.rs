//! One connection to an origin, plain or over TLS, as the pool sees it; and how far it got.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;
use hyper_util::client::legacy::connect::{Connected, Connection};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::client::TlsStream;

use super::dial::Link;
use super::lobby::Live;
use super::reach::Peer;

/// A connection to an origin.
#[derive(Debug)]
pub(super) struct Wire {
    pub(super) kind: Kind,
    history: History,
}

/// What the bytes pass through.
#[derive(Debug)]
pub(super) enum Kind {
    Plain(Link),
    Secure {
        stream: Box<TlsStream<Link>>,
        /// Says that this origin is reached over TLS as long as the connection is there.
        _live: Live,
    },
}

impl Wire {
    pub(super) fn history(&self) -> &History {
        &self.history
    }

    pub(super) fn plain(link: Link, history: History) -> Self {
        Self { kind: Kind::Plain(link), history }
    }

    pub(super) fn secure(stream: TlsStream<Link>, live: Live) -> Self {
        let kind = Kind::Secure { stream: Box::new(stream), _live: live };
        Self { kind, history: History::new(None, false) }
    }
}

const UNUSED: u8 = 0;
const FIRST_ASKED: u8 = 1;
const ANSWERED: u8 = 2;
const ASKED_AGAIN: u8 = 3;
/// Its answer was read to the end: it may be asked again, or closed.
const RESTING: u8 = 4;
/// It was closed to make room.
const EVICTED: u8 = 5;

/// How far a connection got (first asked, answered, asked again; what TLS says for itself does not count), and where it
/// ends.
#[derive(Clone, Debug)]
pub(super) struct History(Arc<Past>);

#[derive(Debug)]
struct Past {
    stage: AtomicU8,
    peer: Option<Peer>,
    is_proxied: bool,
    /// Wakes who waits for the origin, to find out that the connection is closed.
    waker: AtomicWaker,
}

/// The same without keeping it.
#[derive(Debug)]
pub(super) struct WeakHistory(Weak<Past>);

impl WeakHistory {
    pub(super) fn upgrade(&self) -> Option<History> {
        self.0.upgrade().map(History)
    }
}

/// An answer over HTTP/1 that is still being read; the connection rests when this is dropped.
#[derive(Debug)]
pub struct InUse(History);

impl Drop for InUse {
    fn drop(&mut self) {
        // Whatever came in between, it does not rest then.
        let stage = &self.0.0.stage;
        let _ = stage.compare_exchange(ANSWERED, RESTING, Ordering::Relaxed, Ordering::Relaxed);
    }
}

impl History {
    /// That of a new connection, to this machine where it is known which one answers.
    pub(super) fn new(peer: Option<Peer>, is_proxied: bool) -> Self {
        let (stage, waker) = (AtomicU8::new(UNUSED), AtomicWaker::new());
        Self(Arc::new(Past { stage, peer, is_proxied, waker }))
    }

    /// The machine that answers.
    pub(super) fn peer(&self) -> Option<Peer> {
        self.0.peer
    }

    /// Whether it ends at the outbound proxy, which may answer by itself.
    pub(super) fn is_proxied(&self) -> bool {
        self.0.is_proxied
    }

    /// Whether the connection had been answered on before, was written to again, and then gave not one byte: it was
    /// closed while it lay idle.
    pub(super) fn went_stale(&self) -> bool {
        self.0.stage.load(Ordering::Relaxed) == ASKED_AGAIN
    }

    pub(super) fn downgrade(&self) -> WeakHistory {
        WeakHistory(Arc::downgrade(&self.0))
    }

    /// The answer that comes over it is being read from now on.
    pub(super) fn in_use(&self) -> InUse {
        InUse(self.clone())
    }

    /// Closes the connection if it rests; whether it did.
    pub(super) fn evict(&self) -> bool {
        let stage = &self.0.stage;
        let was_resting =
            stage.compare_exchange(RESTING, EVICTED, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if was_resting {
            self.0.waker.wake();
        }
        was_resting
    }

    fn is_evicted(&self) -> bool {
        self.0.stage.load(Ordering::Relaxed) == EVICTED
    }

    /// Says that something is written; fails where nothing may be any more.
    fn asked(&self) -> io::Result<()> {
        let stage = &self.0.stage;
        // One task drives a connection, so of all that could come in between only an eviction does.
        let next = match stage.load(Ordering::Relaxed) {
            UNUSED => FIRST_ASKED,
            ANSWERED | RESTING => ASKED_AGAIN,
            EVICTED => return Err(io::ErrorKind::BrokenPipe.into()),
            _ => return Ok(()),
        };
        let take = |now| (now != EVICTED).then_some(next);
        let taken = stage.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        taken.map(|_| ()).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    fn answered(&self) {
        let take = |now| (now != EVICTED).then_some(ANSWERED);
        // One that is closed stays so.
        let _ = self.0.stage.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
    }
}

impl Connection for Wire {
    fn connected(&self) -> Connected {
        let connected = Connected::new().proxy(self.history.is_proxied()).extra(self.history.clone());
        match &self.kind {
            Kind::Secure { stream, .. } if stream.get_ref().1.alpn_protocol() == Some(b"h2") => {
                connected.negotiated_h2()
            }
            _ => connected,
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        self.history.0.waker.register(cx.waker());
        if self.history.is_evicted() {
            return Poll::Ready(Ok(()));
        }
        let read = match &mut self.kind {
            Kind::Plain(link) => Pin::new(link).poll_read(cx, buffer),
            Kind::Secure { stream, .. } => Pin::new(stream).poll_read(cx, buffer),
        };
        if buffer.filled().len() > before {
            self.history.answered();
        }
        read
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.history.asked()?;
        match &mut self.kind {
            Kind::Plain(link) => Pin::new(link).poll_write(cx, bytes),
            Kind::Secure { stream, .. } => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.history.asked()?;
        match &mut self.kind {
            Kind::Plain(link) => Pin::new(link).poll_write_vectored(cx, slices),
            Kind::Secure { stream, .. } => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.kind {
            Kind::Plain(link) => link.is_write_vectored(),
            Kind::Secure { stream, .. } => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.kind {
            Kind::Plain(link) => Pin::new(link).poll_flush(cx),
            Kind::Secure { stream, .. } => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.kind {
            Kind::Plain(link) => Pin::new(link).poll_shutdown(cx),
            Kind::Secure { stream, .. } => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
