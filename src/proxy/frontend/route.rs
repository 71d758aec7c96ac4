//! Reverse routes map a path prefix of a port to an origin, for programs that can only be given a base URL.
//!
//! Paths are compared and forwarded as written, segment by segment, including empty segments. A path that could leave the
//! prefix at an origin with other rules is refused, not resolved.

use std::sync::Arc;

use http::header::{self, HeaderValue};
use http::uri::{Authority, Parts, Scheme};
use http::{Request, Response, Uri};

use super::cookies;
use super::cross_site::is_cross_site;
use super::refused::FrontendRefusal;
use crate::hosts::default_port;
use crate::protocol::policy::ProxyClient;
use crate::proxy::Body;

/// One `[[route]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReverseRoute {
    /// The path prefix, without a trailing slash; empty for the whole port.
    pub prefix: String,
    /// `http` or `https`.
    pub scheme: Scheme,
    /// The host and port of the origin.
    pub authority: Authority,
    /// What replaces the prefix in the path, without a trailing slash.
    pub base: String,
    /// The only client that uses it, behind its token.
    pub client: Option<Arc<ProxyClient>>,
}

/// The routes of one port.
#[derive(Clone, Debug)]
pub(super) struct ReverseRoutes(Vec<ReverseRoute>);

impl ReverseRoutes {
    pub(super) fn new(mut routes: Vec<ReverseRoute>) -> Self {
        // The longest prefix comes first, and wins.
        routes.sort_by_key(|route| std::cmp::Reverse(route.prefix.len()));
        Self(routes)
    }

    /// The route of a path, and its index.
    pub(super) fn find(&self, path: &str) -> Option<(usize, &ReverseRoute)> {
        self.0.iter().enumerate().find(|(_, route)| below(path, &route.prefix).is_some())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn at(&self, index: usize) -> Option<&ReverseRoute> {
        self.0.get(index)
    }

    /// The routes and their origins, without the paths of the latter, which are private.
    pub(super) fn shown(&self) -> impl Iterator<Item = (&ReverseRoute, String)> {
        self.0.iter().map(|route| (route, format!("{}://{}", route.scheme, route.authority)))
    }
}

impl ReverseRoute {
    /// Rewrites the target of a request for the origin.
    pub(super) fn enter(&self, request: &mut Request<Body>) -> Result<(), FrontendRefusal> {
        if is_cross_site(request, self.authority.host()) {
            return Err(FrontendRefusal::AnotherSite);
        }
        let path = request.uri().path();
        if climbs(path) {
            return Err(FrontendRefusal::Climbs);
        }
        let rest = below(path, &self.prefix).ok_or(FrontendRefusal::NoRoute)?;
        *request.uri_mut() = self.target(rest, request.uri().query()).ok_or(FrontendRefusal::TooLong)?;
        Ok(())
    }

    /// A target in origin form without the token that is part of the prefix of `whole`.
    pub(super) fn known(&self, whole: &Self, target: &Uri) -> Option<String> {
        let rest = below(target.path(), &whole.prefix)?;
        let query = target.query().map(|query| format!("?{query}")).unwrap_or_default();
        Some(format!("{}{rest}{query}", self.prefix))
    }

    fn target(&self, rest: &str, query: Option<&str>) -> Option<Uri> {
        let mut path = format!("{}{rest}", self.base);
        if path.is_empty() {
            path.push('/');
        }
        if let Some(query) = query {
            path.push('?');
            path.push_str(query);
        }
        let mut parts = Parts::default();
        parts.scheme = Some(self.scheme.clone());
        parts.authority = Some(self.authority.clone());
        parts.path_and_query = Some(path.try_into().ok()?);
        Uri::from_parts(parts).ok()
    }

    /// Rewrites the locations in a response for the client, which has a TLS connection if `is_tls`.
    pub(super) fn leave(&self, answer: &mut Response<Body>, is_tls: bool) {
        let headers = answer.headers_mut();
        for name in [header::LOCATION, header::CONTENT_LOCATION] {
            let Some(header) = headers.get_mut(name) else { continue };
            let here = header.to_str().ok().and_then(|location| self.location(location));
            if let Some(Ok(here)) = here.map(HeaderValue::try_from) {
                *header = here;
            }
        }
        cookies::rewrite(headers, |cookie| self.cookie(cookie, is_tls));
    }

    /// The location for the client; `None` if it can stay as it is.
    fn location(&self, location: &str) -> Option<String> {
        if let Some(there) = location.strip_prefix("//") {
            // Relative to the scheme, which differs for the client.
            let whole = format!("{}://{there}", self.scheme);
            return Some(self.absolute(&whole).unwrap_or(whole));
        }
        if location.starts_with('/') {
            let outside = || format!("{}://{}{location}", self.scheme, self.authority);
            return Some(self.inside(location).unwrap_or_else(outside));
        }
        self.absolute(location)
    }

    /// Rewrites a URL of the origin below `base`.
    fn absolute(&self, location: &str) -> Option<String> {
        let (scheme, rest) = location.split_once("://")?;
        if !scheme.eq_ignore_ascii_case(self.scheme.as_str()) {
            return None;
        }
        let (authority, rest) = rest.split_at(rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len()));
        if !self.is_at(authority) { None } else { self.inside(rest) }
    }

    /// Whether an authority is that of the origin.
    fn is_at(&self, authority: &str) -> bool {
        let default = default_port(Some(&self.scheme));
        let port = |authority: &Authority| authority.port_u16().unwrap_or(default);
        authority.parse::<Authority>().is_ok_and(|authority| {
            authority.host().eq_ignore_ascii_case(self.authority.host())
                && port(&authority) == port(&self.authority)
                && !authority.as_str().contains('@')
        })
    }

    /// Rewrites a path of the origin below `base` to one below `prefix`.
    fn inside(&self, reference: &str) -> Option<String> {
        let (path, more) = reference.split_at(reference.find(['?', '#']).unwrap_or(reference.len()));
        let rest = below(path, &self.base).filter(|_| !climbs(path))?;
        let slash = if self.prefix.is_empty() && rest.is_empty() { "/" } else { "" };
        // Two leading slashes would name a host.
        let same = if self.prefix.is_empty() && rest.starts_with("//") { "/." } else { "" };
        Some(format!("{same}{}{slash}{rest}{more}", self.prefix))
    }

    /// Removes `Domain`, which names another host, and `Secure` if the client uses plain HTTP; maps `Path` to the route, so
    /// that routes do not share cookies.
    fn cookie(&self, cookie: &str, is_tls: bool) -> String {
        if cookies::is_bound(cookie) {
            return cookie.to_owned();
        }
        let cookie = if is_tls { cookie.to_owned() } else { cookies::without_secure(cookie) };
        let mut parts = cookie.split(';');
        let mut kept = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            match name.trim().to_ascii_lowercase().as_str() {
                "domain" => {}
                "path" => {
                    let path = below(value.trim(), &self.base).unwrap_or("/");
                    let path = format!("{}{path}", self.prefix);
                    let path = if path.len() > 1 { path.trim_end_matches('/') } else { &path };
                    kept.push_str("; Path=");
                    kept.push_str(if path.is_empty() { "/" } else { path });
                }
                _ => {
                    kept.push(';');
                    kept.push_str(part);
                }
            }
        }
        kept
    }
}

/// The rest of a path after a prefix of whole segments: empty, or starting with a slash.
fn below<'a>(path: &'a str, prefix: &str) -> Option<&'a str> {
    path.strip_prefix(prefix).filter(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Whether a path has a segment `.` or `..`, in any spelling: escaped, after an escaped slash or a backslash, or with
/// parameters.
fn climbs(path: &str) -> bool {
    let mut rest = path.as_bytes();
    // How many dots the segment has so far, as long as it has nothing else.
    let mut dots = Some(0_u32);
    loop {
        let (byte, length) = match rest {
            [] => return matches!(dots, Some(1 | 2)),
            [b'%', high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                (escaped(*high, *low), 3)
            }
            [byte, ..] => (*byte, 1),
        };
        rest = rest.get(length..).unwrap_or_default();
        dots = match byte {
            b'/' | b'\\' | b';' if matches!(dots, Some(1 | 2)) => return true,
            b'/' | b'\\' => Some(0),
            b'.' => dots.map(|dots| dots.saturating_add(1)),
            _ => None,
        };
    }
}

/// The byte that two hexadecimal digits encode; irrelevant bytes all become the same.
fn escaped(high: u8, low: u8) -> u8 {
    match (high, low.to_ascii_lowercase()) {
        (b'2', b'e') => b'.',
        (b'2', b'f') => b'/',
        (b'5', b'c') => b'\\',
        (b'3', b'b') => b';',
        _ => b'%',
    }
}

#[cfg(test)]
mod tests {
    use crate::proxy::frontend::route::*;

    fn route(prefix: &str, origin: &str) -> ReverseRoute {
        let uri: Uri = origin.parse().unwrap();
        ReverseRoute {
            prefix: prefix.to_owned(),
            scheme: uri.scheme().unwrap().clone(),
            authority: uri.authority().unwrap().clone(),
            base: uri.path().trim_end_matches('/').to_owned(),
            client: None,
        }
    }

    fn routes() -> ReverseRoutes {
        ReverseRoutes::new(vec![
            route("/a", "https://a.example/v1"),
            route("/a/b", "https://b.example"),
            route("/c", "http://c.example:8080/x/y"),
        ])
    }

    /// Where a target in origin form leads to.
    fn led(routes: &ReverseRoutes, target: &str) -> String {
        let mut request = Request::get(target).header("host", "localhost").body(Body::Empty).unwrap();
        let Some((_, route)) = routes.find(request.uri().path()) else { return "none".to_owned() };
        match route.enter(&mut request) {
            Ok(()) => request.uri().to_string(),
            Err(refused) => refused.answer().status().as_str().to_owned(),
        }
    }

    #[test]
    fn the_longest_prefix_of_whole_segments_wins() {
        for (target, expected) in [
            ("/a", "https://a.example/v1"),
            ("/a/", "https://a.example/v1/"),
            ("/a?x=/../y", "https://a.example/v1?x=/../y"),
            ("/a/chat?x", "https://a.example/v1/chat?x"),
            ("/a//evil.example/x", "https://a.example/v1//evil.example/x"),
            ("/a/b", "https://b.example/"),
            ("/a/b?x", "https://b.example/?x"),
            ("/a/b/c%2Fd", "https://b.example/c%2Fd"),
            ("/a/bc", "https://a.example/v1/bc"),
            ("/a/b%2f", "https://a.example/v1/b%2f"),
            ("/c/...", "http://c.example:8080/x/y/..."),
            ("/c/a..b/.c", "http://c.example:8080/x/y/a..b/.c"),
            ("/c/%252e%252e/", "http://c.example:8080/x/y/%252e%252e/"),
            ("/", "none"),
            ("/ab", "none"),
            ("/A", "none"),
            ("//a", "none"),
            ("/%61/x", "none"),
            ("/x/../a/", "none"),
            ("/a/../x", "400"),
            ("/a/..", "400"),
            ("/a/.", "400"),
            ("/a/./x", "400"),
            ("/a/%2e%2E/x", "400"),
            ("/a/.%2e", "400"),
            ("/a/x%2f..%2Fy", "400"),
            ("/a/x%5c..%5Cy", "400"),
            ("/a/..;x/y", "400"),
            ("/a/..%3bx", "400"),
            ("/a/%/..", "400"),
            ("/a/%2/./x", "400"),
        ] {
            assert_eq!(led(&routes(), target), expected, "{target}");
        }
    }

    /// No combination of significant bytes leaves the origin and base of its prefix.
    #[test]
    fn no_path_leads_out_of_its_prefix() {
        let pieces =
            ["/", "a", "b", ".", "..", "%2e", "%2F", "%5c", "\\", ";", "//", "c", "@", ":", "%", "?", "*"];
        let count = pieces.len();
        let mut led_on = 0;
        for number in 0..count.pow(4) {
            let tail: String = (0..4).map(|digit| pieces[number / count.pow(digit) % count]).collect();
            let target = format!("/a{tail}");
            if target.parse::<Uri>().is_err() {
                continue;
            }
            let reached_as = led(&routes(), &target);
            if matches!(reached_as.as_str(), "none" | "400") {
                continue;
            }
            let Ok(reached_as) = reached_as.parse::<Uri>() else { panic!("{target} leads to {reached_as}") };
            let (Some(host), path) = (reached_as.host(), reached_as.path()) else { continue };
            led_on += 1;
            match host {
                "a.example" => assert!(path == "/v1" || path.starts_with("/v1/"), "{target} {reached_as}"),
                "b.example" => assert!(target.starts_with("/a/b"), "{target} {reached_as}"),
                other => panic!("{target} leads to {other}"),
            }
            let plain = path.to_ascii_lowercase().replace("%2e", ".").replace("%2f", "/").replace("%5c", "/");
            let segments = || plain.split(['/', '\\']).map(|part| part.split(';').next().unwrap());
            assert!(!segments().any(|segment| matches!(segment, "." | "..")), "{target} {reached_as}");
        }
        assert!(led_on > 1000, "{led_on}");
    }

    #[test]
    fn places_come_back_as_the_client_knows_them() {
        let (below, whole) = (route("/a", "https://a.example/v1"), route("", "https://a.example/v1"));
        for (location, from_below, from_whole) in [
            ("https://a.example/v1/x?y#z", Some("/a/x?y#z"), Some("/x?y#z")),
            ("HTTPS://A.Example:443/v1", Some("/a"), Some("/")),
            ("https://a.example/v1?x", Some("/a?x"), Some("/?x")),
            ("/v1/x", Some("/a/x"), Some("/x")),
            ("//a.example/v1/x", Some("/a/x"), Some("/x")),
            ("https://a.example/v1//evil/x", Some("/a//evil/x"), Some("/.//evil/x")),
            ("/login", Some("https://a.example/login"), Some("https://a.example/login")),
            ("/v1x", Some("https://a.example/v1x"), Some("https://a.example/v1x")),
            ("/v1/../x", Some("https://a.example/v1/../x"), Some("https://a.example/v1/../x")),
            ("//b.example/v1/", Some("https://b.example/v1/"), Some("https://b.example/v1/")),
            ("https://b.example/v1/x", None, None),
            ("https://a.example:8443/v1/x", None, None),
            ("https://a.example.evil/v1/x", None, None),
            ("https://a.example@evil/v1/x", None, None),
            ("http://a.example/v1/x", None, None),
            ("https://a.example", None, None),
            ("x", None, None),
            ("../x", None, None),
            ("?x", None, None),
            ("mailto:a@b", None, None),
            ("", None, None),
        ] {
            assert_eq!(below.location(location).as_deref(), from_below, "{location}");
            assert_eq!(whole.location(location).as_deref(), from_whole, "{location}");
        }
        let root = route("/a", "https://a.example/");
        assert_eq!(root.location("https://a.example").as_deref(), Some("/a"));
        assert_eq!(root.location("/x").as_deref(), Some("/a/x"));
    }

    #[test]
    fn cookies_come_back_through_their_route_only() {
        let (below, whole) = (route("/a", "https://a.example/v1"), route("", "https://a.example/v1"));
        for (cookie, from_below, from_whole) in [
            ("a=1", "a=1", "a=1"),
            ("a=1; Domain=a.example; Secure; HttpOnly", "a=1; HttpOnly", "a=1; HttpOnly"),
            ("a=1; path=/; SameSite=Lax", "a=1; Path=/a; SameSite=Lax", "a=1; Path=/; SameSite=Lax"),
            ("a=1; Path=/v1", "a=1; Path=/a", "a=1; Path=/"),
            ("a=1;Path=/v1/x/", "a=1; Path=/a/x", "a=1; Path=/x"),
            ("a=1; Path=/v1x", "a=1; Path=/a", "a=1; Path=/"),
            ("a=Path=/v1;Max-Age=5", "a=Path=/v1;Max-Age=5", "a=Path=/v1;Max-Age=5"),
            ("__Host-a=1; Secure; Path=/", "__Host-a=1; Secure; Path=/", "__Host-a=1; Secure; Path=/"),
        ] {
            assert_eq!(below.cookie(cookie, false), from_below);
            assert_eq!(whole.cookie(cookie, false), from_whole);
        }
        // Over TLS, the client returns secure cookies.
        assert_eq!(below.cookie("a=1; Domain=a.example; Secure", true), "a=1; Secure");
    }
}
