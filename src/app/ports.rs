//! The ports of a proxy: its own, those of routes with their own port, and those of `tollpass run`.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::future::join_all;
use tokio::sync::mpsc;

use super::certificate::{server_tls, warn_of_trouble, watch_certificate};
use super::error::StartError;
use super::interception::SharedCa;
use crate::admin::{RunOrder, RunPort, RunRefused, RunRequest};
use crate::config;
use crate::config::{AuthRequirement, Config};
use crate::payments::{Payments, RunAccount, RunPlace, RunTerms};
use crate::proxy;
use crate::proxy::Acceptor;
use crate::proxy::authenticate::AuthenticateLayer;
use crate::proxy::frontend::{
    DashboardEndpoint, FrontendLayer, MetricsEndpoint, MetricsSource, Page, Readiness, ReverseRoute,
    RouteToken,
};
use crate::proxy::rulebook::CurrentRules;
use crate::proxy::stack::{ProxyService, Stack};
use crate::shutdown::Shutdown;
use crate::tls::ServerTls;
use crate::workers::Workers;

/// Ports that are bound but not served yet.
pub(super) struct Ports {
    acceptor: Acceptor,
    /// The certificate, if any port speaks TLS.
    tls: Option<ServerTls>,
    routes: Vec<RoutePort>,
    /// The port for metrics only.
    metrics: Option<Acceptor>,
    since: SystemTime,
}

/// A port that serves routes only.
struct RoutePort {
    acceptor: Acceptor,
    is_tls: bool,
    routes: Vec<config::RouteConfig>,
}

/// What the ports serve.
pub(super) struct Served<'a> {
    pub config: &'a Config,
    pub stacks: Workers<Stack>,
    pub settings: proxy::ProxySettings,
    /// The CA of intercepted tunnels.
    pub ca: SharedCa,
    /// Whether there is a wallet.
    pub pays: bool,
    /// The token that protects the routes of a proxy that pays or has clients.
    pub token: Option<RouteToken>,
    /// Whether it can pay what its rules promise.
    pub readiness: Readiness,
    /// What it has counted and measured.
    pub metrics: Arc<dyn MetricsSource>,
    /// The rules, which a reload replaces.
    pub rules: CurrentRules,
    /// The dashboard of a proxy that pays, on its own port only: programs of runs operate nothing.
    pub dashboard: Option<DashboardEndpoint>,
}

/// Orders of ports for runs, and the service that pays for them.
pub(super) struct RunOrders {
    pub orders: mpsc::Receiver<RunOrder>,
    pub payments: Payments,
}

impl Served<'_> {
    fn authenticate(&self, listen: SocketAddr) -> AuthenticateLayer {
        AuthenticateLayer::new(self.rules.clone(), self.config.auth == AuthRequirement::Required, listen)
    }

    fn token(&self, listen: SocketAddr) -> Option<RouteToken> {
        Some(self.token.clone()?.required(self.config.needs_client(listen)))
    }

    /// The settings of a port that speaks TLS, if there is `tls`.
    fn settings(&self, tls: Option<&ServerTls>) -> proxy::ProxySettings {
        proxy::ProxySettings { server_tls: tls.cloned(), ..self.settings.clone() }
    }

    /// The service of a proxy port at this address.
    fn proxy(
        &self,
        listen: SocketAddr,
        (tls, dashboard): (Option<&ServerTls>, Option<DashboardEndpoint>),
        since: SystemTime,
    ) -> Workers<ProxyService> {
        let page = Page { ca: None, pays: self.pays, since };
        let routes = self.config.routes.iter().filter(|route| route.listen.is_none()).map(mapped).collect();
        let upgrade = self.config.upstream.upgrade.clone();
        let frontend = FrontendLayer::proxy(listen, page, routes, self.token(listen), upgrade);
        let frontend = frontend.with_clients(self.rules.clone());
        let frontend = frontend.with_tls(tls.cloned()).with_names(Arc::clone(&self.config.names));
        let metrics = MetricsEndpoint::for_clients(Arc::clone(&self.metrics), self.rules.clone());
        let frontend = frontend.with_readiness(self.readiness.clone()).with_metrics(metrics);
        let frontend = frontend.with_ca(Arc::clone(&self.ca.files)).with_dashboard(dashboard);
        let authenticate = self.authenticate(listen);
        self.stacks.map(|stack| stack.proxy(frontend.clone(), authenticate.clone()))
    }

    /// Opens ports for runs until the shutdown begins.
    async fn runs(&self, orders: Option<RunOrders>, since: SystemTime, shutdown: &Shutdown) {
        let Some(RunOrders { mut orders, payments }) = orders else { return };
        loop {
            let order = tokio::select! {
                biased;
                () = shutdown.stopping() => return,
                order = orders.recv() => order,
            };
            let Some(RunOrder { request, root, parent, reply }) = order else { return };
            let port = self.run((request, root, parent), &payments, since, shutdown).await;
            // If the run has ended meanwhile, its port closes as it is dropped.
            let _ = reply.send(port);
        }
    }

    /// Opens a port for one run.
    async fn run(
        &self,
        (request, root, parent): (RunRequest, Option<i32>, Option<Arc<RunAccount>>),
        payments: &Payments,
        since: SystemTime,
        shutdown: &Shutdown,
    ) -> Result<RunPort, RunRefused> {
        let assets = payments.approvals().assets();
        let has_chain = self.config.chain.is_some();
        let budget = request.budget.map(|text| Config::run_budget(&text, &assets, has_chain)).transpose();
        let budget = budget.map_err(RunRefused::Budget)?;
        let is_confined = request.is_confined;
        let terms = RunTerms { budget, lasts: request.lasts_ms.map(Duration::from_millis) };
        let acceptor = Acceptor::bind((Ipv4Addr::LOCALHOST, 0).into()).await?;
        let (address, shutdown) = (acceptor.address(), shutdown.part());
        let account = payments.open_run(terms, RunPlace { parent, root, port: address });
        let settings =
            proxy::ProxySettings { run: Some(Arc::clone(&account)), is_confined, ..self.settings.clone() };
        let service = self.proxy(address, (None, None), since);
        shutdown.spawn_watchful(proxy::serve(acceptor, service, settings, shutdown.clone()));
        Ok(RunPort { account, shutdown })
    }
}

impl Ports {
    /// Loads the certificate, if any port speaks TLS, and binds all ports.
    pub(super) async fn bind(config: &Config) -> Result<Self, StartError> {
        let tls = server_tls(config)?;
        let failed = |source| StartError::Listen { address: config.listen, source };
        let acceptor = Acceptor::bind(config.listen).await.map_err(failed)?;
        let routes = route_ports(&config.routes).await?;
        let metrics = match config.metrics_listen {
            Some(address) => {
                let failed = |source| StartError::MetricsListen { address, source };
                let acceptor = Acceptor::bind(address).await.map_err(failed)?;
                tracing::info!(address = %acceptor.address(), "listening for metrics");
                Some(acceptor)
            }
            None => None,
        };
        Ok(Self { acceptor, tls, routes, metrics, since: SystemTime::now() })
    }

    /// The certificate of the proxy's own port, if that speaks TLS.
    pub(super) fn main_tls(&self, config: &Config) -> Option<&ServerTls> {
        self.tls.as_ref().filter(|_| config.is_tls)
    }

    /// The address of the proxy's own port.
    pub(super) fn address(&self) -> SocketAddr {
        self.acceptor.address()
    }

    /// The addresses of routes with their own port, in the order of the configuration.
    pub(super) fn route_addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.routes.iter().map(|port| port.acceptor.address())
    }

    /// Serves all ports until the shutdown begins.
    pub(super) async fn serve(self, served: Served<'_>, orders: Option<RunOrders>, shutdown: &Shutdown) {
        let main_tls = self.main_tls(served.config).cloned();
        let main_tls = main_tls.as_ref();
        let Self { acceptor, tls, routes, metrics, since } = self;
        let upgrade = &served.config.upstream.upgrade;
        let service = served.proxy(acceptor.address(), (main_tls, served.dashboard.clone()), since);
        let main = proxy::serve(acceptor, service, served.settings(main_tls), shutdown.clone());
        let others = routes.into_iter().map(|RoutePort { acceptor, is_tls, routes }| {
            let address = acceptor.address();
            let tls = tls.as_ref().filter(|_| is_tls);
            let routes = routes.iter().map(mapped).collect();
            let frontend = FrontendLayer::routes(address, routes, served.token(address), upgrade.clone());
            let frontend = frontend.with_clients(served.rules.clone());
            let frontend = frontend.with_tls(tls.cloned()).with_names(Arc::clone(&served.config.names));
            let authenticate = served.authenticate(address);
            let service = served.stacks.map(|stack| stack.routes(frontend.clone(), authenticate.clone()));
            proxy::serve(acceptor, service, served.settings(tls), shutdown.clone())
        });
        let metrics = metrics.map(|acceptor| {
            let address = acceptor.address();
            let endpoint = MetricsEndpoint::open(Arc::clone(&served.metrics));
            let frontend = FrontendLayer::routes(address, Vec::new(), None, Vec::new());
            let frontend = frontend.with_names(Arc::clone(&served.config.names)).with_metrics(endpoint);
            let authenticate = AuthenticateLayer::open();
            let service = served.stacks.map(|stack| stack.routes(frontend.clone(), authenticate.clone()));
            proxy::serve(acceptor, service, served.settings(None), shutdown.clone())
        });
        if let (Some(tls), Some(files)) = (tls.clone(), &served.config.tls) {
            tracing::info!("TLS with {}", tls.description());
            let told = warn_of_trouble(&tls);
            shutdown.spawn(watch_certificate(tls, files.check_every, told, shutdown.clone()));
        }
        tokio::join!(main, join_all(others), join_all(metrics), served.runs(orders, since, shutdown));
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
        let acceptor = Acceptor::bind(listen).await.map_err(failed)?;
        let address = acceptor.address();
        tracing::info!(%address, origin = origin(), "listening for a route");
        let is_tls = route.is_tls;
        ports.push((listen, RoutePort { acceptor, is_tls, routes: vec![route.clone()] }));
    }
    Ok(ports.into_iter().map(|(_, port)| port).collect())
}

/// Converts a route of the configuration for the proxy.
fn mapped(route: &config::RouteConfig) -> ReverseRoute {
    let config::RouteConfig { prefix, scheme, authority, base, listen: _, is_tls: _, client } = route.clone();
    ReverseRoute { prefix, scheme, authority, base, client }
}
