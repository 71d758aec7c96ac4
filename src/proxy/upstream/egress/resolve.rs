//! Resolves hosts to addresses.
//!
//! It caches nothing, because the system's resolver knows how long its answers are valid. Payments are pinned to an address
//! by [`PinnedAddr`](super::PinnedAddr).

use std::fmt;
use std::io;
use std::net::{SocketAddr, SocketAddrV6};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::net::lookup_host;

use crate::hosts::host::Host;

/// Resolves the names of hosts.
pub trait Resolve: fmt::Debug + Send + Sync {
    /// The addresses of a host, in order of preference. Dropped when the connect timeout expires.
    ///
    /// # Errors
    /// The resolver's error. An empty result counts as one, too.
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

/// The address in an address literal, in any spelling.
///
/// # Errors
/// If its zone does not exist.
pub(super) fn literal(host: &str, port: u16) -> Option<io::Result<SocketAddr>> {
    match Host::read(host).ok()? {
        Host::Name(_) => None,
        Host::Address(address) => Some(Ok((address, port).into())),
        Host::Zoned(address, zone) => {
            Some(index_of(zone).map(|scope| SocketAddrV6::new(address, port, 0, scope).into()))
        }
    }
}

/// The index of a zone, which is a number or the name of a network interface.
fn index_of(zone: &str) -> io::Result<u32> {
    if let Ok(index) = zone.parse() {
        return Ok(index);
    }
    #[cfg(target_os = "linux")]
    {
        // The ioctl works on any socket.
        let socket = std::net::UdpSocket::bind((std::net::Ipv4Addr::LOCALHOST, 0))?;
        if let Ok(index) = rustix::net::netdevice::name_to_index(&socket, zone) {
            return Ok(index);
        }
    }
    Err(io::Error::other(format!("network interface {zone} not found")))
}
