//! The I/O of a client's connection: timeouts, interim responses between the server's own bytes, and a close that does not
//! cut off the last response.

use std::fmt;
use std::future::Future;
use std::hash::{Hash, Hasher};
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use futures_util::task::AtomicWaker;
use http::{Extensions, HeaderMap, Request};
use hyper::rt;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep, sleep_until};

use crate::mutex::lock;
use crate::proxy::settings::ProxySettings;

/// How much of a request is read before its connection gets the buffers of a server: most heads are shorter.
const HEARD: usize = 2048;
/// Bytes to discard at a time.
const SWEEP: usize = 16 * 1024;
/// Stands for no wait.
const NO_WAIT: u64 = 0;
/// The first byte of a TLS handshake, which no request begins with.
pub(crate) const HANDSHAKE: u8 = 22;
/// The first bytes of SOCKS 4 and 5, likewise.
const SOCKS: [u8; 2] = [4, 5];
/// How soon a client leaves that does not like what it sees, instead of one that has found no use for a connection.
const AT_ONCE: Duration = Duration::from_secs(1);

/// What a client's connection began with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opening {
    /// Anything but the others, such as a request.
    Other,
    /// A TLS handshake.
    TlsHandshake,
    /// A request to a SOCKS proxy.
    Socks,
    /// The client closed it at once, before it sent anything.
    Left,
}

/// The timeouts of a client's connection; see [`ProxySettings`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timeouts {
    pub(crate) head_timeout: Duration,
    pub(crate) keepalive_timeout: Duration,
    stream_idle_timeout: Duration,
    exchange_timeout: Duration,
    linger_timeout: Duration,
}

impl Timeouts {
    pub(crate) fn new(settings: &ProxySettings) -> Self {
        Self {
            head_timeout: settings.limits.head_timeout,
            keepalive_timeout: settings.limits.keepalive_timeout,
            stream_idle_timeout: settings.limits.stream_idle_timeout,
            exchange_timeout: settings.limits.exchange_timeout,
            linger_timeout: settings.limits.linger_timeout,
        }
    }
}

/// The state of a connection, shared by its I/O, its timers and its requests.
#[derive(Debug, Default)]
pub(crate) struct ConnState {
    /// Increases with every read and write.
    moves: AtomicU64,
    /// Odd while waiting for a head, even during a request; increases with each change.
    turn: AtomicU64,
    /// When the wait for a head ends, in nanoseconds after `opened`, or `NO_WAIT`.
    awaited_until: AtomicU64,
    opened: Opened,
    /// Whether the first byte of the awaited head has been read.
    is_heard: AtomicBool,
    /// The first byte of all; 0 if there is none yet.
    first: AtomicU8,
    /// Whether the client closed the connection at once, before it sent anything.
    has_left: AtomicBool,
    /// Whether a request has used the connection of another worker.
    has_borrowed: AtomicBool,
    interim: Mutex<Vec<u8>>,
    has_interim: AtomicBool,
    /// Called once all that the server has written has gone to the stream.
    unwritten: Mutex<Vec<OnceWritten>>,
    has_unwritten: AtomicBool,
    /// Whether the server may hold bytes that have not gone to the stream.
    is_writing: AtomicBool,
    waker: AtomicWaker,
}

/// When a connection was opened.
#[derive(Debug)]
struct Opened(Instant);

impl Default for Opened {
    fn default() -> Self {
        Self(Instant::now())
    }
}

/// A connection that records its activity.
#[derive(Debug)]
pub(crate) struct ClientIo<S> {
    stream: S,
    state: Arc<ConnState>,
    /// What was read while no server read it.
    unread: Vec<u8>,
    /// An interim response that has been partly written.
    pending: Vec<u8>,
    /// Whether the server has flushed what it wrote.
    is_flushed: bool,
    /// The turn whose response has been started.
    answered: u64,
    linger_timeout: Duration,
    lingering: Option<Pin<Box<Sleep>>>,
}

impl<S> ClientIo<S> {
    pub(crate) fn new(stream: S, timeouts: &Timeouts) -> (Self, Arc<ConnState>) {
        let state = Arc::<ConnState>::default();
        let io = Self {
            stream,
            state: Arc::clone(&state),
            unread: Vec::new(),
            pending: Vec::new(),
            is_flushed: true,
            answered: 0,
            linger_timeout: timeouts.linger_timeout,
            lingering: None,
        };
        (io, state)
    }

    /// The underlying stream, for another protocol.
    pub(crate) fn into_inner(self) -> S {
        self.stream
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> ClientIo<S> {
    /// Keeps what another server has read already.
    pub(crate) fn hold(&mut self, read: &[u8]) {
        self.unread.extend_from_slice(read);
    }

    /// Reads the beginning of a request, for the server that reads the rest. `false` at the end of the stream.
    pub(crate) fn poll_hear(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        if self.unread.is_empty() {
            let mut bytes = [0; HEARD];
            let mut buffer = ReadBuf::new(&mut bytes);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer))?;
            self.unread = buffer.filled().to_vec();
        }
        let has_heard = !self.unread.is_empty();
        if !has_heard {
            self.state.ended();
        }
        Poll::Ready(Ok(has_heard))
    }

    /// Writes interim responses: after a complete response and before that to the current request.
    fn poll_interim(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_flushed && self.state.has_interim.load(Ordering::Acquire) {
            let bytes = self.state.take_interim();
            if self.answered != self.state.turn.load(Ordering::Relaxed) {
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
        self.state.is_writing.store(true, Ordering::Relaxed);
        ready!(self.poll_interim(cx))?;
        if std::mem::replace(&mut self.is_flushed, false) {
            self.answered = self.state.turn.load(Ordering::Relaxed);
        }
        Poll::Ready(Ok(()))
    }

    /// Reads and discards what the client still sends: closing with unread bytes would reset the connection, and the client
    /// could lose a response that it has not read yet.
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
                // All of its bytes have been read, or it has closed, too.
                (Poll::Pending, None) | (Poll::Ready(_), _) => return Poll::Ready(()),
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ClientIo<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = if self.unread.is_empty() {
            Pin::new(&mut self.stream).poll_read(cx, buffer)
        } else {
            let count = self.unread.len().min(buffer.remaining());
            buffer.put_slice(&self.unread[..count]);
            self.unread.drain(..count);
            self.unread.shrink_to_fit();
            Poll::Ready(Ok(()))
        };
        if let Some(first) = buffer.filled().get(before) {
            if self.state.moves.load(Ordering::Relaxed) == 0 {
                self.state.first.store(*first, Ordering::Relaxed);
            }
            self.state.moved();
            self.state.is_heard.store(true, Ordering::Relaxed);
        } else if read.is_ready() {
            self.state.ended();
        }
        read
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for ClientIo<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_before_write(cx))?;
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes));
        self.state.moved();
        Poll::Ready(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_before_write(cx))?;
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, slices));
        self.state.moved();
        Poll::Ready(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The server flushes after it has written a complete response.
        self.is_flushed = true;
        ready!(self.poll_interim(cx))?;
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        self.state.written();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.lingering.is_none() {
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
        }
        self.poll_linger(cx).map(Ok)
    }
}

impl ConnState {
    /// Sets when the wait for a head ends.
    fn await_until(&self, deadline: Instant) {
        let after = deadline.saturating_duration_since(self.opened.0).as_nanos();
        self.awaited_until.store(u64::try_from(after).unwrap_or(u64::MAX).max(1), Ordering::Relaxed);
    }

    /// When the wait for a head ends, if there is one.
    fn awaited_until(&self) -> Option<Instant> {
        let after = self.awaited_until.load(Ordering::Relaxed);
        (after != NO_WAIT).then(|| self.opened.0 + Duration::from_nanos(after))
    }

    // One task drives a connection, so a load and a store need not be atomic together.
    fn moved(&self) {
        self.moves.store(self.moves.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    /// Until when the connection waits for a head, if it does and there is nothing else to do: nothing of the head has been
    /// read, and all has been written.
    pub(crate) fn at_rest_until(&self) -> Option<Instant> {
        let is_awaiting = !self.turn.load(Ordering::Relaxed).is_multiple_of(2);
        let is_busy = [&self.is_heard, &self.is_writing, &self.has_interim, &self.has_unwritten]
            .iter()
            .any(|flag| flag.load(Ordering::Relaxed));
        if is_awaiting && !is_busy { self.awaited_until() } else { None }
    }

    /// Goes on waiting for a head, without the server that did so far.
    pub(crate) fn rest_until(&self, deadline: Instant) {
        self.await_header();
        self.await_until(deadline);
    }

    /// Notes that the client sends no more.
    fn ended(&self) {
        if self.moves.load(Ordering::Relaxed) == 0 && self.opened.0.elapsed() < AT_ONCE {
            self.has_left.store(true, Ordering::Relaxed);
        }
    }

    /// What the client has begun with.
    pub(crate) fn opening(&self) -> Opening {
        match self.first.load(Ordering::Relaxed) {
            HANDSHAKE => Opening::TlsHandshake,
            first if SOCKS.contains(&first) => Opening::Socks,
            _ if self.has_left.load(Ordering::Relaxed) => Opening::Left,
            _ => Opening::Other,
        }
    }

    /// Starts to wait for a head; returns the turn.
    fn await_header(&self) -> u64 {
        let turn = self.turn.load(Ordering::Relaxed).wrapping_add(1) | 1;
        self.turn.store(turn, Ordering::Relaxed);
        turn
    }

    /// A head has been read, unless the connection already waits for another.
    fn begin(&self, awaited: u64) {
        if self.turn.load(Ordering::Relaxed) == awaited {
            self.turn.store(awaited.wrapping_add(1), Ordering::Relaxed);
            self.awaited_until.store(NO_WAIT, Ordering::Relaxed);
        }
    }

    fn written(&self) {
        self.is_writing.store(false, Ordering::Relaxed);
        if self.has_unwritten.load(Ordering::Relaxed) {
            self.has_unwritten.store(false, Ordering::Relaxed);
            let written = std::mem::take(&mut *lock(&self.unwritten));
            written.into_iter().for_each(|OnceWritten(then)| then());
        }
    }

    fn take_interim(&self) -> Vec<u8> {
        self.has_interim.store(false, Ordering::Relaxed);
        std::mem::take(&mut *lock(&self.interim))
    }
}

struct OnceWritten(Box<dyn FnOnce() + Send>);

impl fmt::Debug for OnceWritten {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnceWritten")
    }
}

/// Sends interim responses to one request.
#[derive(Clone, Debug)]
pub(crate) struct InterimSender {
    state: Arc<ConnState>,
    turn: u64,
    filter: Option<fn(&mut HeaderMap)>,
}

impl InterimSender {
    /// For the request that has just been read.
    pub(crate) fn new(state: &Arc<ConnState>) -> Self {
        Self { state: Arc::clone(state), turn: state.turn.load(Ordering::Relaxed), filter: None }
    }

    /// Has `filter` remove headers that must not reach the client.
    pub(crate) fn set_filter(&mut self, filter: fn(&mut HeaderMap)) {
        self.filter = Some(filter);
    }

    /// Removes the headers that must not reach the client.
    pub(crate) fn filter(&self, headers: &mut HeaderMap) {
        if let Some(filter) = self.filter {
            filter(headers);
        }
    }

    /// Sends an interim response, unless the final one has been sent; at most `limit` bytes are queued.
    pub(crate) fn send(&self, bytes: &[u8], limit: usize) {
        if self.state.turn.load(Ordering::Relaxed) != self.turn {
            return;
        }
        let mut interim = lock(&self.state.interim);
        if interim.len() + bytes.len() <= limit {
            interim.extend_from_slice(bytes);
            self.state.has_interim.store(true, Ordering::Release);
            self.state.waker.wake();
        }
    }
}

/// Identifies a client's connection.
#[derive(Clone, Debug)]
pub(crate) struct ConnectionId(Weak<ConnState>);

impl ConnectionId {
    /// The connection that this request came from.
    pub(crate) fn of<B>(request: &Request<B>) -> Option<Self> {
        Self::among(request.extensions())
    }

    /// The connection that the request with these extensions came from.
    pub(crate) fn among(extensions: &Extensions) -> Option<Self> {
        extensions.get::<InterimSender>().map(|interim| Self(Arc::downgrade(&interim.state)))
    }

    /// Calls `then` once all that the connection's server has written so far has gone to the stream; if the connection ends
    /// before that, drops it. Called by the task that drives the connection.
    pub(crate) fn once_written(&self, then: Box<dyn FnOnce() + Send>) {
        let Some(state) = self.0.upgrade() else { return };
        lock(&state.unwritten).push(OnceWritten(then));
        state.has_unwritten.store(true, Ordering::Relaxed);
    }

    /// Whether its request may use an idle connection of another worker: the first one that asks.
    pub(crate) fn may_borrow(&self) -> bool {
        self.0.upgrade().is_some_and(|state| !state.has_borrowed.swap(true, Ordering::Relaxed))
    }

    /// Whether the connection has ended.
    pub(crate) fn has_left(&self) -> bool {
        self.0.strong_count() == 0
    }
}

impl PartialEq for ConnectionId {
    fn eq(&self, other: &Self) -> bool {
        self.0.ptr_eq(&other.0)
    }
}

impl Eq for ConnectionId {}

impl Hash for ConnectionId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.as_ptr().hash(state);
    }
}

/// The timer of hyper's header timeout: waits for the keep-alive timeout until the first byte of a head, and for
/// `head_timeout` from then on. The connection's [`StallTimer`] wakes its task at the end: a timer of its own would be armed
/// and disarmed with each request.
#[derive(Debug)]
pub(crate) struct HeaderTimer {
    pub(crate) state: Arc<ConnState>,
    pub(crate) head_timeout: Duration,
}

impl rt::Timer for HeaderTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn rt::Sleep>> {
        self.sleep_until(Instant::now() + duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn rt::Sleep>> {
        self.state.is_heard.store(false, Ordering::Relaxed);
        let turn = self.state.await_header();
        self.state.await_until(deadline);
        let (state, head_timeout) = (Arc::clone(&self.state), self.head_timeout);
        Box::pin(HeaderWait { deadline, state, turn, head_timeout, is_begun: false })
    }
}

/// The wait for one head; hyper drops it when the head has been read.
struct HeaderWait {
    deadline: Instant,
    state: Arc<ConnState>,
    turn: u64,
    head_timeout: Duration,
    is_begun: bool,
}

impl rt::Sleep for HeaderWait {}

impl Future for HeaderWait {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        let now = Instant::now();
        if !self.is_begun && self.state.is_heard.load(Ordering::Relaxed) {
            self.is_begun = true;
            self.deadline = now + self.head_timeout;
            self.state.await_until(self.deadline);
        }
        if now < self.deadline { Poll::Pending } else { Poll::Ready(()) }
    }
}

impl Drop for HeaderWait {
    fn drop(&mut self) {
        self.state.begin(self.turn);
    }
}

/// Ends exchanges that stall or take too long, and wakes the connection's task when a wait for a head ends.
#[derive(Debug)]
pub(crate) struct StallTimer {
    state: Arc<ConnState>,
    timeouts: Timeouts,
    every: Duration,
    alarm: Pin<Box<Sleep>>,
    /// When exchanges are checked again.
    next: Instant,
    moves: u64,
    turn: u64,
    still_for: Duration,
    same_for: Duration,
}

impl StallTimer {
    pub(crate) fn new(state: Arc<ConnState>, timeouts: Timeouts) -> Self {
        let every = timeouts.stream_idle_timeout.min(timeouts.exchange_timeout);
        let (next, none) = (Instant::now() + every, Duration::ZERO);
        let alarm = Box::pin(sleep_until(next.into()));
        Self { state, timeouts, every, alarm, next, moves: 0, turn: 0, still_for: none, same_for: none }
    }

    /// Ready when a connection at rest has waited for a head for too long.
    pub(crate) fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.poll_end(cx).is_ready()
            || self.state.awaited_until().is_none_or(|until| until <= Instant::now())
        {
            return Poll::Ready(());
        }
        Poll::Pending
    }

    /// Wakes the connection's task when there is an interim response to write.
    pub(crate) fn register(&self, cx: &Context<'_>) {
        self.state.waker.register(cx.waker());
    }

    /// Ready when the connection must be closed. Checks at long intervals, so that it costs requests nothing; it may be late
    /// by one interval.
    pub(crate) fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // Only ever earlier, so that a request that follows another leaves the alarm alone.
        if let Some(until) = self.state.awaited_until()
            && until < self.alarm.deadline().into_std()
        {
            self.alarm.as_mut().reset(until.into());
        }
        while self.alarm.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            if self.state.awaited_until().is_some_and(|until| until <= now) {
                // The server looks at the time itself, once more.
                self.state.awaited_until.store(NO_WAIT, Ordering::Relaxed);
                cx.waker().wake_by_ref();
            }
            if now < self.next {
                self.set_alarm();
                continue;
            }
            self.next = now + self.every;
            let moves = self.state.moves.load(Ordering::Relaxed);
            let turn = self.state.turn.load(Ordering::Relaxed);
            let grown =
                |is_same: bool, so_far: Duration| if is_same { so_far + self.every } else { Duration::ZERO };
            self.still_for = grown(moves == self.moves, self.still_for);
            self.same_for = grown(turn == self.turn, self.same_for);
            (self.moves, self.turn) = (moves, turn);
            let is_under_way = turn.is_multiple_of(2);
            let is_stalled = self.still_for >= self.timeouts.stream_idle_timeout;
            if is_under_way && (is_stalled || self.same_for >= self.timeouts.exchange_timeout) {
                return Poll::Ready(());
            }
            self.set_alarm();
        }
        Poll::Pending
    }

    fn set_alarm(&mut self) {
        let due = self.state.awaited_until().map_or(self.next, |until| until.min(self.next));
        self.alarm.as_mut().reset(due.into());
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use crate::proxy::downstream::client_io::*;

    #[tokio::test]
    async fn what_waits_for_the_flush_is_called_then_and_dropped_with_the_connection() {
        let (ours, _theirs) = tokio::io::duplex(64);
        let (mut io, state) = ClientIo::new(ours, &Timeouts::new(&ProxySettings::default()));
        let client = ConnectionId(Arc::downgrade(&state));
        let kept = Arc::new(());
        let calls = Arc::new(AtomicU64::new(0));
        let wait = || {
            let (kept, calls) = (Arc::clone(&kept), Arc::clone(&calls));
            client.once_written(Box::new(move || {
                drop(kept);
                calls.fetch_add(1, Ordering::Relaxed);
            }));
        };
        let counts = || (Arc::strong_count(&kept), calls.load(Ordering::Relaxed));
        io.write_all(b"the end").await.unwrap();
        wait();
        assert_eq!(counts(), (2, 0), "it is not written yet, as far as the server has said");
        io.flush().await.unwrap();
        assert_eq!(counts(), (1, 1));

        wait();
        drop((io, state));
        assert_eq!(counts(), (1, 1), "the connection has ended");
        wait();
        assert_eq!(counts(), (1, 1));
    }
}
