//! An HTTP/1.1 connection: one request at a time.
//!
//! The task that waits for the response drives the connection, so that an exchange takes no steps to another task and
//! back. Only if the request has a body, or asks to switch protocols, does a task of its own drive it for that exchange:
//! such a connection makes progress even while nobody reads the response.

use std::fmt;
use std::fmt::Debug;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use http::{Request, Response, header};
use http_body::{Body as _, Frame};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::sync::Notify;
use tokio::task::coop::unconstrained;
use tokio::time::Instant;
use tracing::debug;

use super::key::PoolKey;
use super::wakeups::Wakeups;
use crate::mutex::lock;
use crate::proxy::message::body::Body;
use crate::proxy::message::driven::{DrivenBody, DrivesBody, IncomingFrame};
use crate::proxy::upstream::stream::{Reuse, UpstreamStream};

/// How often a connection that wakes itself is polled before other tasks get their turn.
const TURNS: usize = 4;

/// The pool, as its idle connections return to it.
pub(super) trait KeepsIdle: Debug + Send + Sync {
    /// Keeps a connection for another request.
    fn keep(self: Arc<Self>, key: PoolKey, idle: IdleConnection);
}

/// A connection that carries one request.
pub(super) struct ExclusiveConnection {
    sender: SendRequest<Body>,
    driver: Driver,
    reuse: Reuse,
    /// The pool of the worker that opened the connection.
    pool: Weak<dyn KeepsIdle>,
    /// Counts the connection.
    _open: Arc<()>,
}

/// What makes a connection move, and what that wakes.
struct Driver {
    /// `None` once it has ended. Never locked: the lock makes it `Sync`, as bodies must be.
    connection: Mutex<Option<ConnectionFuture>>,
    wakeups: Arc<Wakeups>,
    waker: Waker,
}

type ConnectionFuture = Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>;

/// A connection without a request, in the pool.
#[derive(Debug)]
pub(super) struct IdleConnection {
    exclusive: Box<ExclusiveConnection>,
    since: Instant,
}

/// A connection whose response has begun.
pub(super) enum Answering {
    /// Whoever reads the response drives it.
    Here(Box<ExclusiveConnection>),
    /// A task drives it.
    Apart(ApartExchange),
}

/// The request's side of an exchange on a connection that a task drives. Dropped early, it has the connection closed.
#[derive(Debug)]
pub(super) struct ApartExchange(Arc<DrivenApart>);

/// A connection that a task of its own drives for one exchange.
#[derive(Debug)]
struct DrivenApart {
    state: Mutex<ApartState>,
    task: AtomicWaker,
}

#[derive(Debug)]
struct ApartState {
    /// `None` once it is in the pool again, or closed.
    connection: Option<Box<ExclusiveConnection>>,
    then: AfterExchange,
}

/// What becomes of a connection after the exchange.
#[derive(Debug)]
enum AfterExchange {
    /// The response has not begun yet.
    Unknown,
    Keep(PoolKey),
    Close,
}

/// A response body's connection.
#[derive(Debug)]
struct ResponseDriver {
    /// `None` once it is in the pool again, or closed.
    connection: Option<Box<ExclusiveConnection>>,
    /// `None` if it must be closed after this response.
    key: Option<PoolKey>,
    /// A frame that has been taken already, or an error that waits until the bytes before it have been written.
    next: Option<IncomingFrame>,
    /// Whether the task has had no chance to write the last bytes.
    is_unwritten: bool,
}

impl ExclusiveConnection {
    /// Opens a connection of `pool`. If something happens on it while it is idle, `news` gets a notice.
    pub(super) async fn open<P: KeepsIdle + 'static>(
        pool: &Arc<P>,
        news: &Arc<Notify>,
        http1: &Builder,
        stream: UpstreamStream,
        open: Arc<()>,
    ) -> hyper::Result<Box<Self>> {
        let reuse = stream.reuse().clone();
        let (sender, connection) = http1.handshake(TokioIo::new(stream)).await?;
        let pool: Weak<dyn KeepsIdle> = Arc::<P>::downgrade(pool);
        let driver = Driver::new(Box::pin(connection.with_upgrades()), Arc::clone(news));
        Ok(Box::new(Self { sender, driver, reuse, pool, _open: open }))
    }

    pub(super) fn reuse(&self) -> &Reuse {
        &self.reuse
    }

    /// Sends a request and waits for the head of the response.
    // Not an `async fn`, which would hold the request a second time.
    pub(super) fn send(
        mut self: Box<Self>,
        request: Request<Body>,
    ) -> impl Future<Output = Result<(Response<Incoming>, Answering), TrySendError<Request<Body>>>> + use<>
    {
        let is_alone = request.body().is_end_stream() && !request.headers().contains_key(header::UPGRADE);
        self.driver.wakeups.begin();
        // In a box of its own, because a future that is captured and then pinned takes its space twice. Without tokio's
        // budget, it is never pending for other reasons than the connection.
        let mut sent = Box::pin(unconstrained(self.sender.try_send_request(request)));
        async move {
            if is_alone {
                let response = poll_fn(|cx| self.driver.poll_until(cx, |cx| sent.as_mut().poll(cx))).await?;
                return Ok((response, Answering::Here(self)));
            }
            let exchange = self.drive_apart();
            Ok((sent.await?, Answering::Apart(exchange)))
        }
    }

    /// Gives the connection to a task, which drives it to the end of this exchange.
    fn drive_apart(self: Box<Self>) -> ApartExchange {
        let state = ApartState { connection: Some(self), then: AfterExchange::Unknown };
        let apart = Arc::new(DrivenApart { state: Mutex::new(state), task: AtomicWaker::new() });
        let driven = Arc::clone(&apart);
        tokio::spawn(poll_fn(move |cx| driven.poll(cx)));
        ApartExchange(apart)
    }

    /// Gives the connection back to its pool once `incoming` has been read. Returns the body that the client reads.
    fn keep_with(self: Box<Self>, key: Option<PoolKey>, mut incoming: Incoming) -> Body {
        let mut first = None;
        if !incoming.is_end_stream() && self.sender.is_ready() && incoming.size_hint().exact().is_some() {
            // All of a short body has been read.
            let mut cx = Context::from_waker(Waker::noop());
            first = match self.driver.wakeups.take(|| Pin::new(&mut incoming).poll_frame(&mut cx)) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(bytes) if incoming.is_end_stream() => {
                        self.end(key);
                        return Body::full(bytes);
                    }
                    Ok(bytes) => Some(Some(Ok(Frame::data(bytes)))),
                    Err(frame) => Some(Some(Ok(frame))),
                },
                Poll::Ready(ended) => Some(ended),
                Poll::Pending => None,
            };
        }
        if first.is_none() && incoming.is_end_stream() {
            self.end(key);
            return Body::Incoming(incoming);
        }
        let driver = ResponseDriver { connection: Some(self), key, next: first, is_unwritten: true };
        Body::Driven(Box::new(DrivenBody::new(incoming, driver)))
    }

    /// Ends an exchange whose response has been read: keeps the connection, or closes it if there is no key.
    fn end(mut self: Box<Self>, key: Option<PoolKey>) {
        let Some(key) = key else { return };
        if !self.sender.is_ready() {
            self.driver.settle();
        }
        self.rest(key);
    }

    /// Puts the connection into its pool, if it can carry another request.
    fn rest(mut self: Box<Self>, key: PoolKey) {
        if !self.sender.is_ready() {
            return;
        }
        self.driver.rest();
        if let Some(pool) = self.pool.upgrade() {
            pool.keep(key, IdleConnection { exclusive: self, since: Instant::now() });
        }
    }

    /// Whether an idle connection is still open.
    fn is_open(&mut self) -> bool {
        if self.driver.wakeups.is_stirred() {
            self.driver.settle();
            self.driver.rest();
        }
        self.sender.is_ready()
    }
}

impl Answering {
    /// Gives the connection back to its pool once the response has been read, or has it closed if there is no key. Returns
    /// the body that the client reads.
    pub(super) fn keep(self, key: Option<PoolKey>, incoming: Incoming) -> Body {
        match (self, key) {
            (Self::Here(connection), key) => connection.keep_with(key, incoming),
            (Self::Apart(exchange), key) => {
                exchange.0.finish(key.map_or(AfterExchange::Close, AfterExchange::Keep));
                Body::Incoming(incoming)
            }
        }
    }
}

impl DrivenApart {
    fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.task.register(cx.waker());
        let mut state = lock(&self.state);
        let Some(connection) = &mut state.connection else { return Poll::Ready(()) };
        if connection.driver.poll(cx).is_ready() {
            state.connection = None;
            return Poll::Ready(());
        }
        if state.end() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Decides what becomes of the connection once the response has been read, which may be so already. Only the first
    /// decision counts.
    fn finish(&self, then: AfterExchange) {
        let mut state = lock(&self.state);
        if !matches!(state.then, AfterExchange::Unknown) {
            return;
        }
        state.then = then;
        if state.end() {
            self.task.wake();
        }
    }
}

impl Drop for ApartExchange {
    fn drop(&mut self) {
        self.0.finish(AfterExchange::Close);
    }
}

impl ApartState {
    /// Ends the exchange if that is possible.
    fn end(&mut self) -> bool {
        let is_over = self.connection.as_ref().is_none_or(|connection| connection.sender.is_ready());
        if !is_over || matches!(self.then, AfterExchange::Unknown) {
            return false;
        }
        let then = std::mem::replace(&mut self.then, AfterExchange::Close);
        if let (Some(mut connection), AfterExchange::Keep(key)) = (self.connection.take(), then) {
            // From now on, it wakes the pool instead of the task.
            connection.driver.settle();
            connection.rest(key);
        }
        true
    }
}

impl Driver {
    fn new(connection: ConnectionFuture, news: Arc<Notify>) -> Self {
        let wakeups = Arc::new(Wakeups::new(news));
        let waker = Waker::from(Arc::clone(&wakeups));
        Self { connection: Mutex::new(Some(connection)), wakeups, waker }
    }

    /// Drives the connection. Ready once it has ended.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let connection = self.connection.get_mut().unwrap_or_else(PoisonError::into_inner);
        let Some(driven) = connection else { return Poll::Ready(()) };
        let Poll::Ready(ended) = driven.as_mut().poll(cx) else { return Poll::Pending };
        if let Err(error) = ended {
            debug!(%error, "connection to origin failed");
        }
        *connection = None;
        Poll::Ready(())
    }

    /// Drives the connection once, so that it takes notice of what has happened.
    fn settle(&mut self) {
        self.wakeups.begin();
        let waker = self.waker.clone();
        // An end shows in the sender, too.
        let _ = self.poll(&mut Context::from_waker(&waker));
    }

    /// Leaves the connection to the pool.
    fn rest(&mut self) {
        if !self.wakeups.rest() {
            self.settle();
            self.wakeups.rest();
        }
    }

    /// Drives the connection until `result` is ready, which depends on nothing else.
    fn poll_until<T>(
        &mut self,
        cx: &mut Context<'_>,
        mut result: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        let own = self.waker.clone();
        for _ in 0..TURNS {
            self.wakeups.begin();
            let has_ended = self.poll(&mut Context::from_waker(&own)).is_ready();
            // What the connection does to the result happens while it is polled here, so nothing needs to be woken.
            let waker = if has_ended { cx.waker() } else { Waker::noop() };
            let ready = result(&mut Context::from_waker(waker));
            if ready.is_ready() || has_ended || self.wakeups.wait(cx.waker()) {
                return ready;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl ResponseDriver {
    fn poll_next(&mut self, incoming: &mut Incoming, cx: &mut Context<'_>) -> Poll<IncomingFrame> {
        let mut incoming = Pin::new(incoming);
        let Some(connection) = &mut self.connection else { return incoming.poll_frame(cx) };
        // Most often, there is a frame already.
        let mut without = Context::from_waker(Waker::noop());
        match connection.driver.wakeups.take(|| incoming.as_mut().poll_frame(&mut without)) {
            Poll::Ready(frame) => Poll::Ready(frame),
            Poll::Pending => connection.driver.poll_until(cx, |cx| incoming.as_mut().poll_frame(cx)),
        }
    }
}

impl DrivesBody for ResponseDriver {
    fn poll_frame(&mut self, incoming: &mut Incoming, cx: &mut Context<'_>) -> Poll<IncomingFrame> {
        let next = match self.next.take() {
            Some(next) => Poll::Ready(next),
            None => self.poll_next(incoming, cx),
        };
        let was_unwritten =
            std::mem::replace(&mut self.is_unwritten, matches!(next, Poll::Ready(Some(Ok(_)))));
        match next {
            // An error makes the server drop what it has not written yet.
            Poll::Ready(Some(Err(error))) if was_unwritten => {
                self.next = Some(Some(Err(error)));
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            next => next,
        }
    }

    fn complete(&mut self) {
        if let Some(connection) = self.connection.take() {
            connection.end(self.key.take());
        }
    }
}

impl IdleConnection {
    /// Whether it is open and has not been idle for longer than `within`.
    pub(super) fn is_usable(&mut self, within: Duration) -> bool {
        self.exclusive.is_open() && self.since.elapsed() < within
    }

    pub(super) fn since(&self) -> Instant {
        self.since
    }

    pub(super) fn into_exclusive(self) -> Box<ExclusiveConnection> {
        self.exclusive
    }
}

impl fmt::Debug for ExclusiveConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wakeups = &self.driver.wakeups;
        f.debug_struct("ExclusiveConnection").field("wakeups", wakeups).finish_non_exhaustive()
    }
}
