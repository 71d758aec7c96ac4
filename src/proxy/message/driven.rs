//! The body of a response that drives its connection itself.

use std::fmt;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;

use super::byte_body::{BodyError, normalise_trailers};

/// The next frame of a body.
pub(crate) type IncomingFrame = Option<Result<Frame<Bytes>, hyper::Error>>;

/// A connection that makes progress only when it is polled with the body.
pub trait DrivesBody: fmt::Debug + Send + Sync {
    /// The next frame of the body. Drives the connection until there is one.
    fn poll_frame(&mut self, incoming: &mut Incoming, cx: &mut Context<'_>) -> Poll<IncomingFrame>;

    /// Gives the connection back for the next request, as the body has ended.
    fn complete(&mut self);
}

/// A response body and its connection, which is closed if this is dropped before the end.
#[derive(Debug)]
pub struct DrivenBody<D: DrivesBody + ?Sized> {
    incoming: Incoming,
    connection: D,
}

impl<D: DrivesBody> DrivenBody<D> {
    pub(crate) fn new(incoming: Incoming, connection: D) -> Self {
        Self { incoming, connection }
    }
}

impl<D: DrivesBody + ?Sized> DrivenBody<D> {
    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = ready!(self.connection.poll_frame(&mut self.incoming, cx));
        if frame.is_none() || self.incoming.is_end_stream() {
            self.connection.complete();
        }
        Poll::Ready(frame.map(|frame| frame.map(normalise_trailers).map_err(BodyError::Incoming)))
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
