//! Accepts clients, serves HTTP/1 and HTTP/2 on their connections, and closes them gracefully.

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http::{Method, Request, Response, Version, header};
use hyper::body::Incoming;
use hyper::server::conn::http1::{self, Builder};
use hyper::server::conn::http2;
use hyper::service::HttpService;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::{Instrument as _, debug, debug_span, warn};

use super::acceptor::Acceptor;
use super::client_io::{ClientIo, ConnState, HeaderTimer, InterimSender, Opening, StallTimer, Timeouts};
use super::client_stream::{ClientTls, plain_stream};
use crate::error_chain::with_causes;
use crate::proxy::client_connection::ClientConnection;
use crate::proxy::client_warnings::{ClientWarnings, warn_of_client};
use crate::proxy::descriptors::is_exhausted;
use crate::proxy::extensions::{Arrival, Confined, RemoteClient};
use crate::proxy::message::body::Body;
use crate::proxy::message::headers::DEFAULT_HEADER_COUNT;
use crate::proxy::message::target;
use crate::proxy::request_service::RequestService;
use crate::proxy::settings::ProxySettings;
use crate::shutdown::Shutdown;
use crate::workers::{Placement, WorkerShare, Workers};

/// The smallest buffer that hyper accepts.
const LEAST_BUFFER: usize = 8192;
/// Large enough to move big bodies in few reads.
const BUFFER: usize = 256 * 1024;
/// How often the log tells that there are as many connections as allowed.
const TOLD_EVERY: Duration = Duration::from_secs(60);
/// How many connections of a worker keep a server with its buffers while they are idle. That saves the next request some
/// time, but takes more than 10 KiB for each.
const KEPT_SERVERS: usize = 64;

/// Counts one connection against the limit and for its worker; it stays with the connection when a tunnel takes that over.
#[derive(Clone, Debug)]
pub(crate) struct ConnectionPermit {
    pub(crate) shutdown: Shutdown,
    counted: Arc<(OwnedSemaphorePermit, WorkerShare)>,
}

impl ConnectionPermit {
    /// Whether the worker has so many connections that idle ones must not take much memory.
    fn is_crowded(&self) -> bool {
        self.counted.1.count() > KEPT_SERVERS
    }

    /// Spawns a task that keeps the permit and that the shutdown waits for.
    pub(crate) fn spawn(self, task: impl Future<Output = ()> + Send + 'static) {
        let Self { shutdown, counted } = self;
        shutdown.spawn(async move {
            task.await;
            drop(counted);
        });
    }
}

/// Accepts clients and answers their requests with the service of their worker until the shutdown begins.
///
/// Returns when it no longer accepts. Open connections finish as tasks of `shutdown`, whose [`drain`](Shutdown::drain)
/// waits for them.
pub async fn serve<S>(acceptor: Acceptor, services: Workers<S>, settings: ProxySettings, shutdown: Shutdown)
where
    S: RequestService<Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
{
    let permits = Arc::new(Semaphore::new(settings.limits.connections.clamp(1, Semaphore::MAX_PERMITS)));
    let server = Http1Server::new(&settings);
    let tls = settings.server_tls.as_ref().map(|tls| Arc::new(ClientTls::new(tls, &settings)));
    let warnings = Arc::<ClientWarnings>::default();
    let (mut placement, mut backoff) = (Placement::new(services), Backoff::default());
    static CONNECTIONS: AtomicU64 = AtomicU64::new(0);
    let mut told: Option<Instant> = None;
    loop {
        let next = async {
            if permits.available_permits() == 0 && told.is_none_or(|told| told.elapsed() >= TOLD_EVERY) {
                told = Some(Instant::now());
                let most = settings.limits.connections;
                warn!(
                    most,
                    "limits.connections is reached: further clients wait until a connection ends; raise it, or find the \
                     clients that keep connections open"
                );
            }
            // The semaphore is never closed.
            let permit = Arc::clone(&permits).acquire_owned().await.map_err(io::Error::other)?;
            Ok::<_, io::Error>((acceptor.accept().await?, permit))
        };
        let accepted = tokio::select! {
            biased;
            () = shutdown.stopping() => return,
            accepted = next => accepted,
        };
        match accepted {
            Ok(((stream, peer), permit)) => {
                backoff = Backoff::default();
                // There is always a worker.
                let Some((worker, service, share)) = placement.next() else { return };
                let counted = Arc::new((permit, share));
                let permit = ConnectionPermit { shutdown: shutdown.clone(), counted };
                let id = CONNECTIONS.fetch_add(1, Ordering::Relaxed) + 1;
                let connection = ClientConnection::new(peer, stream.local_addr().ok());
                let connection =
                    Arc::new(connection.of_run(settings.run.clone()).confined(settings.is_confined));
                let arrival = Arrival { connection, request: 0 };
                let service = ConnectionService { service: service.clone().into(), permit, arrival };
                let span = debug_span!("connection", id, %peer);
                // Without TLS, the task has no place for a handshake.
                match tls.clone() {
                    None => {
                        let served = serve_client(stream, server.clone(), service, Arc::clone(&warnings));
                        worker.spawn(&shutdown, served.instrument(span));
                    }
                    Some(tls) => {
                        let served = serve_tls_client(stream, tls, server.clone(), service);
                        worker.spawn(&shutdown, served.instrument(span));
                    }
                }
            }
            Err(error) => {
                let Some(pause) = backoff.after(&error) else { continue };
                if is_exhausted(&error) {
                    settings.idle.evict();
                }
                warn!(%error, pause_ms = pause.as_millis(), "cannot accept a connection; retrying");
                tokio::select! {
                    () = shutdown.stopping() => return,
                    () = tokio::time::sleep(pause) => {}
                }
            }
        }
    }
}

/// Serves HTTP/1 on a client's connection.
#[derive(Clone, Debug)]
pub(crate) struct Http1Server {
    pub(crate) http: Builder,
    timeouts: Timeouts,
}

impl Http1Server {
    pub(crate) fn new(settings: &ProxySettings) -> Self {
        let (mut http, timeouts) = (Builder::new(), Timeouts::new(settings));
        http.header_read_timeout(timeouts.keepalive_timeout)
            .max_header_size(settings.limits.head_bytes)
            .max_buf_size(settings.limits.head_bytes.max(BUFFER).max(LEAST_BUFFER));
        if settings.limits.head_fields != DEFAULT_HEADER_COUNT {
            http.max_headers(settings.limits.head_fields);
        }
        Self { http, timeouts }
    }

    /// Serves a connection until it ends or the shutdown ends it. Returns what it has begun with.
    pub(crate) async fn serve<I, S>(mut self, stream: I, service: S, permit: &ConnectionPermit) -> Opening
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        S: hyper::service::Service<Request<Incoming>, Response = Response<Body>, Error = Infallible>,
    {
        let (mut io, state) = ClientIo::new(stream, &self.timeouts);
        self.http.timer(HeaderTimer { state: Arc::clone(&state), head_timeout: self.timeouts.head_timeout });
        let mut timer = StallTimer::new(Arc::clone(&state), self.timeouts);
        let mut service = WithInterim { service, state: Arc::clone(&state) };
        loop {
            let served = Box::pin(self.http.serve_connection(TokioIo::new(io), service).with_upgrades());
            let at_rest = || if permit.is_crowded() { state.at_rest_until() } else { None };
            let served = serve_connection(served, Some(&mut timer), &permit.shutdown, at_rest).await;
            let Some((served, deadline)) = served else { break };
            let Some(parts) = Pin::into_inner(served).into_parts() else { break };
            (io, service) = (parts.io.into_inner(), parts.service);
            io.hold(&parts.read_buf);
            // It keeps the whole buffer, even if nothing is in it.
            drop(parts.read_buf);
            state.rest_until(deadline);
            if !rest(&mut io, &mut timer, &permit.shutdown).await {
                break;
            }
        }
        state.opening()
    }
}

/// Waits for the next request on an idle connection. `false` if there is none: the connection is closed then.
async fn rest<I>(io: &mut ClientIo<I>, timer: &mut StallTimer, shutdown: &Shutdown) -> bool
where
    I: AsyncRead + AsyncWrite + Unpin,
{
    let heard = poll_fn(|cx| {
        let heard = io.poll_hear(cx).map(|heard| heard.unwrap_or(false));
        if heard.is_pending() { timer.poll_rest(cx).map(|()| false) } else { heard }
    });
    let has_heard = tokio::select! {
        biased;
        () = shutdown.stopping() => false,
        has_heard = heard => has_heard,
    };
    if !has_heard {
        tokio::select! {
            biased;
            () = shutdown.cut_off() => {}
            // The client may have closed it, too.
            _ = io.shutdown() => {}
        }
    }
    has_heard
}

/// Gives each request the sender of its interim responses.
struct WithInterim<S> {
    service: S,
    state: Arc<ConnState>,
}

impl<S: hyper::service::Service<Request<Incoming>>> hyper::service::Service<Request<Incoming>>
    for WithInterim<S>
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        // HTTP/1.0 has no interim responses.
        if request.version() == Version::HTTP_11 {
            request.extensions_mut().insert(InterimSender::new(&self.state));
        }
        self.service.call(request)
    }
}

/// Serves HTTP/2 on a client's connection.
pub(crate) fn http2_builder(settings: &ProxySettings) -> http2::Builder<TokioExecutor> {
    let mut http = http2::Builder::new(TokioExecutor::new());
    http.timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(settings.limits.head_bytes).unwrap_or(u32::MAX))
        .max_concurrent_streams(u32::try_from(settings.limits.streams).unwrap_or(u32::MAX))
        // Detects clients that are gone; idle ones are closed by `IdleTimeout`.
        .keep_alive_interval(settings.limits.keepalive_timeout)
        .keep_alive_timeout(settings.limits.head_timeout);
    http
}

/// Makes a connection one of the runtime that calls this.
fn taken_over(stream: std::net::TcpStream) -> Option<TcpStream> {
    let stream = TcpStream::from_std(stream)
        .inspect_err(|error| warn!(%error, "cannot serve a connection; closing it"))
        .ok()?;
    // Only a hint to the kernel: a connection without it still works.
    let _ = stream.set_nodelay(true);
    Some(stream)
}

async fn serve_client<S>(
    stream: std::net::TcpStream,
    server: Http1Server,
    service: ConnectionService<S>,
    warnings: Arc<ClientWarnings>,
) where
    S: RequestService<Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
{
    let Some(stream) = taken_over(stream) else { return };
    let permit = service.permit.clone();
    let peer = service.arrival.client();
    match server.serve(plain_stream(stream), service, &permit).await {
        Opening::TlsHandshake => warn_of_client!(
            warnings,
            peer,
            "tls",
            %peer,
            "a client speaks TLS to a port of tollpass that does not: write http:// in the URL of the proxy, or set \
             tls_cert and tls_key"
        ),
        Opening::Socks => warn_of_client!(
            warnings,
            peer,
            "socks",
            %peer,
            "a client takes tollpass for a SOCKS proxy, but it is an HTTP proxy: write http:// in the URL of the proxy, and \
             unset all_proxy and ALL_PROXY if they name it with socks://"
        ),
        Opening::Left | Opening::Other => {}
    }
}

async fn serve_tls_client<S>(
    stream: std::net::TcpStream,
    tls: Arc<ClientTls>,
    server: Http1Server,
    service: ConnectionService<S>,
) where
    S: RequestService<Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
{
    let Some(stream) = taken_over(stream) else { return };
    let permit = service.permit.clone();
    let secure = tokio::select! {
        // Boxed and dropped before the long-lived part, so that idle connections take less memory.
        secure = Box::pin(tls.accept(stream, service.arrival.client())) => secure,
        // No request has been received.
        () = permit.shutdown.stopping() => None,
    };
    if let Some(secure) = secure {
        server.serve(secure, service, &permit).await;
    }
}

/// A connection that can stop accepting requests.
pub(crate) trait GracefulShutdown: Future<Output = hyper::Result<()>> {
    /// Closes the connection after the requests in progress.
    fn finish(self: Pin<&mut Self>);
}

impl<I, S> GracefulShutdown for http1::UpgradeableConnection<I, S>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    S: HttpService<Incoming, ResBody = Body>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    fn finish(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

impl<I, S> GracefulShutdown for http2::Connection<I, S, TokioExecutor>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin,
    S: HttpService<Incoming, ResBody = Body>,
    S::Future: Send + 'static,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    fn finish(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

/// Serves a connection until it ends, its stall timer fires or the shutdown ends it, or until `at_rest` says that it waits
/// for a request, and until when: then it is returned, with that deadline.
///
/// The connection is boxed, because a value that moves into a future takes its space twice.
pub(crate) async fn serve_connection<C: GracefulShutdown>(
    mut served: Pin<Box<C>>,
    mut timer: Option<&mut StallTimer>,
    shutdown: &Shutdown,
    at_rest: impl Fn() -> Option<Instant>,
) -> Option<(Pin<Box<C>>, Instant)> {
    let mut stopping = pin!(shutdown.stopping());
    let mut is_asked = false;
    let first = poll_fn(|cx| {
        if let Poll::Ready(ended) = poll_served(&mut served, &mut timer, cx) {
            return Poll::Ready(Paused::Ended(ended));
        }
        // Polled once, the token wakes this task; polling it every time would cost each request some locks.
        if (!std::mem::replace(&mut is_asked, true) || shutdown.is_stopping())
            && stopping.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Paused::Stopping);
        }
        at_rest().map_or(Poll::Pending, |until| Poll::Ready(Paused::AtRest(until)))
    });
    let ended = match first.await {
        Paused::Ended(ended) => ended,
        Paused::AtRest(until) => return Some((served, until)),
        Paused::Stopping => {
            served.as_mut().finish();
            tokio::select! {
                biased;
                ended = poll_fn(|cx| poll_served(&mut served, &mut timer, cx)) => ended,
                () = shutdown.cut_off() => return None,
            }
        }
    };
    if let Err(error) = ended {
        debug!(error = %with_causes(&error), "client connection ended early");
    }
    None
}

/// Why serving a connection is interrupted.
enum Paused {
    Ended(hyper::Result<()>),
    /// It waits for a request until then.
    AtRest(Instant),
    Stopping,
}

/// Drives a connection and its timer.
fn poll_served(
    served: &mut Pin<Box<impl GracefulShutdown>>,
    timer: &mut Option<&mut StallTimer>,
    cx: &mut Context<'_>,
) -> Poll<hyper::Result<()>> {
    if let Some(timer) = timer {
        timer.register(cx);
    }
    if let Poll::Ready(ended) = served.as_mut().poll(cx) {
        return Poll::Ready(ended);
    }
    if timer.as_mut().is_some_and(|timer| timer.poll_end(cx).is_ready()) {
        debug!("closing client connection: the exchange stalled or took too long");
        return Poll::Ready(Ok(()));
    }
    Poll::Pending
}

/// Passes a connection's requests to the service.
struct ConnectionService<S> {
    /// Borrowed for each call only: a clone would cost each request some atomic operations for each layer.
    service: RefCell<S>,
    permit: ConnectionPermit,
    /// That of the connection; each request gets a number of its own.
    arrival: Arrival,
}

impl<S> hyper::service::Service<Request<Incoming>> for ConnectionService<S>
where
    S: RequestService<Infallible>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = S::Future;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let mut request = request.map(Body::from);
        target::canonicalise(&mut request);
        request.extensions_mut().insert(self.arrival.next());
        if request.method() == Method::CONNECT || request.headers().contains_key(header::UPGRADE) {
            request.extensions_mut().insert(self.permit.clone());
        }
        if self.arrival.is_remote() {
            request.extensions_mut().insert(RemoteClient);
        }
        if self.arrival.connection.is_confined {
            request.extensions_mut().insert(Confined);
        }
        self.service.borrow_mut().call(request)
    }
}

/// The pause after a failure to accept.
#[derive(Debug, Default)]
struct Backoff {
    failures: u32,
}

impl Backoff {
    const LONGEST: Duration = Duration::from_secs(1);

    /// `None` if the failure concerns one connection only, otherwise a pause that doubles up to [`Self::LONGEST`].
    fn after(&mut self, error: &io::Error) -> Option<Duration> {
        use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
        if matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted) {
            return None;
        }
        let pause = Duration::from_millis(10 << self.failures.min(7)).min(Self::LONGEST);
        self.failures = self.failures.saturating_add(1);
        Some(pause)
    }
}

#[cfg(test)]
mod tests {
    use crate::proxy::downstream::server::*;

    #[test]
    fn a_lost_connection_causes_no_pause() {
        let mut backoff = Backoff::default();
        for kind in
            [io::ErrorKind::ConnectionAborted, io::ErrorKind::ConnectionReset, io::ErrorKind::Interrupted]
        {
            assert_eq!(backoff.after(&kind.into()), None, "{kind}");
        }
        assert_eq!(backoff.after(&io::Error::other("first")), Some(Duration::from_millis(10)));
    }

    #[test]
    fn pauses_double_up_to_a_second() {
        const TOO_MANY_OPEN_FILES: i32 = 24;
        let mut backoff = Backoff::default();
        let pauses: Vec<u128> = (0..200)
            .filter_map(|_| backoff.after(&io::Error::from_raw_os_error(TOO_MANY_OPEN_FILES)))
            .map(|pause| pause.as_millis())
            .collect();
        assert_eq!(pauses[..8], [10, 20, 40, 80, 160, 320, 640, 1000]);
        assert!(pauses[8..].iter().all(|pause| *pause == 1000));
    }
}
