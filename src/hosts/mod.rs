//! Hosts and addresses: their spelling, the patterns that match them, the hosts that `no_proxy` exempts, and the
//! addresses and ports that requests may reach.

mod address_class;
pub mod address_rules;
pub mod host;
mod network;
pub mod no_proxy;
pub mod port_set;

use std::net::IpAddr;

use http::uri::Scheme;

/// A host as URLs write it, without the brackets of an IPv6 address.
#[must_use]
pub fn without_brackets(host: &str) -> &str {
    host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host)
}

/// Whether a connection to this address stays on this machine: it is loopback, or unspecified.
#[must_use]
pub fn is_this_machine(address: IpAddr) -> bool {
    let address = address.to_canonical();
    address.is_loopback() || address.is_unspecified()
}

/// The port of a URL that names none: 443 for `https`, else 80 (RFC 9110, section 4.2).
#[must_use]
pub fn default_port(scheme: Option<&Scheme>) -> u16 {
    if scheme == Some(&Scheme::HTTPS) { 443 } else { 80 }
}

#[cfg(test)]
mod tests {
    use crate::hosts::*;

    #[test]
    fn only_a_pair_of_brackets_is_taken_off() {
        for (host, bare) in [("[::1]", "::1"), ("::1", "::1"), ("a.example", "a.example"), ("[::1", "[::1")] {
            assert_eq!(without_brackets(host), bare);
        }
    }

    #[test]
    fn each_scheme_has_its_default_port() {
        for (scheme, port) in [(Some(&Scheme::HTTPS), 443), (Some(&Scheme::HTTP), 80), (None, 80)] {
            assert_eq!(default_port(scheme), port);
        }
    }
}
