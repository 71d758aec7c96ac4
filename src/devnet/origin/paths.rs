//! Paths of the seller's own.

/// The base path of the REST interface.
pub const GATEWAY_PATH: &str = "/api/1";
