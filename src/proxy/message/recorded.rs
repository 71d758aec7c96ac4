//! The body of a response whose bytes and end are recorded.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

/// How a body ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyEnd {
    /// All of it was taken.
    Complete,
    /// It was dropped before its end.
    Dropped,
    /// It failed.
    Failed,
}

/// Receives the record of a body.
pub trait BodyRecord: fmt::Debug + Send + Sync {
    /// This is the next part of the body.
    fn saw(&mut self, _data: &Bytes) {}

    /// The body has ended after this many bytes.
    fn ended(&mut self, bytes: u64, end: BodyEnd);
}

impl<R: BodyRecord + ?Sized> BodyRecord for Box<R> {
    fn saw(&mut self, data: &Bytes) {
        (**self).saw(data);
    }

    fn ended(&mut self, bytes: u64, end: BodyEnd) {
        (**self).ended(bytes, end);
    }
}

/// A body that reports its length and its end when it is dropped.
#[derive(Debug)]
pub struct RecordedBody<B: Body, R: BodyRecord + ?Sized> {
    body: B,
    bytes: u64,
    end: BodyEnd,
    record: R,
}

impl<B: Body, R: BodyRecord> RecordedBody<B, R> {
    pub(crate) fn new(body: B, record: R) -> Self {
        Self { body, bytes: 0, end: BodyEnd::Dropped, record }
    }
}

impl<B, R> RecordedBody<B, R>
where
    B: Body<Data = Bytes> + Unpin,
    R: BodyRecord + ?Sized,
{
    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    self.bytes += data.len() as u64;
                    self.record.saw(data);
                }
            }
            Some(Err(_)) => self.end = BodyEnd::Failed,
            None => self.end = BodyEnd::Complete,
        }
        Poll::Ready(frame)
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B: Body, R: BodyRecord + ?Sized> Drop for RecordedBody<B, R> {
    fn drop(&mut self) {
        // hyper does not poll a body of known length beyond it.
        if self.end == BodyEnd::Dropped && self.body.is_end_stream() {
            self.end = BodyEnd::Complete;
        }
        self.record.ended(self.bytes, self.end);
    }
}
