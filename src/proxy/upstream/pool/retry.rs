//! A request body sent over HTTP/2 whose beginning is kept: if the origin refuses the stream, the whole body is sent again.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::upload::UploadShare;
use crate::mutex::lock;
use crate::proxy::message::byte_body::{BodyError, ByteBody};
use crate::proxy::replay::hold::Resumed;

/// Takes the body back from a refused stream.
#[derive(Debug)]
pub(super) struct RetryHandle<B>(Arc<Mutex<RetryBuffer<B>>>);

#[derive(Debug)]
struct RetryBuffer<B> {
    /// Until it is taken back.
    body: Option<B>,
    sent: Vec<Bytes>,
    /// Bytes that may still be kept; `None` after more bytes, or trailers.
    left: Option<usize>,
    waiting: Option<Waker>,
}

/// The body of the stream.
#[derive(Debug)]
pub struct RetriableBody<B> {
    inner: Arc<Mutex<RetryBuffer<B>>>,
    /// Until the body has been sent.
    upload: Option<UploadShare>,
}

impl<B: ByteBody + From<Resumed<B>>> RetryHandle<B> {
    pub(super) fn new(body: B, limit: usize, upload: Option<UploadShare>) -> (Self, RetriableBody<B>) {
        let inner = RetryBuffer { body: Some(body), sent: Vec::new(), left: Some(limit), waiting: None };
        let inner = Arc::new(Mutex::new(inner));
        (Self(Arc::clone(&inner)), RetriableBody { inner, upload })
    }

    /// The whole body; the stream stops reading it. `None` if more was sent than was kept.
    pub(super) fn take_back(self) -> Option<B> {
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
        Some(Resumed::new(sent, body).into())
    }
}

impl<B> Drop for RetryHandle<B> {
    fn drop(&mut self) {
        // The origin has answered, so the body is not sent again.
        let mut inner = lock(&self.0);
        inner.left = None;
        inner.sent = Vec::new();
    }
}

impl<B: ByteBody> RetriableBody<B> {
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
        lock(&self.inner).body.as_ref().is_some_and(http_body::Body::is_end_stream)
    }

    pub(in crate::proxy) fn size_hint(&self) -> SizeHint {
        lock(&self.inner).body.as_ref().map(http_body::Body::size_hint).unwrap_or_default()
    }
}

impl<B> RetryBuffer<B> {
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
