//! Parses addresses and networks (CIDR, RFC 4632).

use std::net::IpAddr;

use ipnet::IpNet;

use super::host::Host;
use super::without_brackets;

/// Parses an address, with or without brackets, or a network. A single address is a network of one.
pub(super) fn network(text: &str) -> Option<IpNet> {
    let bare = without_brackets(text);
    let Some((address, bits)) = bare.split_once('/') else {
        return Some(Host::read(bare).ok()?.address()?.into());
    };
    // Parsed by std: ipnet reads 010 as 10, which resolvers read as 8.
    let (address, bits) = (address.parse::<IpAddr>().ok()?, bits.parse().ok()?);
    match (IpNet::new(address, bits).ok()?, address.to_canonical()) {
        // ::ffff:10.0.0.0/104 means 10.0.0.0/8.
        (IpNet::V6(_), mapped @ IpAddr::V4(_)) => IpNet::new(mapped, bits.checked_sub(96)?).ok(),
        (network, _) => Some(network),
    }
}
