//! Patterns for hosts.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::hosts::host::{Host, NotAHost, canonical};

/// A host name or IP address, `*.example.com` for every name below example.com, or `*` for every host.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// `*`
    Any,
    /// `*.example.com`: every subdomain, not the name itself. In lower case with the leading dot.
    Below(Arc<str>),
    /// Exactly this host, in lower case; an IPv6 address without brackets.
    Exactly(Arc<str>),
}

/// Why a string is not a [`HostPattern`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a host pattern: use a host name, an IP address, *.example.com or *, without scheme, port or path"
)]
pub struct NotAHostPattern;

impl HostPattern {
    /// Whether the pattern matches `host` (in any case and spelling, ignoring a trailing dot).
    pub fn matches(&self, host: &str) -> bool {
        let host = host.strip_suffix('.').unwrap_or(host);
        match self {
            Self::Any => true,
            Self::Below(suffix) => host
                .len()
                .checked_sub(suffix.len())
                .filter(|&start| start > 0)
                .and_then(|start| host.get(start..))
                .is_some_and(|end| end.eq_ignore_ascii_case(suffix)),
            Self::Exactly(name) => {
                // An address has many spellings, a name has none.
                let may_be_address =
                    host.contains(':') || host.starts_with(|first: char| first.is_ascii_digit());
                host.eq_ignore_ascii_case(name) || (may_be_address && canonical(host) == **name)
            }
        }
    }
}

impl FromStr for HostPattern {
    type Err = NotAHostPattern;

    fn from_str(text: &str) -> Result<Self, NotAHostPattern> {
        let plain = |text: &str| {
            !text.is_empty()
                && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'))
                && !text.starts_with('.')
        };
        if text == "*" {
            return Ok(Self::Any);
        }
        if let Some(below) = text.strip_prefix("*.") {
            // An address has no subdomains.
            return if plain(below) && matches!(Host::read(below), Ok(Host::Name(_))) {
                Ok(Self::Below(format!(".{}", below.to_ascii_lowercase()).into()))
            } else {
                Err(NotAHostPattern)
            };
        }
        match Host::read(text) {
            Ok(_) => Ok(Self::Exactly(canonical(text).into())),
            Err(NotAHost) => Err(NotAHostPattern),
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Below(suffix) => write!(f, "*{suffix}"),
            Self::Exactly(host) => f.write_str(host),
        }
    }
}
