//! Which addresses requests may reach: `deny` and `allow` of `[upstream]`.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

use super::address_class::{AddressClass, forms};
use super::network::network;

/// The addresses that requests may reach. Without entries, this machine's clients may reach all, and others the public
/// ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressRules {
    /// Addresses that no request may reach.
    pub deny: Vec<AddressPattern>,
    /// Addresses that are not public, and that clients on other machines may reach.
    pub allow: Vec<AddressPattern>,
}

/// One entry of [`AddressRules`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressPattern {
    /// A network; a single address is a network of one.
    Network(IpNet),
    /// A class of addresses.
    Class(AddressClass),
}

/// The string is not a valid [`AddressPattern`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "write an IP address, a network such as \"10.0.0.0/8\", or private, link-local, loopback, metadata or own"
)]
pub struct NotAnAddressPattern;

/// An address that a request may not reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProhibitedAddress {
    /// The address.
    pub address: IpAddr,
    /// The address that it embeds, or the same one.
    reached: IpAddr,
    reason: Prohibition,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Prohibition {
    /// An entry of `deny` matches.
    Denied(AddressPattern),
    /// The client is on another machine, and no entry of `allow` matches.
    NotAllowed(AddressClass),
}

impl AddressRules {
    /// Whether no request of a client on this machine is refused.
    #[must_use]
    pub fn permit_all_local(&self) -> bool {
        self.deny.is_empty()
    }

    /// Checks one address for a client on this machine or on another one (`is_remote`). `is_own` tells whether an address
    /// belongs to this machine.
    ///
    /// # Errors
    /// The address is prohibited. `deny` takes precedence over `allow`; embedded IPv4 addresses must be permitted, too.
    pub fn check(
        &self,
        address: IpAddr,
        is_remote: bool,
        mut is_own: impl FnMut(IpAddr) -> bool,
    ) -> Result<(), ProhibitedAddress> {
        if !is_remote && self.permit_all_local() {
            return Ok(());
        }
        for reached in forms(address) {
            let prohibited = |reason| Err(ProhibitedAddress { address, reached, reason });
            if let Some(entry) = self.deny.iter().find(|entry| entry.contains(reached, &mut is_own)) {
                return prohibited(Prohibition::Denied(*entry));
            }
            if is_remote
                && let Some(class) = AddressClass::of(reached, &mut is_own)
                && !self.allow.iter().any(|entry| entry.allows(reached, class, &mut is_own))
            {
                return prohibited(Prohibition::NotAllowed(class));
            }
        }
        Ok(())
    }
}

impl AddressPattern {
    fn contains(&self, address: IpAddr, is_own: &mut impl FnMut(IpAddr) -> bool) -> bool {
        match self {
            Self::Network(network) => network.contains(&address),
            Self::Class(class) => class.contains(address, is_own),
        }
    }

    /// Whether this entry of `allow` permits an address. A metadata address has to be named: those of Alibaba's cloud
    /// are in the network that Tailscale uses.
    fn allows(&self, address: IpAddr, class: AddressClass, is_own: &mut impl FnMut(IpAddr) -> bool) -> bool {
        let names_metadata = match self {
            Self::Network(network) => network.prefix_len() == network.max_prefix_len(),
            Self::Class(own) => *own == AddressClass::Metadata,
        };
        (class != AddressClass::Metadata || names_metadata) && self.contains(address, is_own)
    }
}

impl FromStr for AddressPattern {
    type Err = NotAnAddressPattern;

    fn from_str(text: &str) -> Result<Self, NotAnAddressPattern> {
        AddressClass::named(text)
            .map(Self::Class)
            .or_else(|| network(text).map(|network| Self::Network(network.trunc())))
            .ok_or(NotAnAddressPattern)
    }
}

impl fmt::Display for AddressPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(one) if one.prefix_len() == one.max_prefix_len() => one.addr().fmt(f),
            Self::Network(network) => network.fmt(f),
            Self::Class(class) => f.write_str(class.name()),
        }
    }
}

impl fmt::Display for ProhibitedAddress {
    /// The address and why it is prohibited, as a clause.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, reached, reason } = self;
        write!(f, "{address}")?;
        if address.to_canonical() != *reached {
            write!(f, " (which reaches {reached})")?;
        }
        match reason {
            Prohibition::Denied(entry) => write!(f, " is denied by \"{entry}\" in upstream.deny"),
            Prohibition::NotAllowed(class) => write!(
                f,
                " is {}, which clients on other machines reach only if upstream.allow contains it",
                class.phrase()
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::hosts::address_rules::*;

    fn rules(deny: &[&str], allow: &[&str]) -> AddressRules {
        let read = |entries: &[&str]| entries.iter().map(|entry| entry.parse().unwrap()).collect();
        AddressRules { deny: read(deny), allow: read(allow) }
    }

    /// This machine has 203.0.113.1 and 10.0.0.1.
    fn check(rules: &AddressRules, address: &str, is_remote: bool) -> Result<(), String> {
        let own: [IpAddr; 2] = ["203.0.113.1".parse().unwrap(), "10.0.0.1".parse().unwrap()];
        rules
            .check(address.parse().unwrap(), is_remote, |address| own.contains(&address))
            .map_err(|prohibited| prohibited.to_string())
    }

    #[test]
    fn deny_applies_to_every_client_and_wins() {
        for (deny, address, is_denied) in [
            ("10.0.0.0/8", "10.1.2.3", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.0.0.0/8", "::ffff:10.1.2.3", true),
            ("10.0.0.0/8", "64:ff9b::10.1.2.3", true),
            ("10.0.0.0/8", "2002:a01:203::1", true),
            ("::ffff:10.0.0.0/104", "10.1.2.3", true),
            ("8.8.8.8", "8.8.8.8", true),
            ("8.8.8.8", "8.8.4.4", false),
            ("2001:db8::/32", "2001:db8::1", true),
            ("private", "192.168.1.1", true),
            ("private", "100.64.0.1", true),
            ("private", "169.254.1.1", false),
            ("link-local", "169.254.169.254", true),
            ("metadata", "169.254.169.254", true),
            ("metadata", "169.254.1.1", false),
            ("loopback", "127.9.9.9", true),
            ("loopback", "0.0.0.0", true),
            ("127.0.0.0/8", "0.0.0.0", true),
            ("127.0.0.1", "::", true),
            ("own", "127.9.9.9", true),
            ("own", "203.0.113.1", true),
            ("own", "203.0.113.2", false),
            ("own", "2002:cb00:7101::1", true),
        ] {
            let denying = rules(&[deny], &["0.0.0.0/0", "::/0", "metadata"]);
            for is_remote in [false, true] {
                let checked = check(&denying, address, is_remote);
                assert_eq!(checked.is_err(), is_denied, "{deny} {address}: {checked:?}");
                let names = |reason: &String| reason.contains("in upstream.deny");
                assert!(checked.err().as_ref().is_none_or(names));
            }
        }
    }

    #[test]
    fn remote_clients_reach_public_and_allowed_addresses() {
        for (allow, address, expected) in [
            (&[][..], "8.8.8.8", None),
            (&[], "2606:4700::1111", None),
            (&[], "64:ff9b::8.8.8.8", None),
            (&[], "10.1.2.3", Some("a private address")),
            (&[], "100.64.0.1", Some("a private address")),
            (&[], "169.254.1.1", Some("link-local")),
            (&[], "169.254.169.254", Some("metadata")),
            (&[], "127.0.0.1", Some("loopback")),
            (&[], "0.0.0.0", Some("loopback")),
            (&[], "::ffff:127.0.0.1", Some("loopback")),
            (&[], "::127.0.0.1", Some("(which reaches 127.0.0.1)")),
            (&[], "64:ff9b::127.0.0.1", Some("(which reaches 127.0.0.1)")),
            (&[], "2001:0:1:2:3:4:80ff:fffe", Some("(which reaches 127.0.0.1)")),
            (&[], "224.0.0.1", Some("multicast")),
            (&[], "203.0.113.1", Some("of this machine")),
            (&["100.64.0.0/10"], "100.64.0.1", None),
            (&["100.64.0.0/10"], "10.1.2.3", Some("private")),
            (&["100.64.0.0/10"], "100.100.100.200", Some("metadata")),
            (&["100.100.100.200"], "100.100.100.200", None),
            (&["metadata"], "169.254.169.254", None),
            (&["link-local"], "169.254.169.254", Some("metadata")),
            (&["private"], "10.1.2.3", None),
            (&["private"], "10.0.0.1", None),
            (&["own"], "203.0.113.1", None),
            (&["203.0.113.0/24"], "203.0.113.1", None),
            (&["10.0.0.0/8"], "64:ff9b::10.1.2.3", None),
            (&["64:ff9b::/96"], "64:ff9b::10.1.2.3", Some("private")),
        ] {
            let allowing = rules(&[], allow);
            let checked = check(&allowing, address, true).err();
            match (&checked, expected) {
                (None, None) => {}
                (Some(reason), Some(expected)) => {
                    assert!(reason.contains(expected) && reason.contains("upstream.allow"), "{reason}");
                }
                _ => panic!("{allow:?} {address}: {checked:?}"),
            }
            assert_eq!(check(&allowing, address, false), Ok(()));
        }
    }

    #[test]
    fn entries_are_read_and_shown() {
        for (text, shown) in [
            ("10.0.0.1", "10.0.0.1"),
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("[::1]", "::1"),
            ("fd00::/8", "fd00::/8"),
            ("private", "private"),
            ("link-local", "link-local"),
            ("loopback", "loopback"),
            ("metadata", "metadata"),
            ("own", "own"),
        ] {
            assert_eq!(text.parse::<AddressPattern>().unwrap().to_string(), shown);
        }
        for text in ["", "example.com", "Private", "multicast", "10.0.0.0/33", "10.0/8", "*", "10.0.0.1:80"] {
            assert_eq!(text.parse::<AddressPattern>(), Err(NotAnAddressPattern), "{text}");
        }
    }
}
