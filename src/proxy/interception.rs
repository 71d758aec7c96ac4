//! Which tunnels are intercepted, and the certificates for them.

use std::sync::Arc;

use crate::protocol::policy::Hosts;
use crate::tls::Leaves;

/// The hosts to intercept, and the certificates for them.
#[derive(Debug)]
pub struct Interception {
    /// The hosts whose tunnels are read.
    pub hosts: Hosts,
    /// The certificates to present instead of theirs.
    pub leaves: Arc<Leaves>,
}
