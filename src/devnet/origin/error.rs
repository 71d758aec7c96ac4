//! Errors of starting a seller.

use std::net::SocketAddr;

use super::paths::GATEWAY_PATH;

/// Why a seller could not start.
#[derive(Debug, thiserror::Error)]
pub enum SellerStartError {
    /// The key is zero or not below the order of the curve.
    #[error("the seller's key is not a private key of secp256k1")]
    Key,
    /// A non-loopback address: anyone could read and close the channels of this seller.
    #[error("the origin listens on loopback only, not on {0}")]
    NotLoopback(SocketAddr),
    /// The address cannot be bound.
    #[error("the origin cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// The node's URL is invalid.
    #[error("{url} is not the URL of a node: {reason}")]
    Node {
        /// The URL.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A resource's path has no leading slash, is not unique, or belongs to the origin itself.
    #[error(
        "{0} cannot be the path of a resource: it must begin with / and be neither taken nor / nor below {GATEWAY_PATH}"
    )]
    Path(String),
}
