//! `Expect: 100-continue`: requests the client's body only once the origin is ready for it. RFC 9110 section 10.1.1.
//! hyper's server sends the client its 100 when the body is first read.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Version, header};
use http_body::{Frame, SizeHint};
use tokio::time::{Sleep, sleep};

use super::byte_body::{BodyError, ByteBody};
use crate::mutex::lock;

/// Whether the client waits for `100 Continue`.
pub(crate) fn is_expected<B: http_body::Body>(request: &Request<B>) -> bool {
    !request.body().is_end_stream()
        && request.version() == Version::HTTP_11
        && request.headers().contains_key(header::EXPECT)
}

/// Releases a body once the origin has requested it.
#[derive(Debug)]
pub(crate) struct ContinueGate<B>(Arc<Mutex<GateState<B>>>);

#[derive(Debug)]
struct GateState<B> {
    phase: GatePhase,
    /// `None` once it was released or dropped.
    body: Option<B>,
    waiting: Option<Waker>,
}

#[derive(Debug, PartialEq, Eq)]
enum GatePhase {
    /// Waits for the origin.
    Shut,
    /// The origin requested the body, or took too long.
    Open,
    /// The origin answered without the body, and its answer is still being read.
    Answered,
    /// The body will never be sent here.
    Over,
}

impl<B> Clone for ContinueGate<B> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<B: ByteBody> ContinueGate<B> {
    /// A gate before `body`, and the body to send in its place; it opens by itself after `within`.
    pub(crate) fn new(body: B, within: Duration) -> (Self, DeferredBody<B>) {
        let (hint, is_shut) = (body.size_hint(), true);
        let inner = GateState { phase: GatePhase::Shut, body: Some(body), waiting: None };
        let gate = Self(Arc::new(Mutex::new(inner)));
        let deferred =
            DeferredBody { gate: gate.clone(), body: B::default(), is_shut, hint, within, timer: None };
        (gate, deferred)
    }
}

impl<B> ContinueGate<B> {
    /// The origin asks for the body.
    pub(crate) fn open(&self) {
        self.change(GatePhase::Shut, GatePhase::Open);
    }

    /// The origin has sent its final response. If the body has not been sent it never will be, and the connection to the
    /// origin closes when the result is dropped, after the response has been read.
    pub(crate) fn answer(&self) -> Option<EndConnection<B>> {
        self.change(GatePhase::Shut, GatePhase::Answered).then(|| EndConnection(self.clone()))
    }

    /// Takes the body back from a connection that failed before any of it was sent.
    pub(crate) fn take_back(&self) -> Option<B> {
        self.change(GatePhase::Shut, GatePhase::Over).then(|| self.lock().body.take()).flatten()
    }

    fn change(&self, from: GatePhase, to: GatePhase) -> bool {
        let mut inner = self.lock();
        if inner.phase != from {
            return false;
        }
        if to == GatePhase::Answered {
            // Tells the client's side that the body is not needed.
            inner.body = None;
        }
        inner.phase = to;
        if let Some(waiting) = inner.waiting.take() {
            waiting.wake();
        }
        true
    }

    fn lock(&self) -> MutexGuard<'_, GateState<B>> {
        // Code that holds this lock cannot leave it half changed.
        lock(&self.0)
    }
}

/// Closes the connection when dropped, because its request will never be complete.
#[derive(Debug)]
pub(crate) struct EndConnection<B>(ContinueGate<B>);

impl<B> Drop for EndConnection<B> {
    fn drop(&mut self) {
        self.0.change(GatePhase::Answered, GatePhase::Over);
    }
}

/// A request body that is not read before its gate opens.
#[derive(Debug)]
pub struct DeferredBody<B> {
    gate: ContinueGate<B>,
    /// The body, once the gate is open.
    body: B,
    is_shut: bool,
    /// The size while the gate is shut.
    hint: SizeHint,
    within: Duration,
    timer: Option<Pin<Box<Sleep>>>,
}

impl<B: ByteBody> DeferredBody<B> {
    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.is_shut {
            self.body = match ready!(self.poll_open(cx)) {
                Some(body) => body,
                None => return Poll::Ready(Some(Err(BodyError::Superseded))),
            };
            self.is_shut = false;
        }
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<Option<B>> {
        let within = self.within;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(within)));
        let mut inner = self.gate.lock();
        if inner.phase == GatePhase::Shut && timer.as_mut().poll(cx).is_ready() {
            inner.phase = GatePhase::Open;
        }
        match inner.phase {
            GatePhase::Open => Poll::Ready(inner.body.take()),
            GatePhase::Over => Poll::Ready(None),
            GatePhase::Shut | GatePhase::Answered => {
                inner.waiting = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        !self.is_shut && self.body.is_end_stream()
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        if self.is_shut { self.hint } else { self.body.size_hint() }
    }
}

/// The body of a response that arrived before the request body was sent.
#[derive(Debug)]
pub struct EarlyResponse<B> {
    body: B,
    closing: Option<EndConnection<B>>,
}

impl<B: ByteBody> EarlyResponse<B> {
    pub(crate) fn new(body: B, closing: EndConnection<B>) -> Self {
        Self { body, closing: Some(closing) }
    }

    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let next = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if next.is_none() {
            self.closing = None;
        }
        Poll::Ready(next)
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A client's body that records whether reading it has begun.
#[derive(Debug)]
pub struct TrackedBody<B> {
    body: B,
    is_begun: Arc<AtomicBool>,
}

impl<B: ByteBody> TrackedBody<B> {
    /// The body, and the flag that reading it sets.
    pub(crate) fn new(body: B) -> (Self, Arc<AtomicBool>) {
        let is_begun = Arc::new(AtomicBool::new(false));
        (Self { body, is_begun: Arc::clone(&is_begun) }, is_begun)
    }

    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.is_begun.store(true, Ordering::Relaxed);
        Pin::new(&mut self.body).poll_frame(cx)
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use crate::proxy::Body;
    use crate::proxy::message::expect::*;
    use http_body_util::BodyExt;

    const LONG: Duration = Duration::from_secs(3600);

    #[tokio::test(start_paused = true)]
    async fn a_gate_opens_on_request_or_after_its_timeout() {
        let (gate, deferred) = ContinueGate::new(Body::full("body"), LONG);
        assert_eq!((deferred.size_hint().exact(), deferred.is_end_stream()), (Some(4), false));
        let reading = tokio::spawn(Body::Deferred(Box::new(deferred)).collect());
        tokio::task::yield_now().await;
        gate.open();
        assert_eq!(reading.await.unwrap().unwrap().to_bytes(), "body");
        assert!(gate.answer().is_none() && gate.take_back().is_none(), "it has been sent");

        let (_gate, deferred) = ContinueGate::new(Body::full("late"), Duration::from_secs(1));
        assert_eq!(Body::Deferred(Box::new(deferred)).collect().await.unwrap().to_bytes(), "late");
    }

    #[tokio::test(start_paused = true)]
    async fn after_an_answer_the_body_is_never_read_and_its_sending_ends_with_the_answer() {
        let (gate, deferred) = ContinueGate::new(Body::full("body"), Duration::from_secs(1));
        let reading = tokio::spawn(Body::Deferred(Box::new(deferred)).collect());
        tokio::task::yield_now().await;
        let closing = gate.answer().unwrap();
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert!(!reading.is_finished());
        let answer = Body::Early(Box::new(EarlyResponse::new(Body::full("no"), closing)));
        assert_eq!(answer.collect().await.unwrap().to_bytes(), "no");
        assert!(matches!(reading.await.unwrap(), Err(BodyError::Superseded)));
    }

    #[tokio::test]
    async fn a_body_that_was_not_sent_can_be_taken_back() {
        let (gate, mut deferred) = ContinueGate::new(Body::full("body"), LONG);
        let taken = gate.take_back().unwrap();
        assert_eq!(taken.collect().await.unwrap().to_bytes(), "body");
        assert!(matches!(
            std::future::poll_fn(|cx| deferred.poll_frame(cx)).await,
            Some(Err(BodyError::Superseded))
        ));
    }
}
