//! What all bodies of the HTTP shell have in common: they stream bytes, and they fail for the same reasons.

use std::io;

use bytes::Bytes;
use http_body::Frame;

use super::headers;

/// Why a body ended early.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The connection that it is read from failed.
    #[error("the peer's body ended early: {0}")]
    Incoming(#[from] hyper::Error),
    /// It is shorter than its declared length.
    #[error("the body ended after {read} of {declared} bytes")]
    Incomplete {
        /// Bytes read.
        read: u64,
        /// The declared length.
        declared: u64,
    },
    /// The peer ended the stream without ending the body. RFC 9113 section 8.1.
    #[error("the peer reset the stream before the end of the body")]
    Cut,
    /// It is being sent on another connection instead.
    #[error("the body is being sent on another connection")]
    Superseded,
    /// The temporary file could not be read.
    #[error("cannot read the body back from its temporary file: {0}")]
    Storage(#[from] io::Error),
}

/// A body of bytes that a wrapper can take out and poll in place.
pub trait ByteBody: http_body::Body<Data = Bytes, Error = BodyError> + Default + Unpin {}

impl<B: http_body::Body<Data = Bytes, Error = BodyError> + Default + Unpin> ByteBody for B {}

/// Removes what trailers must not contain.
pub(crate) fn normalise_trailers(frame: Frame<Bytes>) -> Frame<Bytes> {
    match frame.into_trailers() {
        Ok(mut trailers) => {
            headers::normalise_trailers(&mut trailers);
            Frame::trailers(trailers)
        }
        Err(frame) => frame,
    }
}
