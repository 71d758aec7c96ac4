//! The names and addresses of a port. Only names that no resolver can rebind, and those that the user has named, are served: a
//! page whose own name was rebound to our address sends that name in `Host`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use http::header::{self, HeaderValue};
use http::uri::{Authority, Scheme};
use http::{Method, Request, Uri, Version};

use super::refused::FrontendRefusal;
use crate::hosts::without_brackets;
use crate::proxy::message::body::Body;
use crate::proxy::message::target;
use crate::tls::ServerTls;

/// The name of the set-up page, which the proxy itself answers and never resolves.
pub(super) const NAME: &str = "tollpass.local";

/// How a client addresses the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReachedAs {
    /// With a target in absolute form.
    Proxy,
    /// With a target in origin form.
    Server,
}

/// How a request addresses the proxy itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LocalTarget {
    /// This port.
    Served,
    /// The name of the set-up page, with TLS or another port.
    NotServed,
}

/// The identity of one port.
#[derive(Clone, Debug)]
pub(super) struct ProxyIdentity {
    listen: SocketAddr,
    /// The suffix of an authority with our port; empty for the default port.
    end: String,
    /// The certificate of a port that speaks TLS.
    tls: Option<ServerTls>,
    /// Further names, in lower case and without a trailing dot.
    names: Arc<[String]>,
}

impl ProxyIdentity {
    pub(super) fn new(listen: SocketAddr) -> Self {
        let end = if listen.port() == 80 { String::new() } else { format!(":{}", listen.port()) };
        Self { listen, end, tls: None, names: Arc::default() }
    }

    /// The same with TLS, if there is `tls`.
    pub(super) fn with_tls(self, tls: Option<ServerTls>) -> Self {
        Self { tls, ..self }
    }

    /// The same with further names.
    pub(super) fn with_names(self, names: Arc<[String]>) -> Self {
        Self { names, ..self }
    }

    /// Whether the port speaks TLS.
    pub(super) fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// A fast check on each request: `false` means that the authority is not ours.
    pub(super) fn may_be(&self, authority: &str) -> bool {
        authority.ends_with(&self.end) || starts_with_name(authority)
    }

    /// Whether a target in absolute or authority form addresses the proxy itself.
    pub(super) fn named(&self, target: &Uri, method: &Method) -> Option<LocalTarget> {
        let authority = target.authority().filter(|authority| !authority.as_str().contains('@'))?;
        let is_plain = *method != Method::CONNECT && target.scheme() == Some(&Scheme::HTTP);
        let port = target::port(target);
        if is_name(authority.host()) {
            let is_served = is_plain && (port == 80 || port == self.listen.port());
            return Some(if is_served { LocalTarget::Served } else { LocalTarget::NotServed });
        }
        let is_here = is_plain && port == self.listen.port() && self.is_reached_at(authority.host());
        is_here.then_some(LocalTarget::Served)
    }

    /// Whether a client on this machine reaches the proxy at `host`.
    fn is_reached_at(&self, host: &str) -> bool {
        let ip = self.listen.ip().to_canonical();
        match literal(host) {
            Some(literal) => literal == ip || (ip.is_unspecified() && literal.is_loopback()),
            None => self.is_named(host) || (is_localhost(host) && (ip.is_loopback() || ip.is_unspecified())),
        }
    }

    /// Whether the user has given the proxy this name.
    fn is_named(&self, host: &str) -> bool {
        let host = host.strip_suffix('.').unwrap_or(host);
        self.names.iter().any(|name| name.eq_ignore_ascii_case(host))
    }

    /// Rejects a request in origin form unless `Host` names the proxy. RFC 9112 section 3.2.
    pub(super) fn check_host(&self, request: &Request<Body>) -> Result<(), FrontendRefusal> {
        let mut lines = request.headers().get_all(header::HOST).iter();
        match (lines.next(), lines.next()) {
            (None, _) if request.version() < Version::HTTP_11 => Ok(()),
            (Some(line), None) => match host_of(line) {
                Some(host) if self.is_our_host(host.host()) => Ok(()),
                Some(_) => Err(FrontendRefusal::ForeignHost),
                None => Err(FrontendRefusal::BadHost),
            },
            _ => Err(FrontendRefusal::BadHost),
        }
    }

    /// Whether only the proxy can be at this host. An address literal cannot be rebound; on a wildcard listener every address
    /// may be ours. Nor can a name in the certificate: the browser has compared them. Names that the user has
    /// listed are trusted to lead to the proxy only.
    fn is_our_host(&self, host: &str) -> bool {
        let ip = self.listen.ip().to_canonical();
        let is_known = match literal(host) {
            Some(literal) => literal.is_loopback() || literal == ip || ip.is_unspecified(),
            None => is_localhost(host) || is_name(host) || self.is_named(host),
        };
        is_known || self.tls.as_ref().is_some_and(|tls| tls.is_for(without_brackets(host)))
    }

    /// The host and port at which the client can use the proxy.
    pub(super) fn address_for(&self, request: &Request<Body>, reached_as: ReachedAs) -> String {
        let host = match reached_as {
            ReachedAs::Server => self::host(request),
            ReachedAs::Proxy => None,
        };
        match host.filter(|host| !is_name(host.host())) {
            Some(host) => {
                let default = if self.is_tls() { 443 } else { 80 };
                format!("{}:{}", host.host(), host.port_u16().unwrap_or(default))
            }
            None => self.local().to_string(),
        }
    }

    /// The address that the port listens on.
    pub(super) fn listen(&self) -> SocketAddr {
        self.listen
    }

    /// The address at which a client on this machine reaches the proxy.
    fn local(&self) -> SocketAddr {
        let ip = match self.listen.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        SocketAddr::from((ip, self.listen.port()))
    }
}

/// The authority in `Host`, if it is valid.
pub(super) fn host(request: &Request<Body>) -> Option<Authority> {
    request.headers().get(header::HOST).and_then(host_of)
}

/// The origin that browsers give a page at this authority: without the default port.
pub(super) fn origin(authority: &Authority, is_tls: bool) -> String {
    let (scheme, default) = if is_tls { ("https", 443) } else { ("http", 80) };
    match authority.port_u16().filter(|port| *port != default) {
        Some(port) => format!("{scheme}://{}:{port}", authority.host()),
        None => format!("{scheme}://{}", authority.host()),
    }
}

/// Whether browsers mark cross-site requests to a host, which they do if it is trustworthy without TLS.
/// <https://www.w3.org/TR/secure-contexts/#is-origin-trustworthy>
pub(super) fn is_kept_apart(host: &str) -> bool {
    let bare = without_brackets(host);
    // IPv4-mapped IPv6 addresses are not trustworthy.
    is_localhost(host) || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Parses a `Host` header.
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

/// Whether a host is this machine.
pub(super) fn is_on_this_machine(host: &str) -> bool {
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
            let identity = ProxyIdentity::new(listen.parse().unwrap());
            let status = identity
                .check_host(&asking(host))
                .map_or_else(|refused| refused.answer().status().as_u16(), |()| 200);
            assert_eq!(status, expected, "{listen} {host}");
        }
    }

    #[test]
    fn a_host_is_needed_once() {
        let identity = ProxyIdentity::new("127.0.0.1:1".parse().unwrap());
        let mut request = asking("localhost");
        request.headers_mut().append("host", HeaderValue::from_static("localhost"));
        assert!(identity.check_host(&request).is_err());
        request.headers_mut().clear();
        assert!(identity.check_host(&request).is_err());
        *request.version_mut() = Version::HTTP_10;
        assert!(identity.check_host(&request).is_ok());
    }

    #[test]
    fn targets_that_are_ours_are_known() {
        use LocalTarget::{NotServed, Served};
        for (listen, method, target, expected) in [
            ("127.0.0.1:8402", "GET", "http://127.0.0.1:8402/", Some(Served)),
            ("127.0.0.1:8402", "GET", "http://localhost:8402/x", Some(Served)),
            ("127.0.0.1:8402", "GET", "http://127.0.0.2:8402/", None),
            ("127.0.0.1:8402", "GET", "http://127.0.0.1:18402/", None),
            ("127.0.0.1:8402", "GET", "http://me@127.0.0.1:8402/", None),
            ("127.0.0.1:8402", "GET", "https://127.0.0.1:8402/", None),
            ("127.0.0.1:8402", "CONNECT", "127.0.0.1:8402", None),
            ("127.0.0.1:8402", "GET", "http://a.example:8402/", None),
            ("127.0.0.1:80", "GET", "http://127.0.0.1/", Some(Served)),
            ("127.0.0.1:80", "GET", "http://a.example/", None),
            ("0.0.0.0:8402", "GET", "http://127.0.0.9:8402/", Some(Served)),
            ("[::1]:8402", "GET", "http://[::1]:8402/", Some(Served)),
            ("127.0.0.1:8402", "GET", "http://tollpass.local/", Some(Served)),
            ("127.0.0.1:8402", "GET", "http://TOLLPASS.local./proxy.pac", Some(Served)),
            ("127.0.0.1:8402", "GET", "http://tollpass.local:8402/", Some(Served)),
            ("127.0.0.1:8402", "GET", "http://tollpass.local:81/", Some(NotServed)),
            ("127.0.0.1:8402", "GET", "https://tollpass.local/", Some(NotServed)),
            ("127.0.0.1:8402", "CONNECT", "tollpass.local:443", Some(NotServed)),
            ("127.0.0.1:8402", "GET", "http://tollpass.local.example/", None),
            ("127.0.0.1:8402", "GET", "http://tollpass.locally/", None),
        ] {
            let identity = ProxyIdentity::new(listen.parse().unwrap());
            let uri: Uri = target.parse().unwrap();
            let named = identity.named(&uri, &method.parse().unwrap());
            assert_eq!(named, expected, "{listen} {method} {target}");
            let quick = identity.may_be(uri.authority().unwrap().as_str());
            assert!(
                quick || named.is_none(),
                "{listen} {target}: the quick look must not miss what is identity"
            );
        }
    }
}
