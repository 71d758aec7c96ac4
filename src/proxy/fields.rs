//! The fields that belong to one hop: what an intermediary takes out, and the `Via` it puts in. RFC 9110 section 7.6.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::LazyLock;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Version};

/// Our name in `Via` and `Proxy-Status`.
pub const PSEUDONYM: &str = "tollpass";

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Takes out every field that is meant for the neighbour only, and those that `Connection` names.
///
/// `Transfer-Encoding` goes too, since each side frames anew. `Trailer` stays unless it is named: it describes trailer
/// fields that are passed on.
pub(super) fn strip(fields: &mut HeaderMap) {
    if fields.contains_key(header::CONNECTION) {
        strip_named(fields);
    }
    for name in [
        KEEP_ALIVE,
        PROXY_CONNECTION,
        header::PROXY_AUTHENTICATE,
        header::PROXY_AUTHORIZATION,
        header::TE,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
    ] {
        fields.remove(name);
    }
}

fn strip_named(fields: &mut HeaderMap) {
    let lines: Vec<HeaderValue> = fields.get_all(header::CONNECTION).iter().cloned().collect();
    fields.remove(header::CONNECTION);
    for line in &lines {
        for name in tokens(line).filter_map(|token| HeaderName::from_bytes(token).ok()) {
            fields.remove(name);
        }
    }
}

/// The members of a comma-separated field.
fn tokens(value: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|token| !token.is_empty())
}

/// Whether the client takes trailer fields.
pub(super) fn takes_trailers(fields: &HeaderMap) -> bool {
    fields
        .get_all(header::TE)
        .iter()
        .flat_map(tokens)
        .any(|token| token.split(|byte| *byte == b';').next().is_some_and(is_trailers))
}

fn is_trailers(token: &[u8]) -> bool {
    token.trim_ascii().eq_ignore_ascii_case(b"trailers")
}

/// Whether the only transfer coding is `chunked`, or there is none: all that we can frame anew.
pub(super) fn is_plainly_framed(fields: &HeaderMap) -> bool {
    fields
        .get_all(header::TRANSFER_ENCODING)
        .iter()
        .flat_map(tokens)
        .all(|coding| coding.eq_ignore_ascii_case(b"chunked"))
}

/// Whether a request of this method may be sent a second time without being asked. RFC 9110 section 9.2.2.
pub(super) fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE
    )
}

/// Our entry in `Via`, by which we also know our own requests when they come back.
#[derive(Clone, Debug)]
pub(super) struct Via {
    mark: &'static str,
    http_10: HeaderValue,
    http_11: HeaderValue,
}

/// What no other process has: the standard library seeds its hashers at random. It is a name, not a secret.
static MARK: LazyLock<String> = LazyLock::new(|| {
    let random = RandomState::new().build_hasher().finish();
    format!("{PSEUDONYM} ({random:016x})")
});
/// Static, so that each message takes a copy for nothing.
static ENTRIES: LazyLock<[String; 2]> =
    LazyLock::new(|| ["1.0", "1.1"].map(|version| format!("{version} {}", *MARK)));

impl Via {
    /// The entry of this process.
    pub(super) fn new() -> Self {
        let [http_10, http_11] = &*ENTRIES;
        Self {
            mark: &MARK,
            http_10: HeaderValue::from_static(http_10),
            http_11: HeaderValue::from_static(http_11),
        }
    }

    /// Adds the entry for a message that was received in `version`.
    pub(super) fn add(&self, fields: &mut HeaderMap, version: Version) {
        let entry = if version == Version::HTTP_10 { &self.http_10 } else { &self.http_11 };
        fields.append(header::VIA, entry.clone());
    }

    /// Whether a message has passed through this process before.
    pub(super) fn is_in(&self, fields: &HeaderMap) -> bool {
        fields
            .get_all(header::VIA)
            .iter()
            .any(|line| line.as_bytes().windows(self.mark.len()).any(|part| part == self.mark.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        lines
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn fields_of_one_hop_are_taken_out() {
        let mut some = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-One"),
            ("connection", " x-two ,, "),
            ("x-one", "1"),
            ("x-two", "2"),
            ("x-two", "2b"),
            ("x-three", "3"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("proxy-authorization", "Basic eA=="),
            ("proxy-authenticate", "Basic"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("trailer", "x-sum"),
        ] {
            some.append(name, HeaderValue::from_static(value));
        }
        strip(&mut some);
        assert_eq!(some, fields(&[("x-three", "3"), ("trailer", "x-sum")]));
    }

    #[test]
    fn te_trailers_is_found_among_others() {
        for (value, expected) in [
            ("trailers", true),
            ("gzip, Trailers;q=0.5", true),
            ("gzip", false),
            ("", false),
            ("xtrailers", false),
        ] {
            assert_eq!(takes_trailers(&fields(&[("te", value)])), expected, "{value}");
        }
    }

    #[test]
    fn only_chunked_is_plain() {
        for (value, expected) in
            [("chunked", true), ("Chunked", true), ("gzip, chunked", false), ("gzip", false)]
        {
            assert_eq!(is_plainly_framed(&fields(&[("transfer-encoding", value)])), expected, "{value}");
        }
        assert!(is_plainly_framed(&HeaderMap::new()));
    }

    #[test]
    fn via_knows_its_own_and_no_other() {
        let ours = Via::new();
        let mut some = fields(&[("via", "1.0 elsewhere, 1.1 tollpass (0000000000000000)")]);
        assert!(!ours.is_in(&some));
        ours.add(&mut some, Version::HTTP_10);
        assert!(ours.is_in(&some));
        let last = some.get_all("via").iter().next_back().unwrap().to_str().unwrap();
        assert!(last.starts_with("1.0 tollpass ("), "{last}");
    }
}
