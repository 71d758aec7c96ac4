//! Processes a request up to the point where it would be sent to its origin. Only fuzz tests use this.

use http::header;
use http::{Method, Request, Response};
use hyper::server::conn::http1::Builder;
use hyper_util::rt::TokioTimer;

use super::downstream::server::Http1Server;
use super::error::ForwardError;
use super::forward::Forward;
use super::message::body::Body;
use super::message::headers::Present;
use super::message::{expect, max_forwards, target, validate, via};
use super::settings::ProxySettings;
use super::tunnel::upgrade;
use super::upstream::pool;

/// What the proxy would do with a request.
#[derive(Debug)]
pub enum Disposition {
    /// Open a tunnel to this host (without brackets) and port.
    Tunnel(String, u16),
    /// Respond itself.
    Answer(Response<Body>),
    /// Send this to the origin.
    Send(Box<Request<Body>>),
}

/// The server that parses the requests of clients.
#[must_use]
pub fn http1_builder(settings: &ProxySettings) -> Builder {
    let mut http = Http1Server::new(settings).http;
    http.timer(TokioTimer::new());
    http
}

/// What `forward` would do with a request to an HTTP/1.1 origin.
///
/// # Errors
/// The error that the client would get.
pub fn dispose(forward: &Forward, mut request: Request<Body>) -> Result<Disposition, ForwardError> {
    validate::check(&request)?;
    let upstream = forward.upstream();
    if via::has_passed(request.headers(), request.uri()) {
        return Err(ForwardError::Loop);
    }
    if let Some(answer) = max_forwards::spend(&mut request)? {
        return Ok(Disposition::Answer(answer));
    }
    if request.method() == Method::CONNECT {
        let (host, port) = target::tunnel(request.uri())?;
        return Ok(Disposition::Tunnel(host.to_owned(), port));
    }
    let protocol =
        request.headers().get(header::UPGRADE).filter(|_| upgrade::is_requested(&request)).cloned();
    let is_deferred = protocol.is_none() && expect::is_expected(&request);
    let present = Present::among(request.headers());
    upstream.prepare(&mut request, present, protocol, is_deferred)?;
    let target = request.uri().clone();
    pool::for_http1(&mut request, &target, true);
    Ok(Disposition::Send(Box::new(request)))
}
