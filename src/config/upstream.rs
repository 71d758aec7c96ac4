//! Reads `[upstream]`: the way from the proxy to the origins. Opens no file and asks nobody.
//!
//! Where `proxy` is absent, the variables that other programs know decide: `http_proxy` for requests in plain, and
//! `https_proxy` for everything that passes through a tunnel; `all_proxy` where one is not set. Each is also known in
//! capitals, and the small ones win.

use std::{collections::BTreeMap, fmt, path::PathBuf, str::FromStr};

use ::config::Value;
use http::uri::Authority;
use zeroize::Zeroizing;

use super::fault::Fault;
use super::intercept::patterns;
use super::origin::OriginTls;
use super::section::{Section, Wrong, quoted};
use super::values;
use super::values::Places;
use crate::hosts::host::Host;
use crate::hosts::no_proxy::{Bypass, Entry};
use crate::hosts::without_brackets;
use crate::protocol::policy::HostPattern;

/// The keys of `[upstream]`.
pub(super) const UPSTREAM: &[&str] = &["proxy", "no_proxy", "proxy_auth_file", "ca_file", "upgrade"];

/// What stands in the table, with the list of tables within.
pub(super) const TABLE: &[&str] = &["proxy", "no_proxy", "proxy_auth_file", "ca_file", "upgrade", "tls"];

/// The variables of others that are read here.
pub(super) const VARIABLES: [&str; 8] =
    [HTTP[0], HTTP[1], HTTPS[0], HTTPS[1], ALL[0], ALL[1], NO_PROXY[0], NO_PROXY[1]];
const HTTP: [&str; 2] = ["http_proxy", "HTTP_PROXY"];
const HTTPS: [&str; 2] = ["https_proxy", "HTTPS_PROXY"];
const ALL: [&str; 2] = ["all_proxy", "ALL_PROXY"];
const NO_PROXY: [&str; 2] = ["no_proxy", "NO_PROXY"];

/// How many hosts `no_proxy` may name.
const MOST_ENTRIES: usize = 1000;
/// What to write instead of a wrong address.
const REMEDY: &str = "write one such as \"http://proxy.example.com:3128\", or \"none\" for no proxy";

/// `[upstream]`: the way to the origins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Upstream {
    /// The outbound proxy of requests in plain.
    pub http: Option<ProxyUrl>,
    /// The outbound proxy of everything else, which passes through a tunnel.
    pub tunnel: Option<ProxyUrl>,
    /// What is reached without it.
    pub bypass: Bypass,
    /// A private file with `user:password` for it.
    pub proxy_auth_file: Option<PathBuf>,
    /// PEM certificates by which origins may prove themselves, besides the system's.
    pub ca_file: Option<PathBuf>,
    /// Hosts that a plain `http` request reaches over `https`.
    pub upgrade: Vec<HostPattern>,
    /// Where TLS is other than usual. The first entry that matches decides.
    pub tls: Vec<OriginTls>,
}

/// The address of an outbound proxy. It may hold a password, so that only [`ProxyUrl::credentials`] shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct ProxyUrl {
    /// A name, or an address without brackets.
    pub host: String,
    /// Its port; 80 where none was written.
    pub port: u16,
    credentials: Option<Zeroizing<String>>,
}

/// Why a text is not a [`ProxyUrl`]. It does not quote the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAProxyUrl {
    /// The proxy wants TLS.
    #[error("a proxy that is itself reached over TLS (https://) is not supported")]
    Tls,
    /// The proxy speaks something else.
    #[error("not a proxy that speaks HTTP: only http:// is supported")]
    Scheme,
    /// It is no address.
    #[error("not an http:// address of a proxy")]
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

/// The user name and password of a URL, decoded; a password that is not there is empty.
fn credentials(user: &str) -> Option<Zeroizing<String>> {
    let (name, password) = user.split_once(':').unwrap_or((user, ""));
    let (name, password) = (decoded(name)?, decoded(password)?);
    // Basic authentication ends the name at its first colon.
    (!name.contains(':')).then(|| Zeroizing::new(format!("{}:{}", *name, *password)))
}

fn decoded(text: &str) -> Option<Zeroizing<String>> {
    // Room for all of it at once: growing would leave copies behind.
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

/// What `proxy` says.
enum Choice {
    Direct,
    Over(ProxyUrl),
}

/// Reads `[upstream]` with `tls` for the list within, and the variables of others.
pub(super) fn upstream(
    section: &Section<'_>,
    tls: Vec<OriginTls>,
    places: &Places,
    environment: &BTreeMap<String, String>,
    warnings: &mut Vec<String>,
) -> Upstream {
    let choice = section.read("proxy", |value| {
        let text = values::text(value)?;
        if text == "none" {
            return Ok(Choice::Direct);
        }
        // What is wrong is said without the text: it may hold a password.
        text.parse().map(Choice::Over).map_err(|error: NotAProxyUrl| Wrong::new(error.to_string(), REMEDY))
    });
    let (http, tunnel) = match choice {
        Some(Choice::Direct) => (None, None),
        Some(Choice::Over(proxy)) => (Some(proxy.clone()), Some(proxy)),
        None if section.has("proxy") => (None, None),
        None => {
            let mut unusable = Vec::new();
            let mut named = |own| named(environment, own, &mut unusable);
            let both = (named(HTTP), named(HTTPS));
            // One variable may stand for both.
            unusable.dedup();
            unusable.into_iter().for_each(|fault| section.foreign(fault));
            both
        }
    };
    let path = |key| section.read(key, |value| places.path(value));
    let (proxy_auth_file, ca_file) = (path("proxy_auth_file"), path("ca_file"));
    let has_user = [&http, &tunnel].into_iter().flatten().any(|proxy| proxy.credentials.is_some());
    if has_user && proxy_auth_file.is_some() {
        section.fault("proxy_auth_file", "the proxy's address has a user name as well", "write one of both");
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
    Upstream { http, tunnel, bypass, proxy_auth_file, ca_file, upgrade, tls }
}

/// The proxy that the environment names for one kind of request.
fn named(
    environment: &BTreeMap<String, String>,
    own: [&'static str; 2],
    faults: &mut Vec<Fault>,
) -> Option<ProxyUrl> {
    let (name, text) = variable(environment, own).or_else(|| variable(environment, ALL))?;
    text.parse()
        .map_err(|error: NotAProxyUrl| {
            let remedy =
                "unset it for tollpass, or write proxy in [upstream], which wins: \"none\" for no proxy";
            faults.push(Fault::new(name, error.to_string(), remedy));
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

fn entry(value: &Value) -> Result<Entry, Wrong> {
    let text = values::text(value)?;
    text.parse().map_err(|error| {
        Wrong::new(
            format!("{} is {error}", quoted(text)),
            "write names and addresses, without scheme or path",
        )
    })
}

#[cfg(test)]
mod tests {
    use crate::config::upstream::*;

    #[test]
    fn a_proxys_address_is_read_with_and_without_its_parts() {
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
    fn what_is_no_proxys_address_is_told_apart() {
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
