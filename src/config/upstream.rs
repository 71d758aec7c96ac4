//! Reads `[upstream]`: how to reach origins. Opens no file and no connection.
//!
//! Without `proxy`, the usual variables decide: `http_proxy` for plain requests, `https_proxy` for those through CONNECT,
//! and `all_proxy` for either that is not set. Lower-case names take precedence over upper-case ones.

use std::{collections::BTreeMap, fmt, path::PathBuf, str::FromStr};

use ::config::{Value, ValueKind};
use http::uri::Authority;
use serde_json::json;
use zeroize::Zeroizing;

use super::intercept::{PATTERNS, patterns};
use super::issue::ConfigIssue;
use super::key::{Shape, Table, keys};
use super::origin;
use super::origin::OriginTlsConfig;
use super::raw_value::{InvalidValue, quoted};
use super::section::Section;
use super::values;
use super::values::BasePaths;
use crate::hosts::address_rules::{AddressPattern, AddressRules, NotAnAddressPattern};
use crate::hosts::host::Host;
use crate::hosts::no_proxy::{Bypass, NoProxyEntry};
use crate::hosts::without_brackets;
use crate::protocol::policy::HostPattern;

/// The keys of `[upstream]`.
pub(super) static UPSTREAM: Table = Table::new(
    "upstream",
    "How to reach origins.",
    keys! {
        /// The HTTP proxy through which tollpass reaches origins: http://host:port; https:// and SOCKS are not
        /// supported.
        "proxy": Shape::Text("."),
        /// Hosts to reach without that proxy, replacing the variable no_proxy: names (including all names below them),
        /// "*.name" (only names below it), IP addresses, networks such as "10.0.0.0/8", each with an optional :port, or
        /// "*".
        "no_proxy": Shape::List(&Shape::Text("."), 1, MOST_ENTRIES),
        /// A file that contains user:password for the proxy (chmod 600), unless its URL contains them.
        "proxy_auth_file": Shape::Path,
        /// Additional root certificates for origins (PEM), besides the system's.
        "ca_file": Shape::Path,
        /// Plain http requests to these hosts (patterns as in [[pay]]) go upstream as https, port 80 as 443 and other
        /// ports unchanged: with "api.example.com" here, the program uses http://api.example.com and need not trust
        /// tollpass's CA. tollpass changes redirects to these hosts back to http, so that the program keeps using the
        /// proxy. Cookies with Secure lose it, and Domain, so that the program returns them to that host.
        "upgrade": PATTERNS; or(|| json!([])),
        /// Addresses that no client's request may reach: IP addresses, networks such as "10.0.0.0/8", and the words
        /// "private", "link-local", "loopback", "metadata" (where clouds serve credentials) and "own" (this machine's).
        "deny": Shape::List(&Shape::Text("."), 0, MOST_ENTRIES); or(|| json!([])),
        /// Addresses that are not public, as in deny, and that clients on other machines may reach: "100.64.0.0/10"
        /// lets them reach Tailscale's.
        "allow": Shape::List(&Shape::Text("."), 0, MOST_ENTRIES); or(|| json!([])),
        /// TLS settings for particular origins; the first entry that matches decides.
        "tls": Shape::Tables(&origin::TLS, origin::MAX_ENTRIES),
    },
);

/// The variables of other programs that are read here.
pub(super) const VARIABLES: [&str; 8] =
    [HTTP[0], HTTP[1], HTTPS[0], HTTPS[1], ALL[0], ALL[1], NO_PROXY[0], NO_PROXY[1]];
const HTTP: [&str; 2] = ["http_proxy", "HTTP_PROXY"];
const HTTPS: [&str; 2] = ["https_proxy", "HTTPS_PROXY"];
const ALL: [&str; 2] = ["all_proxy", "ALL_PROXY"];
const NO_PROXY: [&str; 2] = ["no_proxy", "NO_PROXY"];

/// The most entries of `no_proxy`.
const MOST_ENTRIES: usize = 1000;
/// What to write instead of an invalid URL.
const REMEDY: &str = "write one such as \"http://proxy.example.com:3128\", or \"none\" for no proxy";

/// `[upstream]`: how to reach origins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpstreamConfig {
    /// The outbound proxy for plain requests.
    pub http: Option<ProxyUrl>,
    /// The outbound proxy for everything else, through CONNECT.
    pub tunnel: Option<ProxyUrl>,
    /// Hosts that are reached without it.
    pub bypass: Bypass,
    /// A private file that contains `user:password` for it.
    pub proxy_auth_file: Option<PathBuf>,
    /// A PEM file of additional root certificates for origins.
    pub ca_file: Option<PathBuf>,
    /// Hosts to which plain `http` requests go over `https`.
    pub upgrade: Vec<HostPattern>,
    /// The addresses that clients' requests may reach.
    pub addresses: AddressRules,
    /// TLS settings for particular origins. The first entry that matches decides.
    pub tls: Vec<OriginTlsConfig>,
}

/// The URL of an outbound proxy. It may contain a password, which only [`ProxyUrl::credentials`] returns.
#[derive(Clone, PartialEq, Eq)]
pub struct ProxyUrl {
    /// A name, or an IP address without brackets.
    pub host: String,
    /// Its port; 80 by default.
    pub port: u16,
    credentials: Option<Zeroizing<String>>,
}

/// Why a string is not a [`ProxyUrl`]. Does not quote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAProxyUrl {
    /// A proxy over TLS.
    #[error("proxies over TLS (https://) are not supported")]
    Tls,
    /// A proxy of another protocol.
    #[error("not an HTTP proxy: only http:// is supported")]
    Scheme,
    /// Not a URL of a proxy.
    #[error("not a valid http:// URL of a proxy")]
    Other,
}

impl ProxyUrl {
    /// `user:password`, decoded: for the request to the proxy only, never for a log.
    pub fn credentials(&self) -> Option<&str> {
        self.credentials.as_deref().map(String::as_str)
    }
}

impl FromStr for ProxyUrl {
    type Err = NotAProxyUrl;

    fn from_str(text: &str) -> Result<Self, NotAProxyUrl> {
        let rest = match text.split_once("://") {
            None => text,
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
            Some((scheme, _)) if scheme.eq_ignore_ascii_case("https") => return Err(NotAProxyUrl::Tls),
            Some(_) => return Err(NotAProxyUrl::Scheme),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (user, place) = match rest.rsplit_once('@') {
            Some((user, place)) => (Some(user), place),
            None => (None, rest),
        };
        let place: Authority = place.parse().map_err(|_| NotAProxyUrl::Other)?;
        let host = without_brackets(place.host()).to_owned();
        let port = match place.as_str().strip_prefix(place.host()) {
            Some("" | ":") => 80,
            _ => place.port_u16().filter(|port| *port != 0).ok_or(NotAProxyUrl::Other)?,
        };
        let host = match Host::read(&host).map_err(|_| NotAProxyUrl::Other)? {
            Host::Address(address) => address.to_string(),
            Host::Name(_) | Host::Zoned(..) => host,
        };
        let credentials = user.map(|user| credentials(user).ok_or(NotAProxyUrl::Other)).transpose()?;
        Ok(Self { host, port, credentials })
    }
}

impl fmt::Display for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port, .. } = self;
        if host.contains(':') {
            write!(f, "http://[{host}]:{port}")
        } else {
            write!(f, "http://{host}:{port}")
        }
    }
}

impl fmt::Debug for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// The user name and password of a URL, decoded; a missing password is empty.
fn credentials(user: &str) -> Option<Zeroizing<String>> {
    let (name, password) = user.split_once(':').unwrap_or((user, ""));
    let (name, password) = (decoded(name)?, decoded(password)?);
    // In Basic authentication, the first colon ends the name.
    (!name.contains(':')).then(|| Zeroizing::new(format!("{}:{}", *name, *password)))
}

fn decoded(text: &str) -> Option<Zeroizing<String>> {
    // Allocated once: growing would leave copies of the secret behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(text.len()));
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let [high, low, after @ ..] = rest else { return None };
        bytes.push(digit(*high)? << 4 | digit(*low)?);
        rest = after;
    }
    let text = std::str::from_utf8(&bytes).ok()?;
    (!text.contains(char::is_control)).then(|| Zeroizing::new(text.to_owned()))
}

fn digit(letter: u8) -> Option<u8> {
    char::from(letter).to_digit(16)?.try_into().ok()
}

/// The value of `proxy`.
enum ProxyChoice {
    Direct,
    Over(ProxyUrl),
}

/// Reads `[upstream]`, with `tls` as its nested list, and the usual proxy variables.
pub(super) fn upstream(
    section: &Section<'_>,
    tls: Vec<OriginTlsConfig>,
    base: &BasePaths,
    environment: &BTreeMap<String, String>,
    warnings: &mut Vec<String>,
) -> UpstreamConfig {
    let choice = section.read("proxy", |value| {
        let text = values::text(value)?;
        if text == "none" {
            return Ok(ProxyChoice::Direct);
        }
        // The error does not quote the URL: it may contain a password.
        text.parse()
            .map(ProxyChoice::Over)
            .map_err(|error: NotAProxyUrl| InvalidValue::new(error.to_string(), REMEDY))
    });
    let (http, tunnel) = match choice {
        Some(ProxyChoice::Direct) => (None, None),
        Some(ProxyChoice::Over(proxy)) => (Some(proxy.clone()), Some(proxy)),
        None if section.has("proxy") => (None, None),
        None => {
            let mut unusable = Vec::new();
            let mut named = |own| named(environment, own, &mut unusable);
            let both = (named(HTTP), named(HTTPS));
            // all_proxy may apply to both.
            unusable.dedup();
            unusable.into_iter().for_each(|issue| section.foreign(issue));
            both
        }
    };
    let path = |key| section.read(key, |value| base.path(value));
    let (proxy_auth_file, ca_file) = (path("proxy_auth_file"), path("ca_file"));
    let has_user = [&http, &tunnel].into_iter().flatten().any(|proxy| proxy.credentials.is_some());
    if has_user && proxy_auth_file.is_some() {
        section.issue("proxy_auth_file", "the proxy's URL also has a user name", "remove one of the two");
    }
    let bypass = match section.read("no_proxy", |value| values::list(value, MOST_ENTRIES, entry)) {
        Some(entries) => entries.into_iter().collect(),
        None => {
            let (name, text) = variable(environment, NO_PROXY).unwrap_or_default();
            let (bypass, unread) = Bypass::read(text);
            warnings.extend(
                unread
                    .iter()
                    .map(|word| format!("{name} contains {}, which is not a valid host", quoted(word))),
            );
            bypass
        }
    };
    let upgrade = section.read("upgrade", patterns).unwrap_or_default();
    let addresses = |key| section.read(key, address_patterns).unwrap_or_default();
    let addresses = AddressRules { deny: addresses("deny"), allow: addresses("allow") };
    UpstreamConfig { http, tunnel, bypass, proxy_auth_file, ca_file, upgrade, addresses, tls }
}

/// The proxy that the environment sets for one kind of request.
fn named(
    environment: &BTreeMap<String, String>,
    own: [&'static str; 2],
    issues: &mut Vec<ConfigIssue>,
) -> Option<ProxyUrl> {
    let (name, text) = variable(environment, own).or_else(|| variable(environment, ALL))?;
    text.parse()
        .map_err(|error: NotAProxyUrl| {
            let remedy =
                "unset it for tollpass, or write proxy in [upstream], which takes precedence: \"none\" for no proxy";
            issues.push(ConfigIssue::new(name, error.to_string(), remedy));
        })
        .ok()
}

/// The first of these variables that is set, and its value.
fn variable<'a>(
    environment: &'a BTreeMap<String, String>,
    names: [&'static str; 2],
) -> Option<(&'static str, &'a str)> {
    let mut values = names.into_iter().filter_map(|name| Some((name, environment.get(name)?.trim())));
    values.find(|(_, value)| !value.is_empty())
}

fn entry(value: &Value) -> Result<NoProxyEntry, InvalidValue> {
    let text = values::text(value)?;
    text.parse().map_err(|error| {
        InvalidValue::new(
            format!("{} is {error}", quoted(text)),
            "write names and IP addresses, without scheme or path",
        )
    })
}

fn address_patterns(value: &Value) -> Result<Vec<AddressPattern>, InvalidValue> {
    match &value.kind {
        ValueKind::Array(items) if items.is_empty() => Ok(Vec::new()),
        _ => values::list(value, MOST_ENTRIES, |value| {
            let text = values::text(value)?;
            text.parse().map_err(|error: NotAnAddressPattern| {
                InvalidValue::new(format!("{} is not valid", quoted(text)), error.to_string())
            })
        }),
    }
}

#[cfg(test)]
mod tests {
    use crate::config::upstream::*;

    #[test]
    fn reads_proxy_urls_with_and_without_optional_parts() {
        for (text, shown, credentials) in [
            ("http://proxy.example:3128", "http://proxy.example:3128", None),
            ("HTTP://proxy.example:3128/", "http://proxy.example:3128", None),
            ("proxy.example:3128", "http://proxy.example:3128", None),
            ("http://proxy.example", "http://proxy.example:80", None),
            ("http://[::1]:3128", "http://[::1]:3128", None),
            ("http://me:pass@10.0.0.1:1", "http://10.0.0.1:1", Some("me:pass")),
            ("http://me@p:1", "http://p:1", Some("me:")),
            ("me:a%3Ab%40%c3%a9%25@p:1", "http://p:1", Some("me:a:b@é%")),
            ("http://me:a@b@p:1", "http://p:1", Some("me:a@b")),
        ] {
            let url: ProxyUrl = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(url.to_string(), shown, "{text}");
            assert_eq!(url.credentials(), credentials, "{text}");
        }
    }

    #[test]
    fn reports_why_a_proxy_url_is_invalid() {
        for (text, expected) in [
            ("https://proxy.example:3128", NotAProxyUrl::Tls),
            ("socks5h://127.0.0.1:9050", NotAProxyUrl::Scheme),
            ("", NotAProxyUrl::Other),
            ("http://", NotAProxyUrl::Other),
            ("http://:80", NotAProxyUrl::Other),
            ("http://p:0", NotAProxyUrl::Other),
            ("http://p:99999", NotAProxyUrl::Other),
            ("http://p:1/path", NotAProxyUrl::Other),
            ("http://p:1?x", NotAProxyUrl::Other),
            ("http://a b:1", NotAProxyUrl::Other),
            ("http://me%zz@p:1", NotAProxyUrl::Other),
            ("http://me%0d%0a@p:1", NotAProxyUrl::Other),
            ("http://m%3Ae:x@p:1", NotAProxyUrl::Other),
            ("http://me%f@p:1", NotAProxyUrl::Other),
        ] {
            assert_eq!(text.parse::<ProxyUrl>().unwrap_err(), expected, "{text}");
        }
    }
}
