//! A request taken as far as it goes without an origin: read, checked, and made what would be sent. For tests that try
//! very many; what serves clients knows nothing of it, and it decides nothing by itself.

use http::header;
use http::{Method, Request, Response};
use hyper::server::conn::http1::Builder;
use hyper_util::rt::TokioTimer;

use super::downstream::server;
use super::message::{expect, headers, max_forwards, target, validate};
use super::tunnel::upgrade;
use super::upstream::pool;
use super::{Body, Forward, ForwardError, Settings};

/// What would become of a request.
#[derive(Debug)]
pub enum Course {
    /// A tunnel to this host, without brackets, and port.
    Tunnel(String, u16),
    /// The proxy answers by itself.
    Answer(Response<Body>),
    /// This goes to the origin.
    Send(Box<Request<Body>>),
}

/// What reads the requests of clients.
#[must_use]
pub fn reader(settings: &Settings) -> Builder {
    let mut http = server::Reader::new(settings).http;
    http.timer(TokioTimer::new());
    http
}

/// What `forward` would do about a request, if its origin spoke HTTP/1.1.
///
/// # Errors
/// What the client would be told.
pub fn course(forward: &Forward, mut request: Request<Body>) -> Result<Course, ForwardError> {
    validate::check(&request)?;
    let shared = forward.shared();
    if headers::has_passed(request.headers(), request.uri()) {
        return Err(ForwardError::Loop);
    }
    if let Some(answer) = max_forwards::spend(&mut request)? {
        return Ok(Course::Answer(answer));
    }
    if request.method() == Method::CONNECT {
        let (host, port) = target::tunnel(request.uri())?;
        return Ok(Course::Tunnel(host.to_owned(), port));
    }
    let wish = request.headers().get(header::UPGRADE).filter(|_| upgrade::is_asked(&request)).cloned();
    let is_held = wish.is_none() && expect::is_asked(&request);
    shared.prepare(&mut request, wish, is_held)?;
    pool::for_http1(&mut request, true);
    Ok(Course::Send(Box::new(request)))
}
