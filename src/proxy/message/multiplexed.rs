//! The body of a response that holds its stream on a connection with others until it has been read.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;

use super::byte_body::{BodyError, normalise_trailers};

/// Gives a stream's place back to its connection when it is dropped.
pub trait HoldsStream: fmt::Debug + Send + Sync {
    /// Records that the exchange is complete, so that dropping this does not abort it.
    fn complete(&mut self);
}

/// A response body and the place of its stream.
#[derive(Debug)]
pub struct MultiplexedBody<S: HoldsStream + ?Sized> {
    incoming: Incoming,
    /// Whether the request has no body, so that only the end of the response can end the stream.
    is_sent: bool,
    stream: S,
}

impl<S: HoldsStream> MultiplexedBody<S> {
    pub(crate) fn new(incoming: Incoming, is_sent: bool, stream: S) -> Self {
        Self { incoming, is_sent, stream }
    }
}

impl<S: HoldsStream + ?Sized> MultiplexedBody<S> {
    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match ready!(Pin::new(&mut self.incoming).poll_frame(cx)) {
            Some(Ok(frame)) => Poll::Ready(Some(Ok(normalise_trailers(frame)))),
            ended => {
                self.stream.complete();
                // hyper takes a reset without an error for the end, as it is if the origin does not want the rest of the
                // request.
                if ended.is_none() && self.is_sent && !self.incoming.is_end_stream() {
                    self.is_sent = false;
                    return Poll::Ready(Some(Err(BodyError::Cut)));
                }
                Poll::Ready(ended.map(|error| error.map_err(BodyError::Incoming)))
            }
        }
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

impl<S: HoldsStream + ?Sized> Drop for MultiplexedBody<S> {
    fn drop(&mut self) {
        if self.incoming.is_end_stream() {
            self.stream.complete();
        }
    }
}
