//! A set of ports, as the configuration lists it.

use std::ops::RangeInclusive;
use std::sync::Arc;

/// Ranges of ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortSet(Arc<[RangeInclusive<u16>]>);

impl PortSet {
    /// The ports in these ranges.
    pub fn new(ranges: impl IntoIterator<Item = RangeInclusive<u16>>) -> Self {
        Self(ranges.into_iter().collect())
    }

    /// Whether it contains a port.
    #[must_use]
    pub fn contains(&self, port: u16) -> bool {
        self.0.iter().any(|range| range.contains(&port))
    }
}

impl Default for PortSet {
    /// Every port.
    fn default() -> Self {
        Self::new([1..=u16::MAX])
    }
}

/// Parses one port, or the first and the last one of a range: `443`, `8000-8999`.
#[must_use]
pub fn port_range(text: &str) -> Option<RangeInclusive<u16>> {
    let port = |text: &str| {
        let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u16>().ok().filter(|port| is_number && *port > 0)
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (port(first.trim())?, port(last.trim())?);
    (first <= last).then_some(first..=last)
}

#[cfg(test)]
mod tests {
    use crate::hosts::port_set::*;

    #[test]
    fn ports_and_ranges_are_read() {
        for (text, expected) in [
            ("443", Some(443..=443)),
            ("8000-8999", Some(8000..=8999)),
            (" 1 - 65535 ", Some(1..=65_535)),
            ("0", None),
            ("65536", None),
            ("+443", None),
            ("9-8", None),
            ("1-2-3", None),
            ("-5", None),
            ("", None),
            ("https", None),
        ] {
            assert_eq!(port_range(text), expected, "{text}");
        }
    }

    #[test]
    fn a_set_contains_the_ends_of_its_ranges_and_no_other_port() {
        let set = PortSet::new([443..=443, 8000..=8001]);
        for (port, expected) in [
            (442, false),
            (443, true),
            (444, false),
            (7999, false),
            (8000, true),
            (8001, true),
            (8002, false),
        ] {
            assert_eq!(set.contains(port), expected, "{port}");
        }
        assert!(PortSet::default().contains(1) && PortSet::default().contains(u16::MAX));
        assert!(!PortSet::default().contains(0));
    }
}
