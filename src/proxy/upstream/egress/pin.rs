//! Which machine a request goes to, where its name must not decide that anew: a payment goes to the machine that asked
//! for it, whatever the name says by then (DNS rebinding), and also where the pool has a connection to another one.
//!
//! The pool knows its connections by scheme and authority. The address is put before the host there, in the place of a
//! user name, which no request that is passed on has: so a pinned request only ever gets a connection that was made for
//! the same address. On the wire a request has its origin form, and nothing of this.
//!
//! Over TLS the certificate says which machine it is, and over an outbound proxy names are looked up there: neither is
//! pinned here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use http::Uri;
use http::uri::Authority;

/// The machine that an answer came from; an extension of that answer, and of a request that must go to no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer(pub SocketAddr);

/// The target for the pool, where it names a host that could come to mean another machine.
pub(super) fn pin(uri: &Uri, Peer(peer): Peer) -> Option<Uri> {
    let authority = uri.authority()?;
    if authority.host().starts_with('[') || authority.host().parse::<Ipv4Addr>().is_ok() {
        return None;
    }
    // In digits alone: colons and signs mean something in an authority.
    let mark = match peer {
        SocketAddr::V4(peer) => format!("{:x}", peer.ip().to_bits()),
        SocketAddr::V6(peer) => format!("{:x}.{:x}", peer.ip().to_bits(), peer.scope_id()),
    };
    let mut parts = uri.clone().into_parts();
    parts.authority = Some(Authority::try_from(format!("{mark}@{authority}")).ok()?);
    Uri::from_parts(parts).ok()
}

/// Whether an address was pinned.
pub(super) fn is_pinned(uri: &Uri) -> bool {
    uri.authority().is_some_and(|authority| authority.as_str().contains('@'))
}

/// The address that was pinned.
pub(super) fn pinned(uri: &Uri, port: u16) -> Option<SocketAddr> {
    let (mark, _) = uri.authority()?.as_str().split_once('@')?;
    match mark.split_once('.') {
        None => {
            let address = Ipv4Addr::from_bits(u32::from_str_radix(mark, 16).ok()?);
            Some((IpAddr::V4(address), port).into())
        }
        Some((bits, scope)) => {
            let address = Ipv6Addr::from_bits(u128::from_str_radix(bits, 16).ok()?);
            let scope = u32::from_str_radix(scope, 16).ok()?;
            Some(SocketAddrV6::new(address, port, 0, scope).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::proxy::upstream::egress::pin::*;

    #[test]
    fn an_address_comes_back_as_it_went_in() {
        let uri: Uri = "http://Seller.example:81/a?b".parse().unwrap();
        for peer in [
            "1.2.3.4:81",
            "255.255.255.255:81",
            "0.0.0.0:81",
            "[fe80::1%7]:81",
            "[ffff:ffff:ffff:ffff::1]:81",
        ] {
            let peer: SocketAddr = peer.parse().unwrap();
            let target = pin(&uri, Peer(peer)).unwrap();
            assert_eq!(pinned(&target, 81), Some(peer));
            assert_eq!((target.host(), target.port_u16()), (uri.host(), Some(81)));
            assert_eq!(target.path_and_query(), uri.path_and_query());
            assert_ne!(target.authority(), uri.authority());
        }
        assert_eq!(pinned(&uri, 81), None);
    }

    #[test]
    fn an_address_needs_no_pin() {
        for uri in ["http://1.2.3.4/", "http://[::1]:80/"] {
            assert_eq!(pin(&uri.parse().unwrap(), Peer(([1, 2, 3, 4], 80).into())), None, "{uri}");
        }
    }
}
