//! Decides whether a request may be paid, by who made it: a program, a browser on behalf of its user, or a page of
//! another site.
//!
//! Any page can make a browser send requests, and over plain http browsers mark few of them. So a cross-site mark
//! always forbids a payment, and a missing mark never allows one: a browser's request is paid only as its rule says.
//! The exception is a client of kind "program": no browser has its credentials, and no page can add them.

use std::net::Ipv6Addr;
use std::sync::Arc;

use http::uri::{Authority, Scheme};
use http::{Method, Request, Uri};

use crate::hosts::default_port;
use crate::protocol::Refusal;
use crate::protocol::policy::{Browsers, ClientKind, ProxyClient};
use crate::proxy::Body;
use crate::proxy::extensions::{RequestClient, RequestedAuthority};

/// Why a request is not paid although a rule allows its host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unasked {
    /// A page of another site made it; contains the header that shows it.
    AnotherSite(&'static str),
    /// It is a prefetch; contains the header that shows it.
    Prefetch(&'static str),
    /// It is a CORS preflight.
    Preflight,
    /// A browser sent it, and the applicable setting does not pay it.
    Browser {
        /// The applicable setting.
        browsers: Browsers,
        /// Whether the rule contains the setting; otherwise it is the default.
        written: bool,
        /// Whether it goes over plain http.
        is_plain: bool,
    },
}

impl From<Unasked> for Refusal {
    fn from(unasked: Unasked) -> Self {
        match unasked {
            Unasked::AnotherSite(mark) => Self::AnotherSite { mark },
            Unasked::Prefetch(mark) => Self::Prefetch { mark },
            Unasked::Preflight => Self::Preflight,
            Unasked::Browser { browsers, written, is_plain } => Self::Browser { browsers, written, is_plain },
        }
    }
}

/// Whether the credentials of a request are those of a program, whatever its other headers say: what it has shown, and whose
/// that is by now.
pub(super) fn is_program(shown: Option<&RequestClient>, client: Option<&Arc<ProxyClient>>) -> bool {
    shown.is_some_and(RequestClient::has_credentials)
        && client.is_some_and(|client| client.kind == ClientKind::Program)
}

/// Judges a request whose rule has the setting `browsers`.
pub(super) fn judge(request: &Request<Body>, browsers: Option<Browsers>) -> Result<(), Unasked> {
    let mut is_browser = false;
    let (mut site, mut destination) = (None, None);
    for (name, value) in request.headers() {
        let value = value.as_bytes();
        match name.as_str() {
            "user-agent" => is_browser |= starts_with(value, b"mozilla/"),
            "upgrade-insecure-requests" | "sec-ch-ua" => is_browser = true,
            "sec-fetch-site" => {
                is_browser = true;
                if has_word(value, "cross-site") {
                    return Err(Unasked::AnotherSite("Sec-Fetch-Site: cross-site"));
                }
                if has_word(value, "same-site") {
                    return Err(Unasked::AnotherSite("Sec-Fetch-Site: same-site"));
                }
                site = only(site, value);
            }
            "sec-fetch-dest" => destination = only(destination, value),
            "sec-purpose" if has_word(value, "prefetch") => return Err(Unasked::Prefetch("Sec-Purpose")),
            "purpose" if has_word(value, "prefetch") => return Err(Unasked::Prefetch("Purpose")),
            "origin" if !is_own(request, value) => return Err(Unasked::AnotherSite("Origin")),
            "referer" if !is_empty_referrer(value) && !is_own(request, value) => {
                return Err(Unasked::AnotherSite("Referer"));
            }
            "access-control-request-method" if request.method() == Method::OPTIONS => {
                return Err(Unasked::Preflight);
            }
            _ => {}
        }
    }
    if !is_browser {
        return Ok(());
    }
    let asked = request.extensions().get::<RequestedAuthority>();
    let is_plain = asked.is_some() || request.uri().scheme() != Some(&Scheme::HTTPS);
    let (written, browsers) = (browsers.is_some(), browsers.unwrap_or(Browsers::usual(is_plain)));
    let is_same_origin = site == Some(b"same-origin");
    let is_navigation = destination == Some(b"document") && (is_same_origin || site == Some(b"none"));
    let is_wanted = match browsers {
        Browsers::Never => false,
        Browsers::Navigations => is_navigation && !is_plain,
        Browsers::SameOrigin => (is_navigation || is_same_origin) && !is_plain,
        Browsers::Any => true,
    };
    if is_wanted { Ok(()) } else { Err(Unasked::Browser { browsers, written, is_plain }) }
}

/// The value of a header that may occur once; a repeated header is unreliable.
fn only<'a>(before: Option<&'a [u8]>, value: &'a [u8]) -> Option<&'a [u8]> {
    Some(if before.is_some() { b"" } else { value })
}

fn starts_with(value: &[u8], start: &[u8]) -> bool {
    value.get(..start.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(start))
}

fn has_word(value: &[u8], word: &str) -> bool {
    let is_between = |byte: &u8| matches!(byte, b' ' | b'\t' | b',' | b';');
    value.split(is_between).any(|part| part.eq_ignore_ascii_case(word.as_bytes()))
}

/// Whether a `Referer` names no page. RFC 9110 section 10.1.3.
fn is_empty_referrer(referrer: &[u8]) -> bool {
    referrer.is_empty() || referrer.eq_ignore_ascii_case(b"about:blank")
}

/// Whether a URL or an origin belongs to the requested origin, as named by the client or as rewritten.
fn is_own(request: &Request<Body>, url: &[u8]) -> bool {
    let Some((scheme, authority)) = origin_of(url) else { return false };
    let is_at = |own: &Scheme, at: &Authority| {
        let port = |authority: &Authority| authority.port_u16().unwrap_or(default_port(Some(own)));
        scheme.eq_ignore_ascii_case(own.as_str())
            && is_same_host(authority.host(), at.host())
            && port(&authority) == port(at)
    };
    let uri: &Uri = request.uri();
    let is_target = uri.scheme().zip(uri.authority()).is_some_and(|(own, at)| is_at(own, at));
    let asked = || {
        let RequestedAuthority { authority, is_tls } = request.extensions().get()?;
        Some((if *is_tls { Scheme::HTTPS } else { Scheme::HTTP }, authority.as_ref()?))
    };
    is_target || asked().is_some_and(|(scheme, at)| is_at(&scheme, at))
}

/// The scheme and authority at the start of a URL; `None` for what browsers never send.
fn origin_of(url: &[u8]) -> Option<(&str, Authority)> {
    let end = |bytes: &[u8]| bytes.iter().position(|byte| b"/?#\\".contains(byte)).unwrap_or(bytes.len());
    let colon = url.windows(3).position(|part| part == b"://")?;
    let (scheme, rest) = (url.get(..colon)?, url.get(colon + 3..)?);
    let authority = Authority::try_from(rest.get(..end(rest))?).ok()?;
    let has_good_port = authority.as_str().len() == authority.host().len() || authority.port_u16().is_some();
    let is_plain = has_good_port && !authority.as_str().contains('@');
    Some((std::str::from_utf8(scheme).ok()?, authority)).filter(|_| is_plain)
}

fn is_same_host(one: &str, other: &str) -> bool {
    one.eq_ignore_ascii_case(other) || address(one).is_some_and(|one| Some(one) == address(other))
}

/// An IPv6 address, which has many spellings.
fn address(host: &str) -> Option<Ipv6Addr> {
    host.strip_prefix('[')?.strip_suffix(']')?.parse().ok()
}
