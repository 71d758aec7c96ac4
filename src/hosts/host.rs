//! One spelling for each host. Resolvers treat `127.1`, `2130706433`, `0x7f.1`, `0177.0.0.1` and `[::ffff:127.0.0.1]`
//! all as `127.0.0.1`: rules, channels, pools and the dialer must not treat them as different hosts.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The longest DNS name, without the trailing dot (RFC 1035, section 2.3.4).
const LONGEST: usize = 253;

/// A host as written in a request target; displayed as in a URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Host<'a> {
    /// A name as it was written: letters, digits, `-`, `_` and dots, perhaps with a trailing dot.
    Name(&'a str),
    /// An address. IPv4-mapped IPv6 addresses become IPv4 addresses.
    Address(IpAddr),
    /// An IPv6 address with a zone (RFC 4007, section 11), such as a network interface.
    Zoned(Ipv6Addr, &'a str),
}

/// The string is not a [`Host`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("neither a host name nor an IP address")]
pub struct NotAHost;

impl<'a> Host<'a> {
    /// Parses a host; an IPv6 address may have brackets. Any form that resolvers take for an IPv4 address becomes one;
    /// a string that only resembles one is an error.
    pub fn read(text: &'a str) -> Result<Self, NotAHost> {
        if let Some(address) = plain_ipv4(text) {
            return Ok(Self::Address(address.into()));
        }
        match text.strip_prefix('[') {
            Some(rest) => literal(rest.strip_suffix(']').ok_or(NotAHost)?).ok_or(NotAHost),
            None if text.contains(':') => literal(text).ok_or(NotAHost),
            None => name(text),
        }
    }

    /// The address without its zone, if it is one.
    #[must_use]
    pub fn address(self) -> Option<IpAddr> {
        match self {
            Self::Name(_) => None,
            Self::Address(address) => Some(address),
            Self::Zoned(address, _) => Some(address.into()),
        }
    }
}

/// The form in which channels, rules and certificates identify a host: names in lower case without the trailing dot,
/// addresses without brackets and zone, loopback for the unspecified address, which leads there. An invalid host is
/// returned lower-cased.
pub fn canonical(host: &str) -> Cow<'_, str> {
    if plain_ipv4(host).is_some_and(|address| !address.is_unspecified()) {
        return host.into();
    }
    match Host::read(host).map(Host::address) {
        Ok(Some(IpAddr::V4(Ipv4Addr::UNSPECIFIED))) => Ipv4Addr::LOCALHOST.to_string().into(),
        Ok(Some(IpAddr::V6(Ipv6Addr::UNSPECIFIED))) => Ipv6Addr::LOCALHOST.to_string().into(),
        Ok(Some(address)) => address.to_string().into(),
        Ok(None) | Err(NotAHost) => {
            let host = host.strip_suffix('.').unwrap_or(host);
            if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
                host.to_ascii_lowercase().into()
            } else {
                host.into()
            }
        }
    }
}

/// Whether a host is an IPv4 address in dotted decimal form.
pub fn is_ipv4(host: &str) -> bool {
    plain_ipv4(host).is_some()
}

impl fmt::Display for Host<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(IpAddr::V4(address)) => address.fmt(f),
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
            Self::Zoned(address, zone) => write!(f, "[{address}%25{zone}]"),
        }
    }
}

/// Fast path for dotted decimal, the usual form of an IPv4 address, without leading zeros.
fn plain_ipv4(text: &str) -> Option<Ipv4Addr> {
    text.starts_with(|first: char| first.is_ascii_digit()).then(|| text.parse().ok())?
}

/// An IPv6 address without brackets, perhaps with a zone. The `%` before a zone is escaped in URLs (RFC 6874), but
/// often is not.
fn literal(text: &str) -> Option<Host<'_>> {
    let Some((address, zone)) = text.split_once('%') else {
        return Some(Host::Address(text.parse::<Ipv6Addr>().ok()?.to_canonical()));
    };
    let address: Ipv6Addr = address.parse().ok()?;
    let zone = zone.strip_prefix("25").filter(|rest| !rest.is_empty()).unwrap_or(zone);
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    if zone.is_empty() || !zone.bytes().all(is_plain) {
        return None;
    }
    match address.to_canonical() {
        // IPv4 has no zones.
        IpAddr::V4(_) => None,
        IpAddr::V6(_) => Some(Host::Zoned(address, zone)),
    }
}

fn name(text: &str) -> Result<Host<'_>, NotAHost> {
    let bare = text.strip_suffix('.').unwrap_or(text);
    let is_usual = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if bare.is_empty() || bare.len() > LONGEST || !bare.bytes().all(is_usual) {
        return Err(NotAHost);
    }
    // Fast path: most names begin with a letter, which no number does. The labels of the others are checked one by one.
    let begins_like_number = bare.starts_with(|first: char| first.is_ascii_digit());
    if begins_like_number && bare.split('.').all(is_number) {
        return ipv4(bare).map(|address| Host::Address(address.into())).ok_or(NotAHost);
    }
    let has_empty_label = bare.as_bytes().windows(2).any(|pair| pair == b"..");
    if bare.starts_with('.') || has_empty_label || bare.ends_with('.') {
        return Err(NotAHost);
    }
    Ok(Host::Name(text))
}

/// Whether a label looks like a number, well-formed or not; true for an empty label.
fn is_number(label: &str) -> bool {
    let hexadecimal = label.strip_prefix("0x").or_else(|| label.strip_prefix("0X"));
    label.bytes().all(|byte| byte.is_ascii_digit())
        || hexadecimal.is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// Parses one to four numbers, each decimal, octal (`0…`) or hexadecimal (`0x…`); the last one fills the remaining
/// bytes.
fn ipv4(text: &str) -> Option<Ipv4Addr> {
    let mut parts = text.split('.').map(number).collect::<Option<Vec<u32>>>()?;
    let last = parts.pop()?;
    if parts.len() > 3 || parts.iter().any(|part| *part > 0xff) {
        return None;
    }
    let left = 8 * (4 - u32::try_from(parts.len()).ok()?);
    if left < 32 && last >> left != 0 {
        return None;
    }
    let bits = parts.iter().zip([24, 16, 8]).fold(last, |bits, (part, place)| bits | part << place);
    Some(Ipv4Addr::from_bits(bits))
}

fn number(text: &str) -> Option<u32> {
    let (digits, base) = match text.as_bytes() {
        [b'0', b'x' | b'X', ..] => (text.get(2..)?, 16),
        [b'0', _, ..] => (text.get(1..)?, 8),
        _ => (text, 10),
    };
    u32::from_str_radix(digits, base).ok()
}

#[cfg(test)]
mod tests {
    use crate::hosts::host::*;

    #[test]
    fn every_spelling_of_an_address_is_that_address() {
        for (text, shown) in [
            ("127.0.0.1", "127.0.0.1"),
            ("127.0.0.1.", "127.0.0.1"),
            ("127.1", "127.0.0.1"),
            ("127.0.1", "127.0.0.1"),
            ("2130706433", "127.0.0.1"),
            ("2130706433.", "127.0.0.1"),
            ("017700000001", "127.0.0.1"),
            ("0x7f000001", "127.0.0.1"),
            ("0X7F.1", "127.0.0.1"),
            ("0x7f.0.0.0x1", "127.0.0.1"),
            ("0177.0.0.1", "127.0.0.1"),
            ("0177.0.0.01.", "127.0.0.1"),
            ("0", "0.0.0.0"),
            ("00", "0.0.0.0"),
            ("0x0", "0.0.0.0"),
            ("4294967295", "255.255.255.255"),
            ("1.65535", "1.0.255.255"),
            ("1.2.65535", "1.2.255.255"),
            ("[::ffff:127.0.0.1]", "127.0.0.1"),
            ("::ffff:7f00:1", "127.0.0.1"),
            ("[0:0:0:0:0:0:0:1]", "[::1]"),
            ("::1", "[::1]"),
            ("[FE80::A%25eth0]", "[fe80::a%25eth0]"),
            ("[fe80::1%eth0.7]", "[fe80::1%25eth0.7]"),
            ("fe80::1%2", "[fe80::1%252]"),
            ("[fe80::1%25]", "[fe80::1%2525]"),
        ] {
            let host = Host::read(text).unwrap_or_else(|_| panic!("{text}"));
            assert_eq!(host.to_string(), shown, "{text}");
            assert!(host.address().is_some(), "{text}");
            assert_eq!(Host::read(shown), Ok(host), "{text}");
        }
    }

    #[test]
    fn host_names_keep_every_character_that_resolvers_accept() {
        for text in [
            "localhost",
            "LocalHost.",
            "a_b.example",
            "_dmarc.example.com",
            "xn--bcher-kva.example",
            "db",
            "e",
            "deadbeef",
            "1password.com",
            "127.0.0.1.example",
            "web.1",
            "1e3",
            "a-",
            "-a",
            "0x7f.example",
            "0xg",
            "1-2",
        ] {
            assert_eq!(Host::read(text), Ok(Host::Name(text)), "{text}");
        }
    }

    #[test]
    fn neither_a_name_nor_an_address_is_refused() {
        let long = "a".repeat(LONGEST + 1);
        for text in [
            "",
            ".",
            "..",
            "a..",
            "a..b",
            ".a",
            ".1",
            "1..2",
            "127.0.0.1..",
            "256.0.0.1",
            "127.0.0.256",
            "1.2.3.4.5",
            "1.2.65536",
            "1.16777216",
            "4294967296",
            "99999999999",
            "08",
            "127.0.0.09",
            "0x",
            "0x7f.0x",
            "0x1ffffffff",
            "[127.0.0.1]",
            "[::1",
            "::1]",
            "[]",
            "[a]",
            "[v1.a]",
            "[::ffff:1.2.3.4%25eth0]",
            "[fe80::1%]",
            "[fe80::1%25a/b]",
            "[fe80::1%25a%20]",
            "a b",
            "a%41",
            "a!b",
            "ä",
            "a:80",
            &long,
        ] {
            assert_eq!(Host::read(text), Err(NotAHost), "{text}");
        }
    }

    #[test]
    fn one_host_has_one_canonical_form() {
        for (text, expected) in [
            ("API.Example.com", "api.example.com"),
            ("api.example.com.", "api.example.com"),
            ("[::1]", "::1"),
            ("[fe80::1%25eth0]", "fe80::1"),
            ("[::ffff:10.0.0.1]", "10.0.0.1"),
            ("0xa.1", "10.0.0.1"),
            ("0.0.0.0", "127.0.0.1"),
            ("0", "127.0.0.1"),
            ("[::ffff:0.0.0.0]", "127.0.0.1"),
            ("[::]", "::1"),
            ("0.0.0.1", "0.0.0.1"),
            ("1.2.3.4.5", "1.2.3.4.5"),
        ] {
            assert_eq!(canonical(text), expected);
        }
    }
}
