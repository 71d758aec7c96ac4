//! Which names and addresses are this port's own. A page of a foreign site whose name was rebound to our address says
//! its own name in `Host`: only what no resolver answers for is served.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use http::header::{self, HeaderValue};
use http::uri::{Authority, Scheme};
use http::{Method, Request, Uri, Version};

use super::page::Reached;
use super::refused::Refused;
use crate::hosts::without_brackets;
use crate::proxy::Body;
use crate::proxy::message::target;

/// The name of the set-up page. It never leaves the proxy, so it needs no address.
pub(super) const NAME: &str = "tollpass.local";

/// What an authority that may be ours turns out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meant {
    /// This port, asked for its own resources.
    Here,
    /// The name of the set-up page, in a way in which it is not served.
    Nowhere,
}

/// What is ours on one port.
#[derive(Debug)]
pub(super) struct Ours {
    listen: SocketAddr,
    /// How an authority with our port ends; empty for the default port, which need not be written.
    end: String,
}

impl Ours {
    pub(super) fn new(listen: SocketAddr) -> Self {
        let end = if listen.port() == 80 { String::new() } else { format!(":{}", listen.port()) };
        Self { listen, end }
    }

    /// Whether an authority may be ours: the quick look that each request gets. A "no" is certain.
    pub(super) fn may_be(&self, authority: &str) -> bool {
        authority.ends_with(&self.end) || starts_with_name(authority)
    }

    /// Whether a target in absolute or authority form is ours.
    pub(super) fn named(&self, target: &Uri, method: &Method) -> Option<Meant> {
        let authority = target.authority().filter(|authority| !authority.as_str().contains('@'))?;
        let is_plain = *method != Method::CONNECT && target.scheme() == Some(&Scheme::HTTP);
        let port = target::port(target);
        if is_name(authority.host()) {
            let is_served = is_plain && (port == 80 || port == self.listen.port());
            return Some(if is_served { Meant::Here } else { Meant::Nowhere });
        }
        let is_here = is_plain && port == self.listen.port() && self.is_reached_at(authority.host());
        is_here.then_some(Meant::Here)
    }

    /// Whether a client on this machine reaches us at a host.
    fn is_reached_at(&self, host: &str) -> bool {
        let ip = self.listen.ip().to_canonical();
        match literal(host) {
            Some(literal) => literal == ip || (ip.is_unspecified() && literal.is_loopback()),
            None => is_localhost(host) && (ip.is_loopback() || ip.is_unspecified()),
        }
    }

    /// Refuses a request to us as to a server unless its `Host` is ours. RFC 9112 section 3.2.
    pub(super) fn check_host(&self, request: &Request<Body>) -> Result<(), Refused> {
        let mut lines = request.headers().get_all(header::HOST).iter();
        match (lines.next(), lines.next()) {
            (None, _) if request.version() < Version::HTTP_11 => Ok(()),
            (Some(line), None) => match host_of(line) {
                Some(host) if self.is_our_host(host.host()) => Ok(()),
                Some(_) => Err(Refused::ForeignHost),
                None => Err(Refused::BadHost),
            },
            _ => Err(Refused::BadHost),
        }
    }

    /// Whether a page of this host can be nobody but us. An address literal cannot be rebound; where we listen on every
    /// address, we do not know them all.
    fn is_our_host(&self, host: &str) -> bool {
        let ip = self.listen.ip().to_canonical();
        match literal(host) {
            Some(literal) => literal.is_loopback() || literal == ip || ip.is_unspecified(),
            None => is_localhost(host) || is_name(host),
        }
    }

    /// Whether a page of another site sent this, as far as its browser says. `friend` is a host that may.
    pub(super) fn is_of_another_site(&self, request: &Request<Body>, friend: &str) -> bool {
        let fields = request.headers();
        if let Some(site) = fields.get("sec-fetch-site") {
            return site.as_bytes().eq_ignore_ascii_case(b"cross-site");
        }
        let Some(origin) = fields.get(header::ORIGIN) else { return false };
        // A browser says `null` for a page that it keeps apart.
        let origin = origin.to_str().ok().and_then(|origin| origin.parse::<Uri>().ok());
        let Some(host) = origin.as_ref().and_then(Uri::host) else { return true };
        let is_asked = self::host(request).is_some_and(|asked| asked.host().eq_ignore_ascii_case(host));
        !(is_asked || is_on_this_machine(host) || host.eq_ignore_ascii_case(friend))
    }

    /// The host and port at which the client of a request can use us as a proxy.
    pub(super) fn address_for(&self, request: &Request<Body>, reached: Reached) -> String {
        let host = match reached {
            Reached::Directly => self::host(request),
            Reached::Through => None,
        };
        match host.filter(|host| !is_name(host.host())) {
            Some(host) => format!("{}:{}", host.host(), host.port_u16().unwrap_or(80)),
            None => self.local().to_string(),
        }
    }

    /// Where we listen.
    pub(super) fn listen(&self) -> SocketAddr {
        self.listen
    }

    /// Where a client on this machine reaches us.
    fn local(&self) -> SocketAddr {
        let ip = match self.listen.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        SocketAddr::from((ip, self.listen.port()))
    }
}

/// The host that a request asks us for as a server, if it names one.
pub(super) fn host(request: &Request<Body>) -> Option<Authority> {
    request.headers().get(header::HOST).and_then(host_of)
}

/// Whether browsers mark what pages of other sites send to a host: they do where they take plain http for trustworthy.
/// <https://www.w3.org/TR/secure-contexts/#is-origin-trustworthy>
pub(super) fn is_kept_apart(host: &str) -> bool {
    let bare = without_brackets(host);
    // An IPv4 address in the form of an IPv6 one is not among them.
    is_localhost(host) || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// What a `Host` field says, if it is well formed.
fn host_of(line: &HeaderValue) -> Option<Authority> {
    let authority = Authority::try_from(line.as_bytes()).ok()?;
    let text = authority.as_str();
    let host = authority.host();
    let has_port = authority.port_u16().is_some();
    let is_whole = text.len() == host.len() || has_port;
    (is_whole && !host.is_empty() && !text.contains('@')).then_some(authority)
}

fn literal(host: &str) -> Option<IpAddr> {
    let bare = without_brackets(host);
    bare.parse::<IpAddr>().ok().map(|ip| ip.to_canonical())
}

/// Whether a page of this host comes from where its browser runs.
fn is_on_this_machine(host: &str) -> bool {
    is_localhost(host) || literal(host).is_some_and(|literal| literal.is_loopback())
}

fn is_localhost(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
}

fn is_name(host: &str) -> bool {
    host.strip_suffix('.').unwrap_or(host).eq_ignore_ascii_case(NAME)
}

fn starts_with_name(authority: &str) -> bool {
    authority.as_bytes().get(..NAME.len()).is_some_and(|start| start.eq_ignore_ascii_case(NAME.as_bytes()))
}

#[cfg(test)]
mod tests {
    use crate::proxy::frontend::identity::*;

    fn asking(host: &str) -> Request<Body> {
        Request::get("/").header("host", host).body(Body::Empty).unwrap()
    }

    #[test]
    fn only_our_own_names_are_served() {
        for (listen, host, expected) in [
            ("127.0.0.1:8402", "127.0.0.1:8402", 200),
            ("127.0.0.1:8402", "127.0.0.1", 200),
            ("127.0.0.1:8402", "localhost:8402", 200),
            ("127.0.0.1:8402", "LocalHost", 200),
            ("127.0.0.1:8402", "[::1]:8402", 200),
            ("127.0.0.1:8402", "tollpass.local", 200),
            ("127.0.0.1:8402", "Tollpass.Local.:80", 200),
            ("127.0.0.1:8402", "evil.example:8402", 421),
            ("127.0.0.1:8402", "127.0.0.1.evil.example", 421),
            ("127.0.0.1:8402", "localhost.evil.example", 421),
            ("127.0.0.1:8402", "tollpass.local.evil.example", 421),
            ("127.0.0.1:8402", "192.168.1.5:8402", 421),
            ("127.0.0.1:8402", "2130706433", 421),
            ("192.168.1.5:8402", "192.168.1.5:8402", 200),
            ("192.168.1.5:8402", "192.168.1.6:8402", 421),
            ("0.0.0.0:8402", "192.168.1.6:8402", 200),
            ("0.0.0.0:8402", "box.example:8402", 421),
            ("[::]:8402", "[2001:db8::1]:8402", 200),
            ("[::ffff:10.0.0.1]:8402", "10.0.0.1", 200),
            ("127.0.0.1:8402", "", 400),
            ("127.0.0.1:8402", "localhost:", 400),
            ("127.0.0.1:8402", "localhost:99999", 400),
            ("127.0.0.1:8402", "me@localhost", 400),
            ("127.0.0.1:8402", "localhost, evil.example", 400),
            ("127.0.0.1:8402", "localhost/x", 400),
        ] {
            let ours = Ours::new(listen.parse().unwrap());
            let status = ours
                .check_host(&asking(host))
                .map_or_else(|refused| refused.answer().status().as_u16(), |()| 200);
            assert_eq!(status, expected, "{listen} {host}");
        }
    }

    #[test]
    fn a_host_is_needed_once() {
        let ours = Ours::new("127.0.0.1:1".parse().unwrap());
        let mut request = asking("localhost");
        request.headers_mut().append("host", HeaderValue::from_static("localhost"));
        assert!(ours.check_host(&request).is_err());
        request.headers_mut().clear();
        assert!(ours.check_host(&request).is_err());
        *request.version_mut() = Version::HTTP_10;
        assert!(ours.check_host(&request).is_ok());
    }

    #[test]
    fn targets_that_are_ours_are_known() {
        use Meant::{Here, Nowhere};
        for (listen, method, target, expected) in [
            ("127.0.0.1:8402", "GET", "http://127.0.0.1:8402/", Some(Here)),
            ("127.0.0.1:8402", "GET", "http://localhost:8402/x", Some(Here)),
            ("127.0.0.1:8402", "GET", "http://127.0.0.2:8402/", None),
            ("127.0.0.1:8402", "GET", "http://127.0.0.1:18402/", None),
            ("127.0.0.1:8402", "GET", "http://me@127.0.0.1:8402/", None),
            ("127.0.0.1:8402", "GET", "https://127.0.0.1:8402/", None),
            ("127.0.0.1:8402", "CONNECT", "127.0.0.1:8402", None),
            ("127.0.0.1:8402", "GET", "http://a.example:8402/", None),
            ("127.0.0.1:80", "GET", "http://127.0.0.1/", Some(Here)),
            ("127.0.0.1:80", "GET", "http://a.example/", None),
            ("0.0.0.0:8402", "GET", "http://127.0.0.9:8402/", Some(Here)),
            ("[::1]:8402", "GET", "http://[::1]:8402/", Some(Here)),
            ("127.0.0.1:8402", "GET", "http://tollpass.local/", Some(Here)),
            ("127.0.0.1:8402", "GET", "http://TOLLPASS.local./proxy.pac", Some(Here)),
            ("127.0.0.1:8402", "GET", "http://tollpass.local:8402/", Some(Here)),
            ("127.0.0.1:8402", "GET", "http://tollpass.local:81/", Some(Nowhere)),
            ("127.0.0.1:8402", "GET", "https://tollpass.local/", Some(Nowhere)),
            ("127.0.0.1:8402", "CONNECT", "tollpass.local:443", Some(Nowhere)),
            ("127.0.0.1:8402", "GET", "http://tollpass.local.example/", None),
            ("127.0.0.1:8402", "GET", "http://tollpass.locally/", None),
        ] {
            let ours = Ours::new(listen.parse().unwrap());
            let uri: Uri = target.parse().unwrap();
            let named = ours.named(&uri, &method.parse().unwrap());
            assert_eq!(named, expected, "{listen} {method} {target}");
            let quick = ours.may_be(uri.authority().unwrap().as_str());
            assert!(quick || named.is_none(), "{listen} {target}: the quick look must not miss what is ours");
        }
    }

    #[test]
    fn what_a_browser_says_of_other_sites_is_believed() {
        let ours = Ours::new("127.0.0.1:8402".parse().unwrap());
        for (fields, expected) in [
            (&[][..], false),
            (&[("sec-fetch-site", "cross-site")], true),
            (&[("sec-fetch-site", "same-site"), ("origin", "http://localhost:3000")], false),
            (&[("sec-fetch-site", "none")], false),
            (&[("origin", "http://localhost:3000")], false),
            (&[("origin", "http://127.0.0.1:8402")], false),
            (&[("origin", "https://evil.example")], true),
            (&[("origin", "https://api.example")], false),
            (&[("origin", "null")], true),
            (&[("origin", "")], true),
        ] {
            let mut request = asking("localhost");
            for (name, value) in fields {
                request.headers_mut().insert(*name, HeaderValue::from_static(value));
            }
            assert_eq!(ours.is_of_another_site(&request, "api.example"), expected, "{fields:?}");
        }
        // Where it listens on every address, an address alone proves nothing.
        let ours = Ours::new("0.0.0.0:8402".parse().unwrap());
        for (origin, expected) in [("http://192.168.1.5:8402", false), ("http://192.168.1.6", true)] {
            let mut request = asking("192.168.1.5:8402");
            request.headers_mut().insert(header::ORIGIN, HeaderValue::from_static(origin));
            assert_eq!(ours.is_of_another_site(&request, "api.example"), expected, "{origin}");
        }
    }
}
