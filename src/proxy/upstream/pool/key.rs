//! The key by which the pool finds connections.

use std::hash::{Hash, Hasher};

use http::uri::Authority;

use crate::proxy::downstream::client_io::ConnectionId;
use crate::proxy::message::target::hash_caseless;
use crate::proxy::upstream::egress::Reach;

/// What a pooled connection can be used for: the origin, the requests that may reach its address, and the client if the
/// connection is bound to one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PoolKey {
    pub(super) is_secure: bool,
    pub(super) authority: Authority,
    /// The reach of the requests: the address was checked for it when the connection was opened.
    pub(super) reach: Reach,
    /// The only client that may use it, because the origin authenticates the connection and not its requests.
    pub(super) client: Option<ConnectionId>,
}

impl Hash for PoolKey {
    /// Ignores case, as comparing authorities does. Their own hash takes one byte at a time.
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.is_secure.hash(state);
        self.reach.hash(state);
        hash_caseless(self.authority.as_str(), state);
        self.client.hash(state);
    }
}
