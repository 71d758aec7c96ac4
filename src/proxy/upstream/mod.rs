//! The side towards origins: egress, TCP, TLS, connection pools, and the HTTP client on top of them.

pub(crate) mod client;
pub(crate) mod connector;
pub mod egress;
pub(crate) mod error;
mod kept_head;
pub(crate) mod parked;
pub(crate) mod pool;
pub(crate) mod stream;
pub(crate) mod tcp;
pub(crate) mod tls;
