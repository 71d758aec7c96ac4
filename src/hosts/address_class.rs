//! Classifies IP addresses that are not public, whatever form they are written in.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Addresses at which clouds serve their machines' credentials: AWS, GCP, Azure and others; ECS; EKS; Tencent; Azure's
/// agent; Oracle's older cloud; Alibaba; AWS, EKS and GCP over IPv6.
const METADATA: [IpAddr; 10] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)),
    IpAddr::V4(Ipv4Addr::new(169, 254, 170, 2)),
    IpAddr::V4(Ipv4Addr::new(169, 254, 170, 23)),
    IpAddr::V4(Ipv4Addr::new(169, 254, 0, 23)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
];

/// A kind of address that is not public.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressClass {
    /// Serves credentials to the machines of a cloud.
    Metadata,
    /// Reaches this machine only; also the unspecified address, which systems treat as loopback.
    Loopback,
    /// Valid on one link only (RFC 3927, RFC 4291 section 2.5.6).
    LinkLocal,
    /// Of a private network (RFC 1918, RFC 4193), of a provider's (RFC 6598), or site-local (RFC 3879).
    Private,
    /// Multicast or broadcast.
    Multicast,
    /// Belongs to this machine: loopback, and others that the address alone does not show.
    Own,
}

impl AddressClass {
    /// The classes that have a name in the configuration.
    const NAMED: [(&'static str, Self); 5] = [
        ("private", Self::Private),
        ("link-local", Self::LinkLocal),
        ("loopback", Self::Loopback),
        ("metadata", Self::Metadata),
        ("own", Self::Own),
    ];

    /// The class with this name in the configuration.
    pub(super) fn named(name: &str) -> Option<Self> {
        Self::NAMED.into_iter().find(|(known, _)| *known == name).map(|(_, class)| class)
    }

    /// Its name in the configuration.
    pub(super) fn name(self) -> &'static str {
        Self::NAMED.into_iter().find(|(_, class)| *class == self).map_or("multicast", |(name, _)| name)
    }

    /// As a phrase, such as "a private address".
    pub(super) fn phrase(self) -> &'static str {
        match self {
            Self::Metadata => "a metadata address of a cloud",
            Self::Loopback => "a loopback address",
            Self::LinkLocal => "a link-local address",
            Self::Private => "a private address",
            Self::Multicast => "a multicast or broadcast address",
            Self::Own => "an address of this machine",
        }
    }

    /// Whether an address is in this class; an address can be in several. Embedded addresses do not count: see
    /// [`forms`]. `is_own` is called for [`Self::Own`] only.
    pub(super) fn contains(self, address: IpAddr, is_own: &mut impl FnMut(IpAddr) -> bool) -> bool {
        match (self, address) {
            (Self::Metadata, address) => METADATA.contains(&address),
            (Self::Loopback, IpAddr::V4(v4)) => matches!(v4.octets(), [0 | 127, ..]),
            (Self::Loopback, IpAddr::V6(v6)) => v6.is_loopback() || v6.is_unspecified(),
            (Self::LinkLocal, IpAddr::V4(v4)) => v4.is_link_local(),
            (Self::LinkLocal, IpAddr::V6(v6)) => v6.is_unicast_link_local(),
            (Self::Private, IpAddr::V4(v4)) => v4.is_private() || matches!(v4.octets(), [100, 64..=127, ..]),
            (Self::Private, IpAddr::V6(v6)) => v6.is_unique_local() || v6.segments()[0] & 0xffc0 == 0xfec0,
            (Self::Multicast, IpAddr::V4(v4)) => v4.is_multicast() || v4.is_broadcast(),
            (Self::Multicast, IpAddr::V6(v6)) => v6.is_multicast(),
            (Self::Own, address) => Self::Loopback.contains(address, is_own) || is_own(address),
        }
    }

    /// The first class that contains an address, the most specific one first.
    pub(super) fn of(address: IpAddr, is_own: &mut impl FnMut(IpAddr) -> bool) -> Option<Self> {
        let all =
            [Self::Metadata, Self::Loopback, Self::LinkLocal, Self::Private, Self::Multicast, Self::Own];
        all.into_iter().find(|class| class.contains(address, is_own))
    }
}

/// An address, and the addresses that a connection to it may reach: IPv4 addresses embedded in an IPv6 address, and
/// loopback for the unspecified address. An IPv4-mapped address counts as IPv4 only.
pub(super) fn forms(address: IpAddr) -> Vec<IpAddr> {
    let address = address.to_canonical();
    let mut forms = vec![address];
    match address {
        IpAddr::V4(v4) => forms.extend(v4.is_unspecified().then_some(IpAddr::V4(Ipv4Addr::LOCALHOST))),
        IpAddr::V6(v6) if v6.is_unspecified() => {
            forms.extend([IpAddr::V6(Ipv6Addr::LOCALHOST), IpAddr::V4(Ipv4Addr::LOCALHOST)]);
        }
        IpAddr::V6(v6) => {
            for embedded in embedded(v6) {
                if !forms.contains(&embedded.into()) {
                    forms.push(embedded.into());
                }
            }
        }
    }
    forms
}

/// The IPv4 addresses that gateways and tunnels derive from an IPv6 address.
fn embedded(address: Ipv6Addr) -> Vec<Ipv4Addr> {
    let octets = address.octets();
    let at = |indices: [usize; 4]| Ipv4Addr::from(indices.map(|index| octets[index]));
    let (last, segments) = (at([12, 13, 14, 15]), address.segments());
    match segments {
        // IPv4-compatible (RFC 4291, section 2.5.5.1).
        [0, 0, 0, 0, 0, 0, ..] if !address.is_loopback() => vec![last],
        // NAT64 (RFC 6052).
        [0x64, 0xff9b, 0, 0, 0, 0, ..] => vec![last],
        // NAT64 with a local prefix (RFC 8215), whose length is unknown, and so the position (RFC 6052, section 2.2). A
        // suffix of zeros is not taken for an address unless there is nothing else.
        [0x64, 0xff9b, 1, ..] => {
            let all = [last, at([6, 7, 9, 10]), at([7, 9, 10, 11]), at([9, 10, 11, 12])];
            let mut likely: Vec<_> = all.into_iter().filter(|v4| v4.octets()[0] != 0).collect();
            if likely.is_empty() {
                likely.push(last);
            }
            likely
        }
        // 6to4 (RFC 3056).
        [0x2002, ..] => vec![at([2, 3, 4, 5])],
        // Teredo (RFC 4380, section 4): the client's address, inverted.
        [0x2001, 0, ..] => vec![Ipv4Addr::from_bits(!last.to_bits())],
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use crate::hosts::address_class::*;

    #[test]
    fn each_address_has_its_class_and_each_edge_is_exact() {
        use AddressClass::{LinkLocal, Loopback, Metadata, Multicast, Private};
        for (address, expected) in [
            ("9.255.255.255", None),
            ("10.0.0.0", Some(Private)),
            ("10.255.255.255", Some(Private)),
            ("11.0.0.0", None),
            ("172.15.255.255", None),
            ("172.16.0.0", Some(Private)),
            ("172.31.255.255", Some(Private)),
            ("172.32.0.0", None),
            ("192.167.255.255", None),
            ("192.168.0.0", Some(Private)),
            ("192.169.0.0", None),
            ("100.63.255.255", None),
            ("100.64.0.0", Some(Private)),
            ("100.127.255.255", Some(Private)),
            ("100.128.0.0", None),
            ("100.100.100.200", Some(Metadata)),
            ("169.253.255.255", None),
            ("169.254.0.0", Some(LinkLocal)),
            ("169.254.169.254", Some(Metadata)),
            ("169.254.170.2", Some(Metadata)),
            ("169.254.255.255", Some(LinkLocal)),
            ("168.63.129.16", Some(Metadata)),
            ("126.255.255.255", None),
            ("127.0.0.0", Some(Loopback)),
            ("127.255.255.255", Some(Loopback)),
            ("128.0.0.0", None),
            ("0.0.0.0", Some(Loopback)),
            ("0.255.255.255", Some(Loopback)),
            ("1.0.0.0", None),
            ("223.255.255.255", None),
            ("224.0.0.0", Some(Multicast)),
            ("239.255.255.255", Some(Multicast)),
            ("255.255.255.255", Some(Multicast)),
            ("::", Some(Loopback)),
            ("::1", Some(Loopback)),
            ("fbff::1", None),
            ("fc00::", Some(Private)),
            ("fdff:ffff::1", Some(Private)),
            ("fe00::", None),
            ("fe80::", Some(LinkLocal)),
            ("febf:ffff::", Some(LinkLocal)),
            ("fec0::", Some(Private)),
            ("feff::", Some(Private)),
            ("ff00::", Some(Multicast)),
            ("ff02::1", Some(Multicast)),
            ("fd00:ec2::254", Some(Metadata)),
            ("2001:db8::1", None),
            ("2606:4700::1111", None),
        ] {
            assert_eq!(AddressClass::of(address.parse().unwrap(), &mut |_| false), expected, "{address}");
        }
        let own = AddressClass::of("203.0.113.1".parse().unwrap(), &mut |_| true);
        assert_eq!(own, Some(AddressClass::Own));
    }

    #[test]
    fn embedded_addresses_are_found_in_every_form() {
        for (address, expected) in [
            ("1.2.3.4", &["1.2.3.4"][..]),
            ("0.0.0.0", &["0.0.0.0", "127.0.0.1"]),
            ("::", &["::", "::1", "127.0.0.1"]),
            ("::1", &["::1"]),
            ("::ffff:10.0.0.1", &["10.0.0.1"]),
            ("::ffff:0.0.0.0", &["0.0.0.0", "127.0.0.1"]),
            ("::10.0.0.1", &["::a00:1", "10.0.0.1"]),
            ("64:ff9b::10.0.0.1", &["64:ff9b::a00:1", "10.0.0.1"]),
            ("64:ff9b::1:0:0:1", &["64:ff9b::1:0:0:1"]),
            // RFC 6052, section 2.4, with the prefix of RFC 8215: /96, /48, /56 and /64.
            ("64:ff9b:1::192.0.2.33", &["64:ff9b:1::c000:221", "192.0.2.33"]),
            ("64:ff9b:1:c000:2:2100::", &["64:ff9b:1:c000:2:2100::", "192.0.2.33", "2.33.0.0"]),
            ("64:ff9b:1:c0:0:221::", &["64:ff9b:1:c0:0:221::", "192.0.2.33"]),
            ("64:ff9b:1:0:c0:2:2100::", &["64:ff9b:1:0:c0:2:2100:0", "33.0.0.0", "192.0.2.33"]),
            ("64:ff9b:1::", &["64:ff9b:1::", "0.0.0.0"]),
            ("64:ff9b:2::10.0.0.1", &["64:ff9b:2::a00:1"]),
            ("2002:a00:1::1", &["2002:a00:1::1", "10.0.0.1"]),
            ("2003:a00:1::1", &["2003:a00:1::1"]),
            ("2001:0:4136:e378:8000:63bf:f5ff:fffe", &["2001:0:4136:e378:8000:63bf:f5ff:fffe", "10.0.0.1"]),
            ("2001:1::f5ff:fffe", &["2001:1::f5ff:fffe"]),
        ] {
            let found: Vec<String> =
                forms(address.parse().unwrap()).iter().map(ToString::to_string).collect();
            assert_eq!(found, expected, "{address}");
        }
    }
}
