//! The target of a request. RFC 9112 section 3.2: the absolute form overrides `Host`.

use std::hash::Hasher;

use http::header::{self, HeaderValue};
use http::uri::{Authority, Scheme};
use http::{Request, Uri};

use super::headers;
use crate::hosts::host::{Host, is_ipv4};
use crate::hosts::{default_port, without_brackets};
use crate::proxy::error::ForwardError;

/// Canonicalises a target whose host is an address, before any decision depends on it. Malformed targets are rejected
/// later.
pub(crate) fn canonicalise<B>(request: &mut Request<B>) {
    let Some(authority) = request.uri().authority() else { return };
    let Some(canonical) = canonical(authority) else { return };
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    parts.authority = Some(canonical);
    // Only the authority has changed, and it has not grown.
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
    }
}

/// The authority with a canonical host; `None` if it is canonical already, or not a host.
pub(crate) fn canonical(authority: &Authority) -> Option<Authority> {
    let written = host(authority);
    if is_ipv4(written) {
        return None;
    }
    let host = match Host::read(written) {
        Ok(Host::Name(_)) | Err(_) => return None,
        Ok(host) => host.to_string(),
    };
    let port = authority.as_str().strip_prefix(written)?;
    if host == written { None } else { format!("{host}{port}").parse().ok() }
}

/// Rejects a target in absolute form that must not be forwarded.
pub(crate) fn check<B>(request: &Request<B>) -> Result<(), ForwardError> {
    let uri = request.uri();
    let Some(authority) = uri.authority() else {
        return Err(ForwardError::BadTarget("it names no host; write http://host/path"));
    };
    match uri.scheme() {
        Some(scheme) if *scheme == Scheme::HTTP || *scheme == Scheme::HTTPS => check_authority(authority),
        Some(scheme) => Err(ForwardError::UnsupportedScheme(scheme.to_string())),
        None => Err(ForwardError::BadTarget("it has no scheme; write http://host/path")),
    }
}

/// The host (without brackets) and port of a `CONNECT`.
pub(crate) fn tunnel(uri: &Uri) -> Result<(&str, u16), ForwardError> {
    let Some(authority) = uri.authority() else {
        return Err(ForwardError::BadTarget("CONNECT takes host:port"));
    };
    if uri.scheme().is_some() {
        return Err(ForwardError::BadTarget("CONNECT takes host:port, not a URL"));
    }
    check_authority(authority)?;
    match authority.port_u16() {
        None => Err(ForwardError::BadTarget("CONNECT takes host:port, and the port is missing")),
        Some(port) => Ok((without_brackets(authority.host()), port)),
    }
}

/// A host without the zone of its address, which is local to this machine (RFC 6874 section 4).
pub(crate) fn without_zone(host: &str) -> &str {
    host.split_once('%').map_or(host, |(address, _)| address)
}

/// The port of a target, or the default port of its scheme.
pub(crate) fn port(uri: &Uri) -> u16 {
    host_and_port(uri).1
}

/// The host of a target, with its brackets, and its port or the default port of its scheme. The host of a target without
/// an authority is empty.
pub(crate) fn host_and_port(uri: &Uri) -> (&str, u16) {
    let (host, port) = uri.authority().map(split).unwrap_or_default();
    (host, port.unwrap_or_else(|| default_port(uri.scheme())))
}

/// The host of an authority, with its brackets.
pub(crate) fn host(authority: &Authority) -> &str {
    let text = authority.as_str();
    match usual_end(text) {
        None => text,
        Some(end) if text[end..].starts_with(':') && !text[end..].contains('@') => &text[..end],
        Some(_) => authority.host(),
    }
}

/// Where the host of an authority ends, if that has a port and neither user info nor brackets before it; `None` if it has
/// nothing but a host.
fn usual_end(text: &str) -> Option<usize> {
    text.bytes().position(|byte| matches!(byte, b':' | b'@' | b'['))
}

/// The host and port of an authority, in a fraction of the time that its own methods take for the usual forms.
fn split(authority: &Authority) -> (&str, Option<u16>) {
    let text = authority.as_str();
    let Some(end) = usual_end(text) else { return (text, None) };
    // A port has no `@`, so no user info precedes it.
    let (host, rest) = text.split_at(end);
    match rest.strip_prefix(':').and_then(|port| port.parse().ok()) {
        Some(port) => (host, Some(port)),
        None => (authority.host(), authority.port_u16()),
    }
}

/// Hashes a host or an authority, ignoring case.
pub(crate) fn hash_caseless(text: &str, hasher: &mut impl Hasher) {
    // Without an early exit, the compiler checks many bytes at a time.
    if text.bytes().fold(false, |found, byte| found | byte.is_ascii_uppercase()) {
        hasher.write(text.to_ascii_lowercase().as_bytes());
    } else {
        hasher.write(text.as_bytes());
    }
    // A terminator that is not valid UTF-8.
    hasher.write_u8(0xff);
}

fn check_authority(authority: &Authority) -> Result<(), ForwardError> {
    let text = authority.as_str();
    if text.contains('@') {
        return Err(ForwardError::BadTarget("it contains a user name; use an Authorization header instead"));
    }
    let host = host(authority);
    if host.is_empty() || host == "[]" {
        return Err(ForwardError::BadTarget("it names no host"));
    }
    if Host::read(host).is_err() {
        return Err(ForwardError::BadTarget("its host is neither a name nor an IP address"));
    }
    // `host:` and `host` both mean the default port; any other rest must be a port.
    let port = text.get(host.len() + 1..).unwrap_or_default();
    match headers::parse_digits(port.as_bytes()) {
        None if port.is_empty() => Ok(()),
        Some(1..=0xffff) => Ok(()),
        _ => Err(ForwardError::BadTarget("its port is not a number from 1 to 65535")),
    }
}

/// Sets `Host` to the authority of the target, unless they are equal.
pub(crate) fn set_host<B>(request: &mut Request<B>) {
    let Some(authority) = request.uri().authority() else { return };
    let unzoned = unzoned(authority);
    let authority = unzoned.as_ref().unwrap_or(authority);
    let mut lines = request.headers().get_all(header::HOST).iter();
    let is_same = lines.next().is_some_and(|host| host.as_bytes() == authority.as_str().as_bytes());
    if is_same && lines.next().is_none() {
        return;
    }
    // Every authority is a valid header value.
    if let Ok(host) = HeaderValue::from_str(authority.as_str()) {
        request.headers_mut().insert(header::HOST, host);
    }
}

/// The authority without the zone of its address; `None` if it has none.
fn unzoned(authority: &Authority) -> Option<Authority> {
    let (address, rest) = authority.as_str().split_once('%')?;
    format!("{address}{}", rest.get(rest.find(']')?..)?).parse().ok()
}

/// Removes the zone from the target of a request in absolute form.
pub(crate) fn drop_zone<B>(request: &mut Request<B>) {
    let Some(unzoned) = request.uri().authority().and_then(unzoned) else { return };
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    parts.authority = Some(unzoned);
    // Only the authority has changed, and it is shorter.
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
    }
}

#[cfg(test)]
mod tests {
    use crate::proxy::Body;
    use crate::proxy::message::target::*;

    fn request(uri: &str) -> Option<Request<Body>> {
        let uri = uri.parse::<Uri>().ok()?;
        let mut request = Request::new(Body::Empty);
        *request.uri_mut() = uri;
        Some(request)
    }

    #[test]
    fn an_authority_splits_as_its_own_methods_split_it() {
        for text in [
            "a",
            "a:",
            "a:80",
            "a:+80",
            "a:65536",
            "a:x",
            ":80",
            "127.0.0.1:8080",
            "[::1]",
            "[::1]:8080",
            "[fe80::1%25a]:1",
            "me@a:80",
            "me:81@a",
            "me:hush@a",
            "me:hush@[::1]:81",
        ] {
            let authority: Authority = text.parse().unwrap();
            assert_eq!(split(&authority), (authority.host(), authority.port_u16()), "{text}");
            assert_eq!(host(&authority), authority.host(), "{text}");
        }
    }

    #[test]
    fn targets_are_told_apart() {
        for good in [
            "http://a/",
            "http://a:80/x?y",
            "http://a:/",
            "http://[::1]:8080/",
            "http://127.0.0.1",
            "HTTP://A",
            "https://a/",
        ] {
            assert!(check(&request(good).unwrap()).is_ok(), "{good}");
        }
        for bad in ["http://u@a/", "http://u:p@a/", "http://a:99999/", "http://[]/", "http://:80/", "a:80"] {
            // What the parser refuses never gets here.
            let Some(request) = request(bad) else { continue };
            assert!(
                matches!(check(&request), Err(ForwardError::BadTarget(_))),
                "{bad}: {:?}",
                check(&request)
            );
        }
        for other in ["ftp://a/", "ws://a/"] {
            let error = check(&request(other).unwrap()).unwrap_err();
            assert!(error.to_string().contains("only http and https"), "{error}");
        }
    }

    #[test]
    fn a_tunnel_needs_a_host_and_a_port() {
        let split =
            |uri: &str| tunnel(&uri.parse().unwrap()).ok().map(|(host, port)| (host.to_owned(), port));
        assert_eq!(split("a.example:443"), Some(("a.example".to_owned(), 443)));
        assert_eq!(split("[::1]:22"), Some(("::1".to_owned(), 22)));
        for bad in ["a.example", "u@a:1", "a:0", "a:70000", "http://a:1/", "/x"] {
            let Ok(uri) = bad.parse() else { continue };
            assert!(tunnel(&uri).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_target_wins_over_host() {
        let mut request = request("http://a:81/").unwrap();
        for value in ["b", "c"] {
            request.headers_mut().append(header::HOST, HeaderValue::from_static(value));
        }
        set_host(&mut request);
        let hosts: Vec<_> = request.headers().get_all(header::HOST).iter().collect();
        assert_eq!(hosts, ["a:81"]);
    }
    #[test]
    fn a_zone_is_left_out_of_a_target_that_is_sent_whole() {
        for (written, sent) in [
            ("https://[fe80::1%25eth0]/a?b", "https://[fe80::1]/a?b"),
            ("https://[fe80::1%25eth0]:8443/", "https://[fe80::1]:8443/"),
            ("https://[fe80::1]/", "https://[fe80::1]/"),
            ("https://a.example/%25]", "https://a.example/%25]"),
        ] {
            let mut request = request(written).unwrap();
            drop_zone(&mut request);
            assert_eq!(request.uri().to_string(), sent);
        }
    }
}
