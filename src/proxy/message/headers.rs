//! The fields that belong to one hop: what an intermediary takes out, and the `Via` it puts in. RFC 9110 section 7.6.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::LazyLock;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Response, Uri, Version};

use super::target;
use crate::protocol::schemes;

/// Our name in `Via` and `Proxy-Status`.
pub const PSEUDONYM: &str = "tollpass";

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Fields that are for the neighbour only, besides `Connection` and what that names.
const ONE_HOP: [HeaderName; 7] = [
    KEEP_ALIVE,
    PROXY_CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// What every recipient needs: `Connection` that names one of these does not take it out. RFC 9110 section 7.6.1.
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

/// Takes out every field that is meant for the neighbour only, and those that `Connection` names.
///
/// `Transfer-Encoding` goes too, since each side frames anew. `Trailer` stays unless it is named: it describes trailer
/// fields that are passed on.
pub(crate) fn strip(fields: &mut HeaderMap) {
    if fields.contains_key(header::CONNECTION) {
        strip_named(fields);
    }
    for name in ONE_HOP {
        fields.remove(name);
    }
}

fn strip_named(fields: &mut HeaderMap) {
    let lines: Vec<HeaderValue> = fields.get_all(header::CONNECTION).iter().cloned().collect();
    fields.remove(header::CONNECTION);
    for line in &lines {
        for name in tokens(line).filter_map(|token| HeaderName::from_bytes(token).ok()) {
            // A payment is for the seller, however many hops away it is.
            if !END_TO_END.contains(&name) && !schemes::is_payment_header(&name) {
                fields.remove(name);
            }
        }
    }
}

/// Whether a field may come after a body: none that frames, routes or authenticates, and none of one hop. RFC 9110
/// section 6.5.1.
fn may_trail(name: &HeaderName) -> bool {
    *name != header::CONNECTION && !END_TO_END.contains(name) && !ONE_HOP.contains(name)
}

/// Takes out of a trailer section what must not stand there.
pub(crate) fn tidy_trailers(trailers: &mut HeaderMap) {
    let bad: Vec<HeaderName> = trailers.keys().filter(|name| !may_trail(name)).cloned().collect();
    for name in bad {
        trailers.remove(name);
    }
}

/// Makes lengths and announcements say one thing only: one length in plain digits, none beside chunks, and no
/// announcement of a trailer field that must not come.
pub(crate) fn tidy_framing(fields: &mut HeaderMap) {
    if fields.contains_key(header::TRANSFER_ENCODING) {
        fields.remove(header::CONTENT_LENGTH);
    } else if fields.contains_key(header::CONTENT_LENGTH) {
        tidy_length(fields);
    }
    if fields.contains_key(header::TRAILER) {
        tidy_announcement(fields);
    }
}

fn tidy_length(fields: &mut HeaderMap) {
    let mut lines = fields.get_all(header::CONTENT_LENGTH).iter();
    let first = lines.next().map(HeaderValue::as_bytes).unwrap_or_default();
    let is_plain = first == b"0" || first.first().is_some_and(|digit| (b'1'..=b'9').contains(digit));
    if lines.next().is_none() && is_plain && number(first).is_some() {
        return;
    }
    let all = fields.get_all(header::CONTENT_LENGTH).iter();
    let mut lengths = all
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .map(|part| number(part.trim_ascii()));
    let length = lengths.next().flatten();
    if let (Some(length), true) = (length, lengths.all(|other| other == length)) {
        fields.insert(header::CONTENT_LENGTH, length.into());
    } else {
        // Of an answer to HEAD nobody has read it before.
        fields.remove(header::CONTENT_LENGTH);
    }
}

fn tidy_announcement(fields: &mut HeaderMap) {
    let may_come = |token: &&[u8]| HeaderName::from_bytes(token).is_ok_and(|name| may_trail(&name));
    let lines: Vec<HeaderValue> = fields.get_all(header::TRAILER).iter().cloned().collect();
    if lines.iter().flat_map(tokens).all(|token| may_come(&token)) {
        return;
    }
    let names: Vec<&[u8]> = lines.iter().flat_map(tokens).filter(may_come).collect();
    match HeaderValue::from_bytes(&names.join(&b", "[..])) {
        Ok(names) if !names.is_empty() => fields.insert(header::TRAILER, names),
        _ => fields.remove(header::TRAILER),
    };
}

/// Digits and nothing else, as a number.
pub(crate) fn number(digits: &[u8]) -> Option<u64> {
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// The members of a comma-separated field.
fn tokens(value: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|token| !token.is_empty())
}

/// Whether the client takes trailer fields.
pub(crate) fn takes_trailers(fields: &HeaderMap) -> bool {
    fields
        .get_all(header::TE)
        .iter()
        .flat_map(tokens)
        .any(|token| token.split(|byte| *byte == b';').next().is_some_and(is_trailers))
}

fn is_trailers(token: &[u8]) -> bool {
    token.trim_ascii().eq_ignore_ascii_case(b"trailers")
}

/// Whether the only transfer coding is `chunked`, said once, or there is none: all that we can frame anew.
pub(crate) fn is_plainly_framed(fields: &HeaderMap) -> bool {
    let mut lines = fields.get_all(header::TRANSFER_ENCODING).iter();
    let Some(first) = lines.next() else { return true };
    lines.next().is_none() && first.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked")
}

/// The transfer codings, the empty ones between commas included.
pub(crate) fn codings(fields: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let lines = fields.get_all(header::TRANSFER_ENCODING).iter();
    lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii))
}

/// Makes one `Cookie` line of several, as HTTP/1.1 has it. RFC 9113 section 8.2.3.
pub(crate) fn join_cookies(fields: &mut HeaderMap) {
    let mut lines = fields.get_all(header::COOKIE).iter();
    if lines.next().is_none() || lines.next().is_none() {
        return;
    }
    let crumbs: Vec<&[u8]> = fields.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    // The pieces of valid values are a valid value.
    if let Ok(cookie) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
        fields.insert(header::COOKIE, cookie);
    }
}

/// Whether a request of this method may be sent a second time without being asked. RFC 9110 section 9.2.2.
pub(crate) fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE
    )
}

/// Says that a client may use such schemes through this proxy, since their connections are kept apart. RFC 4559
/// section 6.
pub(crate) const PROXY_SUPPORT: HeaderName = HeaderName::from_static("proxy-support");
pub(crate) const SESSION_BASED: HeaderValue = HeaderValue::from_static("Session-Based-Authentication");
const PERSISTENT_AUTH: HeaderName = HeaderName::from_static("persistent-auth");

/// Whether a request proves who its client is in a way that holds for its whole connection. RFC 4559.
pub(crate) fn binds_connection(fields: &HeaderMap) -> bool {
    fields.get_all(header::AUTHORIZATION).iter().any(|value| is_bound_scheme(value.as_bytes()))
}

/// Whether an answer asks for such a proof, or says that it holds. The one that completes a proof has any status.
pub(crate) fn is_bound_by<B>(response: &Response<B>) -> bool {
    let fields = response.headers();
    let mut challenges = fields.get_all(header::WWW_AUTHENTICATE).iter();
    fields.contains_key(PERSISTENT_AUTH)
        || challenges.any(|line| line.as_bytes().split(|byte| *byte == b',').any(is_bound_scheme))
}

fn is_bound_scheme(value: &[u8]) -> bool {
    let value = value.trim_ascii();
    let end = value.iter().position(u8::is_ascii_whitespace).unwrap_or(value.len());
    let bound = ["NTLM", "Negotiate", "Kerberos", "Nego2"];
    bound.iter().any(|scheme| value[..end].eq_ignore_ascii_case(scheme.as_bytes()))
}

/// The standard library seeds its hashers at random, so no other process has these entries.
static SEED: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// Our entry in the `Via` of a request to `target` that was received in `version`, by which we also know it when it
/// comes back. Each origin is shown another one: what all of them see would tell them whose requests these are.
pub(crate) fn via(target: &Uri, version: Version) -> HeaderValue {
    let entry = format!("{} {PSEUDONYM} ({:016x})", number_of(version), mark(target));
    // Letters, digits, spaces and parentheses.
    HeaderValue::try_from(entry).unwrap_or(HeaderValue::from_static(PSEUDONYM))
}

/// Whether a request to `target` has passed through this process before.
pub(crate) fn has_passed(fields: &HeaderMap, target: &Uri) -> bool {
    if !fields.contains_key(header::VIA) {
        return false;
    }
    let mark = format!("{PSEUDONYM} ({:016x})", mark(target));
    let mut lines = fields.get_all(header::VIA).iter();
    lines.any(|line| line.as_bytes().windows(mark.len()).any(|part| part == mark.as_bytes()))
}

/// What no other process and no other origin has. It is a name, not a secret.
fn mark(target: &Uri) -> u64 {
    let mut hasher = SEED.build_hasher();
    hash_caseless(target.host().unwrap_or_default(), &mut hasher);
    hasher.write_u16(target::port(target));
    hasher.finish()
}

/// The same for a host or an authority in whatever case.
pub(crate) fn hash_caseless(text: &str, hasher: &mut impl Hasher) {
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        hasher.write(text.to_ascii_lowercase().as_bytes());
    } else {
        hasher.write(text.as_bytes());
    }
    // No text holds it, so that none runs into what follows.
    hasher.write_u8(0xff);
}

/// Adds our entry to the `Via` of an answer, the same for all.
pub(crate) fn add_via(fields: &mut HeaderMap, version: Version) {
    let entry = match version {
        Version::HTTP_10 => "1.0 tollpass",
        Version::HTTP_2 => "2.0 tollpass",
        _ => "1.1 tollpass",
    };
    fields.append(header::VIA, HeaderValue::from_static(entry));
}

fn number_of(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2.0",
        _ => "1.1",
    }
}

#[cfg(test)]
mod tests {
    use crate::proxy::message::headers::*;

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
        assert!(!is_plainly_framed(&fields(&[
            ("transfer-encoding", "chunked"),
            ("transfer-encoding", "chunked")
        ])));
    }

    #[test]
    fn a_length_is_said_in_one_way() {
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
            tidy_framing(&mut some);
            assert_eq!(
                some.get("content-length").map(|length| length.to_str().unwrap()),
                expected,
                "{lines:?}"
            );
            assert!(some.get_all("content-length").iter().count() < 2);
        }
        let mut both = fields(&[("content-length", "5"), ("transfer-encoding", "chunked")]);
        tidy_framing(&mut both);
        assert_eq!(both, fields(&[("transfer-encoding", "chunked")]));
    }

    #[test]
    fn trailer_fields_that_would_act_as_fields_are_neither_announced_nor_sent() {
        let mut some = fields(&[("trailer", "X-Sum, Content-Length"), ("trailer", "host,x-more")]);
        tidy_framing(&mut some);
        assert_eq!(some, fields(&[("trailer", "X-Sum, x-more")]));
        let mut none = fields(&[("trailer", "transfer-encoding")]);
        tidy_framing(&mut none);
        assert!(none.is_empty());
        let mut sent =
            fields(&[("x-sum", "1"), ("content-length", "9"), ("connection", "x"), ("set-cookie", "a")]);
        tidy_trailers(&mut sent);
        assert_eq!(sent, fields(&[("x-sum", "1")]));
    }

    #[test]
    fn connection_names_away_its_own_fields_only() {
        let mut some = fields(&[
            ("connection", "host, content-length, authorization, rdn-balance, x-own"),
            ("host", "a"),
            ("content-length", "1"),
            ("authorization", "b"),
            ("rdn-balance", "2"),
            ("x-own", "3"),
        ]);
        strip(&mut some);
        let left = [("host", "a"), ("content-length", "1"), ("authorization", "b"), ("rdn-balance", "2")];
        assert_eq!(some, fields(&left));
    }

    #[test]
    fn cookies_of_http_2_become_one_line() {
        let mut some = fields(&[("cookie", "a=1"), ("x", "1"), ("cookie", "b=2; c=3")]);
        join_cookies(&mut some);
        assert_eq!(some, fields(&[("cookie", "a=1; b=2; c=3"), ("x", "1")]));
    }

    #[test]
    fn via_knows_its_own_and_shows_each_origin_another_one() {
        let target = |text: &str| text.parse::<Uri>().unwrap();
        let (bob, carol) = (target("http://Bob.example/x"), target("http://carol.example/"));
        let mut some = fields(&[("via", "1.0 elsewhere, 1.1 tollpass (0000000000000000)")]);
        assert!(!has_passed(&some, &bob));
        let entry = via(&bob, Version::HTTP_10);
        assert!(entry.to_str().unwrap().starts_with("1.0 tollpass ("), "{entry:?}");
        some.append("via", entry.clone());
        assert!(has_passed(&some, &bob));
        assert!(has_passed(&some, &target("bob.example:80")));
        assert!(!has_passed(&some, &target("https://bob.example/")));
        assert!(!has_passed(&some, &carol));
        assert_ne!(via(&carol, Version::HTTP_10), entry);
        assert!(via(&bob, Version::HTTP_2).to_str().unwrap().starts_with("2.0 tollpass ("));
    }
}
