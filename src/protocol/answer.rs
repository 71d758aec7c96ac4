//! The part of an HTTP response that schemes see.

use http::{HeaderMap, StatusCode};

/// A response of an origin, as far as it has been read.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: &'a HeaderMap,
    /// Its whole body, at most `limits.max_402_body` bytes; `None` while the body has not been read.
    pub body: Option<&'a [u8]>,
}
