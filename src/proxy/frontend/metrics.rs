//! `/metrics`, for those who may know which hosts are paid, and how much.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::header::HeaderValue;
use http::{Request, Response, StatusCode};

use super::page;
use crate::proxy::Body;
use crate::proxy::rulebook::CurrentRules;

/// The path of the metrics.
pub(super) const PATH: &str = "/metrics";

/// Writes the metrics.
pub trait MetricsSource: Send + Sync {
    /// The text as of now, and its type.
    fn read(&self) -> BoxFuture<'static, (HeaderValue, Bytes)>;
}

/// The metrics on one port.
#[derive(Clone)]
pub struct MetricsEndpoint {
    source: Arc<dyn MetricsSource>,
    access: MetricsAccess,
}

/// Who gets the metrics.
#[derive(Clone, Debug)]
enum MetricsAccess {
    /// Those who can connect to a port that has nothing else.
    All,
    /// Clients with their token.
    Clients(CurrentRules),
}

impl MetricsEndpoint {
    /// For those who can connect.
    #[must_use]
    pub fn open(source: Arc<dyn MetricsSource>) -> Self {
        Self { source, access: MetricsAccess::All }
    }

    /// For the clients that `rules` know.
    #[must_use]
    pub fn for_clients(source: Arc<dyn MetricsSource>, rules: CurrentRules) -> Self {
        Self { source, access: MetricsAccess::Clients(rules) }
    }

    /// The response to a request, which may read them with `GET`.
    pub(super) fn answer(&self, request: &Request<Body>) -> BoxFuture<'static, Response<Body>> {
        let refused = match &self.access {
            _ if !page::is_read(request.method()) => Some(page::read_only(request.method())),
            MetricsAccess::All => None,
            MetricsAccess::Clients(rules) => match &rules.get().authenticator {
                Some(authenticator) => authenticator.refuse_reader(request),
                // There is no token that could tell who may get them.
                None => Some(page::plain(
                    StatusCode::FORBIDDEN,
                    "The metrics name hosts and amounts: they need the name and token of a [[client]], or metrics_listen.\n",
                )),
            },
        };
        if let Some(refused) = refused {
            return Box::pin(std::future::ready(refused));
        }
        let reading = self.source.read();
        Box::pin(async move {
            let (kind, text) = reading.await;
            page::with(StatusCode::OK, kind, Body::full(text))
        })
    }
}

impl fmt::Debug for MetricsEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MetricsEndpoint").field(&self.access).finish()
    }
}
