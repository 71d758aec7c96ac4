//! Keeps requests from addresses that the configuration prohibits. Checks the address that is connected to, after each
//! resolution, so that DNS rebinding does not help.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use http::Request;

use crate::hosts::address_rules::{AddressRules, ProhibitedAddress};
use crate::proxy::descriptors::is_exhausted;
use crate::proxy::extensions::{Confined, LoopbackOnly, RemoteClient};

/// Which addresses a request may reach. Connections are shared only among requests with the same reach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Reach {
    /// Whether the client is on another machine, or confined as if it were.
    is_remote: bool,
    /// Whether an unencrypted connection may only lead to this machine, because of a payment.
    is_loopback_only: bool,
}

impl Reach {
    /// The reach of a client's request, or of one of our own.
    pub(crate) fn of<B>(request: &Request<B>) -> Self {
        Self {
            is_remote: request.extensions().get::<RemoteClient>().is_some()
                || request.extensions().get::<Confined>().is_some(),
            is_loopback_only: request.extensions().get::<LoopbackOnly>().is_some(),
        }
    }

    /// Whether an unencrypted connection may only lead to this machine.
    pub(crate) fn is_loopback_only(self) -> bool {
        self.is_loopback_only
    }

    /// The same for requests that carry no payment.
    pub(crate) fn without_payment(self) -> Self {
        Self { is_loopback_only: false, ..self }
    }

    /// Whether every address is in reach.
    pub(super) fn is_unlimited(self, rules: &AddressRules) -> bool {
        !self.is_remote && !self.is_loopback_only && rules.permit_all_local()
    }

    /// Checks an address. A host in the target of a request to an outbound proxy has no port or zone here.
    ///
    /// # Errors
    /// Out of file descriptors, which determining this machine's addresses takes.
    pub(super) fn check(
        self,
        rules: &AddressRules,
        address: SocketAddr,
    ) -> io::Result<Result<(), ProhibitedAddress>> {
        let mut failed = None;
        let checked = rules.check(address.ip(), self.is_remote, |form| {
            let form = if form == address.ip() { address } else { (form, address.port()).into() };
            is_own(form).unwrap_or_else(|error| {
                failed = Some(error);
                true
            })
        });
        failed.map_or(Ok(checked), Err)
    }
}

/// Whether an address belongs to this machine: then it is also the source address of a connection to it, except for most
/// of 127.0.0.0/8. Sends nothing.
///
/// # Errors
/// Out of file descriptors.
fn is_own(address: SocketAddr) -> io::Result<bool> {
    let any = match address {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let mut address = address;
    // Some systems do not connect to port 0.
    address.set_port(address.port().max(1));
    let source = UdpSocket::bind((any, 0)).and_then(|socket| {
        socket.connect(address)?;
        socket.local_addr()
    });
    match source {
        Ok(source) => Ok(source.ip() == address.ip()),
        Err(error) if is_exhausted(&error) => Err(error),
        // Without a route, or with IPv6 turned off, a connection fails, too.
        Err(_) => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use crate::proxy::upstream::egress::guard::*;

    #[test]
    fn own_addresses_are_known_without_a_list() {
        for (address, expected) in [
            ("127.0.0.1:80", true),
            ("127.0.0.1:0", true),
            ("203.0.113.1:80", false),
            ("[2001:db8::1]:80", false),
        ] {
            assert_eq!(is_own(address.parse().unwrap()).unwrap(), expected, "{address}");
        }
        // The source address of a connection to elsewhere, if there is a route.
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        if socket.connect(("203.0.113.1", 9)).is_ok() {
            assert!(is_own(socket.local_addr().unwrap()).unwrap());
        }
    }
}
