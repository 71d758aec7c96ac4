//! The request that a payment is made for.

use std::sync::Arc;

use http::{Method, Uri};

use crate::protocol::policy::{HostPattern, ProxyClient};

/// A client request that may be paid, as far as the report and the ledger show it.
#[derive(Clone, Debug)]
pub struct PaidRequest {
    /// Its method.
    pub method: Method,
    /// Its URL. Of its path, the ledger keeps what is not a token, and it keeps no query.
    pub url: Uri,
    /// The client that sent it, if it has a name.
    pub client: Option<Arc<ProxyClient>>,
    /// The host pattern of the rule that allows the payment.
    pub rule: HostPattern,
    /// The names of the budgets that the payment counts in.
    pub budgets: Vec<Arc<str>>,
}
