//! The side towards origins: resolving and dialling them, TLS, connection pools and the outbound proxy.

pub(crate) mod dial;
pub mod egress;
pub(crate) mod parked;
pub(crate) mod pool;
pub(crate) mod stream;
pub(crate) mod tls;
