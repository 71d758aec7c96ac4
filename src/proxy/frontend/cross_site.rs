//! Whether a browser sent a request for a page of another site.

use http::header;
use http::{Request, Uri};

use super::identity::{host, is_on_this_machine};
use crate::proxy::message::body::Body;

/// Whether a page of another site sent a request, according to its browser. Pages of the host `allowed` may.
pub(super) fn is_cross_site(request: &Request<Body>, allowed: &str) -> bool {
    let headers = request.headers();
    if let Some(site) = headers.get("sec-fetch-site") {
        return site.as_bytes().eq_ignore_ascii_case(b"cross-site");
    }
    let Some(origin) = headers.get(header::ORIGIN) else { return false };
    // Browsers send `null` for an opaque origin.
    let origin = origin.to_str().ok().and_then(|origin| origin.parse::<Uri>().ok());
    let Some(page) = origin.as_ref().and_then(Uri::host) else { return true };
    let is_asked = host(request).is_some_and(|asked| asked.host().eq_ignore_ascii_case(page));
    !(is_asked || is_on_this_machine(page) || page.eq_ignore_ascii_case(allowed))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use crate::proxy::frontend::cross_site::*;

    fn asking(host: &str) -> Request<Body> {
        Request::get("/").header("host", host).body(Body::Empty).unwrap()
    }

    #[test]
    fn cross_site_headers_of_browsers_are_trusted() {
        for (headers, expected) in [
            (&[][..], false),
            (&[("sec-fetch-site", "cross-site")], true),
            (&[("sec-fetch-site", "same-site"), ("origin", "http://localhost:3000")], false),
            (&[("sec-fetch-site", "none")], false),
            (&[("origin", "http://localhost:3000")], false),
            (&[("origin", "http://127.0.0.1:8402")], false),
            (&[("origin", "https://evil.example")], true),
            (&[("origin", "https://api.example")], false),
            (&[("origin", "null")], true),
            (&[("origin", "")], true),
        ] {
            let mut request = asking("localhost");
            for (name, value) in headers {
                request.headers_mut().insert(*name, HeaderValue::from_static(value));
            }
            assert_eq!(is_cross_site(&request, "api.example"), expected, "{headers:?}");
        }
        // Where it listens on every address, an address alone proves nothing.
        for (origin, expected) in [("http://192.168.1.5:8402", false), ("http://192.168.1.6", true)] {
            let mut request = asking("192.168.1.5:8402");
            request.headers_mut().insert(header::ORIGIN, HeaderValue::from_static(origin));
            assert_eq!(is_cross_site(&request, "api.example"), expected, "{origin}");
        }
    }
}
