//! `CONNECT` to the hosts that the user asked for: what comes through is read as the requests that it is, over TLS with
//! a certificate of the local CA, or plain. Everything else stays a blind tunnel, in which nothing of ours is seen.
//!
//! The origin is reached before the `CONNECT` is answered. Who speaks first then decides: an origin that does is no
//! HTTP server, and a client that says anything but a greeting of TLS or a request line wants no HTTP either.

mod sniff;
mod tunnel_service;

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::future::Future;
use std::io;
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
use tower::Service;
use tracing::{debug, warn};

use self::sniff::Greeting;
use self::tunnel_service::{Inside, Named, Quiet};
use super::downstream::server::{Reader, Seat, attend, reader_of_http2};
use super::forward::{ForwardError, Shared};
use super::message::{headers, target, validate};
use super::tunnel::splice::{Bounds, End, Prefixed, join};
use super::upstream::parked::Waiting;
use super::{Body, Forward, RequestService, rescue};
use crate::error_chain::with_causes;
use crate::hosts::host::canonical;
use crate::mutex::lock;
use crate::protocol::policy::Hosts;
use crate::tls::Leaves;

/// How many different troubles are warned of; each may name a host.
const MOST_TOLD: usize = 64;

/// What is intercepted, and with which certificates.
#[derive(Debug)]
pub struct Interception {
    /// Whose connections are read.
    pub hosts: Hosts,
    /// The certificates that are shown in their place.
    pub leaves: Leaves,
}

/// Reads what `CONNECT` carries, where it is asked for; wraps the service that answers requests.
#[derive(Clone, Debug)]
pub struct Intercept<S> {
    inner: S,
    shared: Option<Arc<Means>>,
}

/// What all interceptions share.
#[derive(Debug)]
struct Means {
    interception: Interception,
    forward: Arc<Shared>,
    http_1: Reader,
    http_2: http2::Builder<TokioExecutor>,
    within: Duration,
    bounds: Bounds,
    told: Mutex<BTreeSet<String>>,
}

impl<S> Intercept<S> {
    /// Intercepts for `inner`, over the connections of `forward`; without an interception all tunnels are blind.
    pub fn new(inner: S, forward: &Forward, interception: Option<Interception>) -> Self {
        let forward = forward.shared();
        let settings = &forward.settings;
        let (http_1, http_2) = (Reader::new(settings), reader_of_http2(settings));
        let (within, bounds) = (settings.limits.head_timeout, Bounds::new(settings));
        let shared = interception.map(|interception| {
            let (forward, told) = (Arc::clone(&forward), Mutex::default());
            Arc::new(Means { interception, forward, http_1, http_2, within, bounds, told })
        });
        Self { inner, shared }
    }
}

impl<S> Service<Request<Body>> for Intercept<S>
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
        let covered = self.shared.as_ref().and_then(|means| Some((means, means.covered(&request)?)));
        let Some((means, place)) = covered else { return Intercepting::Pass(self.inner.call(request)) };
        if let Err(error) = validate::check(&request) {
            return Intercepting::Open(Box::pin(std::future::ready(rescue::answer(&error))));
        }
        if let Err(error) = means.interception.leaves.authority().check_time(SystemTime::now()) {
            let reason = format!("{} is read here, and cannot be now: {error}", place.host);
            means.warn_once(&error);
            let kind = Some("proxy_configuration_error");
            let refused = rescue::problem(StatusCode::INTERNAL_SERVER_ERROR, kind, &reason);
            return Intercepting::Open(Box::pin(std::future::ready(refused)));
        }
        let opened = open(Arc::clone(means), self.inner.clone(), place, request);
        Intercepting::Open(Box::pin(async { opened.await.unwrap_or_else(|error| rescue::answer(&error)) }))
    }
}

/// The future of [`Intercept`]: what is no `CONNECT` is not boxed.
#[must_use = "futures do nothing unless polled"]
pub enum Intercepting<F> {
    /// Not for us.
    Pass(F),
    /// A tunnel that is read.
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

/// Where a tunnel leads: the host without brackets.
#[derive(Clone, Debug)]
struct Place {
    host: String,
    port: u16,
}

impl Means {
    /// Where this `CONNECT` leads, if that is to be read. What is wrong with it the blind way says.
    fn covered(&self, request: &Request<Body>) -> Option<Place> {
        let (host, port) = target::tunnel(request.uri()).ok()?;
        let is_ours = self.interception.hosts.covers(host, port)
            && !headers::has_passed(request.headers(), request.uri());
        is_ours.then(|| Place { host: host.to_owned(), port })
    }

    /// Warns of what every client meets until the user does something, the first time that one does.
    fn warn_once(&self, trouble: &impl ToString) {
        let trouble = trouble.to_string();
        let mut told = lock(&self.told);
        if told.len() < MOST_TOLD && !told.contains(&trouble) {
            warn!("https cannot be read: {trouble}");
            told.insert(trouble);
        }
    }

    /// A connection to the origin, or none where the pool has one already.
    async fn reach(
        &self,
        Place { host, port }: &Place,
        received: &HeaderMap,
        version: Version,
    ) -> Result<Option<TcpStream>, ForwardError> {
        if self.forward.lobby.is_live(host, *port) {
            return Ok(None);
        }
        Ok(Some(self.forward.reach.connect_for(host, *port, received, version).await?))
    }
}

/// Reaches the origin, answers 200, and reads what the client sends once it has that answer.
async fn open<S>(
    means: Arc<Means>,
    inner: S,
    place: Place,
    mut request: Request<Body>,
) -> Result<Response<Body>, ForwardError>
where
    S: RequestService<Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send + Unpin + 'static,
{
    let origin = means.reach(&place, request.headers(), request.version()).await?;
    let seat = request.extensions_mut().remove::<Seat>();
    let client = hyper::upgrade::on(&mut request);
    match seat {
        // A client that did not come through the server's side has no connection to take over.
        None => return Err(ForwardError::BadTarget("this connection cannot become a tunnel")),
        Some(seat) => seat.clone().spawn(async move {
            let host = place.host.clone();
            if let Err(error) = (Tunnel { means, inner, place, seat }).run(client, origin).await {
                debug!(host, error = %with_causes(&error), "an intercepted tunnel broke");
            }
        }),
    }
    Ok(Response::new(Body::Empty))
}

/// What a tunnel turned out to be.
enum Begun {
    /// Nothing: it has ended.
    Over,
    /// Not for us.
    Blind { client: TcpStream, heard: Bytes, origin: TcpStream },
    /// Requests in plain.
    Plain { client: Prefixed<TcpStream>, waiting: Option<Waiting> },
    /// Requests over TLS.
    Secure { client: Box<TlsStream<TcpStream>>, waiting: Option<Waiting> },
}

/// One tunnel that is read.
struct Tunnel<S> {
    means: Arc<Means>,
    inner: S,
    place: Place,
    seat: Seat,
}

impl<S> Tunnel<S>
where
    S: RequestService<Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send + Unpin + 'static,
{
    async fn run(self, client: OnUpgrade, origin: Option<TcpStream>) -> io::Result<()> {
        // Boxed, and gone before what lasts begins: a thousand idle tunnels hold none of it.
        let shutdown = self.seat.shutdown.clone();
        let begun = tokio::select! {
            begun = Box::pin(self.begin(client, origin)) => begun?,
            // Nothing was asked for yet.
            () = shutdown.stopping() => return Ok(()),
        };
        match begun {
            Begun::Over => Ok(()),
            Begun::Blind { client, heard, origin } => {
                let ends = (End::Tcp(client, heard), End::Tcp(origin, Bytes::new()));
                join(ends.0, ends.1, self.means.bounds, &shutdown).await
            }
            Begun::Plain { client, waiting } => {
                self.serve_http_1(client, Scheme::HTTP, waiting).await;
                Ok(())
            }
            Begun::Secure { client, waiting } => {
                match client.get_ref().1.alpn_protocol() {
                    Some(b"h2") => self.serve_http_2(client, waiting).await,
                    _ => self.serve_http_1(client, Scheme::HTTPS, waiting).await,
                }
                Ok(())
            }
        }
    }

    /// Finds out what the tunnel is for, and agrees on keys where it is TLS for us.
    async fn begin(&self, client: OnUpgrade, origin: Option<TcpStream>) -> io::Result<Begun> {
        let (mut client, early) = match End::client(client.await.map_err(io::Error::other)?) {
            End::Tcp(client, early) => (client, early),
            End::Other(_) => {
                return Err(io::Error::other("the client's connection is not a plain TCP stream"));
            }
        };
        let deadline = Instant::now() + self.means.within;
        let greeting = sniff::hear(&mut client, early, origin.as_ref());
        match timeout_at(deadline, greeting).await.unwrap_or(Ok(Greeting::None))? {
            Greeting::None => Ok(Begun::Over),
            Greeting::Other(heard) => self.blind(client, heard, origin).await,
            Greeting::Http(heard) => {
                let client = Prefixed::new(heard, client);
                Ok(Begun::Plain { client, waiting: self.wait(origin) })
            }
            Greeting::Tls { accepted, heard } if !self.is_named(&accepted) => {
                self.blind(client, heard, origin).await
            }
            Greeting::Tls { accepted, .. } => {
                let waiting = self.wait(origin);
                let client = timeout_at(deadline, self.agree(client, *accepted)).await;
                let client =
                    client.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "no keys in time"))?;
                Ok(Begun::Secure { client: Box::new(client?), waiting })
            }
            Greeting::Broken { alert } => client.write_all(&alert).await.map(|()| Begun::Over),
        }
    }

    /// Whether the client wants the host of its `CONNECT`: for another name behind it there is no rule.
    fn is_named(&self, accepted: &Accepted) -> bool {
        let hello = accepted.client_hello();
        let host = &self.place.host;
        hello.server_name().is_none_or(|name| canonical(name) == canonical(host))
    }

    /// The blind way after all.
    async fn blind(&self, client: TcpStream, heard: Bytes, origin: Option<TcpStream>) -> io::Result<Begun> {
        let origin = match origin {
            Some(origin) => origin,
            None => {
                let Place { host, port } = &self.place;
                self.means.forward.reach.connect(host, *port).await.map_err(io::Error::other)?
            }
        };
        Ok(Begun::Blind { client, heard, origin })
    }

    fn wait(&self, origin: Option<TcpStream>) -> Option<Waiting> {
        let Place { host, port } = &self.place;
        origin.map(|origin| self.means.forward.lobby.wait(host, *port, origin))
    }

    async fn agree(&self, client: TcpStream, accepted: Accepted) -> io::Result<TlsStream<TcpStream>> {
        let host = &self.place.host;
        let config = self.means.interception.leaves.config_for(target::without_zone(host)).await;
        let config = config.inspect_err(|error| self.means.warn_once(error)).map_err(io::Error::other)?;
        let agreed = StartHandshake::from_parts(accepted, client).into_stream(config).await;
        agreed.inspect_err(|error| tell_of(host, error))
    }

    async fn serve_http_1<I>(self, client: I, scheme: Scheme, waiting: Option<Waiting>)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let shutdown = self.seat.shutdown.clone();
        let Self { means, inner, place, seat } = self;
        let inside = Inside::new(
            inner,
            Named::new(scheme, &place.host, place.port),
            seat,
            waiting,
            means.forward.settings.limits.head_fields,
        );
        means.http_1.clone().serve(client, inside, &shutdown).await;
    }

    async fn serve_http_2(self, client: Box<TlsStream<TcpStream>>, waiting: Option<Waiting>) {
        let shutdown = self.seat.shutdown.clone();
        let Self { means, inner, place, seat } = self;
        let inside = Inside::new(
            inner,
            Named::new(Scheme::HTTPS, &place.host, place.port),
            seat,
            waiting,
            means.forward.settings.limits.head_fields,
        );
        let count = inside.count();
        let served = means.http_2.serve_connection(TokioIo::new(client), inside);
        attend(Box::pin(Quiet::new(served, count, &means.forward.settings)), None, &shutdown).await;
    }
}

/// A client that breaks off the handshake most often does not trust the certificate: only the user can change that.
fn tell_of(host: &str, error: &io::Error) {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
    if let Some(rustls::Error::AlertReceived(alert)) = cause {
        warn!(
            host,
            ?alert,
            "a client does not accept the certificate of the local CA; `tollpass ca trust` says how to make it trusted, \
             and without this host in intercept.hosts its connections are left alone"
        );
    }
}
