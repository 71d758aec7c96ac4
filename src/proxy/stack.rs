//! The layers that a request passes through. They are composed here and nowhere else.

use tower::ServiceBuilder;

use super::error_response::{ErrorLayer, ErrorResponder};
use super::forward::Forward;
use super::frontend::{Frontend, FrontendLayer};
use super::intercept::{InterceptLayer, InterceptService, Interception};
use super::pay::{Pay, PayLayer};

/// What all ports of a proxy have in common.
#[derive(Clone, Debug)]
pub struct Stack {
    forward: Forward,
    pay: PayLayer,
}

/// Handles requests to origins; requests inside an intercepted tunnel enter here.
type OriginService = ErrorResponder<Pay<Forward>>;

/// The service of the proxy's own port.
pub type ProxyService = Frontend<InterceptService<OriginService>>;

/// The service of a port for routes.
pub type RouteService = Frontend<OriginService>;

impl Stack {
    /// Pays by `pay` and sends requests by `forward`.
    #[must_use]
    pub fn new(forward: Forward, pay: PayLayer) -> Self {
        Self { forward, pay }
    }

    /// The layers of the proxy's own port, outermost first.
    #[must_use]
    pub fn proxy(&self, frontend: FrontendLayer, interception: Option<Interception>) -> ProxyService {
        ServiceBuilder::new()
            // Serves the set-up page, maps routes, upgrades http to https.
            .layer(frontend)
            // Serves the requests inside CONNECT tunnels with the layers below.
            .layer(InterceptLayer::new(&self.forward, interception))
            .service(self.origin())
    }

    /// The layers of a port for routes, which takes no CONNECT.
    #[must_use]
    pub fn routes(&self, frontend: FrontendLayer) -> RouteService {
        ServiceBuilder::new().layer(frontend).service(self.origin())
    }

    fn origin(&self) -> OriginService {
        ServiceBuilder::new()
            // Rejects malformed requests; turns errors into responses.
            .layer(ErrorLayer)
            // Pays for a 402, or in advance.
            .layer(self.pay.clone())
            // Opens tunnels and sends requests to their origins.
            .service(self.forward.clone())
    }
}
