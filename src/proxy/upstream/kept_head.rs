//! The head of a request that may have to be sent once more.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Uri};

use crate::proxy::message::body::Body;

/// A copy of a request's method, target and headers in one piece of memory. A clone of the headers would cost each request
/// three allocations and an atomic operation per value, and hardly any is sent again.
#[derive(Debug)]
pub(super) struct KeptHead(Vec<u8>);

/// Whether a header is to be left out of compression tables. RFC 7541 section 7.1.3.
const SENSITIVE: u8 = b'!';
const PUBLIC: u8 = b' ';
const END: u8 = b'\n';

impl KeptHead {
    pub(super) fn of(request: &Request<Body>) -> Self {
        let (method, target, headers) = (request.method().as_str(), request.uri(), request.headers());
        let scheme = target.scheme_str().unwrap_or_default();
        let authority = target.authority().map_or("", |authority| authority.as_str());
        let path = target.path_and_query().map_or("", |path| path.as_str());
        // Enough for most.
        let mut kept = Vec::with_capacity(512);
        for part in [method, " ", scheme, "://", authority, path] {
            kept.extend_from_slice(part.as_bytes());
        }
        kept.push(END);
        for (name, value) in headers {
            kept.push(if value.is_sensitive() { SENSITIVE } else { PUBLIC });
            kept.extend_from_slice(name.as_str().as_bytes());
            kept.push(b':');
            kept.extend_from_slice(value.as_bytes());
            kept.push(END);
        }
        Self(kept)
    }

    /// The request without its body and extensions; `None` if its target is not absolute.
    pub(super) fn into_request(self) -> Option<Request<Body>> {
        let text = Bytes::from(self.0);
        // Neither a target nor a header contains the end of a line.
        let mut lines = text.split(|byte| *byte == END);
        let line = lines.next()?;
        let space = line.iter().position(|byte| *byte == b' ')?;
        let mut request = Request::new(Body::Empty);
        *request.method_mut() = Method::from_bytes(&line[..space]).ok()?;
        *request.uri_mut() = Uri::from_maybe_shared(text.slice(space + 1..line.len())).ok()?;
        for line in lines.filter(|line| !line.is_empty()) {
            let colon = line.iter().position(|byte| *byte == b':')?;
            let name = HeaderName::from_bytes(&line[1..colon]).ok()?;
            let mut value = HeaderValue::from_maybe_shared(text.slice_ref(&line[colon + 1..])).ok()?;
            value.set_sensitive(line[0] == SENSITIVE);
            request.headers_mut().append(name, value);
        }
        Some(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_head_is_the_same_request() {
        for target in ["http://a.example/", "https://A.example:8443/x?y=%20:1", "http://[::1]:80", "http://a"]
        {
            let mut sent = Request::builder().method("PURGE").uri(target).body(Body::Empty).unwrap();
            let mut secret = HeaderValue::from_static("hush: hush");
            secret.set_sensitive(true);
            let values = [HeaderValue::from_static(""), HeaderValue::from_bytes(b"\xff\t ").unwrap(), secret];
            for (name, value) in ["x-a", "x-a", "authorization"].into_iter().zip(values) {
                sent.headers_mut().append(name, value);
            }
            let again = KeptHead::of(&sent).into_request().unwrap();
            assert_eq!((again.method(), again.uri()), (sent.method(), sent.uri()));
            assert_eq!(again.headers(), sent.headers());
            let sensitive = |request: &Request<Body>| -> Vec<bool> {
                request.headers().values().map(HeaderValue::is_sensitive).collect()
            };
            assert_eq!(sensitive(&again), sensitive(&sent));
        }
    }
}
