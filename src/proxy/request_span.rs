//! The span of a request, in which all that its handling logs is logged. Costs a comparison unless spans are enabled.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::{Request, Response};
use tower::{Layer, Service};
use tracing::field::{Empty, display};
use tracing::{Span, debug_span};

use super::extensions::{Arrival, RequestClient};
use super::handling::{Handling, without_user};
use super::message::body::Body;
use super::request_service::RequestService;

/// The layer of [`RequestSpan`].
#[derive(Clone, Copy, Debug)]
pub struct RequestSpanLayer;

/// Runs the inner service in a span for each request.
#[derive(Clone, Debug)]
pub struct RequestSpan<S> {
    inner: S,
}

impl<S> Layer<S> for RequestSpanLayer {
    type Service = RequestSpan<S>;

    fn layer(&self, inner: S) -> RequestSpan<S> {
        RequestSpan { inner }
    }
}

/// The span of `request`.
pub(super) fn span(request: &Request<Body>) -> Span {
    let span = debug_span!(
        "request",
        id = request.extensions().get::<Arrival>().map(|arrival| arrival.request),
        client = request.extensions().get::<RequestClient>().map(RequestClient::name),
        method = request.method().as_str(),
        host = request.uri().authority().map(|authority| display(without_user(authority.as_str()))),
        path = request.uri().path_and_query().map(|path| display(path.path())),
        // Known once there is a response.
        status = Empty,
        handled = Empty,
        price = Empty,
        asset = Empty,
        reason = Empty,
    );
    #[cfg(feature = "otlp")]
    join_trace(&span, request);
    span
}

/// Makes a span part of the client's trace (W3C Trace Context), or of a new one: never of that of the tunnel.
#[cfg(feature = "otlp")]
fn join_trace(span: &Span, request: &Request<Body>) {
    use opentelemetry::Context as TraceContext;
    use opentelemetry::propagation::TextMapPropagator as _;
    use opentelemetry_http::HeaderExtractor;
    use opentelemetry_sdk::propagation::TraceContextPropagator;
    use tracing_opentelemetry::OpenTelemetrySpanExt as _;

    if !span.is_disabled() {
        let headers = HeaderExtractor(request.headers());
        let theirs = TraceContextPropagator::new().extract_with_context(&TraceContext::new(), &headers);
        // Nothing is traced if that fails.
        let _ = span.set_parent(theirs);
    }
}

/// Completes a span.
fn record(span: &Span, response: &Response<Body>) {
    if span.is_disabled() {
        return;
    }
    span.record("status", response.status().as_u16());
    let Some(handling) = response.extensions().get::<Handling>() else { return };
    span.record("handled", handling.word());
    if let Some(price) = handling.price() {
        span.record("price", display(price.amount)).record("asset", display(&price.asset));
    }
    if let Some(why) = handling.explanation() {
        span.record("reason", why.reason.as_str());
    }
}

impl<S> Service<Request<Body>> for RequestSpan<S>
where
    S: RequestService<Infallible>,
    S::Future: Unpin,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = RequestSpanFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let span = span(&request);
        let inner = span.in_scope(|| self.inner.call(request));
        RequestSpanFuture { inner, span }
    }
}

/// The future of [`RequestSpan`].
#[must_use = "futures do nothing unless polled"]
#[derive(Debug)]
pub struct RequestSpanFuture<F> {
    inner: F,
    span: Span,
}

impl<F> Future for RequestSpanFuture<F>
where
    F: Future<Output = Result<Response<Body>, Infallible>> + Unpin,
{
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let _entered = this.span.enter();
        let Ok(response) = ready!(Pin::new(&mut this.inner).poll(cx));
        record(&this.span, &response);
        Poll::Ready(Ok(response))
    }
}
