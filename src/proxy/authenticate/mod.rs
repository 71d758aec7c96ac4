//! Proxy authentication with the name and token of a `[[client]]`. RFC 9110 section 11.7, RFC 7617.
//!
//! The credentials end here: no layer below sees them, and no log or error shows them.

mod credentials;
mod failures;

use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Request, Response, StatusCode};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use tower::{Layer, Service};

use self::credentials::Credentials;
use self::failures::FailedAttempts;
use super::error_response;
use super::error_response::seconds;
use super::extensions::{Arrival, BehindRouteToken, RemoteClient, RequestClient};
use super::message::body::Body;
use super::message::expect;
use super::request_service::RequestService;
use crate::limits::Limits;
use crate::protocol::ReasonCode;
use crate::protocol::policy::ProxyClient;

const CHALLENGE: HeaderValue = HeaderValue::from_static("Basic realm=\"tollpass\"");

/// Knows the clients of the proxy and their tokens; all ports share it.
pub struct Authenticator {
    clients: HashMap<String, KnownClient>,
    failures: FailedAttempts,
}

struct KnownClient {
    client: Arc<ProxyClient>,
    /// The SHA-256 of its token: comparing digests reveals neither the token nor its length.
    digest: [u8; 32],
}

impl Authenticator {
    /// Knows these clients, each with its token.
    pub fn new<'a>(clients: impl IntoIterator<Item = (Arc<ProxyClient>, &'a [u8])>, limits: &Limits) -> Self {
        let clients = clients.into_iter().map(|(client, token)| {
            let digest = Sha256::digest(token).into();
            (client.name.clone(), KnownClient { client, digest })
        });
        Self { clients: clients.collect(), failures: FailedAttempts::new(limits) }
    }

    /// The response to a request that addresses the proxy as a server, unless it has the name and token of a client in
    /// `Authorization`.
    pub(super) fn refuse_reader(&self, request: &Request<Body>) -> Option<Response<Body>> {
        let place = CredentialPlace::Server;
        let refusal = match self.authenticate(place, request.headers(), peer_of(request), Instant::now()) {
            Ok(Some(_)) => return None,
            Ok(None) => AuthRefusal::Missing,
            Err(refusal) => refusal,
        };
        Some(refusal.response(place, request))
    }

    /// The client of a request; `None` if it has no credentials.
    fn authenticate(
        &self,
        place: CredentialPlace,
        headers: &HeaderMap,
        peer: IpAddr,
        now: Instant,
    ) -> Result<Option<&Arc<ProxyClient>>, AuthRefusal> {
        let mut lines = headers.get_all(place.credentials()).iter();
        let Some(line) = lines.next() else { return Ok(None) };
        let credentials = if lines.next().is_some() { None } else { Credentials::parse(line) };
        if let Some(client) = credentials.as_ref().and_then(|credentials| self.find(credentials)) {
            // Even if others at its address, such as another user of this machine, have guessed too often.
            return Ok(Some(client));
        }
        if let Some(wait) = self.failures.wait(peer, now) {
            return Err(AuthRefusal::TooManyFailures { wait });
        }
        if self.failures.count(peer, now) {
            tracing::warn!(%peer, "too many attempts with a wrong name or token; answering more with a 429 (limits.auth_failures)");
        }
        Err(AuthRefusal::Wrong)
    }

    fn find(&self, credentials: &Credentials) -> Option<&Arc<ProxyClient>> {
        let digest: [u8; 32] = Sha256::digest(credentials.token()).into();
        let known = self.clients.get(credentials.name())?;
        bool::from(known.digest.ct_eq(&digest)).then_some(&known.client)
    }
}

impl fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.clients.keys()).finish()
    }
}

/// Whose credentials a request has.
#[derive(Clone, Copy, Debug)]
enum CredentialPlace {
    /// Those for a proxy.
    Proxy,
    /// Those for a server, which the proxy is to a client that asks for one of its own pages.
    Server,
}

impl CredentialPlace {
    fn credentials(self) -> HeaderName {
        match self {
            Self::Proxy => header::PROXY_AUTHORIZATION,
            Self::Server => header::AUTHORIZATION,
        }
    }

    /// The status and the header that ask for them.
    fn challenge(self) -> (StatusCode, HeaderName) {
        match self {
            Self::Proxy => (StatusCode::PROXY_AUTHENTICATION_REQUIRED, header::PROXY_AUTHENTICATE),
            Self::Server => (StatusCode::UNAUTHORIZED, header::WWW_AUTHENTICATE),
        }
    }
}

/// The address that a request comes from.
fn peer_of(request: &Request<Body>) -> IpAddr {
    let peer = request.extensions().get::<Arrival>().map(|arrival| arrival.client().ip());
    peer.unwrap_or(Ipv4Addr::UNSPECIFIED.into())
}

/// Why a request may not use the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum AuthRefusal {
    #[error(
        "this proxy requires authentication: put NAME:TOKEN@ before the host in its URL, with the name and token of a \
         [[client]]"
    )]
    Missing,
    #[error("no [[client]] of this proxy has this name and token")]
    Wrong,
    #[error(
        "too many attempts with a wrong name or token from this address; retry in {} s, or raise limits.auth_failures",
        seconds(*wait)
    )]
    TooManyFailures { wait: Duration },
}

impl AuthRefusal {
    fn response(self, place: CredentialPlace, request: &Request<Body>) -> Response<Body> {
        let (required, challenge) = place.challenge();
        let status = match self {
            Self::Missing | Self::Wrong => required,
            Self::TooManyFailures { .. } => StatusCode::TOO_MANY_REQUESTS,
        };
        let reason = match self {
            Self::Missing => ReasonCode::TokenRequired,
            Self::Wrong => ReasonCode::WrongToken,
            Self::TooManyFailures { .. } => ReasonCode::TooManyAttempts,
        };
        let mut response =
            error_response::problem(status, Some("http_request_denied"), reason, &self.to_string());
        let headers = response.headers_mut();
        match self {
            Self::Missing | Self::Wrong => {
                headers.insert(challenge, CHALLENGE);
            }
            Self::TooManyFailures { wait } => {
                headers.insert(header::RETRY_AFTER, seconds(wait).into());
            }
        }
        // After too many failures, each attempt costs a connection. With Expect, the client may or may not send its body,
        // so the next bytes are ambiguous.
        if matches!(self, Self::TooManyFailures { .. }) || expect::is_expected(request) {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

/// The layer of [`Authenticate`], for one port.
#[derive(Clone, Debug)]
pub struct AuthenticateLayer {
    authenticator: Option<Arc<Authenticator>>,
    is_required: bool,
}

impl AuthenticateLayer {
    /// Admits every request without credentials unless `is_required` is true or its peer is remote. Without an
    /// authenticator, every request passes unchanged.
    #[must_use]
    pub fn new(authenticator: Option<Arc<Authenticator>>, is_required: bool) -> Self {
        Self { authenticator, is_required }
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
        authenticator: &Authenticator,
        request: &mut Request<Body>,
    ) -> Result<Option<RequestClient>, AuthRefusal> {
        let (peer, now) = (peer_of(request), Instant::now());
        let client =
            authenticator.authenticate(CredentialPlace::Proxy, request.headers(), peer, now)?.cloned();
        request.headers_mut().remove(header::PROXY_AUTHORIZATION);
        let extensions = request.extensions();
        let client = client
            .map(|client| RequestClient { client, has_credentials: true })
            // A route may belong to a client.
            .or_else(|| extensions.get().cloned());
        if client.is_none()
            && (self.layer.is_required || extensions.get::<RemoteClient>().is_some())
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
        let Some(authenticator) = self.layer.authenticator.as_deref() else {
            return AuthenticateFuture::Admitted { inner: self.inner.call(request), client: None };
        };
        match self.admit(authenticator, &mut request) {
            Ok(client) => AuthenticateFuture::Admitted { inner: self.inner.call(request), client },
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
        client: Option<RequestClient>,
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
                    response.extensions_mut().insert(client);
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
    use base64::prelude::{BASE64_STANDARD, Engine as _};
    use tower::service_fn;
    use tower::util::ServiceExt as _;

    use super::*;
    use crate::protocol::policy::ClientKind;
    use crate::proxy::client_connection::ClientConnection;

    fn authenticator() -> Arc<Authenticator> {
        let client = |name: &str| {
            Arc::new(ProxyClient {
                name: name.to_owned(),
                kind: ClientKind::Any,
                rules: None,
                budgets: Vec::new(),
            })
        };
        let limits = Limits { auth_failures: 2, ..Limits::default() };
        let clients = [(client("a"), b"token of a".as_slice()), (client("b"), b"token of b".as_slice())];
        Arc::new(Authenticator::new(clients, &limits))
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
        let layer = AuthenticateLayer::new(Some(authenticator()), false);
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
        let layer = AuthenticateLayer::new(Some(authenticator()), true);
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
        let shown = format!("{:?}", AuthenticateLayer::new(Some(authenticator()), true));
        assert!(!shown.contains("token") && shown.contains("\"a\""), "{shown}");
    }
}
