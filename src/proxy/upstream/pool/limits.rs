//! The limits of a connection pool.

use std::time::Duration;

/// The limits that apply to the connections of one pool.
#[derive(Clone, Debug)]
pub(super) struct PoolLimits {
    pub(super) idle: usize,
    pub(super) keepalive_timeout: Duration,
    pub(super) connect_timeout: Duration,
    pub(super) streams: usize,
    pub(super) head_bytes: usize,
    pub(super) head_fields: usize,
    pub(super) ping_every: Duration,
    pub(super) ping_timeout: Duration,
    /// Bytes of a request body to keep until an HTTP/2 origin has accepted the stream.
    pub(super) kept: usize,
}
