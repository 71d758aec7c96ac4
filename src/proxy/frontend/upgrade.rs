//! `upgrade`: sends `http` requests to some hosts as `https`, so that the network sees TLS although the program behind the
//! proxy does not trust our CA.

use http::header::{self, HeaderValue};
use http::uri::{Authority, Parts, PathAndQuery, Scheme};
use http::{Request, Response, Uri};

use super::cookies;
use crate::hosts::without_brackets;
use crate::protocol::policy::HostPattern;
use crate::proxy::Body;

/// Changes an `http` target at one of `hosts` to `https`; returns whether it did. Port 80 becomes 443, other ports stay.
pub(super) fn target(request: &mut Request<Body>, hosts: &[HostPattern]) -> bool {
    let uri = request.uri();
    let Some(authority) = uri.authority().filter(|_| uri.scheme() == Some(&Scheme::HTTP)) else {
        return false;
    };
    // The layers below reject malformed targets.
    if authority.as_str().contains('@') || !is_among(authority, hosts) {
        return false;
    }
    let Some(authority) = without_port(authority, 80) else { return false };
    let mut parts = Parts::default();
    parts.scheme = Some(Scheme::HTTPS);
    parts.authority = Some(authority);
    parts.path_and_query =
        Some(uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/")));
    let Ok(secure) = Uri::from_parts(parts) else { return false };
    *request.uri_mut() = secure;
    true
}

/// Changes redirects to one of `hosts` back to `http`. With `https` a client would open a tunnel, in which nothing is paid
/// or which it does not trust. Redirects to other hosts stay.
pub(super) fn answer(answer: &mut Response<Body>, hosts: &[HostPattern]) {
    for name in [header::LOCATION, header::CONTENT_LOCATION] {
        let Some(header) = answer.headers_mut().get_mut(name) else { continue };
        let plain = header.to_str().ok().and_then(|location| plainly(location, hosts));
        if let Some(Ok(plain)) = plain.map(HeaderValue::try_from) {
            *header = plain;
        }
    }
}

/// Has a client that uses plain HTTP return the cookies.
pub(super) fn cookies(answer: &mut Response<Body>) {
    cookies::rewrite(answer.headers_mut(), cookies::without_secure);
}

/// The `http` URL that [`target`] maps to this `https` URL.
fn plainly(location: &str, hosts: &[HostPattern]) -> Option<String> {
    let (scheme, rest) = location.split_once("://")?;
    if !scheme.eq_ignore_ascii_case("https") {
        return None;
    }
    let (authority, rest) = rest.split_at(rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len()));
    let authority: Authority = authority.parse().ok()?;
    // Port 80 would become 443 on the way back.
    if authority.as_str().contains('@') || authority.port_u16() == Some(80) || !is_among(&authority, hosts) {
        return None;
    }
    Some(format!("http://{}{rest}", without_port(&authority, 443)?))
}

fn is_among(authority: &Authority, hosts: &[HostPattern]) -> bool {
    let host = without_brackets(authority.host());
    hosts.iter().any(|pattern| pattern.matches(host))
}

/// The authority without its port if that is `default` or empty; `None` if the port is not a number.
fn without_port(authority: &Authority, default: u16) -> Option<Authority> {
    match authority.port_u16() {
        Some(port) if port != default => Some(authority.clone()),
        None if authority.as_str().len() > authority.host().len() + 1 => None,
        _ => authority.host().parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use crate::proxy::frontend::upgrade::*;

    fn hosts() -> Vec<HostPattern> {
        ["a.example", "*.b.example", "::1"].map(|host| host.parse().unwrap()).into()
    }

    #[test]
    fn plain_targets_at_listed_hosts_become_secure() {
        for (from, to) in [
            ("http://a.example/x?y", Some("https://a.example/x?y")),
            ("http://A.Example", Some("https://A.Example/")),
            ("http://a.example:80/", Some("https://a.example/")),
            ("http://a.example:/", Some("https://a.example/")),
            ("http://a.example:8080/", Some("https://a.example:8080/")),
            ("http://x.b.example/", Some("https://x.b.example/")),
            ("http://[::1]:80/", Some("https://[::1]/")),
            ("http://b.example/", None),
            ("http://c.example/", None),
            ("https://a.example/", None),
            ("http://a.example:99999/", None),
            ("http://me@a.example/", None),
        ] {
            let Ok(uri) = from.parse::<Uri>() else { panic!("{from}") };
            let mut request = Request::new(Body::Empty);
            *request.uri_mut() = uri.clone();
            assert_eq!(target(&mut request, &hosts()), to.is_some(), "{from}");
            assert_eq!(*request.uri(), to.map_or(uri, |to| to.parse().unwrap()), "{from}");
        }
    }

    #[test]
    fn cookies_come_back_for_a_client_without_tls() {
        let mut received = Response::new(Body::Empty);
        for (cookie, _) in COOKIES {
            received.headers_mut().append(header::SET_COOKIE, HeaderValue::from_static(cookie));
        }
        super::cookies(&mut received);
        let kept: Vec<&HeaderValue> = received.headers().get_all(header::SET_COOKIE).iter().collect();
        assert_eq!(kept, COOKIES.map(|(_, kept)| kept));
    }

    const COOKIES: [(&str, &str); 6] = [
        ("a=1; Domain=a.example; Secure; HttpOnly", "a=1; HttpOnly"),
        ("a=1; Domain=a.example; HttpOnly", "a=1; Domain=a.example; HttpOnly"),
        ("a=secure; path=/;SECURE", "a=secure; path=/"),
        ("__Host-a=1; Secure; Path=/", "__Host-a=1; Secure; Path=/"),
        ("__Secure-a=1; Secure", "__Secure-a=1; Secure"),
        ("a=1", "a=1"),
    ];

    #[test]
    fn redirects_to_listed_hosts_come_back_plain() {
        for (from, to) in [
            ("https://a.example/x?y#z", Some("http://a.example/x?y#z")),
            ("HTTPS://a.example:443", Some("http://a.example")),
            ("https://a.example:8080/", Some("http://a.example:8080/")),
            ("https://a.example?x", Some("http://a.example?x")),
            ("https://a.example:80/", None),
            ("https://c.example/", None),
            ("https://c.example/?to=https://a.example/", None),
            ("http://a.example/", None),
            ("/x", None),
            ("//a.example/", None),
            ("https://me@a.example/", None),
        ] {
            assert_eq!(plainly(from, &hosts()).as_deref(), to, "{from}");
            // The way there and back is the same place.
            let Some(there) = to else { continue };
            let mut request = Request::new(Body::Empty);
            *request.uri_mut() = there.split('#').next().unwrap().parse().unwrap();
            assert!(target(&mut request, &hosts()));
            assert_eq!(request.uri().host(), Some("a.example"));
        }
    }
}
