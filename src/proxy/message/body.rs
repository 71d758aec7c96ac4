//! The body type of the HTTP shell, an enum so that common bodies need no box.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;

use super::byte_body::{BodyError, normalise_trailers};
use super::driven::{DrivenBody, DrivesBody};
use super::expect::{DeferredBody, EarlyResponse, TrackedBody};
use super::multiplexed::{HoldsStream, MultiplexedBody};
use super::payment_headers;
use super::recorded::{BodyRecord, RecordedBody};
use super::streamed::StreamedBody;
use crate::proxy::replay::hold::Resumed;
use crate::proxy::replay::kept::ReplayBody;
use crate::proxy::upstream::pool::retry::RetriableBody;

/// The body of a request or response. The common cases are not boxed.
#[derive(Debug, Default)]
pub enum Body {
    /// No bytes.
    #[default]
    Empty,
    /// Streamed from the peer's connection.
    Incoming(Incoming),
    /// Complete, in memory.
    Full(Full),
    /// A request body that is kept while it is sent, or sent again.
    Replay(ReplayBody<Self>),
    /// The part that has been read already, then the rest.
    Resumed(Box<Resumed<Self>>),
    /// A client's body that records whether reading it has begun.
    Tracked(Box<TrackedBody<Self>>),
    /// A request body that waits for `100 Continue` from the origin.
    Deferred(Box<DeferredBody<Self>>),
    /// The body of a response that arrived before the request body was sent.
    Early(Box<EarlyResponse<Self>>),
    /// A request body that keeps what it has sent until the origin accepts the stream.
    Retriable(Box<RetriableBody<Self>>),
    /// Loses payment headers from its trailers.
    Unpaid(Box<Self>),
    /// The body of a response on a connection that carries other streams, too.
    Multiplexed(Box<MultiplexedBody<dyn HoldsStream>>),
    /// The body of a response that drives its connection.
    Driven(Box<DrivenBody<dyn DrivesBody>>),
    /// The body of a response whose end is logged.
    Recorded(Box<RecordedBody<Self, dyn BodyRecord>>),
    /// Written while it is made.
    Streamed(StreamedBody),
}

/// A complete body and its trailers.
#[derive(Debug)]
pub struct Full {
    bytes: Bytes,
    trailers: Option<Box<HeaderMap>>,
}

impl Body {
    /// A complete body.
    #[must_use]
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        Self::with_trailers(bytes, None)
    }

    /// Whether it can end with trailers: not with a length, except on HTTP/2.
    pub(crate) fn may_have_trailers(&self) -> bool {
        matches!(self, Self::Multiplexed(_)) || http_body::Body::size_hint(self).exact().is_none()
    }

    /// A complete body with trailers.
    #[must_use]
    pub fn with_trailers(bytes: impl Into<Bytes>, trailers: Option<HeaderMap>) -> Self {
        Self::Full(Full { bytes: bytes.into(), trailers: trailers.map(Box::new) })
    }
}

impl From<Incoming> for Body {
    fn from(incoming: Incoming) -> Self {
        Self::Incoming(incoming)
    }
}

impl From<ReplayBody<Self>> for Body {
    fn from(replay: ReplayBody<Self>) -> Self {
        Self::Replay(replay)
    }
}

impl From<Resumed<Self>> for Body {
    fn from(resumed: Resumed<Self>) -> Self {
        Self::Resumed(Box::new(resumed))
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Incoming(incoming) => match ready!(Pin::new(incoming).poll_frame(cx)) {
                Some(Ok(frame)) => Poll::Ready(Some(Ok(normalise_trailers(frame)))),
                ended => Poll::Ready(ended.map(|error| error.map_err(BodyError::Incoming))),
            },
            Self::Empty => Poll::Ready(None),
            Self::Full(full) => Poll::Ready(full.next().map(Ok)),
            Self::Replay(replay) => replay.poll_frame(cx),
            Self::Resumed(resumed) => resumed.poll_frame(cx),
            Self::Tracked(tracked) => tracked.poll_frame(cx),
            Self::Deferred(deferred) => deferred.poll_frame(cx),
            Self::Early(early) => early.poll_frame(cx),
            Self::Retriable(retriable) => retriable.poll_frame(cx),
            Self::Multiplexed(multiplexed) => multiplexed.poll_frame(cx),
            Self::Driven(driven) => driven.poll_frame(cx),
            Self::Recorded(recorded) => recorded.poll_frame(cx),
            Self::Streamed(streamed) => streamed.poll_frame(cx),
            Self::Unpaid(body) => {
                let mut next = ready!(Pin::new(&mut **body).poll_frame(cx));
                if let Some(Ok(frame)) = &mut next
                    && let Some(trailers) = frame.trailers_mut()
                {
                    payment_headers::strip(trailers);
                }
                Poll::Ready(next)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Incoming(incoming) => incoming.is_end_stream(),
            Self::Empty => true,
            Self::Full(full) => full.bytes.is_empty() && full.trailers.is_none(),
            Self::Replay(replay) => replay.is_end_stream(),
            Self::Resumed(resumed) => resumed.is_end_stream(),
            Self::Tracked(tracked) => tracked.is_end_stream(),
            Self::Deferred(deferred) => deferred.is_end_stream(),
            Self::Early(early) => early.is_end_stream(),
            Self::Retriable(retriable) => retriable.is_end_stream(),
            Self::Multiplexed(multiplexed) => multiplexed.is_end_stream(),
            Self::Driven(driven) => driven.is_end_stream(),
            Self::Recorded(recorded) => recorded.is_end_stream(),
            Self::Streamed(_) => false,
            Self::Unpaid(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Incoming(incoming) => incoming.size_hint(),
            Self::Empty => SizeHint::with_exact(0),
            Self::Full(full) if full.trailers.is_some() => SizeHint::default(),
            Self::Full(full) => SizeHint::with_exact(full.bytes.len() as u64),
            Self::Replay(replay) => replay.size_hint(),
            Self::Resumed(resumed) => resumed.size_hint(),
            Self::Tracked(tracked) => tracked.size_hint(),
            Self::Deferred(deferred) => deferred.size_hint(),
            Self::Early(early) => early.size_hint(),
            Self::Retriable(retriable) => retriable.size_hint(),
            Self::Multiplexed(multiplexed) => multiplexed.size_hint(),
            Self::Driven(driven) => driven.size_hint(),
            Self::Recorded(recorded) => recorded.size_hint(),
            Self::Streamed(_) => SizeHint::default(),
            Self::Unpaid(body) => body.size_hint(),
        }
    }
}

impl Full {
    fn next(&mut self) -> Option<Frame<Bytes>> {
        if !self.bytes.is_empty() {
            return Some(Frame::data(std::mem::take(&mut self.bytes)));
        }
        self.trailers.take().map(|trailers| Frame::trailers(*trailers))
    }
}
