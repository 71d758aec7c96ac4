//! The key by which the pool finds connections.

use std::hash::{Hash, Hasher};

use http::uri::Authority;

use crate::proxy::downstream::client_io::ConnectionId;
use crate::proxy::message::target::hash_caseless;

/// What a pooled connection can be used for: the origin, and the client if the connection is bound to one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PoolKey {
    pub(super) is_secure: bool,
    pub(super) authority: Authority,
    /// The only client that may use it, because the origin authenticates the connection and not its requests.
    pub(super) client: Option<ConnectionId>,
}

impl Hash for PoolKey {
    /// Ignores case, as comparing authorities does. Their own hash takes one byte at a time.
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.is_secure.hash(state);
        hash_caseless(self.authority.as_str(), state);
        self.client.hash(state);
    }
}
