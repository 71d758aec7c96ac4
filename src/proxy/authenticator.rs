//! Recognizes clients by the name and token of a `[[client]]`, as Basic credentials. RFC 9110 section 11.7, RFC 7617.

mod credentials;
mod failures;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Request, Response, StatusCode};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use self::credentials::Credentials;
use self::failures::FailedAttempts;
use super::error_response;
use super::error_response::seconds;
use super::extensions::Arrival;
use super::message::body::Body;
use super::message::expect;
use crate::limits::Limits;
use crate::protocol::ReasonCode;
use crate::protocol::policy::{KnownClients, ProvenClient, TokenDigest};

const CHALLENGE: HeaderValue = HeaderValue::from_static("Basic realm=\"tollpass\"");

/// Knows the clients of the proxy and their tokens; all ports share it.
pub struct Authenticator {
    clients: Arc<KnownClients>,
    failures: Arc<FailedAttempts>,
}

impl Authenticator {
    /// Knows these clients.
    #[must_use]
    pub fn new(clients: Arc<KnownClients>, limits: &Limits) -> Self {
        Self { clients, failures: Arc::new(FailedAttempts::new(limits)) }
    }

    /// Knows these clients instead, and still counts the attempts of those who guess.
    #[must_use]
    pub fn with_clients(&self, clients: Arc<KnownClients>) -> Self {
        Self { clients, failures: Arc::clone(&self.failures) }
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
    pub(super) fn authenticate(
        &self,
        place: CredentialPlace,
        headers: &HeaderMap,
        peer: IpAddr,
        now: Instant,
    ) -> Result<Option<ProvenClient>, AuthRefusal> {
        let mut lines = headers.get_all(place.credentials()).iter();
        let Some(line) = lines.next() else { return Ok(None) };
        let credentials = if lines.next().is_some() { None } else { Credentials::parse(line) };
        if let Some(client) = credentials.as_ref().and_then(|credentials| self.find(credentials)) {
            // Even if others at its address, such as another user of this machine, have guessed too often.
            return Ok(Some(client));
        }
        Err(self.fail(peer, now))
    }

    /// The client whose token this is.
    pub(super) fn client_with(&self, token: &[u8]) -> Option<ProvenClient> {
        let digest: TokenDigest = Sha256::digest(token).into();
        let client = Arc::clone(self.clients.with_token(&digest)?);
        Some(ProvenClient { client, digest })
    }

    /// Counts a wrong name or token.
    pub(super) fn fail(&self, peer: IpAddr, now: Instant) -> AuthRefusal {
        if let Some(wait) = self.failures.wait(peer, now) {
            return AuthRefusal::TooManyFailures { wait };
        }
        if self.failures.count(peer, now) {
            tracing::warn!(%peer, "too many attempts with a wrong name or token; answering more with a 429 (limits.auth_failures)");
        }
        AuthRefusal::Wrong
    }

    fn find(&self, credentials: &Credentials) -> Option<ProvenClient> {
        let shown: TokenDigest = Sha256::digest(credentials.token()).into();
        let (client, digest) = self.clients.named(credentials.name())?;
        let is_right = bool::from(digest.ct_eq(&shown));
        is_right.then(|| ProvenClient { client: Arc::clone(client), digest: shown })
    }
}

impl fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.clients.fmt(f)
    }
}

/// Whose credentials a request has.
#[derive(Clone, Copy, Debug)]
pub(super) enum CredentialPlace {
    /// Those for a proxy.
    Proxy,
    /// Those for a server, which the proxy is to a client that asks for one of its own pages.
    Server,
}

impl CredentialPlace {
    pub(super) fn credentials(self) -> HeaderName {
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
pub(super) fn peer_of(request: &Request<Body>) -> IpAddr {
    let peer = request.extensions().get::<Arrival>().map(|arrival| arrival.client().ip());
    peer.unwrap_or(Ipv4Addr::UNSPECIFIED.into())
}

/// Why a request may not use the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum AuthRefusal {
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
    pub(super) fn response(self, place: CredentialPlace, request: &Request<Body>) -> Response<Body> {
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
