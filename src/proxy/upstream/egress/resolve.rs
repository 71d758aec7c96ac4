//! From a host to its addresses.
//!
//! Nothing is remembered here: the system's resolver knows how long an answer is good for, and one of ours that kept
//! answers longer would only hold on to machines that are gone. What must not change in the middle of a purchase is
//! pinned by its own request: see [`Peer`](super::Peer).

use std::fmt;
use std::io;
use std::net::{SocketAddr, SocketAddrV6};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::net::lookup_host;

use crate::hosts::host::Host;

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

/// The address that a host already is, in any spelling.
///
/// # Errors
/// When it is in a zone that is not there.
pub(super) fn literal(host: &str, port: u16) -> Option<io::Result<SocketAddr>> {
    match Host::read(host).ok()? {
        Host::Name(_) => None,
        Host::Address(address) => Some(Ok((address, port).into())),
        Host::Zoned(address, zone) => {
            Some(index_of(zone).map(|scope| SocketAddrV6::new(address, port, 0, scope).into()))
        }
    }
}

/// The number of a zone: of a network interface, or itself.
fn index_of(zone: &str) -> io::Result<u32> {
    if let Ok(index) = zone.parse() {
        return Ok(index);
    }
    #[cfg(target_os = "linux")]
    {
        // Any socket does: it only leads to the network.
        let socket = std::net::UdpSocket::bind((std::net::Ipv4Addr::LOCALHOST, 0))?;
        if let Ok(index) = rustix::net::netdevice::name_to_index(&socket, zone) {
            return Ok(index);
        }
    }
    Err(io::Error::other(format!("network interface {zone} not found")))
}
