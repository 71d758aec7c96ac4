//! The settings of a seller.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;

use super::authorized::AuthorizedSale;
use super::resources::Resource;
use crate::protocol::Address;

/// The settings of a seller.
#[derive(Clone)]
pub struct SellerSettings {
    /// The address to listen on: loopback, port 0 for any free one.
    pub listen: SocketAddr,
    /// Where to sell the same over TLS, too.
    pub secure: Option<Secure>,
    /// The node's URL, `http://`.
    pub rpc_url: String,
    /// The channel contract.
    pub channel_manager: Address,
    /// The token that the contract holds.
    pub token: Address,
    /// The seller's own private key, big endian.
    pub key: [u8; 32],
    /// How many confirmations an opening or a top-up needs.
    pub confirmations: u64,
    /// The pause between two polls of the chain.
    pub poll_every: Duration,
    /// What is sold for authorizations of another token, if anything.
    pub authorized: Option<AuthorizedSale>,
    /// The resources for sale; see [`Resource::assortment`].
    pub resources: Vec<Resource>,
}

/// A second listener, with TLS.
#[derive(Clone)]
pub struct Secure {
    /// The address to listen on: loopback, port 0 for any free one.
    pub listen: SocketAddr,
    /// The certificate and its key; HTTP/2 is served if its ALPN offers `h2`.
    pub config: Arc<ServerConfig>,
}
