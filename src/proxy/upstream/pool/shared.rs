//! A connection of HTTP/2, and the requests that share it.
//!
//! - Each stream has a window of its own and the connection's is the sum of them, so that downloads that their clients
//!   do not read stop no other.
//! - No more streams than that, or than the origin allows, go on one connection; the next one gets another.
//! - Uploads share a connection only while all of them fit into the smallest window that an origin can give to one: an
//!   origin that does not read them leaves none for others.
//! - When a stream is given up, the connection gets no new one before a byte has come: it may have died in silence.
//! - PINGs find out about that while streams are open. A connection that has been silent for longer gets none.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http2::{self, Connection, SendRequest};
use hyper_util::rt::TokioTimer;
use tokio::time::Instant;
use tracing::debug;

use super::{Body, BodyError, History, Inner, Origin, TokioIo, Wire};
use crate::mutex::lock;
use crate::proxy::message::body::tidy;

/// What an origin may send on one stream before its client has read it.
const WINDOW: u32 = 1 << 20;
/// What request bodies may take together. A connection begins with a window of 65,535 bytes, and only the origin can
/// widen it.
const UPLOADS: usize = 48 << 10;

type Driven = Connection<TokioIo<Wire>, Body, Executor>;

/// A connection that requests share.
#[derive(Debug)]
pub(super) struct Many {
    sender: SendRequest<Body>,
    /// As long as it stands.
    connection: Weak<Mutex<Driven>>,
    history: History,
    streams: usize,
    /// How many the origin allows, as far as it was last looked up.
    allowed: AtomicUsize,
    active: AtomicUsize,
    /// How many streams it has taken in all.
    taken: AtomicUsize,
    /// Bytes of request bodies under way.
    uploading: Arc<AtomicUsize>,
    is_retired: AtomicBool,
    state: Mutex<State>,
    alive_within: Duration,
}

#[derive(Debug)]
struct State {
    /// Since when it has no streams.
    idle_since: Instant,
    /// How many bytes had come when a stream was given up.
    doubted_at: Option<u64>,
}

impl Many {
    pub(super) async fn open(
        pool: &Arc<Inner>,
        origin: &Origin,
        wire: Wire,
        dialling: Dialling,
    ) -> hyper::Result<Arc<Self>> {
        let limits = &pool.limits;
        let history = wire.history().clone();
        let start = Arc::new(Start {
            history: history.clone(),
            is_over: AtomicBool::new(false),
            dialling: Mutex::new(Some(dialling)),
        });
        let mut http2 = http2::Builder::new(Executor(Arc::clone(&start)));
        let streams = u32::try_from(limits.streams).unwrap_or(u32::MAX);
        http2
            .timer(TokioTimer::new())
            .max_header_list_size(u32::try_from(limits.head_bytes).unwrap_or(u32::MAX))
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW.saturating_mul(streams).min(i32::MAX as u32))
            .keep_alive_interval(limits.ping_every)
            .keep_alive_timeout(limits.ping_timeout);
        let (sender, connection) = http2.handshake(TokioIo::new(wire)).await?;
        let connection = Arc::new(Mutex::new(connection));
        let many = Self {
            sender,
            connection: Arc::downgrade(&connection),
            history,
            streams: limits.streams,
            allowed: AtomicUsize::new(1),
            active: AtomicUsize::new(0),
            taken: AtomicUsize::new(0),
            uploading: Arc::default(),
            is_retired: AtomicBool::new(false),
            state: Mutex::new(State { idle_since: Instant::now(), doubted_at: None }),
            alive_within: limits.ping_every.saturating_add(limits.ping_timeout),
        };
        let authority = origin.authority.clone();
        tokio::spawn(async move {
            let ended = poll_fn(|cx| Pin::new(&mut *lock(&connection)).poll(cx)).await;
            if let Err(error) = ended {
                debug!(%error, %authority, "a connection to an origin broke");
            }
            // Before the connection is dropped, which may fall to a request that holds the pool's lock.
            start.end();
        });
        Ok(Arc::new(many))
    }

    /// Whether new requests may ever go on it.
    pub(super) fn is_open(&self) -> bool {
        if self.is_retired.load(Ordering::Relaxed) || self.sender.is_closed() {
            return false;
        }
        let is_idle = self.active.load(Ordering::Relaxed) == 0;
        !(is_idle && (self.is_doubted() || self.is_silent()))
    }

    /// Whether nothing has come for so long that a PING would have gone unanswered.
    fn is_silent(&self) -> bool {
        self.history.bytes_read() > 0 && self.history.silent_for() > self.alive_within
    }

    /// Whether a stream was given up, and not a byte has come since.
    fn is_doubted(&self) -> bool {
        lock(&self.state).doubted_at == Some(self.history.bytes_read())
    }

    /// Since when it carries no stream, if it carries none.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        (self.active.load(Ordering::Relaxed) == 0).then(|| lock(&self.state).idle_since)
    }

    /// A place for one more stream, if there is one for a request with this body. The caller holds the pool's lock.
    pub(super) fn take(many: &Arc<Self>, pool: &Arc<Inner>, origin: &Origin, body: &Body) -> Option<Ticket> {
        if !many.is_open() || many.active.load(Ordering::Relaxed) >= many.room() {
            return None;
        }
        let length = if body.is_end_stream() { 0 } else { length(body) };
        let uploading = many.uploading.load(Ordering::Relaxed);
        if length > 0 && uploading > 0 && length.saturating_add(uploading) > UPLOADS {
            return None;
        }
        if many.is_doubted() || many.is_silent() {
            return None;
        }
        let read = many.history.bytes_read();
        let began_alone = many.active.fetch_add(1, Ordering::Relaxed) == 0;
        let number = many.taken.fetch_add(1, Ordering::Relaxed);
        let upload = (length > 0).then(|| Upload::begin(&many.uploading, length));
        let pool = Arc::downgrade(pool);
        let origin = origin.clone();
        Some(Ticket {
            many: Arc::clone(many),
            pool,
            origin,
            upload,
            read,
            began_alone,
            number,
            has_ended: false,
        })
    }

    /// Whether a request with this body may go beside another one that has a body, so that waiting for a connection that
    /// is being opened is of use.
    pub(super) fn may_share(body: &Body) -> bool {
        body.is_end_stream() || length(body) < UPLOADS
    }

    /// How many streams it takes. Before the origin has said how many it allows, one.
    fn room(&self) -> usize {
        if self.history.bytes_read() == 0 {
            return 1;
        }
        let Some(connection) = self.connection.upgrade() else { return 0 };
        // While it sends a request it is not waited for: all other requests would wait with this one.
        if let Ok(driven) = connection.try_lock() {
            self.allowed.store(driven.current_max_send_streams(), Ordering::Relaxed);
        }
        self.allowed.load(Ordering::Relaxed).min(self.streams)
    }
}

/// The place of one request on a connection, until its answer has been read.
#[derive(Debug)]
pub struct Ticket {
    many: Arc<Many>,
    pool: Weak<Inner>,
    origin: Origin,
    upload: Option<Upload>,
    /// How many bytes had come before it.
    read: u64,
    /// No other stream was open when it began.
    began_alone: bool,
    /// How many were taken before it.
    number: usize,
    has_ended: bool,
}

/// Counts a request body until it is sent and the answer read.
#[derive(Clone, Debug)]
pub(super) struct Upload {
    _last: Arc<LastOf>,
}

#[derive(Debug)]
struct LastOf {
    uploading: Arc<AtomicUsize>,
    length: usize,
}

impl Upload {
    /// The caller holds the pool's lock.
    fn begin(uploading: &Arc<AtomicUsize>, length: usize) -> Self {
        uploading.fetch_add(length, Ordering::Relaxed);
        Self { _last: Arc::new(LastOf { uploading: Arc::clone(uploading), length }) }
    }
}

impl Drop for LastOf {
    fn drop(&mut self) {
        self.uploading.fetch_sub(self.length, Ordering::Relaxed);
    }
}

/// What a body counts for: its length, and all there is if it may be longer.
fn length(body: &Body) -> usize {
    let upper = body.size_hint().upper().and_then(|upper| usize::try_from(upper).ok());
    upper.map_or(UPLOADS, |upper| upper.clamp(1, UPLOADS))
}

impl Ticket {
    pub(super) async fn send(
        &self,
        request: Request<Body>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Body>>> {
        self.many.sender.clone().try_send_request(request).await
    }

    pub(super) fn history(&self) -> &History {
        &self.many.history
    }

    pub(super) fn upload(&self) -> Option<Upload> {
        self.upload.clone()
    }

    /// Whether the connection had been used before, and not a byte has come since.
    pub(super) fn went_stale(&self) -> bool {
        self.read > 0 && self.bytes_since() == 0
    }

    /// How many bytes have come since on the connection.
    pub(super) fn bytes_since(&self) -> u64 {
        self.many.history.bytes_read().wrapping_sub(self.read)
    }

    /// Whether no other stream was open as long as this one.
    pub(super) fn was_alone(&self) -> bool {
        self.began_alone && self.many.taken.load(Ordering::Relaxed) == self.number + 1
    }

    /// The exchange has come to its end.
    pub(super) fn end(&mut self) {
        self.has_ended = true;
    }

    /// Nothing new goes on this connection.
    pub(super) fn retire(&self) {
        self.many.is_retired.store(true, Ordering::Relaxed);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        {
            let mut state = lock(&self.many.state);
            if !self.has_ended {
                state.doubted_at = Some(self.many.history.bytes_read());
            }
            state.idle_since = Instant::now();
        }
        if self.many.active.fetch_sub(1, Ordering::Relaxed) == 1
            && let Some(pool) = self.pool.upgrade()
        {
            pool.rested(&self.origin, &self.many);
        }
    }
}

/// The body of an answer on a connection that others use, too.
#[derive(Debug)]
pub struct Shared {
    incoming: Incoming,
    ticket: Ticket,
}

impl Shared {
    pub(in crate::proxy) fn new(incoming: Incoming, ticket: Ticket) -> Self {
        Self { incoming, ticket }
    }

    pub(in crate::proxy) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match ready!(Pin::new(&mut self.incoming).poll_frame(cx)) {
            Some(Ok(frame)) => Poll::Ready(Some(Ok(tidy(frame)))),
            ended => {
                self.ticket.end();
                Poll::Ready(ended.map(|error| error.map_err(BodyError::Incoming)))
            }
        }
    }

    pub(in crate::proxy) fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    pub(in crate::proxy) fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if self.incoming.is_end_stream() {
            self.ticket.end();
        }
    }
}

/// A connection that is being opened, until it is known how many streams it takes.
#[derive(Debug)]
pub(super) struct Dialling {
    pool: Weak<Inner>,
    origin: Origin,
}

impl Dialling {
    pub(super) fn new(pool: &Arc<Inner>, origin: &Origin) -> Self {
        pool.place(&mut pool.lock(), origin.clone()).dialling += 1;
        Self { pool: Arc::downgrade(pool), origin: origin.clone() }
    }
}

impl Drop for Dialling {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.upgrade() {
            pool.dialled(&self.origin);
        }
    }
}

/// Drives a connection, and notices when the origin has said what it allows.
#[derive(Clone, Debug)]
pub(super) struct Executor(Arc<Start>);

#[derive(Debug)]
struct Start {
    history: History,
    is_over: AtomicBool,
    dialling: Mutex<Option<Dialling>>,
}

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Executor {
    fn execute(&self, future: F) {
        let start = Arc::clone(&self.0);
        if start.is_over.load(Ordering::Relaxed) {
            tokio::spawn(future);
            return;
        }
        tokio::spawn(async move {
            let mut future = pin!(future);
            poll_fn(|cx| {
                let polled = future.as_mut().poll(cx);
                start.look();
                polled
            })
            .await;
        });
    }
}

impl Start {
    /// What an origin sends first are its settings, and they have been read by now.
    fn look(&self) {
        if self.history.bytes_read() > 0 {
            self.end();
        }
    }

    fn end(&self) {
        if !self.is_over.swap(true, Ordering::Relaxed) {
            let dialling = lock(&self.dialling).take();
            drop(dialling);
        }
    }
}
