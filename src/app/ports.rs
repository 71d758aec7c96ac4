//! The ports of a proxy: its own, and those of routes with their own port.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use futures_util::future::join_all;
use tokio::net::TcpListener;

use super::error::StartError;
use crate::config;
use crate::config::Config;
use crate::proxy;
use crate::proxy::authenticate::{AuthenticateLayer, Authenticator};
use crate::proxy::frontend::{CaFiles, FrontendLayer, Page, ReverseRoute, RouteToken};
use crate::proxy::intercept::Interception;
use crate::proxy::stack::Stack;
use crate::shutdown::Shutdown;
use crate::tls;

/// Ports that are bound but not served yet.
pub(super) struct Ports {
    listener: TcpListener,
    address: SocketAddr,
    routes: Vec<RoutePort>,
    since: SystemTime,
}

/// A port that serves routes only.
struct RoutePort {
    listener: TcpListener,
    address: SocketAddr,
    routes: Vec<config::RouteConfig>,
}

/// What the ports serve.
pub(super) struct Served<'a> {
    pub config: &'a Config,
    pub settings: proxy::ProxySettings,
    pub interception: Option<Interception>,
    /// Whether there is a wallet.
    pub pays: bool,
    /// The token that protects the routes of a proxy that pays or has clients.
    pub token: Option<RouteToken>,
    /// Knows the clients, if there are any.
    pub authenticator: Option<Arc<Authenticator>>,
}

impl Ports {
    /// Binds all ports.
    pub(super) async fn bind(config: &Config) -> Result<Self, StartError> {
        let failed = |source| StartError::Listen { address: config.listen, source };
        let listener = TcpListener::bind(config.listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let routes = route_ports(&config.routes).await?;
        Ok(Self { listener, address, routes, since: SystemTime::now() })
    }

    /// The address of the proxy's own port.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The addresses of routes with their own port, in the order of the configuration.
    pub(super) fn route_addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.routes.iter().map(|port| port.address)
    }

    /// Serves all ports with the layers of `stack` until the shutdown begins.
    pub(super) async fn serve(self, stack: &Stack, served: Served<'_>, shutdown: &Shutdown) {
        let Self { listener, address, routes, since } = self;
        let Served { config, settings, interception, pays, token, authenticator } = served;
        let page = Page { ca: interception.as_ref().map(ca_files), pays, since };
        let upgrade = &config.upstream.upgrade;
        let own = config.routes.iter().filter(|route| route.listen.is_none()).map(mapped).collect();
        let token = |listen| Some(token.clone()?.required(config.needs_client(listen)));
        let frontend = FrontendLayer::proxy(address, page, own, token(address), upgrade.clone());
        let authenticate =
            |listen: SocketAddr| AuthenticateLayer::new(authenticator.clone(), config.needs_client(listen));
        let service = stack.proxy(frontend, authenticate(address), interception);
        let main = proxy::serve(listener, service, settings.clone(), shutdown.clone());
        let others = routes.into_iter().map(|port| {
            let routes = port.routes.iter().map(mapped).collect();
            let frontend = FrontendLayer::routes(port.address, routes, token(port.address), upgrade.clone());
            let service = stack.routes(frontend, authenticate(port.address));
            proxy::serve(port.listener, service, settings.clone(), shutdown.clone())
        });
        tokio::join!(main, join_all(others));
    }
}

/// Binds the routes' own ports; routes with the same address share one.
async fn route_ports(routes: &[config::RouteConfig]) -> Result<Vec<RoutePort>, StartError> {
    let mut ports: Vec<(SocketAddr, RoutePort)> = Vec::new();
    for route in routes {
        let Some(listen) = route.listen else { continue };
        if let Some((_, port)) = ports.iter_mut().find(|(taken, _)| *taken == listen) {
            port.routes.push(route.clone());
            continue;
        }
        let origin = || format!("{}://{}", route.scheme, route.authority);
        let failed = |source| StartError::RouteListen { address: listen, origin: origin(), source };
        let listener = TcpListener::bind(listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        tracing::info!(%address, origin = origin(), "listening for a route");
        ports.push((listen, RoutePort { listener, address, routes: vec![route.clone()] }));
    }
    Ok(ports.into_iter().map(|(_, port)| port).collect())
}

/// Converts a route of the configuration for the proxy.
fn mapped(route: &config::RouteConfig) -> ReverseRoute {
    let config::RouteConfig { prefix, scheme, authority, base, listen: _, client } = route.clone();
    ReverseRoute { prefix, scheme, authority, base, client }
}

/// The certificate that clients must trust for intercepted hosts.
fn ca_files(interception: &Interception) -> CaFiles {
    let certificate = interception.leaves.authority().certificate();
    CaFiles { pem: tls::pem(certificate).into(), der: certificate.to_vec().into() }
}
