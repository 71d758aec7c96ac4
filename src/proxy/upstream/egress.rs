//! How a TCP stream to a host comes about: over which proxy, if any; which addresses the host has; and which of them is
//! connected to. It sends nothing of a request.

mod outbound;
mod pin;
mod race;
mod resolve;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::uri::Scheme;
use http::{HeaderMap, Uri, Version, header};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::hosts::without_brackets;
use crate::proxy::descriptors::Resting;
use crate::proxy::message::{headers, target};
use crate::proxy::{DialError, Settings};
use outbound::authority;
pub use outbound::{Outbound, OutboundProxy};
pub use pin::Peer;
use pin::pin;
use race::race;
use resolve::literal;
pub use resolve::{Resolve, SystemResolver};

/// The way out.
#[derive(Clone, Debug)]
pub(crate) struct Reach {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    resolver: Arc<dyn Resolve>,
    outbound: Outbound,
    resting: Resting,
    /// For resolving and connecting together, over a proxy also for its answer.
    within: Duration,
}

impl Reach {
    pub(crate) fn new(settings: &Settings) -> Self {
        let (resolver, within) = (Arc::clone(&settings.resolver), settings.limits.connect_timeout);
        let outbound = settings.outbound.clone();
        let resting = settings.resting.clone();
        Self { shared: Arc::new(Shared { resolver, outbound, resting, within }) }
    }

    /// The connections that make room where there is none.
    pub(crate) fn resting(&self) -> &Resting {
        &self.shared.resting
    }

    /// The target for the pool of a request that must go to this machine, where the name could come to mean another.
    pub(crate) fn pin(&self, target: &Uri, peer: Peer) -> Option<Uri> {
        if target.scheme() != Some(&Scheme::HTTP) || self.proxy_of(target).is_some() {
            return None;
        }
        pin(target, peer)
    }

    /// The proxy of requests in plain, for people.
    pub(crate) fn proxy_name(&self) -> String {
        self.shared.outbound.http.as_ref().map(ToString::to_string).unwrap_or_default()
    }

    /// The proxy to which a request in plain for `target` is sent, in absolute form.
    pub(crate) fn proxy_of(&self, target: &Uri) -> Option<&OutboundProxy> {
        if target.scheme() != Some(&Scheme::HTTP) {
            return None;
        }
        self.shared.outbound.http(host_of(target), target::port(target))
    }

    /// Whether it is fixed where requests in plain to `target` go: to a proxy, or to one machine.
    pub(crate) fn is_bound(&self, target: &Uri) -> bool {
        self.proxy_of(target).is_some() || pin::is_pinned(target)
    }

    /// Whether [`Self::connect`] ends at the host itself, and not at a proxy before it.
    pub(crate) fn connects_directly(&self, host: &str, port: u16) -> bool {
        self.shared.outbound.tunnel(host, port).is_none()
    }

    /// A stream for requests in plain to `target`, and whether it ends at a proxy.
    ///
    /// # Errors
    /// [`DialError`].
    pub(crate) async fn connect_plain(&self, target: &Uri) -> Result<(TcpStream, bool), DialError> {
        let (host, port) = (host_of(target), target::port(target));
        if let Some(proxy) = self.shared.outbound.http(host, port) {
            return Ok((self.connect_to(proxy).await?, true));
        }
        let stream = match pin::pinned(target, port) {
            Some(address) => self.bounded(host, port, self.join(host, port, &[address])).await?,
            None => self.connect_directly(host, port).await?,
        };
        Ok((stream, false))
    }

    /// Connects to `host` (a name, or an address without brackets), through a proxy where one is meant for it.
    ///
    /// # Errors
    /// [`DialError`].
    pub(crate) async fn connect(&self, host: &str, port: u16) -> Result<TcpStream, DialError> {
        self.connect_for(host, port, &HeaderMap::new(), Version::HTTP_11).await
    }

    /// The same for a request that was received: the proxies that it has passed are told to the next one, so that none
    /// goes round in circles.
    ///
    /// # Errors
    /// [`DialError`].
    pub(crate) async fn connect_for(
        &self,
        host: &str,
        port: u16,
        received: &HeaderMap,
        version: Version,
    ) -> Result<TcpStream, DialError> {
        let Some(proxy) = self.shared.outbound.tunnel(host, port) else {
            return self.connect_directly(host, port).await;
        };
        let mut via = HeaderMap::new();
        for line in received.get_all(header::VIA) {
            via.append(header::VIA, line.clone());
        }
        let target = authority(host, port);
        if let Ok(target) = target.parse() {
            via.append(header::VIA, headers::via(&target, version));
        }
        let tunnelling = async {
            let mut stream = self.connect_to(proxy).await?;
            proxy.tunnel(&mut stream, &target, &via).await?;
            Ok(stream)
        };
        let over = |reason| DialError::Outbound { proxy: proxy.to_string(), reason: Box::new(reason) };
        match self.bounded(host, port, tunnelling).await {
            Err(late @ DialError::Timeout { .. }) => Err(over(late)),
            result => result,
        }
    }

    async fn connect_to(&self, proxy: &OutboundProxy) -> Result<TcpStream, DialError> {
        self.connect_directly(&proxy.host, proxy.port)
            .await
            .map_err(|reason| DialError::Outbound { proxy: proxy.to_string(), reason: Box::new(reason) })
    }

    async fn connect_directly(&self, host: &str, port: u16) -> Result<TcpStream, DialError> {
        if let Some(address) = literal(host, port) {
            let address = address
                .map_err(|error| DialError::Resolve { host: host.to_owned(), reason: error.to_string() })?;
            return self.bounded(host, port, self.join(host, port, &[address])).await;
        }
        let connecting = async {
            let unresolved = |reason: String| DialError::Resolve { host: host.to_owned(), reason };
            let mut turns = self.shared.resting.turns();
            let found = loop {
                match self.shared.resolver.resolve(host, port).await {
                    Err(error) if turns.make_room(&error).await => {}
                    found => break found,
                }
            };
            let found = found.map_err(|error| unresolved(error.to_string()))?;
            if found.is_empty() {
                return Err(unresolved("no address".to_owned()));
            }
            self.join(host, port, &found).await
        };
        self.bounded(host, port, connecting).await
    }

    async fn join(&self, host: &str, port: u16, addresses: &[SocketAddr]) -> Result<TcpStream, DialError> {
        let mut turns = self.shared.resting.turns();
        let joined = loop {
            match race(addresses).await {
                Err(error) if turns.make_room(&error).await => {}
                joined => break joined,
            }
        };
        let stream = joined.map_err(|error| failed(host, port, &error))?;
        // Only a hint to the kernel: a connection without it still works.
        let _ = stream.set_nodelay(true);
        Ok(stream)
    }

    async fn bounded(
        &self,
        host: &str,
        port: u16,
        connecting: impl Future<Output = Result<TcpStream, DialError>>,
    ) -> Result<TcpStream, DialError> {
        let within = self.shared.within;
        timeout(within, connecting)
            .await
            .unwrap_or_else(|_| Err(DialError::Timeout { host: host.to_owned(), port, within }))
    }
}

fn failed(host: &str, port: u16, error: &io::Error) -> DialError {
    let host = host.to_owned();
    if error.kind() == io::ErrorKind::ConnectionRefused {
        return DialError::Refused { host, port };
    }
    DialError::Unreachable { host, port, reason: error.to_string() }
}

fn host_of(target: &Uri) -> &str {
    without_brackets(target.host().unwrap_or_default())
}
