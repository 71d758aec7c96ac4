//! Reverse routes: a path below a port of ours stands for an origin, for programs that know nothing but a base URL.
//!
//! Paths are compared as they are written, segment by segment, and passed on as they are written, empty segments
//! included. What would climb out of the prefix at an origin that reads it otherwise is refused, not resolved.

use http::header::{self, HeaderValue};
use http::uri::{Authority, Parts, Scheme};
use http::{HeaderMap, Request, Response, Uri};

use super::identity::Ours;
use super::refused::Refused;
use crate::hosts::default_port;
use crate::proxy::Body;

/// One `[[route]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// What the path begins with, without a slash at its end: empty for the whole port.
    pub prefix: String,
    /// `http` or `https`.
    pub scheme: Scheme,
    /// Host and port of the origin.
    pub authority: Authority,
    /// What takes the prefix's place in the path, without a slash at its end.
    pub base: String,
}

/// The routes of one port.
#[derive(Debug)]
pub(super) struct Routes(Vec<Route>);

impl Routes {
    pub(super) fn new(mut routes: Vec<Route>) -> Self {
        // The longest prefix comes first, and wins.
        routes.sort_by_key(|route| std::cmp::Reverse(route.prefix.len()));
        Self(routes)
    }

    /// The route that a path belongs to, and its place.
    pub(super) fn find(&self, path: &str) -> Option<(usize, &Route)> {
        self.0.iter().enumerate().find(|(_, route)| below(path, &route.prefix).is_some())
    }

    pub(super) fn at(&self, index: usize) -> Option<&Route> {
        self.0.get(index)
    }

    /// Prefixes and the origins that they stand for; of these no path, which is nobody's business.
    pub(super) fn shown(&self) -> impl Iterator<Item = (&str, String)> {
        self.0.iter().map(|route| (route.prefix.as_str(), format!("{}://{}", route.scheme, route.authority)))
    }
}

impl Route {
    /// Gives a request its target at the origin; `Host` follows from that.
    pub(super) fn enter(&self, request: &mut Request<Body>, ours: &Ours) -> Result<(), Refused> {
        if ours.is_of_another_site(request, self.authority.host()) {
            return Err(Refused::AnotherSite);
        }
        let path = request.uri().path();
        if climbs(path) {
            return Err(Refused::Climbs);
        }
        let rest = below(path, &self.prefix).ok_or(Refused::NoRoute)?;
        *request.uri_mut() = self.target(rest, request.uri().query()).ok_or(Refused::TooLong)?;
        Ok(())
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

    /// Turns the places that an answer names into what the client knows of them.
    pub(super) fn leave(&self, answer: &mut Response<Body>) {
        let fields = answer.headers_mut();
        for name in [header::LOCATION, header::CONTENT_LOCATION] {
            let Some(field) = fields.get_mut(name) else { continue };
            let here = field.to_str().ok().and_then(|location| self.location(location));
            if let Some(Ok(here)) = here.map(HeaderValue::try_from) {
                *field = here;
            }
        }
        self.cookies(fields);
    }

    /// The place as the client knows it; `None` where it may stay as it is written.
    fn location(&self, location: &str) -> Option<String> {
        if let Some(there) = location.strip_prefix("//") {
            // It takes its scheme from where the client got it.
            let whole = format!("{}://{there}", self.scheme);
            return Some(self.absolute(&whole).unwrap_or(whole));
        }
        if location.starts_with('/') {
            let outside = || format!("{}://{}{location}", self.scheme, self.authority);
            return Some(self.inside(location).unwrap_or_else(outside));
        }
        self.absolute(location)
    }

    /// A URL of our origin, below our base.
    fn absolute(&self, location: &str) -> Option<String> {
        let (scheme, rest) = location.split_once("://")?;
        if !scheme.eq_ignore_ascii_case(self.scheme.as_str()) {
            return None;
        }
        let (authority, rest) = rest.split_at(rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len()));
        if !self.is_at(authority) { None } else { self.inside(rest) }
    }

    /// Whether an authority is our origin's.
    fn is_at(&self, authority: &str) -> bool {
        let default = default_port(Some(&self.scheme));
        let port = |authority: &Authority| authority.port_u16().unwrap_or(default);
        authority.parse::<Authority>().is_ok_and(|authority| {
            authority.host().eq_ignore_ascii_case(self.authority.host())
                && port(&authority) == port(&self.authority)
                && !authority.as_str().contains('@')
        })
    }

    /// A path with what follows it, at our origin and below our base: below our prefix.
    fn inside(&self, reference: &str) -> Option<String> {
        let (path, more) = reference.split_at(reference.find(['?', '#']).unwrap_or(reference.len()));
        let rest = below(path, &self.base).filter(|_| !climbs(path))?;
        let slash = if self.prefix.is_empty() && rest.is_empty() { "/" } else { "" };
        // Two slashes at the beginning would name a host.
        let same = if self.prefix.is_empty() && rest.starts_with("//") { "/." } else { "" };
        Some(format!("{same}{}{slash}{rest}{more}", self.prefix))
    }

    /// Lets cookies come back through the route, and only through it.
    fn cookies(&self, fields: &mut HeaderMap) {
        if !fields.contains_key(header::SET_COOKIE) {
            return;
        }
        let lines: Vec<HeaderValue> = fields.get_all(header::SET_COOKIE).iter().cloned().collect();
        fields.remove(header::SET_COOKIE);
        for line in lines {
            let here = line.to_str().ok().and_then(|cookie| HeaderValue::try_from(self.cookie(cookie)).ok());
            fields.append(header::SET_COOKIE, here.unwrap_or(line));
        }
    }

    /// Takes out `Domain`, which would name another host, and `Secure`, since the way from us is plain; makes `Path` ours:
    /// the whole origin is the whole route, so that routes beside each other do not share cookies.
    fn cookie(&self, cookie: &str) -> String {
        let mut parts = cookie.split(';');
        let mut kept = parts.next().unwrap_or_default().to_owned();
        // These names promise how the origin set them: without that, they mean nothing.
        let is_bound = ["__host-", "__secure-"].iter().any(|start| {
            kept.trim_start().get(..start.len()).is_some_and(|is| is.eq_ignore_ascii_case(start))
        });
        if is_bound {
            return cookie.to_owned();
        }
        for part in parts {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            match name.trim().to_ascii_lowercase().as_str() {
                "domain" | "secure" => {}
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

/// What follows a prefix in a path, where that is whole segments: nothing, or something that begins with a slash.
fn below<'a>(path: &'a str, prefix: &str) -> Option<&'a str> {
    path.strip_prefix(prefix).filter(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Whether a path has a segment `.` or `..`, however it is written: escaped, behind an escaped slash or a backslash, or
/// with parameters.
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

/// The byte that two digits stand for; those that matter to nobody here are all the same.
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

    fn route(prefix: &str, origin: &str) -> Route {
        let uri: Uri = origin.parse().unwrap();
        Route {
            prefix: prefix.to_owned(),
            scheme: uri.scheme().unwrap().clone(),
            authority: uri.authority().unwrap().clone(),
            base: uri.path().trim_end_matches('/').to_owned(),
        }
    }

    fn routes() -> Routes {
        Routes::new(vec![
            route("/a", "https://a.example/v1"),
            route("/a/b", "https://b.example"),
            route("/c", "http://c.example:8080/x/y"),
        ])
    }

    /// Where a target in origin form leads to.
    fn led(routes: &Routes, target: &str) -> String {
        let ours = Ours::new("127.0.0.1:8402".parse().unwrap());
        let mut request = Request::get(target).header("host", "localhost").body(Body::Empty).unwrap();
        let Some((_, route)) = routes.find(request.uri().path()) else { return "none".to_owned() };
        match route.enter(&mut request, &ours) {
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

    /// Whatever is put together from what matters, nothing leads out of the origin and base of its prefix.
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
            let reached = led(&routes(), &target);
            if matches!(reached.as_str(), "none" | "400") {
                continue;
            }
            let Ok(reached) = reached.parse::<Uri>() else { panic!("{target} leads to {reached}") };
            let (Some(host), path) = (reached.host(), reached.path()) else { continue };
            led_on += 1;
            match host {
                "a.example" => assert!(path == "/v1" || path.starts_with("/v1/"), "{target} {reached}"),
                "b.example" => assert!(target.starts_with("/a/b"), "{target} {reached}"),
                other => panic!("{target} leads to {other}"),
            }
            let plain = path.to_ascii_lowercase().replace("%2e", ".").replace("%2f", "/").replace("%5c", "/");
            let segments = || plain.split(['/', '\\']).map(|part| part.split(';').next().unwrap());
            assert!(!segments().any(|segment| matches!(segment, "." | "..")), "{target} {reached}");
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
            assert_eq!(below.cookie(cookie), from_below);
            assert_eq!(whole.cookie(cookie), from_whole);
        }
    }
}
