//! An HTTP/2 connection and the requests that share it.
//!
//! - The connection's window is the sum of those of its streams, so that a client that does not read its download does
//!   not stall others.
//! - A connection carries no more streams than that, or than the origin allows; the next request gets another one.
//! - Uploads share a connection only while all of them fit into the smallest window that an origin can grant, because an
//!   origin that does not read one leaves no window for the others.
//! - After a stream is abandoned, the connection gets no new one until a byte has been read: it may have died silently.
//! - PINGs detect that while streams are open. An idle connection that has been silent for longer gets no stream.

use std::fmt::Debug;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use http::{Request, Response};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http2::{self, Connection, SendRequest};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::time::Instant;
use tracing::debug;

use super::key::PoolKey;
use super::limits::PoolLimits;
use super::upload::UploadShare;
use crate::mutex::lock;
use crate::proxy::message::body::Body;
use crate::proxy::message::multiplexed::HoldsStream;
use crate::proxy::upstream::stream::{Reuse, UpstreamStream};

/// The pool, as its multiplexed connections report to it.
pub(super) trait TracksConnections: Debug + Send + Sync {
    /// The last stream of a connection has ended.
    fn became_idle(&self, key: &PoolKey, connection: &Arc<MultiplexedConnection>);

    /// A dial has ended, or the limits of its connection are known.
    fn dial_ended(&self, key: &PoolKey);
}

/// Bytes that an origin may send on one stream before its client reads them.
const WINDOW: u32 = 1 << 20;
/// Bytes of request bodies in flight. A connection starts with a window of 65,535 bytes, which only the origin can enlarge.
const UPLOADS: usize = 48 << 10;

type Driven = Connection<TokioIo<UpstreamStream>, Body, ConnectionExecutor>;

/// A connection that carries several requests.
#[derive(Debug)]
pub(super) struct MultiplexedConnection {
    sender: SendRequest<Body>,
    /// While it is open.
    connection: Weak<Mutex<Driven>>,
    reuse: Reuse,
    streams: usize,
    /// How many streams the origin allows, when last read.
    allowed: AtomicUsize,
    active: AtomicUsize,
    /// How many streams it has carried.
    taken: AtomicUsize,
    /// Bytes of request bodies in flight.
    uploading: Arc<AtomicUsize>,
    is_retired: AtomicBool,
    state: Mutex<Liveness>,
    alive_within: Duration,
}

#[derive(Debug)]
struct Liveness {
    /// Since when it has no streams.
    idle_since: Instant,
    /// How many bytes had been read when a stream was abandoned.
    doubted_at: Option<u64>,
}

impl MultiplexedConnection {
    pub(super) async fn open(
        limits: &PoolLimits,
        key: &PoolKey,
        stream: UpstreamStream,
        dialling: PendingDial,
    ) -> hyper::Result<Arc<Self>> {
        let reuse = stream.reuse().clone();
        let start = Arc::new(AwaitSettings {
            reuse: reuse.clone(),
            is_over: AtomicBool::new(false),
            dialling: Mutex::new(Some(dialling)),
        });
        let mut http2 = http2::Builder::new(ConnectionExecutor(Arc::clone(&start)));
        let streams = u32::try_from(limits.streams).unwrap_or(u32::MAX);
        http2
            .timer(TokioTimer::new())
            .max_header_list_size(u32::try_from(limits.head_bytes).unwrap_or(u32::MAX))
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW.saturating_mul(streams).min(i32::MAX as u32))
            .keep_alive_interval(limits.ping_every)
            .keep_alive_timeout(limits.ping_timeout);
        let (sender, connection) = http2.handshake(TokioIo::new(stream)).await?;
        let connection = Arc::new(Mutex::new(connection));
        let connected = Self {
            sender,
            connection: Arc::downgrade(&connection),
            reuse,
            streams: limits.streams,
            allowed: AtomicUsize::new(1),
            active: AtomicUsize::new(0),
            taken: AtomicUsize::new(0),
            uploading: Arc::default(),
            is_retired: AtomicBool::new(false),
            state: Mutex::new(Liveness { idle_since: Instant::now(), doubted_at: None }),
            alive_within: limits.ping_every.saturating_add(limits.ping_timeout),
        };
        let authority = key.authority.clone();
        tokio::spawn(async move {
            let ended = poll_fn(|cx| Pin::new(&mut *lock(&connection)).poll(cx)).await;
            if let Err(error) = ended {
                debug!(%error, %authority, "connection to origin failed");
            }
            // Now, because a request that holds the pool's lock may be the one to drop the connection.
            start.end();
        });
        Ok(Arc::new(connected))
    }

    /// Whether it may ever carry new requests.
    pub(super) fn is_open(&self) -> bool {
        if self.is_retired.load(Ordering::Relaxed) || self.sender.is_closed() {
            return false;
        }
        let is_idle = self.active.load(Ordering::Relaxed) == 0;
        !(is_idle && (self.is_doubted() || self.is_silent()))
    }

    /// Whether it has been silent for longer than a PING may go unanswered.
    fn is_silent(&self) -> bool {
        self.reuse.bytes_read() > 0 && self.reuse.silent_for() > self.alive_within
    }

    /// Whether a stream was abandoned and no byte has been read since.
    fn is_doubted(&self) -> bool {
        lock(&self.state).doubted_at == Some(self.reuse.bytes_read())
    }

    /// When its last stream ended, if it carries none.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        (self.active.load(Ordering::Relaxed) == 0).then(|| lock(&self.state).idle_since)
    }

    /// Reserves a stream for a request with this body, if possible. The caller holds the pool's lock.
    pub(super) fn reserve<P: TracksConnections + 'static>(
        connection: &Arc<Self>,
        pool: &Arc<P>,
        key: &PoolKey,
        body: &Body,
    ) -> Option<StreamPermit> {
        if !connection.is_open() || connection.active.load(Ordering::Relaxed) >= connection.room() {
            return None;
        }
        let length = if body.is_end_stream() { 0 } else { length(body) };
        let uploading = connection.uploading.load(Ordering::Relaxed);
        if length > 0 && uploading > 0 && length.saturating_add(uploading) > UPLOADS {
            return None;
        }
        if connection.is_doubted() || connection.is_silent() {
            return None;
        }
        let read = connection.reuse.bytes_read();
        let began_alone = connection.active.fetch_add(1, Ordering::Relaxed) == 0;
        let number = connection.taken.fetch_add(1, Ordering::Relaxed);
        let upload = (length > 0).then(|| UploadShare::begin(&connection.uploading, length));
        let pool: Weak<dyn TracksConnections> = Arc::<P>::downgrade(pool);
        Some(StreamPermit {
            connection: Arc::clone(connection),
            pool,
            key: key.clone(),
            upload,
            read,
            began_alone,
            number,
            has_ended: false,
        })
    }

    /// Whether a request with this body can share a connection with other uploads, so that it is worth waiting for one that
    /// is being opened.
    pub(super) fn may_share(body: &Body) -> bool {
        body.is_end_stream() || length(body) < UPLOADS
    }

    /// How many streams it may carry: one until the origin has sent its settings.
    fn room(&self) -> usize {
        if self.reuse.bytes_read() == 0 {
            return 1;
        }
        let Some(connection) = self.connection.upgrade() else { return 0 };
        // Never wait for this lock: every other request would wait, too.
        if let Ok(driven) = connection.try_lock() {
            self.allowed.store(driven.current_max_send_streams(), Ordering::Relaxed);
        }
        self.allowed.load(Ordering::Relaxed).min(self.streams)
    }
}

/// A stream on a connection, until its response has been read.
#[derive(Debug)]
pub struct StreamPermit {
    connection: Arc<MultiplexedConnection>,
    pool: Weak<dyn TracksConnections>,
    key: PoolKey,
    upload: Option<UploadShare>,
    /// Bytes read before it began.
    read: u64,
    /// Whether no other stream was open when it began.
    began_alone: bool,
    /// How many streams the connection had carried before it.
    number: usize,
    has_ended: bool,
}

/// What a body counts for: its length, or the whole allowance if that is unknown.
fn length(body: &Body) -> usize {
    let upper = body.size_hint().upper().and_then(|upper| usize::try_from(upper).ok());
    upper.map_or(UPLOADS, |upper| upper.clamp(1, UPLOADS))
}

impl StreamPermit {
    pub(super) async fn send(
        &self,
        request: Request<Body>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Body>>> {
        self.connection.sender.clone().try_send_request(request).await
    }

    pub(super) fn reuse(&self) -> &Reuse {
        &self.connection.reuse
    }

    pub(super) fn upload(&self) -> Option<UploadShare> {
        self.upload.clone()
    }

    /// Whether the connection had been used before and no byte has been read since.
    pub(super) fn went_stale(&self) -> bool {
        self.read > 0 && self.bytes_since() == 0
    }

    /// Bytes read on the connection since the stream began.
    pub(super) fn bytes_since(&self) -> u64 {
        self.connection.reuse.bytes_read().wrapping_sub(self.read)
    }

    /// Whether no other stream was open during this one.
    pub(super) fn was_alone(&self) -> bool {
        self.began_alone && self.connection.taken.load(Ordering::Relaxed) == self.number + 1
    }

    /// Keeps new requests off this connection.
    pub(super) fn retire(&self) {
        self.connection.is_retired.store(true, Ordering::Relaxed);
    }
}

impl HoldsStream for StreamPermit {
    fn complete(&mut self) {
        self.has_ended = true;
    }
}

impl Drop for StreamPermit {
    fn drop(&mut self) {
        {
            let mut state = lock(&self.connection.state);
            if !self.has_ended {
                state.doubted_at = Some(self.connection.reuse.bytes_read());
            }
            state.idle_since = Instant::now();
        }
        if self.connection.active.fetch_sub(1, Ordering::Relaxed) == 1
            && let Some(pool) = self.pool.upgrade()
        {
            pool.became_idle(&self.key, &self.connection);
        }
    }
}

/// A connection that is being opened, until the origin has sent its settings.
#[derive(Debug)]
pub(super) struct PendingDial {
    pool: Weak<dyn TracksConnections>,
    key: PoolKey,
}

impl PendingDial {
    /// The caller has counted the dial.
    pub(super) fn new(pool: Weak<dyn TracksConnections>, key: PoolKey) -> Self {
        Self { pool, key }
    }
}

impl Drop for PendingDial {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.upgrade() {
            pool.dial_ended(&self.key);
        }
    }
}

/// Drives a connection and watches for the settings of the origin.
#[derive(Clone, Debug)]
pub(super) struct ConnectionExecutor(Arc<AwaitSettings>);

#[derive(Debug)]
struct AwaitSettings {
    reuse: Reuse,
    is_over: AtomicBool,
    dialling: Mutex<Option<PendingDial>>,
}

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for ConnectionExecutor {
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
                start.check();
                polled
            })
            .await;
        });
    }
}

impl AwaitSettings {
    /// The first bytes of an origin are its settings.
    fn check(&self) {
        if self.reuse.bytes_read() > 0 {
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
