//! The one body type of the shell: what comes in goes out without being boxed.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;

use super::expect::{Gated, Instead, Offered};
use super::headers;
use crate::proxy::pay::strip;
use crate::proxy::replay::{Pass, Resumed};
use crate::proxy::upstream::pool::{Shared, Spared};

/// A message body on its way through.
#[derive(Debug, Default)]
pub enum Body {
    /// Nothing.
    #[default]
    Empty,
    /// Read from a connection as it is polled.
    Incoming(Incoming),
    /// Whole, in memory.
    Full(Full),
    /// A request body that is kept, or one that was kept and is sent again.
    Replay(Pass),
    /// A body of which the beginning has been read already.
    Resumed(Box<Resumed>),
    /// A client's body that remembers whether anybody has begun to read it.
    Offered(Box<Offered>),
    /// A request body that waits until the origin wants it.
    Gated(Box<Gated>),
    /// The body of an answer that came in place of the request's body.
    Instead(Box<Instead>),
    /// A request body of which the beginning is kept until it is answered.
    Spared(Box<Spared>),
    /// One whose trailer fields pay for nothing.
    Unpaid(Box<Self>),
    /// The body of an answer on a connection that several requests share.
    Shared(Box<Shared>),
}

/// A whole body and its trailer fields.
#[derive(Debug)]
pub struct Full {
    bytes: Bytes,
    trailers: Option<Box<HeaderMap>>,
}

/// Why a body ended before its end.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The connection that it is read from failed.
    #[error("the peer's body broke off: {0}")]
    Incoming(#[from] hyper::Error),
    /// The peer ended it short of the length it had declared.
    #[error("the body ended after {read} of {declared} bytes")]
    Incomplete {
        /// Bytes that came.
        read: u64,
        /// Bytes that were announced.
        declared: u64,
    },
    /// It is being sent again elsewhere, so this sending stops.
    #[error("the body is being sent again elsewhere")]
    Superseded,
    /// Bytes that were put aside could not be read back.
    #[error("the kept body cannot be read back from its temporary file: {0}")]
    Storage(#[from] io::Error),
}

impl Body {
    /// A whole body.
    #[must_use]
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        Self::with_trailers(bytes, None)
    }

    /// Whether trailer fields can end it: not after a length, except on HTTP/2.
    pub(crate) fn may_have_trailers(&self) -> bool {
        matches!(self, Self::Shared(_)) || http_body::Body::size_hint(self).exact().is_none()
    }

    /// A whole body with the trailer fields that end it.
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

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Incoming(incoming) => match ready!(Pin::new(incoming).poll_frame(cx)) {
                Some(Ok(frame)) => Poll::Ready(Some(Ok(tidy(frame)))),
                ended => Poll::Ready(ended.map(|error| error.map_err(BodyError::Incoming))),
            },
            Self::Empty => Poll::Ready(None),
            Self::Full(full) => Poll::Ready(full.next().map(Ok)),
            Self::Replay(pass) => pass.poll_frame(cx),
            Self::Resumed(resumed) => resumed.poll_frame(cx),
            Self::Offered(offered) => offered.poll_frame(cx),
            Self::Gated(gated) => gated.poll_frame(cx),
            Self::Instead(instead) => instead.poll_frame(cx),
            Self::Spared(spared) => spared.poll_frame(cx),
            Self::Shared(shared) => shared.poll_frame(cx),
            Self::Unpaid(body) => {
                let mut next = ready!(Pin::new(&mut **body).poll_frame(cx));
                if let Some(Ok(frame)) = &mut next
                    && let Some(trailers) = frame.trailers_mut()
                {
                    strip::fields(trailers);
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
            Self::Replay(pass) => pass.is_end_stream(),
            Self::Resumed(resumed) => resumed.is_end_stream(),
            Self::Offered(offered) => offered.is_end_stream(),
            Self::Gated(gated) => gated.is_end_stream(),
            Self::Instead(instead) => instead.is_end_stream(),
            Self::Spared(spared) => spared.is_end_stream(),
            Self::Shared(shared) => shared.is_end_stream(),
            Self::Unpaid(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Incoming(incoming) => incoming.size_hint(),
            Self::Empty => SizeHint::with_exact(0),
            Self::Full(full) if full.trailers.is_some() => SizeHint::default(),
            Self::Full(full) => SizeHint::with_exact(full.bytes.len() as u64),
            Self::Replay(pass) => pass.size_hint(),
            Self::Resumed(resumed) => resumed.size_hint(),
            Self::Offered(offered) => offered.size_hint(),
            Self::Gated(gated) => gated.size_hint(),
            Self::Instead(instead) => instead.size_hint(),
            Self::Spared(spared) => spared.size_hint(),
            Self::Shared(shared) => shared.size_hint(),
            Self::Unpaid(body) => body.size_hint(),
        }
    }
}

/// Takes out of trailer fields what would act as a field.
pub(crate) fn tidy(frame: Frame<Bytes>) -> Frame<Bytes> {
    match frame.into_trailers() {
        Ok(mut trailers) => {
            headers::tidy_trailers(&mut trailers);
            Frame::trailers(trailers)
        }
        Err(frame) => frame,
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
