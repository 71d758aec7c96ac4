//! The subject of a server certificate: a DNS name or an IP address.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use rustls::pki_types::DnsName;

/// The longest DNS name, without the trailing dot (RFC 1035, section 2.3.4).
const LONGEST: usize = 253;

/// A DNS name in lower case without a trailing dot, or an IP address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Name {
    /// A DNS name: letters, digits, `-` and `_`.
    Dns(String),
    /// An IP address.
    Ip(IpAddr),
}

/// The string is not a valid [`Name`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither a DNS name nor an IP address")]
pub struct NotAName(String);

impl FromStr for Name {
    type Err = NotAName;

    /// Parses a name in any case, with or without a trailing dot, or an IP address without brackets.
    fn from_str(text: &str) -> Result<Self, NotAName> {
        if let Ok(address) = text.parse() {
            return Ok(Self::Ip(address));
        }
        let name = text.strip_suffix('.').unwrap_or(text);
        // Only one trailing dot is valid.
        if name.len() > LONGEST || name.ends_with('.') || DnsName::try_from(name).is_err() {
            return Err(NotAName(text.chars().take(LONGEST).collect()));
        }
        Ok(Self::Dns(name.to_ascii_lowercase()))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(name) => f.write_str(name),
            Self::Ip(address) => address.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::tls::name::*;

    #[test]
    fn accepts_names_that_clients_request() {
        for (text, shown) in [
            ("API.Example.com", "api.example.com"),
            ("api.example.com.", "api.example.com"),
            ("localhost", "localhost"),
            ("a_b.example", "a_b.example"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
            ("127.0.0.1", "127.0.0.1"),
            ("::1", "::1"),
            ("2001:DB8::0:1", "2001:db8::1"),
        ] {
            let name: Name = text.parse().unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(name.to_string(), shown);
            assert_eq!(matches!(name, Name::Ip(_)), text.parse::<IpAddr>().is_ok(), "{text}");
        }
        assert!(format!("{}{}", "a".repeat(62), ".a".repeat(95)).parse::<Name>().is_ok(), "253 letters");
    }

    #[test]
    fn refuses_invalid_names() {
        let long = format!("{}{}", "a".repeat(63), ".a".repeat(96));
        for text in [
            "",
            ".",
            "..",
            "a..b",
            "a..",
            ".a",
            "*",
            "*.example.com",
            "a b",
            "a\0b",
            "a\0.example.com",
            "a/b",
            "a:1",
            "[::1]",
            "fe80::1%eth0",
            "-",
            "-a.example",
            "a-.example",
            "1.2.3",
            "1.2.3.4.5",
            "bücher.example",
            "a\nb",
            "a,b",
            &"a".repeat(64),
            &long,
        ] {
            assert!(text.parse::<Name>().is_err(), "{text:?}");
        }
    }
}
