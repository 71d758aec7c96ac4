//! An address of this machine that is not loopback: its clients count as those of another machine.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

/// The address from which this machine would connect to another one; `None`, with a note, if it has only loopback.
pub fn own_address() -> Option<IpAddr> {
    // Documentation addresses (RFC 5737, RFC 3849). Connecting a UDP socket sends nothing.
    let places: [(IpAddr, &str); 2] =
        [(Ipv4Addr::UNSPECIFIED.into(), "203.0.113.1"), (Ipv6Addr::UNSPECIFIED.into(), "2001:db8::1")];
    let own = places.into_iter().find_map(|(any, elsewhere)| {
        let socket = UdpSocket::bind((any, 0)).ok()?;
        socket.connect((elsewhere, 9)).ok()?;
        socket.local_addr().ok().map(|own| own.ip()).filter(|own| !own.is_loopback())
    });
    if own.is_none() {
        eprintln!("skipped: this machine has only loopback, so no client can come from another address");
    }
    own
}
