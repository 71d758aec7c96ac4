//! A response body held back until it is complete, or streamed if it is too large or too slow.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout_at};

use crate::proxy::message::byte_body::{BodyError, ByteBody};

/// The result of holding a body back.
#[derive(Debug)]
pub enum Held<B> {
    /// The complete body.
    Whole {
        /// The bytes.
        bytes: Bytes,
        /// Its trailers.
        trailers: Option<HeaderMap>,
    },
    /// A body that still yields every byte, and why it was not held.
    Past(B, Past),
}

/// Why a body was not held to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Past {
    /// It is larger than the limit.
    Size,
    /// It took longer than the limit.
    Time,
    /// It ended early; reading it yields that error.
    Broken,
}

/// Reads a body of at most `limit` bytes within `within`.
pub async fn hold<B>(mut body: B, limit: usize, within: Duration) -> Held<B>
where
    B: ByteBody + From<Resumed<B>>,
{
    let deadline = Instant::now() + within;
    if body.size_hint().lower() > limit as u64 {
        return Held::Past(body, Past::Size);
    }
    let mut bytes = BytesMut::new();
    let mut trailers = None;
    loop {
        let next = match timeout_at(deadline, body.frame()).await {
            Ok(next) => next,
            Err(_) => return past(bytes, None, Rest::Body(body), Past::Time),
        };
        match next {
            None => return Held::Whole { bytes: bytes.freeze(), trailers },
            Some(Err(error)) => {
                return past(bytes, None, Rest::Broken { error, is_due: false }, Past::Broken);
            }
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) if data.len() > limit - bytes.len() => {
                    return past(bytes, Some(data), Rest::Body(body), Past::Size);
                }
                Ok(data) => bytes.extend_from_slice(&data),
                Err(frame) => trailers = frame.into_trailers().ok(),
            },
        }
    }
}

fn past<B: From<Resumed<B>>>(read: BytesMut, more: Option<Bytes>, rest: Rest<B>, why: Past) -> Held<B> {
    let read = [Some(read.freeze()), more].into_iter().flatten().filter(|data| !data.is_empty()).collect();
    Held::Past(Resumed { read, rest }.into(), why)
}

/// A body whose beginning has been read: yields that, then the rest.
#[derive(Debug)]
pub struct Resumed<B> {
    read: VecDeque<Bytes>,
    rest: Rest<B>,
}

#[derive(Debug)]
enum Rest<B> {
    Body(B),
    /// Ends in this error, once it is due.
    Broken {
        error: BodyError,
        is_due: bool,
    },
    Nothing,
}

impl<B: ByteBody> Resumed<B> {
    /// The bytes that have been read, and the rest.
    pub(in crate::proxy) fn new(read: impl IntoIterator<Item = Bytes>, rest: B) -> Self {
        Self { read: read.into_iter().collect(), rest: Rest::Body(rest) }
    }

    pub(in crate::proxy) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(data) = self.read.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        match &mut self.rest {
            Rest::Body(body) => return Pin::new(body).poll_frame(cx),
            Rest::Broken { is_due, .. } if !*is_due => {
                // An error closes the connection, so let hyper flush the head and the bytes first.
                *is_due = true;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Rest::Broken { .. } | Rest::Nothing => {}
        }
        match std::mem::replace(&mut self.rest, Rest::Nothing) {
            Rest::Broken { error, .. } => Poll::Ready(Some(Err(error))),
            Rest::Body(_) | Rest::Nothing => Poll::Ready(None),
        }
    }

    pub(in crate::proxy) fn is_end_stream(&self) -> bool {
        self.read.is_empty()
            && match &self.rest {
                Rest::Body(body) => body.is_end_stream(),
                Rest::Broken { .. } => false,
                Rest::Nothing => true,
            }
    }

    pub(in crate::proxy) fn size_hint(&self) -> SizeHint {
        let read = self.read.iter().map(|data| data.len() as u64).sum::<u64>();
        let mut hint = match &self.rest {
            Rest::Body(body) => body.size_hint(),
            Rest::Broken { .. } => return SizeHint::default(),
            Rest::Nothing => SizeHint::with_exact(0),
        };
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + read);
        }
        hint.set_lower(hint.lower() + read);
        hint
    }
}
