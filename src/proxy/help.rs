//! What the proxy says when it is asked something itself. It never forwards.

use std::net::SocketAddr;

use http::header::{self, HeaderValue};
use http::{Method, Request, Response, StatusCode};

use super::Body;

/// Answers a request that names no origin.
pub(super) fn answer(request: &Request<Body>, listen: SocketAddr) -> Response<Body> {
    let path = request.uri().path();
    match *request.method() {
        Method::OPTIONS if path == "*" => options(),
        Method::GET | Method::HEAD if path == "/" => page(StatusCode::OK, listen),
        Method::GET | Method::HEAD => page(StatusCode::NOT_FOUND, listen),
        _ if path == "/" => {
            let mut refused = page(StatusCode::METHOD_NOT_ALLOWED, listen);
            refused.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD, OPTIONS"));
            refused
        }
        _ => page(StatusCode::NOT_FOUND, listen),
    }
}

fn options() -> Response<Body> {
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD, OPTIONS, CONNECT"));
    response
}

fn page(status: StatusCode, listen: SocketAddr) -> Response<Body> {
    let text = format!(
        "This is tollpass, an HTTP proxy that pays paywalls within your rules.\n\
         It is no web server: send requests through it, not to it.\n\n\
         proxy address: http://{listen}\n\
         one request:   curl -x http://{listen} http://example.com/\n\
         a whole shell: export http_proxy=http://{listen} https_proxy=http://{listen}\n"
    );
    let mut response = Response::new(Body::full(text));
    *response.status_mut() = status;
    let fields = response.headers_mut();
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
