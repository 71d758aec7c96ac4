//! `Set-Cookie` of an origin, for a client that knows the origin by another URL.

use http::HeaderMap;
use http::header::{self, HeaderValue};

/// Rewrites each cookie that the origin sets with `rewritten`.
pub(super) fn rewrite(headers: &mut HeaderMap, rewritten: impl Fn(&str) -> String) {
    if !headers.contains_key(header::SET_COOKIE) {
        return;
    }
    let lines: Vec<HeaderValue> = headers.get_all(header::SET_COOKIE).iter().cloned().collect();
    headers.remove(header::SET_COOKIE);
    for line in lines {
        let here = line.to_str().ok();
        let here = here.and_then(|cookie| HeaderValue::try_from(rewritten(cookie)).ok());
        headers.append(header::SET_COOKIE, here.unwrap_or(line));
    }
}

/// Whether the name of a cookie begins with a prefix that guarantees attributes, which must not be removed.
pub(super) fn is_bound(cookie: &str) -> bool {
    ["__host-", "__secure-"]
        .iter()
        .any(|start| cookie.trim_start().get(..start.len()).is_some_and(|is| is.eq_ignore_ascii_case(start)))
}

/// Removes `Secure`: a client that uses plain HTTP would not return the cookie. `Domain` goes with it, so that the client sends
/// the cookie to no other host in the clear.
pub(super) fn without_secure(cookie: &str) -> String {
    let mut parts = cookie.split(';');
    let mut kept = parts.next().unwrap_or_default().to_owned();
    if is_bound(cookie) || !parts.clone().any(|part| is_named(part, "secure")) {
        return cookie.to_owned();
    }
    for part in parts.filter(|part| !is_named(part, "secure") && !is_named(part, "domain")) {
        kept.push(';');
        kept.push_str(part);
    }
    kept
}

/// Whether an attribute has this name, with or without a value.
fn is_named(attribute: &str, expected: &str) -> bool {
    let name = attribute.split_once('=').map_or(attribute, |(name, _)| name);
    name.trim().eq_ignore_ascii_case(expected)
}
