//! Opens TCP streams to hosts: chooses the outbound proxy, resolves the name, races the addresses. It sends no part of a
//! request.

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
use crate::proxy::descriptors::IdleConnections;
use crate::proxy::message::target;
use crate::proxy::message::via::via;
use crate::proxy::settings::ProxySettings;
use crate::proxy::upstream::error::DialError;
use outbound::authority;
pub use outbound::{Outbound, OutboundProxy};
pub use pin::PinnedAddr;
use pin::pin;
use race::race;
use resolve::literal;
pub use resolve::{Resolve, SystemResolver};

/// Opens TCP streams, directly or through the outbound proxy.
#[derive(Clone, Debug)]
pub(crate) struct Egress {
    shared: Arc<EgressState>,
}

#[derive(Debug)]
struct EgressState {
    resolver: Arc<dyn Resolve>,
    outbound: Outbound,
    idle: IdleConnections,
    /// Limits resolving and connecting together, and the answer of the outbound proxy.
    within: Duration,
}

impl Egress {
    pub(crate) fn new(settings: &ProxySettings) -> Self {
        let (resolver, within) = (Arc::clone(&settings.resolver), settings.limits.connect_timeout);
        let outbound = settings.outbound.clone();
        let idle = settings.idle.clone();
        Self { shared: Arc::new(EgressState { resolver, outbound, idle, within }) }
    }

    /// The idle connections to close when file descriptors run out.
    pub(crate) fn idle(&self) -> &IdleConnections {
        &self.shared.idle
    }

    /// The pool's target for a request that must go to this address, if its name could resolve to another one.
    pub(crate) fn pin(&self, target: &Uri, peer: PinnedAddr) -> Option<Uri> {
        if target.scheme() != Some(&Scheme::HTTP) || self.proxy_of(target).is_some() {
            return None;
        }
        pin(target, peer)
    }

    /// The outbound proxy for `http` requests, for messages.
    pub(crate) fn proxy_name(&self) -> String {
        self.shared.outbound.http.as_ref().map(ToString::to_string).unwrap_or_default()
    }

    /// The outbound proxy that receives `http` requests to `target`, in absolute form.
    pub(crate) fn proxy_of(&self, target: &Uri) -> Option<&OutboundProxy> {
        if self.shared.outbound.http.is_none() || target.scheme() != Some(&Scheme::HTTP) {
            return None;
        }
        let (host, port) = host_and_port(target);
        self.shared.outbound.http(host, port)
    }

    /// Whether `http` requests to `target` must go to a proxy or to a pinned address.
    pub(crate) fn is_bound(&self, target: &Uri) -> bool {
        self.proxy_of(target).is_some() || pin::is_pinned(target)
    }

    /// Whether [`Self::connect`] connects to the host itself, without a proxy.
    pub(crate) fn connects_directly(&self, host: &str, port: u16) -> bool {
        self.shared.outbound.tunnel(host, port).is_none()
    }

    /// A stream for `http` requests to `target`, and whether it ends at a proxy.
    ///
    /// # Errors
    /// [`DialError`].
    pub(crate) async fn connect_plain(&self, target: &Uri) -> Result<(TcpStream, bool), DialError> {
        let (host, port) = host_and_port(target);
        if let Some(proxy) = self.shared.outbound.http(host, port) {
            return Ok((self.connect_to(proxy).await?, true));
        }
        let stream = match pin::pinned(target, port) {
            Some(address) => self.bounded(host, port, self.join(host, port, &[address])).await?,
            None => self.connect_directly(host, port).await?,
        };
        Ok((stream, false))
    }

    /// Connects to `host` (a name, or an address without brackets), through the outbound proxy if one applies.
    ///
    /// # Errors
    /// [`DialError`].
    pub(crate) async fn connect(&self, host: &str, port: u16) -> Result<TcpStream, DialError> {
        self.connect_for(host, port, &HeaderMap::new(), Version::HTTP_11).await
    }

    /// As [`Self::connect`], for a received request: its `Via` goes to the outbound proxy, which can so detect loops.
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
        let mut passed = HeaderMap::new();
        for line in received.get_all(header::VIA) {
            passed.append(header::VIA, line.clone());
        }
        let target = authority(host, port);
        if let Ok(target) = target.parse() {
            passed.append(header::VIA, via(&target, version));
        }
        let tunnelling = async {
            let mut stream = self.connect_to(proxy).await?;
            proxy.tunnel(&mut stream, &target, &passed).await?;
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
            let mut retries = self.shared.idle.retries();
            let found = loop {
                match self.shared.resolver.resolve(host, port).await {
                    Err(error) if retries.free_descriptors(&error).await => {}
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
        let mut retries = self.shared.idle.retries();
        let joined = loop {
            match race(addresses).await {
                Err(error) if retries.free_descriptors(&error).await => {}
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

fn host_and_port(target: &Uri) -> (&str, u16) {
    let (host, port) = target::host_and_port(target);
    (without_brackets(host), port)
}
