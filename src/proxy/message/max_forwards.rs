//! `Max-Forwards` of `OPTIONS` and `TRACE`. RFC 9110 section 7.6.2.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body::Body as _;

use super::body::Body;
use super::headers;
use crate::protocol::schemes::is_payment_header;
use crate::proxy::error::ForwardError;
use crate::proxy::extensions::TracedTarget;

/// Counts this hop; returns the response if it is the last one.
pub(crate) fn spend(request: &mut Request<Body>) -> Result<Option<Response<Body>>, ForwardError> {
    let is_trace = match *request.method() {
        Method::TRACE => true,
        Method::OPTIONS => false,
        _ => return Ok(None),
    };
    if is_trace && !request.body().is_end_stream() {
        return Err(ForwardError::Malformed("a TRACE has no body"));
    }
    let mut lines = request.headers().get_all(header::MAX_FORWARDS).iter();
    let left = lines.next().and_then(|line| headers::parse_digits(line.as_bytes()));
    // Ignore an invalid or repeated header.
    let (Some(left), None) = (left, lines.next()) else { return Ok(None) };
    match left.checked_sub(1) {
        Some(left) => {
            request.headers_mut().insert(header::MAX_FORWARDS, left.into());
            Ok(None)
        }
        None if is_trace => Ok(Some(echo(request))),
        None => Ok(Some(abilities())),
    }
}

fn abilities() -> Response<Body> {
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = StatusCode::NO_CONTENT;
    let methods = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, TRACE, CONNECT");
    response.headers_mut().insert(header::ALLOW, methods);
    response
}

/// The received request without its credentials. RFC 9110 section 9.3.8.
fn echo(request: &Request<Body>) -> Response<Body> {
    let known = request.extensions().get::<TracedTarget>().map(|TracedTarget(known)| known.clone());
    let target = known.unwrap_or_else(|| request.uri().to_string());
    let mut text = format!("TRACE {target} {:?}\r\n", request.version()).into_bytes();
    for (name, value) in request.headers().iter().filter(|(name, _)| !is_private(name)) {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            text.extend_from_slice(part);
        }
    }
    text.extend_from_slice(b"\r\n");
    let mut response = Response::new(Body::full(text));
    *response.headers_mut() =
        HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static("message/http"))]);
    response
}

fn is_private(name: &HeaderName) -> bool {
    [header::AUTHORIZATION, header::PROXY_AUTHORIZATION, header::COOKIE].contains(name)
        || is_payment_header(name)
}
