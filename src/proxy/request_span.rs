//! The span of a request, in which all that its handling logs is logged. Costs a comparison unless spans are enabled.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::{Request, Response};
use tower::{Layer, Service};
use tracing::{Span, debug_span};

use super::extensions::{Arrival, RequestClient};
use super::handling::without_user;
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
    debug_span!(
        "request",
        id = request.extensions().get::<Arrival>().map(|arrival| arrival.request),
        client = request.extensions().get::<RequestClient>().map(RequestClient::name),
        method = request.method().as_str(),
        host = request.uri().authority().map(|authority| display(without_user(authority.as_str()))),
        path = request.uri().path_and_query().map(|path| display(path.path())),
    )
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

impl<F: Future + Unpin> Future for RequestSpanFuture<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let _entered = this.span.enter();
        Pin::new(&mut this.inner).poll(cx)
    }
}
