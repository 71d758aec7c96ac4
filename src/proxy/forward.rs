//! The innermost service: answers `Max-Forwards`, opens tunnels, and sends other requests to their origins. It never
//! answers for an origin: failures are typed errors.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::{Method, Request, Response, StatusCode};
use tower::Service;

use super::descriptors::IdleConnections;
use super::error::ForwardError;
use super::message::body::Body;
use super::message::headers::Present;
use super::message::{max_forwards, via};
use super::settings::ProxySettings;
use super::tunnel;
use super::tunnel::upgrade;
use super::upstream::client::{PendingResponse, UpstreamClient};

/// The service that forwards requests and opens tunnels.
#[derive(Clone, Debug)]
pub struct Forward {
    upstream: Arc<UpstreamClient>,
}

impl Forward {
    /// A service with connection pools of its own.
    #[must_use]
    pub fn new(settings: &ProxySettings) -> Self {
        Self { upstream: Arc::new(UpstreamClient::new(settings)) }
    }

    /// The same with connection pools of its own, for one of `count` workers: connections to origins belong to the thread
    /// that opened them.
    #[must_use]
    pub fn for_worker(&self, index: usize, count: usize) -> Self {
        Self { upstream: Arc::new(self.upstream.for_worker(index, count)) }
    }

    /// Loads the roots that verify origins, so that the first request over TLS need not wait for them.
    pub async fn prepare(&self) {
        self.upstream.prepare_tls().await;
    }

    /// Its idle connections, which are closed when file descriptors run out.
    #[must_use]
    pub fn idle_connections(&self) -> IdleConnections {
        self.upstream.egress.idle().clone()
    }

    /// The client that tunnels and interception share.
    pub(super) fn upstream(&self) -> Arc<UpstreamClient> {
        Arc::clone(&self.upstream)
    }
}

impl Service<Request<Body>> for Forward {
    type Response = Response<Body>;
    type Error = ForwardError;
    type Future = Forwarding;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ForwardError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Forwarding {
        let present = Present::among(request.headers());
        if present.has(Present::VIA) && via::has_passed(request.headers(), request.uri()) {
            return Forwarding::failed(ForwardError::Loop);
        }
        match max_forwards::spend(&mut request) {
            Ok(None) => {}
            Ok(Some(answer)) => return Forwarding::done(Ok(answer)),
            Err(error) => return Forwarding::failed(error),
        }
        if request.method() == Method::CONNECT {
            return Forwarding::other(tunnel::open(request, Arc::clone(&self.upstream)));
        }
        if present.has(Present::UPGRADE) && upgrade::is_requested(&request) {
            return Forwarding::other(upgrade::pass(request, Arc::clone(&self.upstream)));
        }
        match self.upstream.send(request, present, None) {
            Ok(pending) => Forwarding(ForwardState::Pending(pending)),
            Err(error) => Forwarding::failed(error),
        }
    }
}

/// The future of [`Forward`]; the common case is not boxed.
#[must_use = "futures do nothing unless polled"]
pub struct Forwarding(ForwardState);

enum ForwardState {
    Pending(PendingResponse),
    Other(Pin<Box<dyn Future<Output = Result<Response<Body>, ForwardError>> + Send>>),
    /// Boxed: rare, and larger than the rest.
    Done(Option<Box<Result<Response<Body>, ForwardError>>>),
}

impl Forwarding {
    fn failed(error: ForwardError) -> Self {
        Self::done(Err(error))
    }

    fn done(result: Result<Response<Body>, ForwardError>) -> Self {
        Self(ForwardState::Done(Some(Box::new(result))))
    }

    fn other(future: impl Future<Output = Result<Response<Body>, ForwardError>> + Send + 'static) -> Self {
        Self(ForwardState::Other(Box::pin(future)))
    }
}

impl Future for Forwarding {
    type Output = Result<Response<Body>, ForwardError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            ForwardState::Pending(pending) => {
                let received = ready!(pending.poll_received(cx));
                Poll::Ready(received.and_then(|response| {
                    // The request did not ask to switch protocols.
                    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                        return Err(ForwardError::BadAnswer(
                            "101 without a request to switch protocols".to_owned(),
                        ));
                    }
                    Ok(pending.answer(response))
                }))
            }
            ForwardState::Other(future) => future.as_mut().poll(cx),
            ForwardState::Done(result) => match result.take() {
                Some(result) => Poll::Ready(*result),
                None => Poll::Pending,
            },
        }
    }
}
