//! What a dashboard request reveals about the page that sent it.

use http::header;
use http::{HeaderMap, HeaderName, StatusCode};

/// The header in which browsers say how the page's site relates to the request's.
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// The scheme of the token.
const BEARER: &str = "Bearer ";

/// The sender of a request.
pub(super) struct Caller<'a> {
    pub(super) headers: &'a HeaderMap,
    /// The origin of our own pages, as this client addresses the port; `None` if it says no host.
    pub(super) origin: Option<&'a str>,
    /// Whether others on the network can read the request and its token.
    pub(super) exposed: bool,
}

/// Why a request to the dashboard is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum CallerRefusal {
    /// A page of another origin sends it.
    #[error("a page of another site may not use the dashboard")]
    OtherOrigin,
    /// It changes something, and does not say which page sends it.
    #[error("the dashboard needs an Origin header, which browsers send")]
    NoOrigin,
    /// A form or a plain-text request could send it.
    #[error("the dashboard needs Content-Type: application/json")]
    NotJson,
    /// The token could be read on its way.
    #[error(
        "the dashboard is open on this machine and over TLS only: set tls_cert and tls_key, or forward the port with ssh"
    )]
    Exposed,
    /// It has no valid token.
    #[error("not signed in: run `tollpass dashboard` and open the link that it prints")]
    NotSignedIn,
    /// It has no valid secret.
    #[error(
        "the link is not valid, was opened before, or is too old (limits.dashboard_link): run `tollpass dashboard` again"
    )]
    OldLink,
}

impl CallerRefusal {
    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::OtherOrigin | Self::NoOrigin | Self::Exposed => StatusCode::FORBIDDEN,
            Self::NotJson => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::NotSignedIn | Self::OldLink => StatusCode::UNAUTHORIZED,
        }
    }
}

impl<'a> Caller<'a> {
    /// Checks that no page of another origin sends a request: not even one of this machine, or of the same site.
    pub(super) fn check(&self) -> Result<(), CallerRefusal> {
        if self.exposed {
            return Err(CallerRefusal::Exposed);
        }
        let mut sites = self.headers.get_all(FETCH_SITE).iter();
        if !sites.all(|site| site.as_bytes().eq_ignore_ascii_case(b"same-origin")) {
            return Err(CallerRefusal::OtherOrigin);
        }
        let mut origins = self.headers.get_all(header::ORIGIN).iter();
        let is_own = |origin: &header::HeaderValue| {
            self.origin.is_some_and(|own| origin.as_bytes().eq_ignore_ascii_case(own.as_bytes()))
        };
        if origins.all(is_own) { Ok(()) } else { Err(CallerRefusal::OtherOrigin) }
    }

    /// The same for a request that changes something or begins a stream: it has to say that one of our own pages sends it.
    pub(super) fn check_change(&self) -> Result<(), CallerRefusal> {
        self.check()?;
        if !self.headers.contains_key(header::ORIGIN) {
            return Err(CallerRefusal::NoOrigin);
        }
        let kind = self.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let kind = kind.and_then(|kind| kind.split(';').next()).unwrap_or_default().trim();
        if kind.eq_ignore_ascii_case("application/json") { Ok(()) } else { Err(CallerRefusal::NotJson) }
    }

    /// The token.
    pub(super) fn token(&self) -> Option<&'a str> {
        let mut lines = self.headers.get_all(header::AUTHORIZATION).iter();
        let (line, None) = (lines.next()?, lines.next()) else { return None };
        let (scheme, token) = line.to_str().ok()?.split_at_checked(BEARER.len())?;
        scheme.eq_ignore_ascii_case(BEARER).then(|| token.trim())
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const OWN: &str = "http://127.0.0.1:8402";

    fn checked(headers: &[(&'static str, &'static str)], changes: bool) -> Result<(), CallerRefusal> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let caller = Caller { headers: &map, origin: Some(OWN), exposed: false };
        if changes { caller.check_change() } else { caller.check() }
    }

    #[test]
    fn only_our_own_origin_may_ask() {
        use CallerRefusal::{NoOrigin, NotJson, OtherOrigin};
        const JSON: (&str, &str) = ("content-type", "application/json; charset=utf-8");
        for (headers, reads, changes) in [
            (&[JSON][..], Ok(()), Err(NoOrigin)),
            (&[("origin", OWN), JSON], Ok(()), Ok(())),
            (&[("origin", OWN), ("sec-fetch-site", "same-origin"), JSON], Ok(()), Ok(())),
            (&[("origin", "HTTP://127.0.0.1:8402"), JSON], Ok(()), Ok(())),
            (&[("origin", OWN)], Ok(()), Err(NotJson)),
            (&[("origin", OWN), ("content-type", "text/plain")], Ok(()), Err(NotJson)),
            // Another port of the same machine, and the values browsers send instead.
            (&[("origin", "http://127.0.0.1:3000"), JSON], Err(OtherOrigin), Err(OtherOrigin)),
            (&[("origin", "http://localhost:8402"), JSON], Err(OtherOrigin), Err(OtherOrigin)),
            (&[("origin", "https://127.0.0.1:8402"), JSON], Err(OtherOrigin), Err(OtherOrigin)),
            (&[("origin", "null"), JSON], Err(OtherOrigin), Err(OtherOrigin)),
            (&[("origin", OWN), ("origin", "null"), JSON], Err(OtherOrigin), Err(OtherOrigin)),
            (&[("sec-fetch-site", "same-site"), JSON], Err(OtherOrigin), Err(OtherOrigin)),
            (&[("sec-fetch-site", "cross-site"), JSON], Err(OtherOrigin), Err(OtherOrigin)),
            // A call is never typed into the address bar.
            (&[("sec-fetch-site", "none"), JSON], Err(OtherOrigin), Err(OtherOrigin)),
        ] {
            assert_eq!(checked(headers, false), reads, "{headers:?}");
            assert_eq!(checked(headers, true), changes, "{headers:?}");
        }
        let headers = HeaderMap::new();
        let exposed = Caller { headers: &headers, origin: Some(OWN), exposed: true };
        assert_eq!(exposed.check(), Err(CallerRefusal::Exposed));
    }

    #[test]
    fn a_token_comes_once_and_in_its_header() {
        for (lines, expected) in [
            (&["Bearer c0ffee"][..], Some("c0ffee")),
            (&["bearer  c0ffee "], Some("c0ffee")),
            (&["Basic c0ffee"], None),
            (&["Bearer"], None),
            (&["Bearer a", "Bearer b"], None),
            (&[], None),
        ] {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(header::AUTHORIZATION, HeaderValue::from_static(line));
            }
            let caller = Caller { headers: &headers, origin: None, exposed: false };
            assert_eq!(caller.token(), expected, "{lines:?}");
        }
    }
}
