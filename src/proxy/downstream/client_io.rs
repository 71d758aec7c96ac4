//! A client's connection as its server sees it: how long it may be silent, interim answers that go out between the
//! server's own bytes, and an end that loses nothing of the last answer.

use std::future::Future;
use std::hash::{Hash, Hasher};
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use futures_util::task::AtomicWaker;
use http::Request;
use hyper::rt;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep, sleep_until};

use crate::mutex::lock;
use crate::proxy::Settings;

/// Bytes that are thrown away at a time.
const SWEEP: usize = 16 * 1024;

/// The times of a client's connection; see [`Settings`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    pub(crate) head_timeout: Duration,
    pub(crate) keepalive_timeout: Duration,
    stream_idle_timeout: Duration,
    exchange_timeout: Duration,
    linger_timeout: Duration,
}

impl Pace {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            head_timeout: settings.limits.head_timeout,
            keepalive_timeout: settings.limits.keepalive_timeout,
            stream_idle_timeout: settings.limits.stream_idle_timeout,
            exchange_timeout: settings.limits.exchange_timeout,
            linger_timeout: settings.limits.linger_timeout,
        }
    }
}

/// What is known of a connection by all who deal with it.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// Grows whenever bytes pass.
    moves: AtomicU64,
    /// Odd while a head is awaited, even while a request is under way; grows with each change.
    turn: AtomicU64,
    /// Whether anything of the awaited head has come.
    is_heard: AtomicBool,
    interim: Mutex<Vec<u8>>,
    has_interim: AtomicBool,
    waker: AtomicWaker,
}

/// A connection with what is known of it.
#[derive(Debug)]
pub(crate) struct Line<S> {
    stream: S,
    watch: Arc<Watch>,
    /// An interim answer that has been begun.
    pending: Vec<u8>,
    /// Whether all that the server wrote has gone out.
    is_flushed: bool,
    /// The turn whose answer has been begun.
    answered: u64,
    linger_timeout: Duration,
    lingering: Option<Pin<Box<Sleep>>>,
}

impl<S> Line<S> {
    pub(crate) fn new(stream: S, pace: &Pace) -> (Self, Arc<Watch>) {
        let watch = Arc::<Watch>::default();
        let line = Self {
            stream,
            watch: Arc::clone(&watch),
            pending: Vec::new(),
            is_flushed: true,
            answered: 0,
            linger_timeout: pace.linger_timeout,
            lingering: None,
        };
        (line, watch)
    }

    /// The connection, for whoever goes on with it in another protocol.
    pub(crate) fn into_inner(self) -> S {
        self.stream
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Line<S> {
    /// Writes interim answers out: between those of the server, and before the one to this request.
    fn poll_interim(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_flushed && self.watch.has_interim.load(Ordering::Acquire) {
            let bytes = self.watch.take_interim();
            if self.answered != self.watch.turn.load(Ordering::Relaxed) {
                self.pending.extend(bytes);
            }
        }
        while !self.pending.is_empty() {
            let count = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.pending))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.pending.drain(..count);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_before_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_interim(cx))?;
        if std::mem::replace(&mut self.is_flushed, false) {
            self.answered = self.watch.turn.load(Ordering::Relaxed);
        }
        Poll::Ready(Ok(()))
    }

    /// Reads what a client still sends, and forgets it: closed with bytes unread, the connection would be reset, and the
    /// client could lose an answer that it has not read yet.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut bytes = [0; SWEEP];
        loop {
            let mut buffer = ReadBuf::new(&mut bytes);
            let read = Pin::new(&mut self.stream).poll_read(cx, &mut buffer);
            match (read, &mut self.lingering) {
                (Poll::Ready(Ok(())), lingering) if !buffer.filled().is_empty() => {
                    let within = self.linger_timeout;
                    let timer = lingering.get_or_insert_with(|| Box::pin(sleep(within)));
                    if timer.as_mut().poll(cx).is_ready() {
                        return Poll::Ready(());
                    }
                }
                (Poll::Pending, Some(timer)) => return timer.as_mut().poll(cx),
                // It has sent nothing that was not read, or has closed too.
                (Poll::Pending, None) | (Poll::Ready(_), _) => return Poll::Ready(()),
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Line<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.watch.moved();
            self.watch.is_heard.store(true, Ordering::Relaxed);
        }
        read
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Line<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_before_write(cx))?;
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes));
        self.watch.moved();
        Poll::Ready(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_before_write(cx))?;
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, slices));
        self.watch.moved();
        Poll::Ready(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The server flushes once it has written all that it had.
        self.is_flushed = true;
        ready!(self.poll_interim(cx))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.lingering.is_none() {
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
        }
        self.poll_linger(cx).map(Ok)
    }
}

impl Watch {
    // One task drives a connection, so nothing comes between a load and a store of these.
    fn moved(&self) {
        self.moves.store(self.moves.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    /// Begins to wait for a head; gives this turn.
    fn await_head(&self) -> u64 {
        let turn = self.turn.load(Ordering::Relaxed).wrapping_add(1) | 1;
        self.turn.store(turn, Ordering::Relaxed);
        turn
    }

    /// A head is there, unless another is awaited by now.
    fn begin(&self, awaited: u64) {
        if self.turn.load(Ordering::Relaxed) == awaited {
            self.turn.store(awaited.wrapping_add(1), Ordering::Relaxed);
        }
    }

    fn take_interim(&self) -> Vec<u8> {
        self.has_interim.store(false, Ordering::Relaxed);
        std::mem::take(&mut *lock(&self.interim))
    }
}

/// The place before the answer to one request, where interim answers go.
#[derive(Clone, Debug)]
pub(crate) struct Before {
    watch: Arc<Watch>,
    turn: u64,
}

impl Before {
    /// Of the request that has just been read.
    pub(crate) fn new(watch: &Arc<Watch>) -> Self {
        Self { watch: Arc::clone(watch), turn: watch.turn.load(Ordering::Relaxed) }
    }

    /// Sends an interim answer to the client, unless it has been answered already; `limit` bytes at a time wait at most.
    pub(crate) fn tell(&self, bytes: &[u8], limit: usize) {
        if self.watch.turn.load(Ordering::Relaxed) != self.turn {
            return;
        }
        let mut interim = lock(&self.watch.interim);
        if interim.len() + bytes.len() <= limit {
            interim.extend_from_slice(bytes);
            self.watch.has_interim.store(true, Ordering::Release);
            self.watch.waker.wake();
        }
    }
}

/// A client's connection, told from all others.
#[derive(Clone, Debug)]
pub(crate) struct Client(Weak<Watch>);

impl Client {
    /// The one that sent this request.
    pub(crate) fn of<B>(request: &Request<B>) -> Option<Self> {
        request.extensions().get::<Before>().map(|before| Self(Arc::downgrade(&before.watch)))
    }

    /// Whether the connection has ended.
    pub(crate) fn has_left(&self) -> bool {
        self.0.strong_count() == 0
    }
}

impl PartialEq for Client {
    fn eq(&self, other: &Self) -> bool {
        self.0.ptr_eq(&other.0)
    }
}

impl Eq for Client {}

impl Hash for Client {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.as_ptr().hash(state);
    }
}

/// The clock by which the server's side reads heads: it allows `head_timeout` from the first byte of a head on, and
/// until then as long as it is asked to, which is as long as a connection may be idle.
#[derive(Debug)]
pub(crate) struct HeadClock {
    pub(crate) watch: Arc<Watch>,
    pub(crate) head_timeout: Duration,
}

impl rt::Timer for HeadClock {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn rt::Sleep>> {
        self.sleep_until(Instant::now() + duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn rt::Sleep>> {
        self.watch.is_heard.store(false, Ordering::Relaxed);
        let turn = self.watch.await_head();
        let sleep = Box::pin(sleep_until(deadline.into()));
        let (watch, head_timeout) = (Arc::clone(&self.watch), self.head_timeout);
        Box::pin(Awaited { sleep, watch, turn, head_timeout, is_begun: false })
    }
}

/// The wait for one head; dropped when the head is there.
struct Awaited {
    sleep: Pin<Box<Sleep>>,
    watch: Arc<Watch>,
    turn: u64,
    head_timeout: Duration,
    is_begun: bool,
}

impl rt::Sleep for Awaited {}

impl Future for Awaited {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if !self.is_begun && self.watch.is_heard.load(Ordering::Relaxed) {
            self.is_begun = true;
            let deadline = tokio::time::Instant::now() + self.head_timeout;
            self.sleep.as_mut().reset(deadline);
        }
        self.sleep.as_mut().poll(cx)
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        self.watch.begin(self.turn);
    }
}

/// Ends exchanges in which nothing moves any more, and those that never end.
#[derive(Debug)]
pub(crate) struct Patience {
    watch: Arc<Watch>,
    pace: Pace,
    every: Duration,
    alarm: Pin<Box<Sleep>>,
    moves: u64,
    turn: u64,
    still_for: Duration,
    same_for: Duration,
}

impl Patience {
    pub(crate) fn new(watch: Arc<Watch>, pace: Pace) -> Self {
        let every = pace.stream_idle_timeout.min(pace.exchange_timeout);
        let (alarm, none) = (Box::pin(sleep(every)), Duration::ZERO);
        Self { watch, pace, every, alarm, moves: 0, turn: 0, still_for: none, same_for: none }
    }

    /// Has the task that serves the connection woken when there is an interim answer to write.
    pub(crate) fn register(&self, cx: &Context<'_>) {
        self.watch.waker.register(cx.waker());
    }

    /// Ready when the connection is to be cut. It looks at long intervals, so that it costs a request nothing: up to one
    /// more of them passes.
    pub(crate) fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.alarm.as_mut().poll(cx).is_ready() {
            let moves = self.watch.moves.load(Ordering::Relaxed);
            let turn = self.watch.turn.load(Ordering::Relaxed);
            let grown =
                |is_same: bool, so_far: Duration| if is_same { so_far + self.every } else { Duration::ZERO };
            self.still_for = grown(moves == self.moves, self.still_for);
            self.same_for = grown(turn == self.turn, self.same_for);
            (self.moves, self.turn) = (moves, turn);
            let is_under_way = turn.is_multiple_of(2);
            let is_stalled = self.still_for >= self.pace.stream_idle_timeout;
            if is_under_way && (is_stalled || self.same_for >= self.pace.exchange_timeout) {
                return Poll::Ready(());
            }
            self.alarm.as_mut().reset(tokio::time::Instant::now() + self.every);
        }
        Poll::Pending
    }
}
