//! `CONNECT` to hosts in `intercept.hosts`: serves the requests inside the tunnel, over TLS with a certificate of the local
//! CA, or unencrypted. All other tunnels stay blind.
//!
//! The origin is dialled before the `CONNECT` is answered. If the origin then sends first, or the client sends neither a
//! ClientHello nor an HTTP/1 request line, the tunnel stays blind, too.

mod sniff;
mod tunnel_service;

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::uri::Scheme;
use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use hyper::server::conn::http2;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::server::Accepted;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::server::{StartHandshake, TlsStream};
use tower::{Layer, Service};
use tracing::{Instrument as _, debug, warn};

use self::sniff::Sniffed;
use self::tunnel_service::{IdleTimeout, TunnelOrigin, TunnelService};
use super::access_log::{AccessLogLayer, TunnelRecord};
use super::client_warnings::{ClientWarnings, warn_of_client};
use super::downstream::client_io::Opening;
use super::downstream::client_stream::ClientStream;
use super::downstream::server::{ConnectionPermit, Http1Server, http2_builder, serve_connection};
use super::error::ForwardError;
use super::error_response;
use super::extensions::{Arrival, RequestClient};
use super::forward::Forward;
use super::handling::RequestName;
use super::message::body::Body;
use super::message::target as message_target;
use super::message::{validate, via};
use super::request_span;
use super::rulebook::CurrentRules;
use super::tunnel::splice::{Prefixed, Traffic, TunnelEnd, TunnelLimits, client_stream, splice};
use super::upstream::client::UpstreamClient;
use super::upstream::egress::Reach;
use super::upstream::parked::ParkedConnection;
use crate::error_chain::with_causes;
use crate::hosts::host::canonical;
use crate::mutex::lock;
use crate::protocol::ReasonCode;
use crate::proxy::request_service::RequestService;
use crate::tls::Leaves;

/// How many different warnings are logged; each may name a host.
const MOST_WARNINGS: usize = 64;

/// Serves the requests inside `CONNECT` tunnels with the inner service.
#[derive(Clone, Debug)]
pub struct InterceptService<S> {
    inner: S,
    context: Arc<InterceptContext>,
}

/// The state that all intercepted tunnels of a worker share.
#[derive(Clone, Debug)]
struct InterceptContext {
    rules: CurrentRules,
    upstream: Arc<UpstreamClient>,
    http_1: Http1Server,
    http_2: http2::Builder<TokioExecutor>,
    timeout: Duration,
    limits: TunnelLimits,
    access_log: AccessLogLayer,
    warned: Arc<Mutex<BTreeSet<String>>>,
    warnings: Arc<ClientWarnings>,
}

/// The layer of [`InterceptService`].
#[derive(Clone, Debug)]
pub struct InterceptLayer(Arc<InterceptContext>);

impl InterceptLayer {
    /// Reads the tunnels that `rules` name over the connections of `forward`; all others are blind. `access_log` logs the
    /// requests inside.
    #[must_use]
    pub fn new(forward: &Forward, rules: CurrentRules, access_log: AccessLogLayer) -> Self {
        let upstream = forward.upstream();
        let settings = &upstream.settings;
        Self(Arc::new(InterceptContext {
            http_1: Http1Server::new(settings),
            http_2: http2_builder(settings),
            timeout: settings.limits.head_timeout,
            limits: TunnelLimits::new(settings),
            access_log,
            warned: Arc::default(),
            warnings: Arc::default(),
            rules,
            upstream,
        }))
    }

    /// The same over the connections of another `forward`, with another access log.
    pub(super) fn over(&self, forward: &Forward, access_log: AccessLogLayer) -> Self {
        let upstream = forward.upstream();
        Self(Arc::new(InterceptContext { upstream, access_log, ..InterceptContext::clone(&self.0) }))
    }
}

impl<S> Layer<S> for InterceptLayer {
    type Service = InterceptService<S>;

    fn layer(&self, inner: S) -> InterceptService<S> {
        InterceptService { inner, context: self.0.clone() }
    }
}

impl<S> Service<Request<Body>> for InterceptService<S>
where
    S: RequestService<Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send + Unpin + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Intercepting<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if request.method() != Method::CONNECT {
            return Intercepting::Pass(self.inner.call(request));
        }
        let context = &self.context;
        let Some(target) = context.covered(&request) else {
            return Intercepting::Pass(self.inner.call(request));
        };
        if let Err(error) = validate::check(&request) {
            return Intercepting::Open(Box::pin(std::future::ready(error_response::report(
                &error,
                &RequestName::of(&request),
            ))));
        }
        if let Err(error) = target.leaves.authority().check_time(SystemTime::now()) {
            let details = format!("cannot intercept HTTPS to {}: {error}", target.host);
            context.warn_once(&error);
            let kind = Some("proxy_configuration_error");
            let status = StatusCode::INTERNAL_SERVER_ERROR;
            let refused = error_response::problem(status, kind, ReasonCode::CannotIntercept, &details);
            return Intercepting::Open(Box::pin(std::future::ready(refused)));
        }
        let (name, span) = (RequestName::of(&request), request_span::span(&request));
        let opened = open(Arc::clone(context), self.inner.clone(), target, request);
        Intercepting::Open(Box::pin(
            async move { opened.await.unwrap_or_else(|error| error_response::report(&error, &name)) }
                .instrument(span),
        ))
    }
}

/// The future of [`InterceptService`]; only a `CONNECT` is boxed.
#[must_use = "futures do nothing unless polled"]
pub enum Intercepting<F> {
    /// Passes to the inner service.
    Pass(F),
    /// Opens an intercepted tunnel.
    Open(Pin<Box<dyn Future<Output = Response<Body>> + Send>>),
}

impl<F> Future for Intercepting<F>
where
    F: Future<Output = Result<Response<Body>, Infallible>> + Unpin,
{
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            Self::Pass(inner) => Pin::new(inner).poll(cx),
            Self::Open(opening) => opening.as_mut().poll(cx).map(Ok),
        }
    }
}

/// The host (without brackets) and port of a tunnel, the reach of its client, and the certificates for it.
#[derive(Clone, Debug)]
struct TunnelTarget {
    host: String,
    port: u16,
    reach: Reach,
    leaves: Arc<Leaves>,
}

impl InterceptContext {
    /// The target of a `CONNECT`, if it is to be intercepted. The blind tunnel reports errors.
    fn covered(&self, request: &Request<Body>) -> Option<TunnelTarget> {
        let (host, port) = message_target::tunnel(request.uri()).ok()?;
        let rules = self.rules.get();
        let interception = rules.interception.as_ref()?;
        let is_ours = interception.hosts.covers(host, port)
            && self.upstream.settings.connect_ports.contains(port)
            && !via::has_passed(request.headers(), request.uri());
        is_ours.then(|| TunnelTarget {
            host: host.to_owned(),
            port,
            reach: Reach::of(request),
            leaves: Arc::clone(&interception.leaves),
        })
    }

    /// Logs a warning that only the user can resolve, once.
    fn warn_once(&self, problem: &impl ToString) {
        let problem = problem.to_string();
        let mut warned = lock(&self.warned);
        if warned.len() < MOST_WARNINGS && !warned.contains(&problem) {
            warn!("cannot intercept HTTPS: {problem}");
            warned.insert(problem);
        }
    }

    /// Warns of a client that leaves without a word once it has seen the certificate, such as Node.
    fn warn_of_leaver(&self, peer: SocketAddr, host: &str) {
        warn_of_client!(
            self.warnings,
            peer,
            host,
            host,
            "a client left as soon as it saw the certificate, so it probably does not trust the local CA; run `tollpass ca \
             trust` for instructions, or remove this host from intercept.hosts"
        );
    }

    /// A connection to the origin, or `None` if the pool has one.
    async fn connect(
        &self,
        TunnelTarget { host, port, reach, .. }: &TunnelTarget,
        received: &HeaderMap,
        version: Version,
    ) -> Result<Option<TcpStream>, ForwardError> {
        if self.upstream.parked.is_live(host, *port, *reach) {
            return Ok(None);
        }
        Ok(Some(self.upstream.egress.connect_for(host, *port, *reach, received, version).await?))
    }
}

/// Dials the origin, answers 200, and reads the tunnel.
async fn open<S>(
    context: Arc<InterceptContext>,
    inner: S,
    target: TunnelTarget,
    mut request: Request<Body>,
) -> Result<Response<Body>, ForwardError>
where
    S: RequestService<Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send + Unpin + 'static,
{
    let origin = context.connect(&target, request.headers(), request.version()).await?;
    let extensions = request.extensions_mut();
    let permit = extensions.remove::<ConnectionPermit>();
    let (record, arrival) = (extensions.remove::<TunnelRecord>(), extensions.remove::<Arrival>());
    let authenticated = extensions.remove::<RequestClient>();
    let client = hyper::upgrade::on(&mut request);
    match permit {
        // Without a server connection there is nothing to take over.
        None => return Err(ForwardError::BadTarget("this connection cannot become a tunnel")),
        Some(permit) => {
            if let Some(record) = &record {
                record.open(true);
            }
            let spawner = permit.clone();
            let read = async move {
                let host = target.host.clone();
                if let Err(error) =
                    (Tunnel { context, inner, target, permit, record, arrival, authenticated })
                        .run(client, origin)
                        .await
                {
                    debug!(host, error = %with_causes(&error), "intercepted tunnel failed");
                }
            };
            spawner.spawn(read.in_current_span());
        }
    }
    Ok(Response::new(Body::Empty))
}

/// The protocol inside a tunnel.
enum TunnelKind {
    /// None: the tunnel has ended.
    Ended,
    /// Unknown: the tunnel stays blind.
    Blind { client: ClientStream, heard: Bytes, origin: TcpStream },
    /// HTTP without TLS.
    Plain { client: Prefixed<ClientStream>, parked: Option<ParkedConnection> },
    /// HTTP over TLS.
    Secure { client: Box<TlsStream<ClientStream>>, parked: Option<ParkedConnection> },
}

/// Whether the client offers a version of HTTP that we speak, or none in particular.
fn may_speak_http(accepted: &Accepted) -> bool {
    let offered = accepted.client_hello().alpn();
    offered.is_none_or(|mut offered| offered.any(|protocol| Leaves::PROTOCOLS.contains(&protocol)))
}

/// An intercepted tunnel.
struct Tunnel<S> {
    context: Arc<InterceptContext>,
    inner: S,
    target: TunnelTarget,
    permit: ConnectionPermit,
    /// Its line in the access log.
    record: Option<TunnelRecord>,
    /// That of the `CONNECT`.
    arrival: Option<Arrival>,
    /// The client that authenticated the `CONNECT`.
    authenticated: Option<RequestClient>,
}

impl<S> Tunnel<S>
where
    S: RequestService<Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send + Unpin + 'static,
{
    async fn run(self, client: OnUpgrade, origin: Option<TcpStream>) -> io::Result<()> {
        // Boxed and dropped before the long-lived part, so that idle tunnels take less memory.
        let shutdown = self.permit.shutdown.clone();
        let kind = tokio::select! {
            kind = Box::pin(self.begin(client, origin)) => kind?,
            // No request has been received.
            () = shutdown.stopping() => return Ok(()),
        };
        match kind {
            TunnelKind::Ended => Ok(()),
            TunnelKind::Blind { client, heard, origin } => {
                let ends = (TunnelEnd::of(client, heard), TunnelEnd::Tcp(origin, Bytes::new()));
                let uncounted = Traffic::default();
                let traffic = match &self.record {
                    Some(record) => {
                        record.open(false);
                        record.traffic()
                    }
                    None => &uncounted,
                };
                splice(ends.0, ends.1, self.context.limits, traffic, &shutdown).await
            }
            TunnelKind::Plain { client, parked } => {
                self.serve_http_1(client, Scheme::HTTP, parked).await;
                Ok(())
            }
            TunnelKind::Secure { client, parked } => {
                match client.get_ref().1.alpn_protocol() {
                    Some(b"h2") => self.serve_http_2(client, parked).await,
                    _ => self.serve_http_1(client, Scheme::HTTPS, parked).await,
                }
                Ok(())
            }
        }
    }

    /// Sniffs the protocol of the tunnel, and performs the TLS handshake if it is TLS to the host of the `CONNECT`.
    async fn begin(&self, client: OnUpgrade, origin: Option<TcpStream>) -> io::Result<TunnelKind> {
        let upgraded = client.await.map_err(io::Error::other)?;
        let not_its_own = |_| io::Error::other("the client has no connection of its own");
        let (mut client, early) = client_stream(upgraded).map_err(not_its_own)?;
        let deadline = Instant::now() + self.context.timeout;
        let first = sniff::sniff(&mut client, early, origin.as_ref());
        match timeout_at(deadline, first).await.unwrap_or(Ok(Sniffed::None))? {
            Sniffed::None => Ok(TunnelKind::Ended),
            Sniffed::Other(heard) => self.blind(client, heard, origin).await,
            Sniffed::Http(heard) => {
                let client = Prefixed::new(heard, client);
                Ok(TunnelKind::Plain { client, parked: self.park(origin) })
            }
            Sniffed::Tls { accepted, heard } if !self.is_named(&accepted) || !may_speak_http(&accepted) => {
                self.blind(client, heard, origin).await
            }
            Sniffed::Tls { accepted, .. } => {
                let parked = self.park(origin);
                let client = timeout_at(deadline, self.handshake(client, *accepted)).await;
                let client =
                    client.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "TLS handshake timed out"))?;
                Ok(TunnelKind::Secure { client: Box::new(client?), parked })
            }
            Sniffed::Broken { alert } => client.write_all(&alert).await.map(|()| TunnelKind::Ended),
        }
    }

    /// Whether SNI names the host of the `CONNECT`; rules for that host do not apply to another.
    fn is_named(&self, accepted: &Accepted) -> bool {
        let hello = accepted.client_hello();
        let host = &self.target.host;
        hello.server_name().is_none_or(|name| canonical(name) == canonical(host))
    }

    /// Falls back to a blind tunnel.
    async fn blind(
        &self,
        client: ClientStream,
        heard: Bytes,
        origin: Option<TcpStream>,
    ) -> io::Result<TunnelKind> {
        let origin = match origin {
            Some(origin) => origin,
            None => {
                let TunnelTarget { host, port, reach, .. } = &self.target;
                self.context.upstream.egress.connect(host, *port, *reach).await.map_err(io::Error::other)?
            }
        };
        Ok(TunnelKind::Blind { client, heard, origin })
    }

    fn park(&self, origin: Option<TcpStream>) -> Option<ParkedConnection> {
        let TunnelTarget { host, port, reach, .. } = &self.target;
        origin.map(|origin| self.context.upstream.parked.park(host, *port, *reach, origin))
    }

    async fn handshake(
        &self,
        client: ClientStream,
        accepted: Accepted,
    ) -> io::Result<TlsStream<ClientStream>> {
        let host = &self.target.host;
        let config = self.target.leaves.config_for(message_target::without_zone(host)).await;
        let config = config.inspect_err(|error| self.context.warn_once(error)).map_err(io::Error::other)?;
        let agreed = StartHandshake::from_parts(accepted, client).into_stream(config).await;
        agreed.inspect_err(|error| self.warn_of_rejection(error))
    }

    /// Warns of a client that rejects the certificate, because only the user can make it trusted.
    fn warn_of_rejection(&self, error: &io::Error) {
        let Some(peer) = self.arrival.as_ref().map(Arrival::client) else { return };
        let host = &self.target.host;
        let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
        if let Some(rustls::Error::AlertReceived(alert)) = cause {
            warn_of_client!(
                self.context.warnings,
                peer,
                host,
                host,
                ?alert,
                "a client does not trust the local CA; run `tollpass ca trust` for instructions, or remove this host from \
                 intercept.hosts"
            );
        } else if matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset) {
            self.context.warn_of_leaver(peer, host);
        }
    }

    async fn serve_http_1<I>(self, client: I, scheme: Scheme, parked: Option<ParkedConnection>)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let serving = self.permit.clone();
        let Self { context, inner, target, permit, record: _record, arrival, authenticated } = self;
        let (host, peer) = (target.host.clone(), arrival.as_ref().map(Arrival::client));
        let is_secure = scheme == Scheme::HTTPS;
        let service = TunnelService::new(
            context.access_log.layer(inner),
            TunnelOrigin::new(scheme, &target.host, target.port),
            permit,
            (arrival, authenticated),
            parked,
            context.upstream.settings.limits.head_fields,
        );
        let opening = context.http_1.clone().serve(client, service, &serving).await;
        // Some clients complete the handshake before they look at the certificate.
        if let (Opening::Left, true, Some(peer)) = (opening, is_secure, peer) {
            context.warn_of_leaver(peer, &host);
        }
    }

    async fn serve_http_2(self, client: Box<TlsStream<ClientStream>>, parked: Option<ParkedConnection>) {
        let shutdown = self.permit.shutdown.clone();
        let Self { context, inner, target, permit, record: _record, arrival, authenticated } = self;
        let service = TunnelService::new(
            context.access_log.layer(inner),
            TunnelOrigin::new(Scheme::HTTPS, &target.host, target.port),
            permit,
            (arrival, authenticated),
            parked,
            context.upstream.settings.limits.head_fields,
        );
        let count = service.count();
        let served = context.http_2.serve_connection(TokioIo::new(client), service);
        serve_connection(
            Box::pin(IdleTimeout::new(served, count, &context.upstream.settings)),
            None,
            &shutdown,
            || None,
        )
        .await;
    }
}
