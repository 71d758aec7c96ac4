//! `Expect: 100-continue`: a request body that nobody asks the client for until the origin wants it. RFC 9110 section
//! 10.1.1. The client is told to go on by the server's side, when the body is first read.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Version, header};
use http_body::{Body as _, Frame, SizeHint};
use tokio::time::{Sleep, sleep};

use crate::mutex::lock;
use crate::proxy::{Body, BodyError};

/// Whether the client waits for a word before it sends its body.
pub(crate) fn is_asked(request: &Request<Body>) -> bool {
    request.headers().contains_key(header::EXPECT)
        && request.version() == Version::HTTP_11
        && !request.body().is_end_stream()
}

/// Lets a body through once the origin has asked for it.
#[derive(Clone, Debug)]
pub(crate) struct Gate(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    phase: Phase,
    /// Until it is let through or let go.
    body: Option<Body>,
    waiting: Option<Waker>,
}

#[derive(Debug, PartialEq, Eq)]
enum Phase {
    /// Nobody has said anything.
    Shut,
    /// The origin asked, or took too long.
    Open,
    /// The origin answered without the body, and its answer is still being read.
    Answered,
    /// The body will never be sent here.
    Over,
}

impl Gate {
    /// A gate before `body`, and what to send in its place; it opens by itself after `within`.
    pub(crate) fn new(body: Body, within: Duration) -> (Self, Gated) {
        let (hint, is_shut) = (body.size_hint(), true);
        let inner = Inner { phase: Phase::Shut, body: Some(body), waiting: None };
        let gate = Self(Arc::new(Mutex::new(inner)));
        let gated = Gated { gate: gate.clone(), body: Body::Empty, is_shut, hint, within, timer: None };
        (gate, gated)
    }

    /// The origin asks for the body.
    pub(crate) fn open(&self) {
        self.change(Phase::Shut, Phase::Open);
    }

    /// The origin's final answer is there. Where the body was not sent yet it never will be: the connection to the
    /// origin ends when the result is dropped, which is when the answer has been read.
    pub(crate) fn answer(&self) -> Option<Closing> {
        self.change(Phase::Shut, Phase::Answered).then(|| Closing(self.clone()))
    }

    /// Takes the body back from a connection that was lost before any of it was sent.
    pub(crate) fn take_back(&self) -> Option<Body> {
        self.change(Phase::Shut, Phase::Over).then(|| self.lock().body.take()).flatten()
    }

    fn change(&self, from: Phase, to: Phase) -> bool {
        let mut inner = self.lock();
        if inner.phase != from {
            return false;
        }
        if to == Phase::Answered {
            // Lets go of the client's side, which then knows that nobody wants the rest.
            inner.body = None;
        }
        inner.phase = to;
        if let Some(waiting) = inner.waiting.take() {
            waiting.wake();
        }
        true
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // No code that holds this lock can leave it half changed.
        lock(&self.0)
    }
}

/// Ends the connection whose request will never be whole.
#[derive(Debug)]
pub(crate) struct Closing(Gate);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.change(Phase::Answered, Phase::Over);
    }
}

/// A body behind a gate.
#[derive(Debug)]
pub struct Gated {
    gate: Gate,
    /// The body, once the gate is open.
    body: Body,
    is_shut: bool,
    /// Of the body before it is there.
    hint: SizeHint,
    within: Duration,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Gated {
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

    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<Option<Body>> {
        let within = self.within;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(within)));
        let mut inner = self.gate.lock();
        if inner.phase == Phase::Shut && timer.as_mut().poll(cx).is_ready() {
            inner.phase = Phase::Open;
        }
        match inner.phase {
            Phase::Open => Poll::Ready(inner.body.take()),
            Phase::Over => Poll::Ready(None),
            Phase::Shut | Phase::Answered => {
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

/// The body of an answer that came in place of the request's body.
#[derive(Debug)]
pub struct Instead {
    body: Body,
    closing: Option<Closing>,
}

impl Instead {
    pub(crate) fn new(body: Body, closing: Closing) -> Self {
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

/// A client's body that remembers whether anybody has begun to read it.
#[derive(Debug)]
pub struct Offered {
    body: Body,
    is_begun: Arc<AtomicBool>,
}

impl Offered {
    /// The body, and whether it has been begun.
    pub(crate) fn new(body: Body) -> (Self, Arc<AtomicBool>) {
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
    use crate::proxy::message::expect::*;
    use http_body_util::BodyExt;

    const LONG: Duration = Duration::from_secs(3600);

    #[tokio::test(start_paused = true)]
    async fn a_gate_opens_when_it_is_asked_or_late() {
        let (gate, gated) = Gate::new(Body::full("body"), LONG);
        assert_eq!((gated.size_hint().exact(), gated.is_end_stream()), (Some(4), false));
        let reading = tokio::spawn(Body::Gated(Box::new(gated)).collect());
        tokio::task::yield_now().await;
        gate.open();
        assert_eq!(reading.await.unwrap().unwrap().to_bytes(), "body");
        assert!(gate.answer().is_none() && gate.take_back().is_none(), "it has been sent");

        let (_gate, gated) = Gate::new(Body::full("late"), Duration::from_secs(1));
        assert_eq!(Body::Gated(Box::new(gated)).collect().await.unwrap().to_bytes(), "late");
    }

    #[tokio::test(start_paused = true)]
    async fn after_an_answer_the_body_is_never_read_and_its_sending_ends_with_the_answer() {
        let (gate, gated) = Gate::new(Body::full("body"), Duration::from_secs(1));
        let reading = tokio::spawn(Body::Gated(Box::new(gated)).collect());
        tokio::task::yield_now().await;
        let closing = gate.answer().unwrap();
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert!(!reading.is_finished());
        let answer = Body::Instead(Box::new(Instead::new(Body::full("no"), closing)));
        assert_eq!(answer.collect().await.unwrap().to_bytes(), "no");
        assert!(matches!(reading.await.unwrap(), Err(BodyError::Superseded)));
    }

    #[tokio::test]
    async fn a_body_that_was_not_sent_can_be_taken_back() {
        let (gate, mut gated) = Gate::new(Body::full("body"), LONG);
        let taken = gate.take_back().unwrap();
        assert_eq!(taken.collect().await.unwrap().to_bytes(), "body");
        assert!(matches!(
            std::future::poll_fn(|cx| gated.poll_frame(cx)).await,
            Some(Err(BodyError::Superseded))
        ));
    }
}
