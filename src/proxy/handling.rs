//! How a request was handled, and its name in the log.

use std::fmt;

use http::{Method, Request, Uri};

use super::extensions::Arrival;
use crate::protocol::{Money, ReasonCode, Refusal};

/// How a request was handled. The layer that decides it puts it into the response's extensions, and the access log reads
/// it there. Without one, the response is the origin's.
#[derive(Clone, Debug)]
pub(crate) enum Handling {
    /// The proxy served a page of its own.
    Local,
    /// The proxy refused or failed the request, for this reason.
    Refused(Explanation),
    /// The response is a 402 that was not paid, for this reason.
    Unpaid(Explanation),
    /// The seller took this payment.
    Paid {
        /// What it cost.
        price: Money,
        /// Why the client did not get the seller's response.
        withheld: Option<Explanation>,
    },
    /// The seller saw this payment and may have taken it.
    InDoubt {
        /// What it may have cost.
        price: Money,
        /// Why the outcome is unknown.
        explanation: Option<Explanation>,
    },
}

/// Why a request did not get what it asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Explanation {
    /// For programs.
    pub(crate) reason: ReasonCode,
    /// For people.
    pub(crate) details: String,
}

impl From<&Refusal> for Explanation {
    fn from(refusal: &Refusal) -> Self {
        Self { reason: refusal.reason(), details: refusal.to_string() }
    }
}

impl Handling {
    /// What the log calls it.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Refused(_) => "refused",
            Self::Unpaid(_) => "unpaid",
            Self::Paid { .. } => "paid",
            Self::InDoubt { .. } => "in_doubt",
        }
    }

    /// The price, if the request was or may have been paid.
    pub(crate) fn price(&self) -> Option<&Money> {
        match self {
            Self::Paid { price, .. } | Self::InDoubt { price, .. } => Some(price),
            Self::Local | Self::Refused(_) | Self::Unpaid(_) => None,
        }
    }

    /// The reason, if the request did not get what it asked for.
    pub(crate) fn explanation(&self) -> Option<&Explanation> {
        match self {
            Self::Local => None,
            Self::Refused(explanation) | Self::Unpaid(explanation) => Some(explanation),
            Self::Paid { withheld: explanation, .. } | Self::InDoubt { explanation, .. } => {
                explanation.as_ref()
            }
        }
    }
}

/// A request as logs name it: its number in this process, method, and URL without user info and query.
#[derive(Clone)]
pub struct RequestName {
    number: Option<u64>,
    method: Method,
    url: Uri,
}

impl RequestName {
    /// The name of a request. It shares the request's memory.
    pub(crate) fn of<B>(request: &Request<B>) -> Self {
        let number = request.extensions().get::<Arrival>().map(|arrival| arrival.request);
        Self { number, method: request.method().clone(), url: request.uri().clone() }
    }

    /// Its method.
    pub(crate) fn method(&self) -> &Method {
        &self.method
    }

    /// Its URL, without user info and query.
    pub(crate) fn safe_url(&self) -> String {
        SafeUrl(&self.url).to_string()
    }

    /// Its host, with the port if the URL has one.
    pub(crate) fn host(&self) -> String {
        self.url.authority().map_or("", |authority| without_user(authority.as_str())).to_ascii_lowercase()
    }
}

impl fmt::Display for RequestName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(number) = self.number {
            write!(f, "#{number} ")?;
        }
        write!(f, "{} {}", self.method, SafeUrl(&self.url))
    }
}

impl fmt::Debug for RequestName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A URL without user info and query, which may contain secrets.
pub(crate) struct SafeUrl<'a>(pub(crate) &'a Uri);

impl fmt::Display for SafeUrl<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        SafeOrigin(self.0).fmt(f)?;
        // The target of a CONNECT has no path.
        if self.0.path_and_query().is_some() { f.write_str(self.0.path()) } else { Ok(()) }
    }
}

/// The scheme, host and port of a URL, as far as it has them.
pub(crate) struct SafeOrigin<'a>(pub(crate) &'a Uri);

impl fmt::Display for SafeOrigin<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(scheme) = self.0.scheme_str() {
            f.write_str(scheme)?;
            f.write_str("://")?;
        }
        f.write_str(self.0.authority().map_or("", |authority| without_user(authority.as_str())))
    }
}

/// An authority without its user info.
pub(crate) fn without_user(authority: &str) -> &str {
    authority.rsplit_once('@').map_or(authority, |(_, host)| host)
}

#[cfg(test)]
mod tests {
    use crate::proxy::handling::*;

    #[test]
    fn names_show_no_user_and_no_query() {
        for (method, url, shown) in [
            ("GET", "http://a.example/x?y=1", "GET http://a.example/x"),
            ("GET", "http://me:hush@a.example:81/", "GET http://a.example:81/"),
            ("POST", "https://me:hush@[::1]:81/?a=b@c", "POST https://[::1]:81/"),
            ("CONNECT", "me:hush@a.example:443", "CONNECT a.example:443"),
            ("GET", "/x?y", "GET /x"),
            ("OPTIONS", "*", "OPTIONS *"),
        ] {
            let request = Request::builder().method(method).uri(url).body(()).unwrap();
            let name = RequestName::of(&request);
            assert_eq!((name.to_string(), format!("{name:?}")), (shown.to_owned(), shown.to_owned()));
        }
    }
}
