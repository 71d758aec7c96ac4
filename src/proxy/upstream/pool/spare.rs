//! A request body on its way over HTTP/2, of which the beginning is kept: where the origin refuses the stream, the
//! whole of it is sent again.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};

use super::shared::Upload;
use super::{Body, BodyError};
use crate::mutex::lock;
use crate::proxy::replay::Resumed;

/// Asks for the body back.
#[derive(Debug)]
pub(super) struct Spare(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    /// Until it is taken back.
    body: Option<Body>,
    sent: Vec<Bytes>,
    /// Bytes that may still be kept; nothing is once there were more, or trailer fields.
    left: Option<usize>,
    waiting: Option<Waker>,
}

/// The body as it is sent.
#[derive(Debug)]
pub struct Spared {
    inner: Arc<Mutex<Inner>>,
    /// Until all of it is sent.
    upload: Option<Upload>,
}

impl Spare {
    pub(super) fn new(body: Body, limit: usize, upload: Option<Upload>) -> (Self, Spared) {
        let inner = Inner { body: Some(body), sent: Vec::new(), left: Some(limit), waiting: None };
        let inner = Arc::new(Mutex::new(inner));
        (Self(Arc::clone(&inner)), Spared { inner, upload })
    }

    /// The whole body; the sending that is under way stops. `None` if more was sent than is kept.
    pub(super) fn take_back(self) -> Option<Body> {
        let mut inner = lock(&self.0);
        inner.left?;
        let body = inner.body.take()?;
        if let Some(waiting) = inner.waiting.take() {
            waiting.wake();
        }
        let sent = std::mem::take(&mut inner.sent);
        if sent.is_empty() {
            return Some(body);
        }
        Some(Body::Resumed(Box::new(Resumed::new(sent, body))))
    }
}

impl Drop for Spare {
    fn drop(&mut self) {
        // The origin has answered: nothing is sent again.
        let mut inner = lock(&self.0);
        inner.left = None;
        inner.sent = Vec::new();
    }
}

impl Spared {
    pub(in crate::proxy) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut inner = lock(&self.inner);
        if !inner.waiting.as_ref().is_some_and(|waiting| waiting.will_wake(cx.waker())) {
            inner.waiting = Some(cx.waker().clone());
        }
        let Some(body) = &mut inner.body else { return Poll::Ready(Some(Err(BodyError::Superseded))) };
        let next = ready!(Pin::new(body).poll_frame(cx));
        match &next {
            Some(Ok(frame)) => inner.sent(frame),
            Some(Err(_)) => inner.forget(),
            None => self.upload = None,
        }
        Poll::Ready(next)
    }

    pub(in crate::proxy) fn is_end_stream(&self) -> bool {
        lock(&self.inner).body.as_ref().is_some_and(Body::is_end_stream)
    }

    pub(in crate::proxy) fn size_hint(&self) -> SizeHint {
        lock(&self.inner).body.as_ref().map(Body::size_hint).unwrap_or_default()
    }
}

impl Inner {
    fn sent(&mut self, frame: &Frame<Bytes>) {
        let Some(left) = self.left else { return };
        let left = frame.data_ref().and_then(|data| left.checked_sub(data.len()));
        match (left, frame.data_ref()) {
            (Some(_), Some(data)) => self.sent.push(data.clone()),
            _ => return self.forget(),
        }
        self.left = left;
    }

    fn forget(&mut self) {
        self.left = None;
        self.sent = Vec::new();
    }
}
