//! Requests inside a tunnel: they name no origin of their own, or the one that the tunnel leads to. A request for any
//! other is refused, since rules, prices and certificates were chosen for this one.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep};
use tower::Service;
use tower::util::{Oneshot, ServiceExt as _};
use tracing::debug;

use super::Waiting;
use crate::hosts::default_port;
use crate::hosts::host::Host;
use crate::mutex::lock;
use crate::proxy::downstream::server::{Finish, Seat};
use crate::proxy::{Body, RequestService, Settings, rescue};

/// The origin that a tunnel leads to, as requests in it name it.
#[derive(Clone, Debug)]
pub(super) struct Named {
    scheme: Scheme,
    /// In lower case, without brackets.
    host: String,
    port: u16,
    /// Without the port where it is the scheme's own. `None` for a host that no URL can hold.
    authority: Option<Authority>,
}

/// What a request in a tunnel is refused with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Misplaced(StatusCode, &'static str);

impl Named {
    pub(super) fn new(scheme: Scheme, host: &str, port: u16) -> Self {
        let host = host.to_ascii_lowercase();
        let written = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        let is_usual = port == default_port(Some(&scheme));
        let authority = if is_usual { written.parse() } else { format!("{written}:{port}").parse() };
        Self { scheme, host, port, authority: authority.ok() }
    }

    /// Gives a request its whole address, and takes care that there is only one.
    fn place<B>(&self, request: &mut Request<B>) -> Result<(), Misplaced> {
        let elsewhere = Misplaced(StatusCode::MISDIRECTED_REQUEST, "this connection leads to another host");
        if request.method() == Method::CONNECT {
            return Err(Misplaced(StatusCode::BAD_REQUEST, "CONNECT is not allowed inside a CONNECT tunnel"));
        }
        if let Some(scheme) = request.uri().scheme()
            && *scheme != self.scheme
        {
            return Err(elsewhere);
        }
        if request.uri().authority().is_some_and(|authority| !self.is_meant(authority)) {
            return Err(elsewhere);
        }
        let mut hosts = request.headers().get_all(header::HOST).iter();
        let is_here = hosts.next().is_none_or(|host| {
            Authority::try_from(host.as_bytes()).is_ok_and(|authority| self.is_meant(&authority))
        });
        if hosts.next().is_some() {
            return Err(Misplaced(StatusCode::BAD_REQUEST, "it has more than one Host"));
        }
        if !is_here {
            return Err(elsewhere);
        }
        let mut whole = std::mem::take(request.uri_mut()).into_parts();
        whole.scheme = Some(self.scheme.clone());
        whole.authority.clone_from(&self.authority);
        whole.path_and_query.get_or_insert(PathAndQuery::from_static("/"));
        let unusable = Misplaced(StatusCode::BAD_REQUEST, "the request target is not usable");
        *request.uri_mut() = Uri::from_parts(whole).map_err(|_| unusable)?;
        Ok(())
    }

    fn is_meant(&self, authority: &Authority) -> bool {
        let host = authority.host();
        let is_plain = !authority.as_str().contains('@');
        let port = authority.port_u16().unwrap_or_else(|| default_port(Some(&self.scheme)));
        is_plain && port == self.port && (host.eq_ignore_ascii_case(&self.host) || self.is_same_address(host))
    }
}

impl Named {
    /// Whether both are one address, in whatever spelling and without its zone.
    fn is_same_address(&self, host: &str) -> bool {
        let address = |host| Host::read(host).ok().and_then(Host::address);
        address(host).is_some_and(|found| address(&self.host) == Some(found))
    }
}

/// Where requests inside a tunnel enter the service.
pub(super) struct Inside<S> {
    service: S,
    named: Named,
    seat: Seat,
    /// The connection to the origin that was opened for the `CONNECT`: of no use any more once a request is answered.
    waiting: Arc<Mutex<Option<Waiting>>>,
    count: Arc<AtomicU64>,
    /// The most header fields of a request. HTTP/1 bounds them where it reads.
    fields: usize,
}

impl<S> Inside<S> {
    pub(super) fn new(service: S, named: Named, seat: Seat, waiting: Option<Waiting>, fields: usize) -> Self {
        let waiting = Arc::new(Mutex::new(waiting));
        Self { service, named, seat, waiting, count: Arc::default(), fields }
    }

    fn place(&self, request: &mut Request<Body>) -> Result<(), Misplaced> {
        if request.headers().len() > self.fields {
            let why = "it has more header fields than limits.head_fields";
            return Err(Misplaced(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, why));
        }
        self.named.place(request)
    }

    /// Counts the requests.
    pub(super) fn count(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.count)
    }
}

impl<S> hyper::service::Service<Request<Incoming>> for Inside<S>
where
    S: RequestService<Infallible> + Clone,
    S::Future: Unpin,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answering<S>;

    fn call(&self, request: Request<Incoming>) -> Answering<S> {
        self.count.fetch_add(1, Ordering::Relaxed);
        let version = request.version();
        let mut request = request.map(Body::from);
        if let Err(Misplaced(status, why)) = self.place(&mut request) {
            let mut refused = rescue::problem(status, Some("http_request_error"), why);
            if version != Version::HTTP_2 {
                // What comes after it may not be what it looks like.
                refused.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            return Answering(State::Refused(Some(refused)));
        }
        if version == Version::HTTP_2 {
            // Another protocol is not asked for so, and the connection is shared.
            request.headers_mut().remove(header::UPGRADE);
        } else if request.headers().contains_key(header::UPGRADE) {
            request.extensions_mut().insert(self.seat.clone());
        }
        let answer = Box::pin(self.service.clone().oneshot(request));
        Answering(State::Asked { answer, waiting: Arc::clone(&self.waiting) })
    }
}

/// The future of [`Inside`].
pub(super) struct Answering<S: Service<Request<Body>>>(State<S>);

enum State<S: Service<Request<Body>>> {
    Asked { answer: Pin<Box<Oneshot<S, Request<Body>>>>, waiting: Arc<Mutex<Option<Waiting>>> },
    Refused(Option<Response<Body>>),
}

impl<S> Future for Answering<S>
where
    S: RequestService<Infallible>,
    S::Future: Unpin,
{
    type Output = Result<Response<Body>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let (answer, waiting) = match &mut self.0 {
            State::Refused(refused) => {
                return refused.take().map_or(Poll::Pending, |answer| Poll::Ready(Ok(answer)));
            }
            State::Asked { answer, waiting } => (answer, waiting),
        };
        let Ok(answer) = ready!(answer.as_mut().poll(cx));
        lock(waiting).take();
        Poll::Ready(Ok(answer))
    }
}

/// A connection of HTTP/2 that is ended when no new request has come for a while, and cut where what is under way then
/// takes too long. HTTP/1 does the first by itself.
pub(super) struct Quiet<C> {
    connection: Pin<Box<C>>,
    requests: Arc<AtomicU64>,
    seen: u64,
    keepalive_timeout: Duration,
    exchange_timeout: Duration,
    alarm: Pin<Box<Sleep>>,
    is_over: bool,
}

impl<C> Quiet<C> {
    pub(super) fn new(connection: C, requests: Arc<AtomicU64>, settings: &Settings) -> Self {
        let crate::limits::Limits { keepalive_timeout, exchange_timeout, .. } = settings.limits;
        let (connection, alarm) = (Box::pin(connection), Box::pin(sleep(keepalive_timeout)));
        Self { connection, requests, seen: 0, keepalive_timeout, exchange_timeout, alarm, is_over: false }
    }
}

impl<C: Finish> Future for Quiet<C> {
    type Output = C::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        while this.alarm.as_mut().poll(cx).is_ready() {
            if this.is_over {
                debug!(
                    "a client's connection is cut: what is under way takes too long (limits.exchange_timeout)"
                );
                return Poll::Ready(Ok(()));
            }
            let requests = this.requests.load(Ordering::Relaxed);
            let within = if requests == std::mem::replace(&mut this.seen, requests) {
                this.is_over = true;
                // Requests that are under way are finished.
                this.connection.as_mut().finish();
                this.exchange_timeout
            } else {
                this.keepalive_timeout
            };
            this.alarm.as_mut().reset(Instant::now() + within);
        }
        this.connection.as_mut().poll(cx)
    }
}

impl<C: Finish> Finish for Quiet<C> {
    fn finish(mut self: Pin<&mut Self>) {
        self.connection.as_mut().finish();
    }
}

#[cfg(test)]
mod tests {
    use crate::proxy::intercept::tunnel_service::*;

    fn placed(named: &Named, uri: &str, host: Option<&str>) -> Result<String, u16> {
        let mut request = Request::builder().uri(uri);
        if let Some(host) = host {
            request = request.header(header::HOST, host);
        }
        let mut request = request.body(()).unwrap();
        named
            .place(&mut request)
            .map(|()| request.uri().to_string())
            .map_err(|misplaced| misplaced.0.as_u16())
    }

    #[test]
    fn requests_get_the_address_of_their_tunnel_and_no_other() {
        let named = Named::new(Scheme::HTTPS, "Bob.Example", 443);
        let other = Named::new(Scheme::HTTPS, "::1", 8443);
        let plain = Named::new(Scheme::HTTP, "bob.example", 80);
        for (named, uri, host, expected) in [
            (&named, "/x?y", Some("bob.example"), Ok("https://bob.example/x?y")),
            (&named, "/", Some("BOB.example:443"), Ok("https://bob.example/")),
            (&named, "/", None, Ok("https://bob.example/")),
            (&named, "https://bob.example/z", Some("bob.example"), Ok("https://bob.example/z")),
            (&named, "https://bob.example:443/z", None, Ok("https://bob.example/z")),
            (&named, "http://bob.example/", Some("bob.example"), Err(421)),
            (&named, "https://mallory.example/", Some("bob.example"), Err(421)),
            (&named, "/", Some("mallory.example"), Err(421)),
            (&named, "/", Some("bob.example:80"), Err(421)),
            (&named, "/", Some("u@bob.example"), Err(421)),
            (&named, "/", Some("bob.example "), Err(421)),
            (&named, "/", Some(""), Err(421)),
            (&other, "/", Some("[::1]:8443"), Ok("https://[::1]:8443/")),
            (&other, "/", Some("[::1]"), Err(421)),
            (&plain, "/", Some("bob.example"), Ok("http://bob.example/")),
            (&plain, "*", Some("bob.example"), Ok("http://bob.example*")),
        ] {
            assert_eq!(placed(named, uri, host), expected.map(str::to_owned), "{uri} {host:?}");
        }
        let mut twice =
            Request::builder().uri("/").header("host", "bob.example").header("host", "bob.example");
        let mut twice = twice.headers_mut().map(|_| ()).map(|()| twice.body(()).unwrap()).unwrap();
        assert_eq!(named.place(&mut twice).unwrap_err().0, StatusCode::BAD_REQUEST);
    }
}
