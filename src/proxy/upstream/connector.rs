//! Opens connections to origins: TCP, and TLS for `https`.

use std::time::Duration;

use http::Uri;
use http::uri::Scheme;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::client::TlsStream;

use super::egress::{Egress, PinnedAddr, Reach};
use super::error::DialError;
use super::parked::ParkedConnections;
use super::stream::{Reuse, UpstreamStream};
use super::tcp::TcpLink;
use super::tls::{AlpnOffer, HandshakeError, UpstreamTls};
use crate::hosts::without_brackets;
use crate::proxy::message::target;

/// Opens connections for a pool.
#[derive(Clone, Debug)]
pub(crate) struct Connector {
    pub(crate) egress: Egress,
    pub(crate) timeout: Duration,
    /// Acknowledge segments immediately: see [`TcpLink`].
    pub(crate) acknowledges_at_once: bool,
    pub(crate) tls: UpstreamTls,
    pub(crate) parked: ParkedConnections,
}

impl Connector {
    /// Opens a connection to an origin; `offer` applies to TLS.
    pub(crate) async fn connect(
        &self,
        origin: &Uri,
        offer: AlpnOffer,
        reach: Reach,
    ) -> Result<UpstreamStream, DialError> {
        let host = without_brackets(origin.host().unwrap_or_default());
        let port = target::port(origin);
        if origin.scheme() == Some(&Scheme::HTTPS) {
            self.secure((host, port), offer, reach).await
        } else {
            self.plain(origin, (host, port), reach).await
        }
    }

    async fn plain(
        &self,
        origin: &Uri,
        (host, port): (&str, u16),
        reach: Reach,
    ) -> Result<UpstreamStream, DialError> {
        // Parked connections were dialled by name, without a pin.
        let parked = match self.egress.is_bound(origin) {
            true => None,
            false => self.parked.take(host, port, reach.without_payment()),
        };
        let parked = parked
            .filter(|stream| !reach.is_loopback_only() || self.egress.may_carry_payment(host, port, stream));
        let (stream, is_proxied, is_direct) = match parked {
            Some(stream) => (stream, false, self.egress.connects_directly(host, port)),
            None => {
                let (stream, is_proxied) = self.egress.connect_plain(origin, reach).await?;
                (stream, is_proxied, !is_proxied)
            }
        };
        let peer = if is_direct { stream.peer_addr().ok().map(PinnedAddr) } else { None };
        Ok(UpstreamStream::plain(self.link(stream), Reuse::new(peer, is_proxied)))
    }

    async fn secure(
        &self,
        (host, port): (&str, u16),
        offer: AlpnOffer,
        reach: Reach,
    ) -> Result<UpstreamStream, DialError> {
        let shaking = self.handshake((host, port), offer, reach);
        let connected = timeout_at(Instant::now() + self.timeout, shaking).await;
        let timeout = || DialError::Timeout { host: host.to_owned(), port, within: self.timeout };
        Ok(UpstreamStream::secure(
            connected.unwrap_or_else(|_| Err(timeout()))?,
            self.parked.mark_live(host, port, reach),
        ))
    }

    async fn handshake(
        &self,
        (host, port): (&str, u16),
        offer: AlpnOffer,
        reach: Reach,
    ) -> Result<TlsStream<TcpLink>, DialError> {
        if let Some(stream) = self.parked.take(host, port, reach) {
            match self.tls.handshake(self.link(stream), (host, port), offer).await {
                Ok(stream) => return Ok(stream),
                Err(HandshakeError::Refused(error)) => return Err(error),
                // The origin may have closed the parked connection; try a new one.
                Err(HandshakeError::Broken(_)) => {}
            }
        }
        let stream = self.egress.connect(host, port, reach).await?;
        self.tls.handshake(self.link(stream), (host, port), offer).await.map_err(|error| match error {
            HandshakeError::Refused(error) => error,
            HandshakeError::Broken(error) => {
                DialError::Tls { host: host.to_owned(), reason: error.to_string() }
            }
        })
    }

    fn link(&self, stream: TcpStream) -> TcpLink {
        TcpLink::new(stream, self.acknowledges_at_once)
    }
}
