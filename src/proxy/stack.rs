//! The layers that a request passes through. They are composed here and nowhere else.

use std::sync::Arc;

use tower::ServiceBuilder;

use super::access_log::{AccessLog, AccessLogLayer};
use super::authenticate::{Authenticate, AuthenticateLayer};
use super::error_response::{ErrorLayer, ErrorResponder};
use super::forward::Forward;
use super::frontend::{Frontend, FrontendLayer};
use super::intercept::{InterceptLayer, InterceptService};
use super::pay::{Pay, PayLayer};
use super::request_counts::RequestCounts;
use super::request_span::{RequestSpan, RequestSpanLayer};
use super::rulebook::CurrentRules;

/// What all ports of a proxy have in common on one worker.
#[derive(Clone, Debug)]
pub struct Stack {
    forward: Forward,
    pay: PayLayer,
    access_log: AccessLogLayer,
    intercept: InterceptLayer,
}

/// Handles requests to origins; requests inside an intercepted tunnel enter here.
type OriginService = RequestSpan<ErrorResponder<Pay<Forward>>>;

/// The service of the proxy's own port, and of the ports of runs.
pub type ProxyService = AccessLog<Frontend<Authenticate<InterceptService<OriginService>>>>;

/// The service of a port for routes.
pub type RouteService = AccessLog<Frontend<Authenticate<OriginService>>>;

impl Stack {
    /// Pays by `pay`, sends requests by `forward`, logs them by `access_log`, and reads the tunnels that `rules` name.
    #[must_use]
    pub fn new(forward: Forward, pay: PayLayer, access_log: AccessLogLayer, rules: CurrentRules) -> Self {
        let intercept = InterceptLayer::new(&forward, rules, access_log.clone().in_tunnel());
        Self { forward, pay, access_log, intercept }
    }

    /// The same for one of `count` workers, with connections of its own to origins; and with counters of its own, if
    /// requests are counted.
    #[must_use]
    pub fn for_worker(&self, index: usize, count: usize, counts: Option<Arc<RequestCounts>>) -> Self {
        let forward = self.forward.for_worker(index, count);
        let access_log = self.access_log.clone().counting(counts);
        let intercept = self.intercept.over(&forward, access_log.clone().in_tunnel());
        Self { forward, intercept, pay: self.pay.clone(), access_log }
    }

    /// The layers of a proxy port, outermost first.
    #[must_use]
    pub fn proxy(&self, frontend: FrontendLayer, authenticate: AuthenticateLayer) -> ProxyService {
        ServiceBuilder::new()
            // Logs each request once it has ended.
            .layer(self.access_log.clone())
            // Serves the set-up page, maps routes, upgrades http to https.
            .layer(frontend)
            // Refuses clients that do not authenticate. Requests inside tunnels belong to the client of the CONNECT.
            .layer(authenticate)
            // Serves the requests inside CONNECT tunnels with the layers below, and logs them.
            .layer(self.intercept.clone())
            .service(self.origin())
    }

    /// The layers of a port for routes, which takes no CONNECT.
    #[must_use]
    pub fn routes(&self, frontend: FrontendLayer, authenticate: AuthenticateLayer) -> RouteService {
        ServiceBuilder::new()
            .layer(self.access_log.clone())
            .layer(frontend)
            .layer(authenticate)
            .service(self.origin())
    }

    fn origin(&self) -> OriginService {
        ServiceBuilder::new()
            // The span of what the layers below log.
            .layer(RequestSpanLayer)
            // Rejects malformed requests; turns errors into responses.
            .layer(ErrorLayer)
            // Pays for a 402, or in advance.
            .layer(self.pay.clone())
            // Opens tunnels and sends requests to their origins.
            .service(self.forward.clone())
    }
}
