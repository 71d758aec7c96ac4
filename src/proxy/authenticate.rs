//! Proxy authentication: admits the requests of clients that prove who they are, and of others where none is required.
//!
//! The credentials end here: no layer below sees them, and no log or error shows them.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use http::{Request, Response, header};
use tower::{Layer, Service};

use super::authenticator::{AuthRefusal, Authenticator, CredentialPlace, peer_of};
use super::extensions::{BehindRouteToken, RemoteClient, RequestClient, TokenPlace};
use super::message::body::Body;
use super::request_service::RequestService;
use super::rulebook::CurrentRules;

/// The layer of [`Authenticate`], for one port.
#[derive(Clone, Debug, Default)]
pub struct AuthenticateLayer {
    /// Absent if the port admits every request.
    rules: Option<CurrentRules>,
    is_required: bool,
    is_exposed: bool,
}

impl AuthenticateLayer {
    /// Admits the clients that `rules` know, on a port at `listen`. Requests without credentials are refused if `is_required`
    /// is true or, as long as clients are known, if the port or the peer is remote. Without clients, every request passes
    /// unchanged.
    #[must_use]
    pub fn new(rules: CurrentRules, is_required: bool, listen: SocketAddr) -> Self {
        let is_exposed = !listen.ip().to_canonical().is_loopback();
        Self { rules: Some(rules), is_required, is_exposed }
    }

    /// Admits every request.
    #[must_use]
    pub fn open() -> Self {
        Self::default()
    }
}

impl<S> Layer<S> for AuthenticateLayer {
    type Service = Authenticate<S>;

    fn layer(&self, inner: S) -> Authenticate<S> {
        Authenticate { inner, layer: self.clone() }
    }
}

/// Passes requests with valid credentials to the inner service, with their client as an extension.
#[derive(Clone, Debug)]
pub struct Authenticate<S> {
    inner: S,
    layer: AuthenticateLayer,
}

impl<S> Authenticate<S> {
    fn admit(
        &self,
        (authenticator, version): (&Authenticator, u64),
        request: &mut Request<Body>,
    ) -> Result<Option<RequestClient>, AuthRefusal> {
        let (peer, now) = (peer_of(request), Instant::now());
        let client = authenticator.authenticate(CredentialPlace::Proxy, request.headers(), peer, now)?;
        request.headers_mut().remove(header::PROXY_AUTHORIZATION);
        let extensions = request.extensions();
        let client = client
            .map(|proven| RequestClient { proven, version, shown_in: TokenPlace::Credentials })
            // The path of a route may have its token.
            .or_else(|| extensions.get().cloned());
        if client.is_none()
            && (self.layer.is_required || self.layer.is_exposed || extensions.get::<RemoteClient>().is_some())
            && extensions.get::<BehindRouteToken>().is_none()
        {
            return Err(AuthRefusal::Missing);
        }
        if let Some(client) = client.clone() {
            request.extensions_mut().insert(client);
        }
        Ok(client)
    }
}

impl<S> Service<Request<Body>> for Authenticate<S>
where
    S: RequestService<Infallible>,
    S::Future: Unpin,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = AuthenticateFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let rules = self.layer.rules.as_ref().map(CurrentRules::get);
        let known =
            rules.as_deref().and_then(|rules| Some((rules.authenticator.as_deref()?, rules.policy.version)));
        let Some(known) = known else {
            return AuthenticateFuture::Admitted { inner: self.inner.call(request), client: None };
        };
        match self.admit(known, &mut request) {
            Ok(client) => {
                AuthenticateFuture::Admitted { inner: self.inner.call(request), client: client.map(Box::new) }
            }
            Err(refusal) => AuthenticateFuture::Refused(Some(Box::new(
                refusal.response(CredentialPlace::Proxy, &request),
            ))),
        }
    }
}

/// The future of [`Authenticate`].
#[must_use = "futures do nothing unless polled"]
#[derive(Debug)]
pub enum AuthenticateFuture<F> {
    /// The inner service handles the request.
    Admitted {
        /// The future of the inner service.
        inner: F,
        /// The client, for the access log.
        client: Option<Box<RequestClient>>,
    },
    /// The request is refused.
    Refused(Option<Box<Response<Body>>>),
}

impl<F> Future for AuthenticateFuture<F>
where
    F: Future<Output = Result<Response<Body>, Infallible>> + Unpin,
{
    type Output = Result<Response<Body>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            Self::Admitted { inner, client } => {
                let Ok(mut response) = ready!(Pin::new(inner).poll(cx));
                if let Some(client) = client.take() {
                    response.extensions_mut().insert(*client);
                }
                Poll::Ready(Ok(response))
            }
            Self::Refused(response) => {
                response.take().map_or(Poll::Pending, |response| Poll::Ready(Ok(*response)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use base64::prelude::{BASE64_STANDARD, Engine as _};
    use sha2::{Digest as _, Sha256};
    use tower::service_fn;
    use tower::util::ServiceExt as _;

    use super::*;
    use crate::limits::Limits;
    use crate::protocol::Policy;
    use crate::protocol::policy::{ClientKind, KnownClients, LocalSpenders, ProxyClient};
    use crate::proxy::client_connection::ClientConnection;
    use crate::proxy::extensions::Arrival;
    use crate::proxy::rulebook::Rulebook;

    fn layer(is_required: bool) -> AuthenticateLayer {
        let client = |name: &str| {
            Arc::new(ProxyClient {
                name: name.to_owned(),
                kind: ClientKind::Any,
                rules: None,
                budgets: Vec::new(),
            })
        };
        let limits = Limits { auth_failures: 2, ..Limits::default() };
        let known = ["a", "b"].map(|name| (client(name), Sha256::digest(format!("token of {name}")).into()));
        let authenticator = Authenticator::new(Arc::new(KnownClients::new(known)), &limits);
        let rules = Rulebook::new(Arc::new(Policy::builder().build()), LocalSpenders::Any);
        let rules = Rulebook { authenticator: Some(Arc::new(authenticator)), ..rules };
        AuthenticateLayer::new(CurrentRules::new(rules), is_required, "127.0.0.1:1".parse().unwrap())
    }

    /// The status, and the client that the inner service sees.
    async fn ask(
        layer: &AuthenticateLayer,
        peer: &str,
        credentials: Option<&str>,
        is_remote: bool,
    ) -> (u16, Option<String>) {
        let inner = service_fn(|request: Request<Body>| {
            assert!(!request.headers().contains_key(header::PROXY_AUTHORIZATION));
            let client = request.extensions().get::<RequestClient>().cloned();
            let name = client.map(|client| client.name().to_owned());
            let response = Response::builder().header("x-client", name.as_deref().unwrap_or("none"));
            std::future::ready(Ok::<_, Infallible>(response.body(Body::Empty).unwrap()))
        });
        let mut request = Request::get("http://a.example/").body(Body::Empty).unwrap();
        let connection = Arc::new(ClientConnection::new(peer.parse().unwrap(), None));
        request.extensions_mut().insert(Arrival { connection, request: 1 });
        if let Some(pair) = credentials {
            let line = format!("Basic {}", BASE64_STANDARD.encode(pair));
            request.headers_mut().insert(header::PROXY_AUTHORIZATION, line.parse().unwrap());
        }
        if is_remote {
            request.extensions_mut().insert(RemoteClient);
        }
        let response = layer.layer(inner).oneshot(request).await.unwrap();
        let client = response.headers().get("x-client").map(|name| name.to_str().unwrap().to_owned());
        (response.status().as_u16(), client)
    }

    #[tokio::test]
    async fn remote_peers_need_a_token_even_on_a_port_that_does_not_require_it() {
        let layer = layer(false);
        for (credentials, is_remote, status, client) in [
            (None, false, 200, Some("none")),
            (None, true, 407, None),
            (Some("a:token of a"), false, 200, Some("a")),
            (Some("b:token of b"), true, 200, Some("b")),
            (Some("b:token of a"), true, 407, None),
        ] {
            let found = ask(&layer, "10.0.0.1:1", credentials, is_remote).await;
            assert_eq!(found, (status, client.map(str::to_owned)), "{credentials:?} {is_remote}");
        }
    }

    #[tokio::test]
    async fn wrong_attempts_are_slowed_down_by_address_and_lock_out_no_client() {
        let layer = layer(true);
        for status in [407, 407, 429, 429] {
            assert_eq!(ask(&layer, "10.0.0.1:1", Some("a:wrong"), true).await.0, status);
        }
        for (peer, credentials, status) in [
            ("10.0.0.1:2", "a:token of a", 200),
            ("10.0.0.1:2", "b:token of b", 200),
            ("10.0.0.1:2", "a:token of b", 429),
            ("10.0.0.1:2", "c:token of a", 429),
            ("10.0.0.2:1", "a:token of b", 407),
            ("10.0.0.2:1", "a:token of a", 200),
        ] {
            assert_eq!(ask(&layer, peer, Some(credentials), true).await.0, status, "{peer} {credentials}");
        }
    }

    #[test]
    fn no_token_is_shown() {
        let shown = format!("{:?}", layer(true));
        assert!(!shown.contains("token") && shown.contains("\"a\""), "{shown}");
    }
}
