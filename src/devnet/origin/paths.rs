//! Paths of the seller's own.

/// The base path of the REST interface.
pub const GATEWAY_PATH: &str = "/api/1";
/// The path of the resource that is paid for with authorizations, if there is one.
pub const X402_PATH: &str = "/x402";
