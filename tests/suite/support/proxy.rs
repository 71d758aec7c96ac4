//! A proxy without a wallet, in this process, on its own port.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::SystemTime;

use tokio::task::JoinHandle;
use tollpass::Policy;
use tollpass::protocol::policy::LocalSpenders;
use tollpass::proxy::access_log::AccessLogLayer;
use tollpass::proxy::frontend::{FrontendLayer, Page};
use tollpass::proxy::intercept::InterceptLayer;
use tollpass::proxy::interception::Interception;
use tollpass::proxy::rulebook::{CurrentRules, Rulebook};
use tollpass::proxy::{Acceptor, ErrorResponder, Forward, Frontend, ProxySettings, serve};
use tollpass::shutdown::Shutdown;
use tollpass::workers::Workers;
use tower::Layer as _;

/// A proxy that runs until it is dropped.
pub struct Proxy {
    pub address: SocketAddr,
    pub shutdown: Shutdown,
    /// Ends when the proxy stops accepting.
    pub accepting: JoinHandle<()>,
}

impl Proxy {
    pub async fn start() -> Self {
        Self::with(ProxySettings::default()).await
    }

    pub async fn with(settings: ProxySettings) -> Self {
        Self::on(Ipv4Addr::LOCALHOST.into(), settings).await
    }

    /// On any address of this machine.
    pub async fn on(ip: IpAddr, settings: ProxySettings) -> Self {
        Self::behind_on(ip, settings, |address, inner| {
            let page = Page { ca: None, pays: false, since: SystemTime::now() };
            FrontendLayer::proxy(address, page, Vec::new(), None, Vec::new()).layer(inner)
        })
        .await
    }

    /// With interception.
    pub async fn intercepting(settings: ProxySettings, interception: Interception) -> Self {
        Self::intercepting_on(Ipv4Addr::LOCALHOST.into(), settings, interception).await
    }

    /// With interception, on any address of this machine.
    pub async fn intercepting_on(ip: IpAddr, settings: ProxySettings, interception: Interception) -> Self {
        let acceptor = Acceptor::bind((ip, 0).into()).await.unwrap();
        let address = acceptor.address();
        let shutdown = Shutdown::new();
        let forward = Forward::new(&settings);
        let rules = Rulebook::new(Arc::new(Policy::builder().build()), LocalSpenders::Any);
        let rules = CurrentRules::new(Rulebook { interception: Some(Arc::new(interception)), ..rules });
        let service = InterceptLayer::new(&forward, rules, AccessLogLayer::new(true))
            .layer(ErrorResponder::new(forward));
        let accepting = tokio::spawn(serve(acceptor, Workers::here(service), settings, shutdown.clone()));
        Self { address, shutdown, accepting }
    }

    /// With another frontend, for the address that it listens on.
    pub async fn behind(
        settings: ProxySettings,
        front: impl FnOnce(SocketAddr, ErrorResponder<Forward>) -> Frontend<ErrorResponder<Forward>>,
    ) -> Self {
        Self::behind_on(Ipv4Addr::LOCALHOST.into(), settings, front).await
    }

    async fn behind_on(
        ip: IpAddr,
        settings: ProxySettings,
        front: impl FnOnce(SocketAddr, ErrorResponder<Forward>) -> Frontend<ErrorResponder<Forward>>,
    ) -> Self {
        let acceptor = Acceptor::bind((ip, 0).into()).await.unwrap();
        let address = acceptor.address();
        let shutdown = Shutdown::new();
        let service = front(address, ErrorResponder::new(Forward::new(&settings)));
        let accepting = tokio::spawn(serve(acceptor, Workers::here(service), settings, shutdown.clone()));
        Self { address, shutdown, accepting }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shutdown.cut();
    }
}
