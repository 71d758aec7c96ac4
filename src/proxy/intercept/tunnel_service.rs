//! Requests inside an intercepted tunnel. A request for an origin other than that of the tunnel is rejected, because rules,
//! prices and certificates were chosen for that one.

use std::cell::RefCell;
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
use tracing::debug;

use crate::hosts::default_port;
use crate::hosts::host::Host;
use crate::mutex::lock;
use crate::protocol::ReasonCode;
use crate::proxy::access_log::AccessLog;
use crate::proxy::downstream::server::{ConnectionPermit, GracefulShutdown};
use crate::proxy::error_response;
use crate::proxy::extensions::{Arrival, Confined, RemoteClient, RequestClient};
use crate::proxy::message::body::Body;
use crate::proxy::message::headers;
use crate::proxy::request_service::RequestService;
use crate::proxy::settings::ProxySettings;
use crate::proxy::upstream::parked::ParkedConnection;

/// The origin of a tunnel.
#[derive(Clone, Debug)]
pub(super) struct TunnelOrigin {
    scheme: Scheme,
    /// In lower case, without brackets.
    host: String,
    port: u16,
    /// Without the default port. `None` if the host is not valid in a URL.
    authority: Option<Authority>,
}

/// Why a request in a tunnel is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Misdirected(StatusCode, ReasonCode, &'static str);

impl TunnelOrigin {
    pub(super) fn new(scheme: Scheme, host: &str, port: u16) -> Self {
        let host = host.to_ascii_lowercase();
        let written = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        let is_usual = port == default_port(Some(&scheme));
        let authority = if is_usual { written.parse() } else { format!("{written}:{port}").parse() };
        Self { scheme, host, port, authority: authority.ok() }
    }

    /// Puts the target of a request in absolute form, if it is for this origin.
    fn place<B>(&self, request: &mut Request<B>) -> Result<(), Misdirected> {
        let elsewhere = Misdirected(
            StatusCode::MISDIRECTED_REQUEST,
            ReasonCode::OtherTunnel,
            "this tunnel leads to another host",
        );
        if request.method() == Method::CONNECT {
            return Err(Misdirected(
                StatusCode::BAD_REQUEST,
                ReasonCode::BadTarget,
                "CONNECT is not allowed inside a CONNECT tunnel",
            ));
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
            return Err(Misdirected(
                StatusCode::BAD_REQUEST,
                ReasonCode::MalformedRequest,
                "it has more than one Host",
            ));
        }
        if !is_here {
            return Err(elsewhere);
        }
        let mut whole = std::mem::take(request.uri_mut()).into_parts();
        whole.scheme = Some(self.scheme.clone());
        whole.authority.clone_from(&self.authority);
        whole.path_and_query.get_or_insert(PathAndQuery::from_static("/"));
        let unusable =
            Misdirected(StatusCode::BAD_REQUEST, ReasonCode::BadTarget, "the request target is not usable");
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

impl TunnelOrigin {
    /// Whether `host` is the same address in another spelling, ignoring its zone.
    fn is_same_address(&self, host: &str) -> bool {
        let address = |host| Host::read(host).ok().and_then(Host::address);
        address(host).is_some_and(|found| address(&self.host) == Some(found))
    }
}

/// Passes the requests inside a tunnel to the service.
pub(super) struct TunnelService<S> {
    /// Borrowed for each call only, as that of a connection without a tunnel.
    service: RefCell<AccessLog<S>>,
    origin: TunnelOrigin,
    permit: ConnectionPermit,
    /// That of the tunnel; each request inside gets a number of its own.
    arrival: Option<Arrival>,
    /// The client that authenticated the tunnel.
    authenticated: Option<RequestClient>,
    /// The connection dialled for the `CONNECT`, which closes unused after the first response.
    parked: Arc<Mutex<Option<ParkedConnection>>>,
    count: Arc<AtomicU64>,
    /// The most headers of a request. The HTTP/1 parser has its own limit.
    max_headers: usize,
}

impl<S> TunnelService<S> {
    pub(super) fn new(
        service: AccessLog<S>,
        origin: TunnelOrigin,
        permit: ConnectionPermit,
        (arrival, authenticated): (Option<Arrival>, Option<RequestClient>),
        parked: Option<ParkedConnection>,
        max_headers: usize,
    ) -> Self {
        let (service, parked) = (service.into(), Arc::new(Mutex::new(parked)));
        Self { service, origin, permit, arrival, authenticated, parked, count: Arc::default(), max_headers }
    }

    fn place(&self, request: &mut Request<Body>) -> Result<(), Misdirected> {
        if headers::count_as_http1(request.headers()) > self.max_headers {
            let why = "it has more headers than limits.head_fields";
            return Err(Misdirected(
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                ReasonCode::HeadTooLarge,
                why,
            ));
        }
        self.origin.place(request)
    }

    /// The number of requests so far.
    pub(super) fn count(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.count)
    }
}

impl<S> hyper::service::Service<Request<Incoming>> for TunnelService<S>
where
    S: RequestService<Infallible>,
    S::Future: Unpin,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = TunnelResponse<S>;

    fn call(&self, request: Request<Incoming>) -> TunnelResponse<S> {
        self.count.fetch_add(1, Ordering::Relaxed);
        let version = request.version();
        let mut request = request.map(Body::from);
        if let Some(arrival) = &self.arrival {
            request.extensions_mut().insert(arrival.next());
            if arrival.is_remote() {
                request.extensions_mut().insert(RemoteClient);
            }
            if arrival.connection.is_confined {
                request.extensions_mut().insert(Confined);
            }
        }
        if let Some(client) = &self.authenticated {
            request.extensions_mut().insert(client.clone());
        }
        if let Err(Misdirected(status, reason, why)) = self.place(&mut request) {
            let mut refused = error_response::problem(status, Some("http_request_error"), reason, why);
            if version != Version::HTTP_2 {
                // The bytes after a malformed request may not be a request.
                refused.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            let refused = self.service.borrow().answered(&request, refused);
            return TunnelResponse(TunnelState::Refused(Some(refused)));
        }
        if version == Version::HTTP_2 {
            // HTTP/2 has no Upgrade, and its connection is shared.
            request.headers_mut().remove(header::UPGRADE);
        } else if request.headers().contains_key(header::UPGRADE) {
            request.extensions_mut().insert(self.permit.clone());
        }
        let answer = Box::new(self.service.borrow_mut().call(request));
        TunnelResponse(TunnelState::Asked { answer, parked: Arc::clone(&self.parked) })
    }
}

/// The future of [`TunnelService`].
pub(super) struct TunnelResponse<S: RequestService<Infallible>>(TunnelState<AccessLog<S>>)
where
    S::Future: Unpin;

enum TunnelState<S: Service<Request<Body>>> {
    Asked { answer: Box<S::Future>, parked: Arc<Mutex<Option<ParkedConnection>>> },
    Refused(Option<Response<Body>>),
}

impl<S> Future for TunnelResponse<S>
where
    S: RequestService<Infallible>,
    S::Future: Unpin,
{
    type Output = Result<Response<Body>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let (answer, parked) = match &mut self.0 {
            TunnelState::Refused(refused) => {
                return refused.take().map_or(Poll::Pending, |answer| Poll::Ready(Ok(answer)));
            }
            TunnelState::Asked { answer, parked } => (answer, parked),
        };
        let Ok(answer) = ready!(Pin::new(answer).poll(cx));
        lock(parked).take();
        Poll::Ready(Ok(answer))
    }
}

/// Closes an HTTP/2 connection gracefully when no request has come for the keep-alive timeout, and abruptly when the
/// requests in progress then exceed the exchange timeout.
pub(super) struct IdleTimeout<C> {
    connection: Pin<Box<C>>,
    requests: Arc<AtomicU64>,
    seen: u64,
    keepalive_timeout: Duration,
    exchange_timeout: Duration,
    alarm: Pin<Box<Sleep>>,
    is_over: bool,
}

impl<C> IdleTimeout<C> {
    pub(super) fn new(connection: C, requests: Arc<AtomicU64>, settings: &ProxySettings) -> Self {
        let crate::limits::Limits { keepalive_timeout, exchange_timeout, .. } = settings.limits;
        let (connection, alarm) = (Box::pin(connection), Box::pin(sleep(keepalive_timeout)));
        Self { connection, requests, seen: 0, keepalive_timeout, exchange_timeout, alarm, is_over: false }
    }
}

impl<C: GracefulShutdown> Future for IdleTimeout<C> {
    type Output = C::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        while this.alarm.as_mut().poll(cx).is_ready() {
            if this.is_over {
                debug!("closing client connection: its requests took longer than limits.exchange_timeout");
                return Poll::Ready(Ok(()));
            }
            let requests = this.requests.load(Ordering::Relaxed);
            let within = if requests == std::mem::replace(&mut this.seen, requests) {
                this.is_over = true;
                // Requests in progress finish.
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

impl<C: GracefulShutdown> GracefulShutdown for IdleTimeout<C> {
    fn finish(mut self: Pin<&mut Self>) {
        self.connection.as_mut().finish();
    }
}

#[cfg(test)]
mod tests {
    use crate::proxy::intercept::tunnel_service::*;

    fn placed(origin: &TunnelOrigin, uri: &str, host: Option<&str>) -> Result<String, u16> {
        let mut request = Request::builder().uri(uri);
        if let Some(host) = host {
            request = request.header(header::HOST, host);
        }
        let mut request = request.body(()).unwrap();
        origin
            .place(&mut request)
            .map(|()| request.uri().to_string())
            .map_err(|misdirected| misdirected.0.as_u16())
    }

    #[test]
    fn requests_get_the_address_of_their_tunnel_and_no_other() {
        let origin = TunnelOrigin::new(Scheme::HTTPS, "Bob.Example", 443);
        let other = TunnelOrigin::new(Scheme::HTTPS, "::1", 8443);
        let plain = TunnelOrigin::new(Scheme::HTTP, "bob.example", 80);
        for (origin, uri, host, expected) in [
            (&origin, "/x?y", Some("bob.example"), Ok("https://bob.example/x?y")),
            (&origin, "/", Some("BOB.example:443"), Ok("https://bob.example/")),
            (&origin, "/", None, Ok("https://bob.example/")),
            (&origin, "https://bob.example/z", Some("bob.example"), Ok("https://bob.example/z")),
            (&origin, "https://bob.example:443/z", None, Ok("https://bob.example/z")),
            (&origin, "http://bob.example/", Some("bob.example"), Err(421)),
            (&origin, "https://mallory.example/", Some("bob.example"), Err(421)),
            (&origin, "/", Some("mallory.example"), Err(421)),
            (&origin, "/", Some("bob.example:80"), Err(421)),
            (&origin, "/", Some("u@bob.example"), Err(421)),
            (&origin, "/", Some("bob.example "), Err(421)),
            (&origin, "/", Some(""), Err(421)),
            (&other, "/", Some("[::1]:8443"), Ok("https://[::1]:8443/")),
            (&other, "/", Some("[::1]"), Err(421)),
            (&plain, "/", Some("bob.example"), Ok("http://bob.example/")),
            (&plain, "*", Some("bob.example"), Ok("http://bob.example*")),
        ] {
            assert_eq!(placed(origin, uri, host), expected.map(str::to_owned), "{uri} {host:?}");
        }
        let mut twice =
            Request::builder().uri("/").header("host", "bob.example").header("host", "bob.example");
        let mut twice = twice.headers_mut().map(|_| ()).map(|()| twice.body(()).unwrap()).unwrap();
        assert_eq!(origin.place(&mut twice).unwrap_err().0, StatusCode::BAD_REQUEST);
    }
}
