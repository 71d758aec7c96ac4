//! The access log: one line for each request, once its response has ended or its client is gone. A tunnel's line follows
//! when the tunnel has ended. Requests are also counted here.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use http::{Method, Request, Response, StatusCode, Uri, header};
use http_body::Body as _;
use tower::{Layer, Service};

use super::extensions::{Arrival, MappedUrl, RequestClient};
use super::handling::{Handling, SafeOrigin};
use super::message::body::Body;
use super::message::recorded::{BodyEnd, BodyRecord, RecordedBody};
use super::request_counts::{PendingCount, RequestCounts, RequestOrigin};
use super::request_service::RequestService;
use super::tunnel::splice::Traffic;
use crate::mutex::lock;

/// Logs each request that the inner service handles.
#[derive(Clone, Debug)]
pub struct AccessLog<S> {
    inner: S,
    layer: AccessLogLayer,
}

/// The layer of [`AccessLog`].
#[derive(Clone, Debug)]
pub struct AccessLogLayer {
    /// Shared by all clones.
    is_on: Arc<AtomicBool>,
    is_in_tunnel: bool,
    /// Absent if they cannot be read.
    counts: Option<Arc<RequestCounts>>,
}

impl AccessLogLayer {
    /// A layer that logs, or one that does nothing.
    #[must_use]
    pub fn new(is_on: bool) -> Self {
        Self { is_on: Arc::new(is_on.into()), is_in_tunnel: false, counts: None }
    }

    /// Logs the requests that begin from now on, or does not; also with all clones.
    pub fn switch(&self, is_on: bool) {
        self.is_on.store(is_on, Ordering::Relaxed);
    }

    /// The same, which also counts requests.
    #[must_use]
    pub fn counting(self, counts: Option<Arc<RequestCounts>>) -> Self {
        Self { counts, ..self }
    }

    /// The layer for requests inside intercepted tunnels.
    pub(super) fn in_tunnel(self) -> Self {
        Self { is_in_tunnel: true, ..self }
    }

    fn count(&self, request: &Request<Body>) -> PendingCount {
        PendingCount::new(self.counts.as_ref(), RequestOrigin::new(self.is_in_tunnel, request.method()))
    }

    /// Boxed, so that requests which are not logged do not carry its space along.
    fn begin(&self, request: &Request<Body>) -> Option<Box<AccessRecord>> {
        if !self.is_on.load(Ordering::Relaxed)
            || !tracing::enabled!(target: "tollpass::access", tracing::Level::INFO)
        {
            return None;
        }
        Some(Box::new(AccessRecord {
            arrival: request.extensions().get::<Arrival>().cloned(),
            authenticated: request.extensions().get::<RequestClient>().cloned(),
            begun: Instant::now(),
            method: request.method().clone(),
            url: request.uri().clone(),
            status: None,
            handled: if self.is_in_tunnel { Handled::Intercepted } else { Handled::Plain },
            bytes: 0,
            end: BodyEnd::Dropped,
        }))
    }
}

impl<S> Layer<S> for AccessLogLayer {
    type Service = AccessLog<S>;

    fn layer(&self, inner: S) -> AccessLog<S> {
        AccessLog { inner, layer: self.clone() }
    }
}

impl<S> AccessLog<S> {
    /// Logs a request that does not reach the inner service.
    pub(super) fn answered(&self, request: &Request<Body>, response: Response<Body>) -> Response<Body> {
        self.layer.count(request).answered(&response);
        match self.layer.begin(request) {
            Some(record) => record.answer(response),
            None => response,
        }
    }
}

impl<S> Service<Request<Body>> for AccessLog<S>
where
    S: RequestService<Infallible>,
    S::Future: Unpin,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = AccessLogFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let count = self.layer.count(&request);
        let pending = match self.layer.begin(&request) {
            Some(record) if *request.method() == Method::CONNECT || may_switch(&request) => {
                let tunnel = TunnelRecord::new(record);
                request.extensions_mut().insert(tunnel.clone());
                Pending::Tunnel(tunnel)
            }
            Some(record) => Pending::Record(record),
            None => Pending::Nothing,
        };
        AccessLogFuture { inner: self.inner.call(request), pending, count }
    }
}

fn may_switch(request: &Request<Body>) -> bool {
    request.headers().contains_key(header::UPGRADE)
}

/// The future of [`AccessLog`].
#[must_use = "futures do nothing unless polled"]
#[derive(Debug)]
pub struct AccessLogFuture<F> {
    inner: F,
    pending: Pending,
    count: PendingCount,
}

#[derive(Debug)]
enum Pending {
    Nothing,
    Record(Box<AccessRecord>),
    /// The request may become a tunnel.
    Tunnel(TunnelRecord),
}

impl<F> Future for AccessLogFuture<F>
where
    F: Future<Output = Result<Response<Body>, Infallible>> + Unpin,
{
    type Output = Result<Response<Body>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Ok(response) = ready!(Pin::new(&mut self.inner).poll(cx));
        self.count.answered(&response);
        let record = match std::mem::replace(&mut self.pending, Pending::Nothing) {
            Pending::Nothing => None,
            Pending::Record(record) => Some(record),
            Pending::Tunnel(tunnel) => tunnel.answered(&response),
        };
        Poll::Ready(Ok(match record {
            Some(record) => record.answer(response),
            None => response,
        }))
    }
}

/// What is known of a request. Logs it when dropped.
#[derive(Debug)]
struct AccessRecord {
    arrival: Option<Arrival>,
    /// Known from the start inside a tunnel, else with the response.
    authenticated: Option<RequestClient>,
    begun: Instant,
    method: Method,
    url: Uri,
    /// `None` as long as there is no response.
    status: Option<StatusCode>,
    handled: Handled,
    /// Bytes of the response body, or of the tunnel, that the client's connection took.
    bytes: u64,
    /// How the response ended.
    end: BodyEnd,
}

/// How a request was handled, for the access log.
#[derive(Debug)]
enum Handled {
    Plain,
    /// The request came inside an intercepted tunnel, or opened one.
    Intercepted,
    /// The bytes that went to the origin.
    Tunnelled(u64),
    As(Handling),
}

impl AccessRecord {
    /// Notes how the request was answered. The line is written when the body has ended.
    fn answer(mut self: Box<Self>, mut response: Response<Body>) -> Response<Body> {
        self.status = Some(response.status());
        let extensions = response.extensions_mut();
        if let Some(client) = extensions.remove() {
            self.authenticated = Some(client);
        }
        if let Some(MappedUrl(url)) = extensions.remove() {
            self.url = url;
        }
        if let Some(handling) = extensions.remove() {
            self.handled = Handled::As(handling);
        }
        let has_body = self.method != Method::HEAD
            && ![StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED].contains(&response.status());
        if !has_body || response.body().is_end_stream() {
            self.end = BodyEnd::Complete;
            return response;
        }
        response.map(|body| Body::Recorded(Box::new(RecordedBody::new(body, self))))
    }
}

impl Drop for AccessRecord {
    fn drop(&mut self) {
        let (handled, explanation, price, upload) = match &self.handled {
            // Only the response tells how.
            _ if self.status.is_none() => ("unanswered", None, None, None),
            Handled::Plain => ("plain", None, None, None),
            Handled::Intercepted => ("intercepted", None, None, None),
            Handled::Tunnelled(upload) => ("tunnelled", None, None, Some(*upload)),
            Handled::As(handling) => (handling.word(), handling.explanation(), handling.price(), None),
        };
        let ended = match self.end {
            BodyEnd::Complete => None,
            BodyEnd::Dropped => Some("client connection closed"),
            BodyEnd::Failed => Some("response cut off"),
        };
        tracing::info!(
            target: "tollpass::access",
            id = self.arrival.as_ref().map(|arrival| arrival.request),
            client = self.arrival.as_ref().map(|arrival| display(arrival.client())),
            name = self.authenticated.as_ref().map(RequestClient::name),
            method = self.method.as_str(),
            origin = %SafeOrigin(&self.url),
            status = self.status.map(|status| status.as_u16()),
            bytes = self.bytes,
            upload,
            time_us = u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX),
            handled,
            price = price.map(|price| display(price.amount)),
            reason = explanation.map(|why| why.reason.as_str()),
            details = explanation.map(|why| why.details.as_str()),
            ended,
        );
    }
}

impl BodyRecord for AccessRecord {
    fn ended(&mut self, bytes: u64, end: BodyEnd) {
        (self.bytes, self.end) = (bytes, end);
    }
}

/// The record of a request that asks for a tunnel. The tunnel keeps it until it ends; then the line is written.
#[derive(Clone, Debug)]
pub(super) struct TunnelRecord(Arc<LoggedTunnel>);

#[derive(Debug)]
struct LoggedTunnel {
    traffic: Traffic,
    record: Mutex<TunnelProgress>,
}

#[derive(Debug)]
struct TunnelProgress {
    /// `None` once it belongs to an ordinary response.
    record: Option<Box<AccessRecord>>,
    is_open: bool,
}

impl TunnelRecord {
    fn new(record: Box<AccessRecord>) -> Self {
        let record = Mutex::new(TunnelProgress { record: Some(record), is_open: false });
        Self(Arc::new(LoggedTunnel { traffic: Traffic::default(), record }))
    }

    /// Notes that the request has become a tunnel.
    pub(super) fn open(&self, is_intercepted: bool) {
        let mut progress = lock(&self.0.record);
        progress.is_open = true;
        if let Some(record) = &mut progress.record {
            record.handled = if is_intercepted { Handled::Intercepted } else { Handled::Tunnelled(0) };
        }
    }

    /// Counts the tunnel's bytes.
    pub(super) fn traffic(&self) -> &Traffic {
        &self.0.traffic
    }

    /// The record, if the response is not the beginning of a tunnel.
    fn answered(self, response: &Response<Body>) -> Option<Box<AccessRecord>> {
        let mut progress = lock(&self.0.record);
        if !progress.is_open {
            return progress.record.take();
        }
        if let Some(record) = &mut progress.record {
            record.status = Some(response.status());
            record.authenticated = response.extensions().get().cloned();
        }
        None
    }
}

impl Drop for LoggedTunnel {
    fn drop(&mut self) {
        let mut progress = lock(&self.record);
        let is_open = progress.is_open;
        let Some(record) = progress.record.as_mut().filter(|_| is_open) else { return };
        record.end = BodyEnd::Complete;
        if let Handled::Tunnelled(upload) = &mut record.handled {
            (*upload, record.bytes) = self.traffic.bytes();
        }
    }
}
