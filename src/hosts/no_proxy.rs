//! The hosts that bypass the outbound proxy: `no_proxy`, with the semantics of curl and Go. Names are not resolved, so
//! a CIDR network matches only hosts written as addresses.

use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

use super::host::Host;
use super::is_this_machine;
use super::network::network;

/// The hosts that are reached directly, in addition to this machine: see [`is_here`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bypass {
    entries: Vec<NoProxyEntry>,
}

/// One entry: hosts, and a port unless it applies to all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoProxyEntry {
    hosts: HostMatch,
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum HostMatch {
    /// `*`
    Any,
    /// `*.example.com`: every subdomain, not the name itself. Lower case, with the leading dot.
    Below(String),
    /// `example.com` or `.example.com`: the name and every subdomain. Lower case, without leading or trailing dot.
    AtOrBelow(String),
    /// `10.0.0.0/8`; a single address is a network of one.
    Network(IpNet),
}

/// The string is not a valid [`NoProxyEntry`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a host: use example.com, *.example.com, an IP address, a network such as 10.0.0.0/8, or *")]
pub struct NotABypass;

impl Bypass {
    /// Whether a host (a name, or an address without brackets) is reached directly on this port.
    #[must_use]
    pub fn covers(&self, host: &str, port: u16) -> bool {
        let address = Host::read(host).ok().and_then(Host::address);
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        self.entries
            .iter()
            .any(|entry| entry.port.is_none_or(|own| own == port) && entry.hosts.contain(&host, address))
    }

    /// Parses the value of the variable `NO_PROXY`, separated by commas or spaces. Also returns the invalid entries.
    #[must_use]
    pub fn read(text: &str) -> (Self, Vec<String>) {
        let words = text.split([',', ' ', '\t']).filter(|word| !word.is_empty());
        let (mut entries, mut invalid) = (Vec::new(), Vec::new());
        for word in words {
            match word.parse() {
                Ok(entry) => entries.push(entry),
                Err(NotABypass) => invalid.push(word.to_owned()),
            }
        }
        (Self { entries }, invalid)
    }
}

impl FromIterator<NoProxyEntry> for Bypass {
    fn from_iter<I: IntoIterator<Item = NoProxyEntry>>(entries: I) -> Self {
        Self { entries: entries.into_iter().collect() }
    }
}

impl HostMatch {
    fn contain(&self, host: &str, address: Option<IpAddr>) -> bool {
        match (self, address) {
            (Self::Any, _) => true,
            (Self::Network(network), Some(address)) => network.contains(&address),
            (Self::Below(suffix), None) => host.len() > suffix.len() && host.ends_with(suffix),
            (Self::AtOrBelow(name), None) => {
                host.strip_suffix(name.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            }
            (Self::Network(_), None) | (Self::Below(_) | Self::AtOrBelow(_), Some(_)) => false,
        }
    }
}

impl FromStr for NoProxyEntry {
    type Err = NotABypass;

    fn from_str(text: &str) -> Result<Self, NotABypass> {
        // An IPv6 address contains colons: with a port it needs brackets.
        if let Some(network) = network(text) {
            return Ok(Self { hosts: HostMatch::Network(network), port: None });
        }
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) => (host, Some(port.parse().map_err(|_| NotABypass)?)),
            None => (text, None),
        };
        let hosts = match network(host) {
            Some(network) => HostMatch::Network(network),
            None => name(host)?,
        };
        Ok(Self { hosts, port })
    }
}

fn name(text: &str) -> Result<HostMatch, NotABypass> {
    if text == "*" {
        return Ok(HostMatch::Any);
    }
    let (is_below, name) = match text.strip_prefix("*.") {
        Some(name) => (true, name),
        None => (false, text.strip_prefix('.').unwrap_or(text)),
    };
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    if !matches!(Host::read(&name), Ok(Host::Name(_))) {
        return Err(NotABypass);
    }
    Ok(if is_below { HostMatch::Below(format!(".{name}")) } else { HostMatch::AtOrBelow(name) })
}

/// Whether a host (a name, or an address without brackets) always means this machine: an outbound proxy would resolve
/// it to itself.
#[must_use]
pub fn is_here(host: &str) -> bool {
    if let Some(address) = Host::read(host).ok().and_then(Host::address) {
        return is_this_machine(address);
    }
    let host = host.trim_end_matches('.');
    let host = host.to_ascii_lowercase();
    host == "localhost" || host.ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use crate::hosts::no_proxy::*;

    #[test]
    fn hosts_are_covered_as_curl_and_go_have_it() {
        for (entry, covered, others) in [
            ("*", &["a:1", "10.0.0.1:1", "::1|1"][..], &[][..]),
            (
                "example.com",
                &["example.com:80", "EXAMPLE.com.:80", "a.b.example.com:1"],
                &["xexample.com:80", "com:80"],
            ),
            (".example.com", &["example.com:80", "a.example.com:80"], &["xexample.com:80"]),
            ("*.Example.com", &["a.example.com:80"], &["example.com:80", "xexample.com:80"]),
            ("example.com:8080", &["a.example.com:8080"], &["example.com:80"]),
            ("10.1.2.3", &["10.1.2.3:9"], &["10.1.2.4:9", "x10.1.2.3:9"]),
            ("10.1.2.3:80", &["10.1.2.3:80"], &["10.1.2.3:81"]),
            ("10.0.0.0/8", &["10.255.0.1:1"], &["11.0.0.1:1", "ten.example:1"]),
            ("10.1.2.3/31", &["10.1.2.2:1"], &["10.1.2.4:1"]),
            ("0.0.0.0/0", &["1.2.3.4:1"], &["::1|1"]),
            ("fd00::/8", &["fd12::1|1"], &["fe80::1|1"]),
            ("::/0", &["fd12::1|1"], &["1.2.3.4:1"]),
            ("::1", &["::1|80"], &["::2|80"]),
            ("[::1]:80", &["::1|80"], &["::1|81"]),
            ("::ffff:10.0.0.0/104", &["10.0.0.1:1"], &["11.0.0.1:1"]),
            ("::ffff:10.0.0.1", &["10.0.0.1:1", "::ffff:10.0.0.1|1"], &["10.0.0.2:1"]),
            (
                "10.1",
                &["10.0.0.1:1", "0xa.1:1", "012.0.0.1:1", "167772161:1", "10.0.0.1.:1"],
                &["10.0.0.2:1"],
            ),
            ("10.0.0.1:81", &["10.1:81"], &["10.1:80"]),
        ] {
            let bypass: Bypass = [entry.parse().unwrap()].into_iter().collect();
            for (hosts, expected) in [(covered, true), (others, false)] {
                for text in hosts {
                    let (host, port) = text.rsplit_once('|').or(text.rsplit_once(':')).unwrap();
                    assert_eq!(bypass.covers(host, port.parse().unwrap()), expected, "{entry}: {text}");
                }
            }
        }
        assert!(!Bypass::default().covers("a", 1));
    }

    #[test]
    fn entries_that_are_not_hosts_are_ignored() {
        for text in [
            "",
            ".",
            "*.",
            "http://a",
            "a/b",
            "a:b",
            "a:99999",
            "10.0.0.0/33",
            "::/129",
            "::ffff:10.0.0.0/95",
            "010.0.0.0/8",
            "10.0/8",
            "[::1",
            "a b",
            "*a",
            "ä",
        ] {
            assert_eq!(text.parse::<NoProxyEntry>(), Err(NotABypass), "{text}");
        }
        let (bypass, unread) = Bypass::read(" a.example,,b.example:1 \thttp://c , *x");
        assert!(bypass.covers("a.example", 1) && bypass.covers("b.example", 1) && !bypass.covers("c", 1));
        assert_eq!(unread, ["http://c", "*x"]);
    }

    #[test]
    fn this_machine_is_known_by_name() {
        for host in [
            "localhost",
            "LOCALHOST.",
            "a.localhost",
            "127.0.0.1",
            "127.9.9.9",
            "::1",
            "0.0.0.0",
            "::",
            "::ffff:127.0.0.1",
            "127.1",
            "2130706433",
            "0x7f.1",
            "0177.0.0.1",
            "127.0.0.1.",
            "0",
        ] {
            assert!(is_here(host), "{host}");
        }
        for host in ["localhost.example", "alocalhost", "128.0.0.1", "10.0.0.1", "fe80::1", ""] {
            assert!(!is_here(host), "{host}");
        }
    }
}
