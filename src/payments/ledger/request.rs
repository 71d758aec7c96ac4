//! The request that a payment is made for.

use std::sync::Arc;

use http::{Method, Uri};
use tokio::sync::OwnedSemaphorePermit;

use crate::payments::run_account::RunAccount;
use crate::protocol::budget::BudgetSet;
use crate::protocol::engine::{Occasion, PurchaseKey};
use crate::protocol::policy::{HostPattern, ProxyClient};

/// A client request that may be paid, as far as the report and the ledger show it.
#[derive(Clone, Debug)]
pub struct PaidRequest {
    /// Its method.
    pub method: Method,
    /// The host, with its port unless it is the scheme's default.
    pub host: Arc<str>,
    /// The path, without query. The ledger keeps what of it is not a token.
    pub path: Box<str>,
    /// Whether its URL has a query, which the ledger does not keep.
    pub has_query: bool,
    /// The client that sent it, if it has a name.
    pub client: Option<Arc<ProxyClient>>,
    /// The host pattern of the rule that allows the payment.
    pub rule: HostPattern,
    /// The budgets that the payment counts in.
    pub budgets: BudgetSet,
    /// The run whose program sent it.
    pub run: Option<Arc<RunAccount>>,
    /// The purchase, if later requests can continue it.
    pub key: Option<PurchaseKey>,
    /// Why a payment is wanted.
    pub(in crate::payments) occasion: Occasion,
    /// That of the client request, if it holds a payment already.
    pub(in crate::payments) permit: Option<Arc<OwnedSemaphorePermit>>,
}

impl PaidRequest {
    /// A request with this method and URL. It keeps a copy of what it needs of the URL, whose memory is the read buffer of a
    /// connection.
    #[must_use]
    pub fn new(
        (method, url): (Method, &Uri),
        (client, rule): (Option<Arc<ProxyClient>>, HostPattern),
        budgets: BudgetSet,
    ) -> Self {
        Self {
            method,
            host: host(url).into(),
            path: url.path().into(),
            has_query: url.query().is_some(),
            client,
            rule,
            budgets,
            run: None,
            key: None,
            occasion: Occasion::Asked,
            permit: None,
        }
    }

    /// The same for a purchase that later requests can continue.
    #[must_use]
    pub fn with_key(self, key: Option<PurchaseKey>) -> Self {
        Self { key, ..self }
    }

    /// The same before the seller has asked for a payment.
    #[must_use]
    pub fn ahead(self) -> Self {
        Self { occasion: Occasion::Ahead, ..self }
    }

    /// The same for a program of a run.
    #[must_use]
    pub fn of_run(self, run: Option<Arc<RunAccount>>) -> Self {
        Self { run, ..self }
    }
}

/// The length of a colon and a port, in bytes.
const LONGEST_PORT: usize = 6;

/// The host of a URL, with its port unless it is the scheme's default; without user name and password.
fn host(url: &Uri) -> String {
    let name = url.host().unwrap_or_default();
    let own = if url.scheme() == Some(&http::uri::Scheme::HTTPS) { 443 } else { 80 };
    let mut host = String::with_capacity(name.len() + LONGEST_PORT);
    host.push_str(name);
    host.make_ascii_lowercase();
    if let Some(port) = url.port_u16().filter(|port| *port != own) {
        host.push(':');
        host.push_str(&port.to_string());
    }
    host
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_neither_user_nor_default_port() {
        for (url, expected) in [
            ("http://a.example/x", "a.example"),
            ("http://me:hush@A.example:80/y", "a.example"),
            ("https://a.example:443/", "a.example"),
            ("https://a.example:80/", "a.example:80"),
            ("http://a.example:8080/", "a.example:8080"),
            ("http://[::1]:81/", "[::1]:81"),
        ] {
            assert_eq!(host(&url.parse().unwrap()), expected);
        }
    }
}
