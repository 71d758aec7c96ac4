//! Rules for headers at an intermediary: hop-by-hop headers, framing, trailers. RFC 9110 section 7.6.

use http::Method;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::proxy_status::{PROXY_STATUS, remove_ours};
use crate::protocol::schemes::is_payment_header;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// The number of headers that hyper parses without allocating.
pub(crate) const DEFAULT_HEADER_COUNT: usize = 100;

/// The headers of interest that a message has. Found in one pass, because each look-up of a header costs as much as
/// comparing several names, and most messages have few headers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Present(u32);

impl Present {
    /// `WWW-Authenticate` or `Persistent-Auth`.
    pub(crate) const CHALLENGE: Self = Self(1);
    pub(crate) const CONTENT_LENGTH: Self = Self(1 << 1);
    pub(crate) const COOKIE: Self = Self(1 << 2);
    pub(crate) const EXPECT: Self = Self(1 << 3);
    pub(crate) const TE: Self = Self(1 << 4);
    pub(crate) const TRAILER: Self = Self(1 << 5);
    pub(crate) const TRANSFER_ENCODING: Self = Self(1 << 6);
    pub(crate) const UPGRADE: Self = Self(1 << 7);
    pub(crate) const VIA: Self = Self(1 << 8);
    pub(crate) const PROXY_STATUS: Self = Self(1 << 14);
    const CONNECTION: Self = Self(1 << 9);
    const KEEP_ALIVE: Self = Self(1 << 10);
    const PROXY_AUTHENTICATE: Self = Self(1 << 11);
    const PROXY_AUTHORIZATION: Self = Self(1 << 12);
    const PROXY_CONNECTION: Self = Self(1 << 13);
    /// Any of [`ONE_HOP`].
    const ONE_HOP: Self = Self::TE
        .and(Self::TRANSFER_ENCODING)
        .and(Self::UPGRADE)
        .and(Self::KEEP_ALIVE)
        .and(Self::PROXY_AUTHENTICATE)
        .and(Self::PROXY_AUTHORIZATION)
        .and(Self::PROXY_CONNECTION);

    pub(crate) fn among(headers: &HeaderMap) -> Self {
        headers.keys().fold(Self::default(), |present, name| present.and(Self::by(name)))
    }

    pub(crate) fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    pub(crate) const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    fn by(name: &HeaderName) -> Self {
        match *name {
            header::CONTENT_LENGTH => Self::CONTENT_LENGTH,
            header::COOKIE => Self::COOKIE,
            header::EXPECT => Self::EXPECT,
            header::TE => Self::TE,
            header::TRAILER => Self::TRAILER,
            header::TRANSFER_ENCODING => Self::TRANSFER_ENCODING,
            header::UPGRADE => Self::UPGRADE,
            header::VIA => Self::VIA,
            header::CONNECTION => Self::CONNECTION,
            header::PROXY_AUTHENTICATE => Self::PROXY_AUTHENTICATE,
            header::PROXY_AUTHORIZATION => Self::PROXY_AUTHORIZATION,
            header::WWW_AUTHENTICATE => Self::CHALLENGE,
            _ if *name == KEEP_ALIVE => Self::KEEP_ALIVE,
            _ if *name == PROXY_CONNECTION => Self::PROXY_CONNECTION,
            _ if *name == PERSISTENT_AUTH => Self::CHALLENGE,
            _ if *name == PROXY_STATUS => Self::PROXY_STATUS,
            _ => Self::default(),
        }
    }
}

/// Hop-by-hop headers, besides `Connection` and those that it nominates.
const ONE_HOP: [(Present, HeaderName); 7] = [
    (Present::KEEP_ALIVE, KEEP_ALIVE),
    (Present::PROXY_CONNECTION, PROXY_CONNECTION),
    (Present::PROXY_AUTHENTICATE, header::PROXY_AUTHENTICATE),
    (Present::PROXY_AUTHORIZATION, header::PROXY_AUTHORIZATION),
    (Present::TE, header::TE),
    (Present::TRANSFER_ENCODING, header::TRANSFER_ENCODING),
    (Present::UPGRADE, header::UPGRADE),
];

/// End-to-end headers, which `Connection` cannot nominate. RFC 9110 section 7.6.1.
const END_TO_END: [HeaderName; 14] = [
    header::AUTHORIZATION,
    header::CACHE_CONTROL,
    header::CONTENT_ENCODING,
    header::CONTENT_LENGTH,
    header::CONTENT_RANGE,
    header::CONTENT_TYPE,
    header::COOKIE,
    header::DATE,
    header::EXPECT,
    header::HOST,
    header::MAX_FORWARDS,
    header::SET_COOKIE,
    header::TRAILER,
    header::VIA,
];

/// Removes hop-by-hop headers, and those that `Connection` nominates.
///
/// `Transfer-Encoding` is removed, too, because each side frames its messages itself. `Trailer` stays unless it is
/// nominated, because trailers are forwarded.
pub(crate) fn remove_hop_by_hop(headers: &mut HeaderMap, present: Present) {
    if present.has(Present::CONNECTION) {
        remove_nominated(headers);
    }
    // Most messages have none.
    if present.has(Present::ONE_HOP) {
        for (_, name) in ONE_HOP.into_iter().filter(|(this, _)| present.has(*this)) {
            headers.remove(name);
        }
    }
}

fn remove_nominated(headers: &mut HeaderMap) {
    let others: Vec<HeaderValue> = headers.get_all(header::CONNECTION).iter().skip(1).cloned().collect();
    let first = headers.remove(header::CONNECTION);
    for line in first.iter().chain(&others) {
        // These name no header, or one that is removed anyway; most messages have no other.
        let is_other = |token: &&[u8]| {
            !token.eq_ignore_ascii_case(b"keep-alive") && !token.eq_ignore_ascii_case(b"close")
        };
        let names = tokens(line).filter(is_other);
        for name in names.filter_map(|token| HeaderName::from_bytes(token).ok()) {
            // A payment is for the seller, even behind other proxies.
            if !END_TO_END.contains(&name) && !is_payment_header(&name) {
                headers.remove(name);
            }
        }
    }
}

/// Whether `Connection` nominates a header.
pub(crate) fn nominates(headers: &HeaderMap, name: &HeaderName) -> bool {
    let mut options = headers.get_all(header::CONNECTION).iter().flat_map(tokens);
    options.any(|option| option.eq_ignore_ascii_case(name.as_str().as_bytes()))
}

/// Whether a header is allowed in trailers: it must not frame, route or authenticate, nor be hop-by-hop. RFC 9110 section
/// 6.5.1.
fn is_allowed_in_trailers(name: &HeaderName) -> bool {
    *name != header::CONNECTION && !END_TO_END.contains(name) && !Present::by(name).has(Present::ONE_HOP)
}

/// Removes headers that are not allowed in trailers, and what speaks in our name.
pub(crate) fn normalise_trailers(trailers: &mut HeaderMap) {
    remove_ours(trailers);
    let bad: Vec<HeaderName> =
        trailers.keys().filter(|name| !is_allowed_in_trailers(name)).cloned().collect();
    for name in bad {
        trailers.remove(name);
    }
}

/// Makes framing unambiguous: one `Content-Length` in digits, none beside chunks, and no `Trailer` that announces a header
/// not allowed there.
pub(crate) fn normalise_framing(headers: &mut HeaderMap, present: Present) {
    if present.has(Present::TRANSFER_ENCODING) {
        headers.remove(header::CONTENT_LENGTH);
    } else if present.has(Present::CONTENT_LENGTH) {
        normalise_length(headers);
    }
    if present.has(Present::TRAILER) {
        normalise_announcement(headers);
    }
}

fn normalise_length(headers: &mut HeaderMap) {
    let mut lines = headers.get_all(header::CONTENT_LENGTH).iter();
    let first = lines.next().map(HeaderValue::as_bytes).unwrap_or_default();
    let is_plain = first == b"0" || first.first().is_some_and(|digit| (b'1'..=b'9').contains(digit));
    if lines.next().is_none() && is_plain && parse_digits(first).is_some() {
        return;
    }
    let all = headers.get_all(header::CONTENT_LENGTH).iter();
    let mut lengths = all
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .map(|part| parse_digits(part.trim_ascii()));
    let length = lengths.next().flatten();
    if let (Some(length), true) = (length, lengths.all(|other| other == length)) {
        headers.insert(header::CONTENT_LENGTH, length.into());
    } else {
        // hyper does not parse the length of a response to HEAD.
        headers.remove(header::CONTENT_LENGTH);
    }
}

fn normalise_announcement(headers: &mut HeaderMap) {
    let may_come =
        |token: &&[u8]| HeaderName::from_bytes(token).is_ok_and(|name| is_allowed_in_trailers(&name));
    let lines: Vec<HeaderValue> = headers.get_all(header::TRAILER).iter().cloned().collect();
    if lines.iter().flat_map(tokens).all(|token| may_come(&token)) {
        return;
    }
    let names: Vec<&[u8]> = lines.iter().flat_map(tokens).filter(may_come).collect();
    match HeaderValue::from_bytes(&names.join(&b", "[..])) {
        Ok(names) if !names.is_empty() => headers.insert(header::TRAILER, names),
        _ => headers.remove(header::TRAILER),
    };
}

/// Parses a number that consists of digits only.
pub(crate) fn parse_digits(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

/// The members of a comma-separated header.
fn tokens(value: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|token| !token.is_empty())
}

/// Whether the client accepts trailers.
pub(crate) fn takes_trailers(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::TE)
        .iter()
        .flat_map(tokens)
        .any(|token| token.split(|byte| *byte == b';').next().is_some_and(is_trailers))
}

fn is_trailers(token: &[u8]) -> bool {
    token.trim_ascii().eq_ignore_ascii_case(b"trailers")
}

/// Whether the message has no transfer coding, or exactly `chunked`.
pub(crate) fn has_supported_framing(headers: &HeaderMap) -> bool {
    let mut lines = headers.get_all(header::TRANSFER_ENCODING).iter();
    let Some(first) = lines.next() else { return true };
    lines.next().is_none() && first.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked")
}

/// The transfer codings, including empty ones between commas.
pub(crate) fn codings(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let lines = headers.get_all(header::TRANSFER_ENCODING).iter();
    lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii))
}

/// Joins several `Cookie` headers into one, as HTTP/1.1 requires. RFC 9113 section 8.2.3.
pub(crate) fn join_cookies(headers: &mut HeaderMap) {
    let mut lines = headers.get_all(header::COOKIE).iter();
    if lines.next().is_none() || lines.next().is_none() {
        return;
    }
    let crumbs: Vec<&[u8]> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    // Valid values joined by "; " are a valid value.
    if let Ok(cookie) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
        headers.insert(header::COOKIE, cookie);
    }
}

/// The number of headers that HTTP/1.1 has for these: one `Cookie`, into how many HTTP/2 may have split it.
pub(crate) fn count_as_http1(headers: &HeaderMap) -> usize {
    headers.len() - headers.get_all(header::COOKIE).iter().skip(1).count()
}

/// Whether a method is idempotent, so that the request may be retried. RFC 9110 section 9.2.2.
pub(crate) fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE
    )
}

/// Tells the client that it may use connection-based authentication through this proxy. RFC 4559 section 6.
pub(crate) const PROXY_SUPPORT: HeaderName = HeaderName::from_static("proxy-support");
pub(crate) const SESSION_BASED: HeaderValue = HeaderValue::from_static("Session-Based-Authentication");
const PERSISTENT_AUTH: HeaderName = HeaderName::from_static("persistent-auth");

/// Whether a request authenticates its whole connection (NTLM, Negotiate). RFC 4559.
pub(crate) fn binds_connection(headers: &HeaderMap) -> bool {
    headers.get_all(header::AUTHORIZATION).iter().any(|value| is_bound_scheme(value.as_bytes()))
}

/// Whether a response requests or confirms such authentication; the one that completes it can have any status.
pub(crate) fn binds_response(headers: &HeaderMap, present: Present) -> bool {
    if !present.has(Present::CHALLENGE) {
        return false;
    }
    let mut challenges = headers.get_all(header::WWW_AUTHENTICATE).iter();
    headers.contains_key(PERSISTENT_AUTH)
        || challenges.any(|line| line.as_bytes().split(|byte| *byte == b',').any(is_bound_scheme))
}

fn is_bound_scheme(value: &[u8]) -> bool {
    let value = value.trim_ascii();
    let end = value.iter().position(u8::is_ascii_whitespace).unwrap_or(value.len());
    let bound = ["NTLM", "Negotiate", "Kerberos", "Nego2"];
    bound.iter().any(|scheme| value[..end].eq_ignore_ascii_case(scheme.as_bytes()))
}

/// The content coding of a response, if it has one. tollpass decodes none.
pub(crate) fn content_coding(headers: &HeaderMap) -> Option<&str> {
    let values = headers.get_all(header::CONTENT_ENCODING).into_iter();
    let mut codings = values.map(|value| value.to_str().unwrap_or("unknown").trim());
    codings.find(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case("identity"))
}

#[cfg(test)]
mod tests {
    use crate::proxy::message::headers::*;

    fn map(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        lines
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn hop_by_hop_headers_are_removed() {
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
        let present = Present::among(&some);
        remove_hop_by_hop(&mut some, present);
        assert_eq!(some, map(&[("x-three", "3"), ("trailer", "x-sum")]));
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
            assert_eq!(takes_trailers(&map(&[("te", value)])), expected, "{value}");
        }
    }

    #[test]
    fn only_chunked_is_plain() {
        for (value, expected) in
            [("chunked", true), ("Chunked", true), ("gzip, chunked", false), ("gzip", false)]
        {
            assert_eq!(has_supported_framing(&map(&[("transfer-encoding", value)])), expected, "{value}");
        }
        assert!(has_supported_framing(&HeaderMap::new()));
        assert!(!has_supported_framing(&map(&[
            ("transfer-encoding", "chunked"),
            ("transfer-encoding", "chunked")
        ])));
    }

    #[test]
    fn content_length_is_normalised() {
        for (lines, expected) in [
            (&["5"][..], Some("5")),
            (&["0"], Some("0")),
            (&["005"], Some("5")),
            (&["00"], Some("0")),
            (&["5, 5", "5"], Some("5")),
            (&["5", "6"], None),
            (&["5,"], None),
            (&["+5"], None),
            (&[""], None),
            (&["18446744073709551616"], None),
        ] {
            let mut some: HeaderMap =
                lines.iter().map(|line| (header::CONTENT_LENGTH, HeaderValue::from_static(line))).collect();
            let present = Present::among(&some);
            normalise_framing(&mut some, present);
            assert_eq!(
                some.get("content-length").map(|length| length.to_str().unwrap()),
                expected,
                "{lines:?}"
            );
            assert!(some.get_all("content-length").iter().count() < 2);
        }
        let mut both = map(&[("content-length", "5"), ("transfer-encoding", "chunked")]);
        let present = Present::among(&both);
        normalise_framing(&mut both, present);
        assert_eq!(both, map(&[("transfer-encoding", "chunked")]));
    }

    #[test]
    fn trailers_that_act_as_headers_are_neither_announced_nor_sent() {
        let mut some = map(&[("trailer", "X-Sum, Content-Length"), ("trailer", "host,x-more")]);
        let present = Present::among(&some);
        normalise_framing(&mut some, present);
        assert_eq!(some, map(&[("trailer", "X-Sum, x-more")]));
        let mut none = map(&[("trailer", "transfer-encoding")]);
        let present = Present::among(&none);
        normalise_framing(&mut none, present);
        assert!(none.is_empty());
        let mut sent =
            map(&[("x-sum", "1"), ("content-length", "9"), ("connection", "x"), ("set-cookie", "a")]);
        sent.append(PROXY_STATUS, HeaderValue::from_static("tollpass; reason=over-budget"));
        normalise_trailers(&mut sent);
        assert_eq!(sent, map(&[("x-sum", "1")]));
    }

    #[test]
    fn connection_nominates_no_end_to_end_headers() {
        let mut some = map(&[
            ("connection", "host, content-length, authorization, rdn-balance, x-own"),
            ("host", "a"),
            ("content-length", "1"),
            ("authorization", "b"),
            ("rdn-balance", "2"),
            ("x-own", "3"),
        ]);
        let present = Present::among(&some);
        remove_hop_by_hop(&mut some, present);
        let left = [("host", "a"), ("content-length", "1"), ("authorization", "b"), ("rdn-balance", "2")];
        assert_eq!(some, map(&left));
    }

    #[test]
    fn cookies_of_http_2_become_one_header() {
        let mut some = map(&[("cookie", "a=1"), ("x", "1"), ("cookie", "b=2; c=3")]);
        join_cookies(&mut some);
        assert_eq!(some, map(&[("cookie", "a=1; b=2; c=3"), ("x", "1")]));
    }
}
