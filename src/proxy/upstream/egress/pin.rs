//! Pins a payment to the address that requested it, against DNS rebinding and pooled connections to another address.
//!
//! The pool finds connections by scheme and authority. A pinned address takes the place of the user name in the authority,
//! which forwarded requests never have, so a pinned request only gets a connection to the same address. The request itself
//! is sent in origin form, without the pin.
//!
//! TLS proves the identity of the origin, and an outbound proxy resolves names itself, so neither is pinned.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use http::Uri;
use http::uri::Authority;

/// The address that sent a response; an extension of that response, and of a request that must go to the same address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PinnedAddr(pub SocketAddr);

/// The pool's target with a pin, if its host is a name.
pub(super) fn pin(uri: &Uri, PinnedAddr(peer): PinnedAddr) -> Option<Uri> {
    let authority = uri.authority()?;
    if authority.host().starts_with('[') || authority.host().parse::<Ipv4Addr>().is_ok() {
        return None;
    }
    // Hexadecimal, because colons have a meaning in an authority.
    let mark = match peer {
        SocketAddr::V4(peer) => format!("{:x}", peer.ip().to_bits()),
        SocketAddr::V6(peer) => format!("{:x}.{:x}", peer.ip().to_bits(), peer.scope_id()),
    };
    let mut parts = uri.clone().into_parts();
    parts.authority = Some(Authority::try_from(format!("{mark}@{authority}")).ok()?);
    Uri::from_parts(parts).ok()
}

/// Whether a target has a pin.
pub(super) fn is_pinned(uri: &Uri) -> bool {
    uri.authority().is_some_and(|authority| authority.as_str().contains('@'))
}

/// The pinned address of a target.
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
            let target = pin(&uri, PinnedAddr(peer)).unwrap();
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
            assert_eq!(pin(&uri.parse().unwrap(), PinnedAddr(([1, 2, 3, 4], 80).into())), None, "{uri}");
        }
    }
}
