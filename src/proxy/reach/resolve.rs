//! From a host to its addresses.
//!
//! Nothing is remembered here: the system's resolver knows how long an answer is good for, and one of ours that kept
//! answers longer would only hold on to machines that are gone. What must not change in the middle of a purchase is
//! pinned by its own request: see [`Peer`](super::Peer).

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::net::lookup_host;

/// Who knows the addresses of hosts.
pub trait Resolve: fmt::Debug + Send + Sync {
    /// The addresses of a host, the best ones first. Dropped when the connection takes too long.
    ///
    /// # Errors
    /// What the resolver says; an empty answer counts as one.
    fn resolve<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>>;
}

/// The system's own resolver: the hosts file, the name service.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        async move { Ok(lookup_host((host, port)).await?.collect()) }.boxed()
    }
}

/// The address that a host already is, without brackets.
pub(super) fn literal(host: &str, port: u16) -> Option<SocketAddr> {
    host.parse::<IpAddr>().ok().map(|address| (address, port).into())
}
