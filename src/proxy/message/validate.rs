//! Validates request heads beyond what hyper checks: rejects what two parsers could understand differently. RFC 9112
//! sections 3.2 and 6, RFC 9110 section 10.1.1.

use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, Version};

use super::headers;
use super::headers::Present;
use crate::hosts::host::Host;
use crate::proxy::error::ForwardError;

/// Rejects a received request that is ambiguous or has an unknown expectation.
pub(crate) fn check<B>(request: &Request<B>) -> Result<(), ForwardError> {
    check_host(request)?;
    check_target(request)?;
    let present = Present::among(request.headers());
    if request.method() == Method::CONNECT || present.has(Present::TRANSFER_ENCODING) {
        check_framing(request)?;
    }
    if present.has(Present::EXPECT) { check_expectation(request) } else { Ok(()) }
}

fn check_host<B>(request: &Request<B>) -> Result<(), ForwardError> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(ForwardError::Malformed("it has more than one Host"));
    }
    match host {
        Some(host) if !is_host(host) => {
            Err(ForwardError::Malformed("its Host header is not a valid host and port"))
        }
        // Some clients omit Host in CONNECT, whose target contains it.
        None if request.version() == Version::HTTP_11 && request.method() != Method::CONNECT => {
            Err(ForwardError::Malformed("it has no Host"))
        }
        _ => Ok(()),
    }
}

/// The target `*` is for `OPTIONS` only. RFC 9110 section 7.1.
fn check_target<B>(request: &Request<B>) -> Result<(), ForwardError> {
    if request.uri().path() == "*" && request.method() != Method::OPTIONS {
        return Err(ForwardError::Malformed("only OPTIONS has the target *"));
    }
    Ok(())
}

/// Whether a value is a host with an optional port, or empty.
fn is_host(value: &HeaderValue) -> bool {
    let value = value.as_bytes();
    if value.is_empty() {
        return true;
    }
    let literal_end = if value[0] == b'[' { value.iter().position(|byte| *byte == b']') } else { None };
    let (host, port, is_literal) = match literal_end {
        Some(end) => (&value[1..end], &value[end + 1..], true),
        None => {
            let end = value.iter().position(|byte| *byte == b':').unwrap_or(value.len());
            (&value[..end], &value[end..], false)
        }
    };
    let is_good = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=".contains(byte);
    // A host of digits must be an address.
    let is_number = |byte: &u8| byte.is_ascii_hexdigit() || matches!(byte, b'.' | b'x' | b'X');
    let is_host = || std::str::from_utf8(host).is_ok_and(|host| Host::read(host).is_ok());
    is_port(port)
        && if is_literal {
            host.contains(&b':') && is_host()
        } else {
            // The first is true of nearly all, and much faster.
            is_host() || (!host.is_empty() && host.iter().all(is_good) && !host.iter().all(is_number))
        }
}

/// Whether this is empty, or a colon and an optional port.
fn is_port(text: &[u8]) -> bool {
    match text.split_first() {
        None | Some((b':', [])) => true,
        Some((b':', digits)) => headers::parse_digits(digits).is_some_and(|port| port <= u64::from(u16::MAX)),
        Some(_) => false,
    }
}

fn check_framing<B>(request: &Request<B>) -> Result<(), ForwardError> {
    let headers = request.headers();
    if request.method() == Method::CONNECT && announces_body(headers) {
        return Err(ForwardError::Malformed("a CONNECT has no body"));
    }
    if headers::has_supported_framing(headers) {
        return Ok(());
    }
    // The last one is chunked, or hyper would have rejected the request.
    let codings: Vec<&[u8]> = headers::codings(headers).collect();
    let before = codings.split_last().map_or(&[][..], |(_, before)| before);
    let is_foreign = |coding: &&[u8]| !coding.is_empty() && !coding.eq_ignore_ascii_case(b"chunked");
    if !before.is_empty() && before.iter().all(is_foreign) {
        return Err(ForwardError::UnsupportedCoding);
    }
    Err(ForwardError::Malformed("its Transfer-Encoding is not chunked exactly once"))
}

fn announces_body(headers: &HeaderMap) -> bool {
    let length = headers.get(header::CONTENT_LENGTH).map(|length| headers::parse_digits(length.as_bytes()));
    headers.contains_key(header::TRANSFER_ENCODING) || length.is_some_and(|length| length != Some(0))
}

/// Accepts `100-continue` only; HTTP/1.0 has no expectations and ignores them.
fn check_expectation<B>(request: &Request<B>) -> Result<(), ForwardError> {
    let mut lines = request.headers().get_all(header::EXPECT).iter();
    let Some(first) = lines.next() else { return Ok(()) };
    if request.version() == Version::HTTP_10 {
        return Ok(());
    }
    if lines.next().is_none() && first.as_bytes().eq_ignore_ascii_case(b"100-continue") {
        return Ok(());
    }
    Err(ForwardError::Expectation)
}

#[cfg(test)]
mod tests {
    use crate::proxy::message::validate::*;

    #[test]
    fn valid_hosts_are_told_from_invalid_ones() {
        for good in [
            "",
            "a",
            "a.example",
            "a_b:80",
            "a:",
            "127.0.0.1:8080",
            "[::1]",
            "[::1]:80",
            "[fe80::1%25a]:1",
            "%41",
        ] {
            assert!(is_host(&HeaderValue::from_static(good)), "{good}");
        }
        for bad in [
            "a b",
            "a,b",
            "a/b",
            "a?",
            "a#",
            "a\\b",
            "u@a",
            "a:b",
            "a:70000",
            "a:1:2",
            ":80",
            "[",
            "[::1",
            "[::1]x",
            "[]",
            "a]",
            "[a]b]",
            "<a>",
            "\"a\"",
            "a:+1",
            "a:99999999999999999999",
        ] {
            assert!(!is_host(&HeaderValue::from_static(bad)), "{bad}");
        }
        assert!(!is_host(&HeaderValue::from_bytes(b"b\xc3\xbccher").unwrap()));
    }
}
