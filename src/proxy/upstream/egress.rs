//! Opens TCP streams to hosts: chooses the outbound proxy, resolves the name, checks and races the addresses. It sends no
//! part of a request.
//!
//! Every connection for a client's request is opened here.

mod guard;
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

use crate::hosts::address_rules::AddressRules;
use crate::hosts::host::Host;
use crate::hosts::{is_this_machine, without_brackets};
use crate::proxy::descriptors::IdleConnections;
use crate::proxy::message::target;
use crate::proxy::message::via::via;
#[cfg(target_os = "linux")]
use crate::proxy::own_sockets;
use crate::proxy::settings::ProxySettings;
use crate::proxy::upstream::error::DialError;
pub(crate) use guard::Reach;
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
    addresses: AddressRules,
    idle: IdleConnections,
    /// Limits resolving and connecting together, and the answer of the outbound proxy.
    within: Duration,
}

impl Egress {
    pub(crate) fn new(settings: &ProxySettings) -> Self {
        let (resolver, within) = (Arc::clone(&settings.resolver), settings.limits.connect_timeout);
        let (outbound, addresses) = (settings.outbound.clone(), settings.addresses.clone());
        let idle = settings.idle.clone();
        Self { shared: Arc::new(EgressState { resolver, outbound, addresses, idle, within }) }
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

    /// Whether a connection to a host, opened for a request without a payment, may carry one.
    pub(crate) fn may_carry_payment(&self, host: &str, port: u16, stream: &TcpStream) -> bool {
        let ends_here = || stream.peer_addr().is_ok_and(|peer| is_this_machine(peer.ip()));
        self.connects_directly(host, port) && ends_here()
    }

    /// A stream for `http` requests to `target`, and whether it ends at a proxy.
    ///
    /// # Errors
    /// [`DialError`].
    pub(crate) async fn connect_plain(
        &self,
        target: &Uri,
        reach: Reach,
    ) -> Result<(TcpStream, bool), DialError> {
        let (host, port) = host_and_port(target);
        if let Some(proxy) = self.shared.outbound.http(host, port) {
            if reach.is_loopback_only() {
                return Err(DialError::PlainPayment { host: host.to_owned(), port, address: None });
            }
            self.check_literal(host, port, reach).await?;
            return Ok((self.connect_to(proxy).await?, true));
        }
        let stream = match pin::pinned(target, port) {
            Some(address) => {
                let joining = self.join(host, port, vec![address], Some(reach));
                self.bounded(host, port, joining).await?
            }
            None => self.connect_directly(host, port, Some(reach)).await?,
        };
        Ok((stream, false))
    }

    /// Connects to `host` (a name, or an address without brackets), through the outbound proxy if one applies.
    ///
    /// # Errors
    /// [`DialError`].
    pub(crate) async fn connect(&self, host: &str, port: u16, reach: Reach) -> Result<TcpStream, DialError> {
        self.connect_for(host, port, reach, &HeaderMap::new(), Version::HTTP_11).await
    }

    /// As [`Self::connect`], for a received request: its `Via` goes to the outbound proxy, so that loops can be detected.
    ///
    /// # Errors
    /// [`DialError`].
    pub(crate) async fn connect_for(
        &self,
        host: &str,
        port: u16,
        reach: Reach,
        received: &HeaderMap,
        version: Version,
    ) -> Result<TcpStream, DialError> {
        let Some(proxy) = self.shared.outbound.tunnel(host, port) else {
            return self.connect_directly(host, port, Some(reach)).await;
        };
        self.check_literal(host, port, reach).await?;
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
        self.connect_directly(&proxy.host, proxy.port, None)
            .await
            .map_err(|reason| DialError::Outbound { proxy: proxy.to_string(), reason: Box::new(reason) })
    }

    /// Connects without a proxy. `None` as reach: the host is from the configuration, so its address is not checked.
    async fn connect_directly(
        &self,
        host: &str,
        port: u16,
        reach: Option<Reach>,
    ) -> Result<TcpStream, DialError> {
        if let Some(address) = literal(host, port) {
            let address = address
                .map_err(|error| DialError::Resolve { host: host.to_owned(), reason: error.to_string() })?;
            return self.bounded(host, port, self.join(host, port, vec![address], reach)).await;
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
            self.join(host, port, found, reach).await
        };
        self.bounded(host, port, connecting).await
    }

    /// Connects to one of the addresses that are in reach.
    async fn join(
        &self,
        host: &str,
        port: u16,
        addresses: Vec<SocketAddr>,
        reach: Option<Reach>,
    ) -> Result<TcpStream, DialError> {
        let addresses = self.within_reach(host, port, addresses, reach).await?;
        let mut retries = self.shared.idle.retries();
        let joined = loop {
            match race(&addresses).await {
                Err(error) if retries.free_descriptors(&error).await => {}
                joined => break joined,
            }
        };
        let stream = joined.map_err(|error| failed(host, port, &error))?;
        // A port of tollpass would otherwise treat the client's traffic as this user's own.
        #[cfg(target_os = "linux")]
        own_sockets::remember(&stream).map_err(|error| failed(host, port, &error))?;
        // Only a hint to the kernel: a connection without it still works.
        let _ = stream.set_nodelay(true);
        Ok(stream)
    }

    /// The addresses that a request may reach.
    ///
    /// # Errors
    /// It may reach none of them.
    async fn within_reach(
        &self,
        host: &str,
        port: u16,
        addresses: Vec<SocketAddr>,
        reach: Option<Reach>,
    ) -> Result<Vec<SocketAddr>, DialError> {
        let rules = &self.shared.addresses;
        let Some(reach) = reach.filter(|reach| !reach.is_unlimited(rules)) else { return Ok(addresses) };
        let mut permitted = Vec::with_capacity(addresses.len());
        let mut refused = None;
        let mut retries = self.shared.idle.retries();
        for address in addresses {
            let checked = loop {
                match reach.check(rules, address) {
                    Err(error) if retries.free_descriptors(&error).await => {}
                    checked => break checked.map_err(|error| failed(host, port, &error))?,
                }
            };
            let host = || host.to_owned();
            let refusal = match checked {
                Ok(()) if !reach.is_loopback_only() || is_this_machine(address.ip()) => {
                    permitted.push(address);
                    continue;
                }
                Ok(()) => DialError::PlainPayment { host: host(), port, address: Some(address.ip()) },
                Err(reason) => DialError::Prohibited { host: host(), port, reason: Box::new(reason) },
            };
            refused.get_or_insert(refusal);
        }
        match refused {
            Some(refusal) if permitted.is_empty() => Err(refusal),
            _ => Ok(permitted),
        }
    }

    /// Checks the host of a request to an outbound proxy. The proxy resolves names itself, so only addresses can be
    /// checked.
    async fn check_literal(&self, host: &str, port: u16, reach: Reach) -> Result<(), DialError> {
        let Some(address) = Host::read(host).ok().and_then(Host::address) else { return Ok(()) };
        self.within_reach(host, port, vec![(address, port).into()], Some(reach)).await.map(|_| ())
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
