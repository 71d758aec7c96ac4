//! Extensions of requests and responses that pass information between layers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::Uri;
use http::uri::Authority;

use super::client_connection::ClientConnection;
use crate::protocol::Policy;
use crate::protocol::policy::{ProvenClient, ProxyClient};

/// The request carries a payment: nothing below sends it twice, unless the origin states that it did not process it.
#[derive(Clone, Copy, Debug)]
pub struct CarriesPayment;

/// The request carries a payment that may be sent unencrypted to this machine only.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LoopbackOnly;

/// Who sent a request, and its number in this process.
#[derive(Clone, Debug)]
pub(crate) struct Arrival {
    pub(crate) connection: Arc<ClientConnection>,
    pub(crate) request: u64,
}

impl Arrival {
    /// The arrival of the next request on the same connection.
    pub(crate) fn next(&self) -> Self {
        static REQUESTS: AtomicU64 = AtomicU64::new(0);
        let request = REQUESTS.fetch_add(1, Ordering::Relaxed) + 1;
        Self { connection: Arc::clone(&self.connection), request }
    }

    /// The address of the client.
    pub(crate) fn client(&self) -> SocketAddr {
        self.connection.client
    }

    /// Whether the client is on another machine.
    pub(crate) fn is_remote(&self) -> bool {
        !self.client().ip().to_canonical().is_loopback()
    }
}

/// In a response: the URL to which the request was sent instead of the one that the client wrote.
#[derive(Clone, Debug)]
pub(crate) struct MappedUrl(pub(crate) Uri);

/// The authenticated client of a request and, for the access log, of its response.
#[derive(Clone, Debug)]
pub struct RequestClient {
    /// The request, or the `CONNECT` of its tunnel, has proven that.
    pub(crate) proven: ProvenClient,
    /// The version of the policy then.
    pub(crate) version: u64,
    /// Where it has its token.
    pub(crate) shown_in: TokenPlace,
}

impl RequestClient {
    /// Its name in logs.
    pub(crate) fn name(&self) -> &str {
        &self.proven.client.name
    }

    /// Whether the request, or the `CONNECT` of its tunnel, had the client's credentials, which no page can add.
    pub(crate) fn has_credentials(&self) -> bool {
        self.shown_in == TokenPlace::Credentials
    }

    /// The client as the policy has it by now; `None` if it was removed, or has another token.
    pub(crate) fn by_now<'a>(&'a self, policy: &'a Policy) -> Option<&'a Arc<ProxyClient>> {
        if self.version == policy.version {
            Some(&self.proven.client)
        } else {
            policy.clients.still(&self.proven)
        }
    }
}

/// Where a request has the token of its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenPlace {
    /// In `Proxy-Authorization`.
    Credentials,
    /// In the path of a route, which the pages behind it know, too.
    Path,
}

/// The target of a `TRACE` as its client knows it, without a token: a route has hidden the path at the origin since.
#[derive(Clone, Debug)]
pub(crate) struct TracedTarget(pub(crate) String);

/// The request came through a route, with the token that replaces proxy authentication there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BehindRouteToken;

/// The client is on another machine: unencrypted data can be read on the network, and only public and allowed addresses
/// are in its reach.
#[derive(Clone, Copy, Debug)]
pub struct RemoteClient;

/// The client is on this machine, and only public and allowed addresses are in its reach nevertheless.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Confined;

/// The client requested another target, which has changed since.
#[derive(Clone, Debug)]
pub struct RequestedAuthority {
    /// The authority, if it named one.
    pub authority: Option<Authority>,
    /// Whether the client used https.
    pub is_tls: bool,
}
