//! The side that clients see: accepts connections, reads requests off them, and ends them in order.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::{Method, Request, Response, Version, header};
use hyper::body::Incoming;
use hyper::server::conn::http1::{self, Builder};
use hyper::server::conn::http2;
use hyper::service::HttpService;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower::util::{Oneshot, ServiceExt};
use tracing::{debug, warn};

use super::client_io::{Before, HeadClock, Line, Pace, Patience, Watch};
use crate::error_chain::with_causes;
use crate::proxy::descriptors::is_exhausted;
use crate::proxy::frontend::Remote;
use crate::proxy::message::target;
use crate::proxy::{Body, RequestService, Settings};
use crate::shutdown::Shutdown;

/// The least that hyper accepts as the size of its buffer.
const LEAST_BUFFER: usize = 8192;
/// Large enough that big bodies move in few pieces.
const BUFFER: usize = 256 * 1024;
/// What hyper allows without being told; it reads heads faster then.
pub(crate) const USUAL_FIELDS: usize = 100;

/// The place of one client among those that may be connected; whoever takes the connection over takes this along.
#[derive(Clone, Debug)]
pub(crate) struct Seat {
    pub(crate) shutdown: Shutdown,
    permit: Arc<OwnedSemaphorePermit>,
}

impl Seat {
    /// Runs a task that occupies the seat, and that the shutdown waits for.
    pub(crate) fn spawn(self, task: impl Future<Output = ()> + Send + 'static) {
        let Self { shutdown, permit } = self;
        shutdown.spawn(async move {
            task.await;
            drop(permit);
        });
    }
}

/// See [`serve`](crate::proxy::serve).
pub(crate) async fn accept<S>(listener: TcpListener, service: S, settings: Settings, shutdown: Shutdown)
where
    S: RequestService<Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
{
    let seats = Arc::new(Semaphore::new(settings.limits.connections.clamp(1, Semaphore::MAX_PERMITS)));
    let reader = Reader::new(&settings);
    let mut backoff = Backoff::default();
    loop {
        let next = async {
            // The semaphore is never closed.
            let permit = Arc::clone(&seats).acquire_owned().await.map_err(io::Error::other)?;
            Ok::<_, io::Error>((listener.accept().await?, permit))
        };
        let accepted = tokio::select! {
            biased;
            () = shutdown.stopping() => return,
            accepted = next => accepted,
        };
        match accepted {
            Ok(((stream, peer), permit)) => {
                backoff = Backoff::default();
                let seat = Seat { shutdown: shutdown.clone(), permit: Arc::new(permit) };
                let is_remote = !peer.ip().to_canonical().is_loopback();
                let entry = Entry { service: service.clone(), seat, is_remote };
                shutdown.spawn_watchful(connection(stream, reader.clone(), entry));
            }
            Err(error) => {
                let Some(pause) = backoff.after(&error) else { continue };
                if is_exhausted(&error) {
                    settings.resting.evict();
                }
                warn!(%error, pause_ms = pause.as_millis(), "cannot accept a connection; trying again");
                tokio::select! {
                    () = shutdown.stopping() => return,
                    () = tokio::time::sleep(pause) => {}
                }
            }
        }
    }
}

/// How HTTP/1 is read off a client's connection.
#[derive(Clone, Debug)]
pub(crate) struct Reader {
    pub(crate) http: Builder,
    pace: Pace,
}

impl Reader {
    pub(crate) fn new(settings: &Settings) -> Self {
        let (mut http, pace) = (Builder::new(), Pace::new(settings));
        http.header_read_timeout(pace.keepalive_timeout)
            .max_header_size(settings.limits.head_bytes)
            .max_buf_size(settings.limits.head_bytes.max(BUFFER).max(LEAST_BUFFER));
        if settings.limits.head_fields != USUAL_FIELDS {
            http.max_headers(settings.limits.head_fields);
        }
        Self { http, pace }
    }

    /// Serves a connection to its end, or until the shutdown wants it to end.
    pub(crate) async fn serve<I, S>(mut self, stream: I, service: S, shutdown: &Shutdown)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        S: hyper::service::Service<Request<Incoming>, Response = Response<Body>, Error = Infallible>,
    {
        let (line, watch) = Line::new(stream, &self.pace);
        let clock = HeadClock { watch: Arc::clone(&watch), head_timeout: self.pace.head_timeout };
        let patience = Patience::new(Arc::clone(&watch), self.pace);
        let served = self.http.timer(clock).serve_connection(TokioIo::new(line), Told { service, watch });
        attend(Box::pin(served.with_upgrades()), Some(patience), shutdown).await;
    }
}

/// Has requests know where interim answers to them go.
struct Told<S> {
    service: S,
    watch: Arc<Watch>,
}

impl<S: hyper::service::Service<Request<Incoming>>> hyper::service::Service<Request<Incoming>> for Told<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        // HTTP/1.0 has no interim answers.
        if request.version() == Version::HTTP_11 {
            request.extensions_mut().insert(Before::new(&self.watch));
        }
        self.service.call(request)
    }
}

/// How HTTP/2 is read off a client's connection.
pub(crate) fn reader_of_http2(settings: &Settings) -> http2::Builder<TokioExecutor> {
    let mut http = http2::Builder::new(TokioExecutor::new());
    http.timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(settings.limits.head_bytes).unwrap_or(u32::MAX))
        .max_concurrent_streams(u32::try_from(settings.limits.streams).unwrap_or(u32::MAX))
        // Finds out about clients that are gone; those that are there and ask nothing are ended elsewhere.
        .keep_alive_interval(settings.limits.keepalive_timeout)
        .keep_alive_timeout(settings.limits.head_timeout);
    http
}

async fn connection<S>(stream: TcpStream, reader: Reader, entry: Entry<S>)
where
    S: RequestService<Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
{
    // Only a hint to the kernel: a connection without it still works.
    let _ = stream.set_nodelay(true);
    let shutdown = entry.seat.shutdown.clone();
    reader.serve(stream, entry, &shutdown).await;
}

/// A connection that can be told to take no further requests.
pub(crate) trait Finish: Future<Output = hyper::Result<()>> {
    /// Ends the connection after what is under way.
    fn finish(self: Pin<&mut Self>);
}

impl<I, S> Finish for http1::UpgradeableConnection<I, S>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    S: HttpService<Incoming, ResBody = Body>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    fn finish(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

impl<I, S> Finish for http2::Connection<I, S, TokioExecutor>
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

/// Serves a connection to its end, or until its patience does or the shutdown wants it to.
///
/// It is boxed, since what is moved into a future takes its place there twice.
pub(crate) async fn attend(
    mut served: Pin<Box<impl Finish>>,
    mut patience: Option<Patience>,
    shutdown: &Shutdown,
) {
    let mut stopping = pin!(shutdown.stopping());
    let mut is_asked = false;
    let first = poll_fn(|cx| {
        if let Some(patience) = &patience {
            patience.register(cx);
        }
        if let Poll::Ready(ended) = served.as_mut().poll(cx) {
            return Poll::Ready(Some(ended));
        }
        if patience.as_mut().is_some_and(|patience| patience.poll_end(cx).is_ready()) {
            debug!("a client's connection is cut: nothing moves any more, or it takes too long");
            return Poll::Ready(Some(Ok(())));
        }
        // Asked once, the token wakes this task; asking at every turn would cost each request some locks.
        if !std::mem::replace(&mut is_asked, true) || shutdown.is_stopping() {
            return stopping.as_mut().poll(cx).map(|()| None);
        }
        Poll::Pending
    });
    let ended = match first.await {
        Some(ended) => ended,
        None => {
            served.as_mut().finish();
            tokio::select! {
                biased;
                ended = served => ended,
                () = shutdown.cut_off() => return,
            }
        }
    };
    if let Err(error) = ended {
        debug!(error = %with_causes(&error), "a client's connection ended early");
    }
}

/// Where a connection's requests enter the service.
struct Entry<S> {
    service: S,
    seat: Seat,
    is_remote: bool,
}

impl<S> hyper::service::Service<Request<Incoming>> for Entry<S>
where
    S: RequestService<Infallible> + Clone,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Oneshot<S, Request<Body>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let mut request = request.map(Body::from);
        target::spell_out(&mut request);
        if request.method() == Method::CONNECT || request.headers().contains_key(header::UPGRADE) {
            request.extensions_mut().insert(self.seat.clone());
        }
        if self.is_remote {
            request.extensions_mut().insert(Remote);
        }
        self.service.clone().oneshot(request)
    }
}

/// How long to wait after failures to accept.
#[derive(Debug, Default)]
struct Backoff {
    failures: u32,
}

impl Backoff {
    const LONGEST: Duration = Duration::from_secs(1);

    /// `None` for what concerns the one connection only, else a pause that doubles up to [`Self::LONGEST`].
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
