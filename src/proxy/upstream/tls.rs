//! TLS to origins: trust and the handshake. An origin that cannot prove its identity gets no request.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{AlertDescription, CertificateError, ClientConfig, RootCertStore};
use tokio::sync::OnceCell;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tracing::warn;

use super::error::DialError;
use super::tcp::TcpLink;
use crate::protocol::policy::HostPattern;
use crate::proxy::message::target::without_zone;
use crate::tls::{ClientIdentity, ServerTrust, client_config, system};

/// TLS settings of particular origins.
#[derive(Clone, Debug)]
pub struct OriginTlsSettings {
    /// The hosts that these settings apply to.
    pub host: HostPattern,
    /// The port that they apply to; any if absent.
    pub port: Option<u16>,
    /// How to verify the origin; the default roots if absent.
    pub trust: Option<ServerTrust>,
    /// Our client certificate, if the origin asks for one.
    pub identity: Option<ClientIdentity>,
}

/// Performs TLS handshakes with origins.
#[derive(Clone, Debug)]
pub(crate) struct UpstreamTls {
    shared: Arc<UpstreamTlsState>,
}

#[derive(Debug)]
struct UpstreamTlsState {
    /// PEM certificates to trust besides the system's.
    extra: Option<PathBuf>,
    /// Loaded for the first origin that needs them, because loading takes longer than starting.
    roots: OnceCell<Arc<RootCertStore>>,
    usual: OnceCell<AlpnConfigs>,
    /// Each has its own configuration, and so its own sessions to resume. The first match applies.
    others: Vec<(OriginTlsSettings, OnceCell<AlpnConfigs>)>,
}

#[derive(Debug)]
struct AlpnConfigs {
    either: Arc<ClientConfig>,
    http_1: Arc<ClientConfig>,
}

impl AlpnConfigs {
    fn new(trust: &ServerTrust, identity: Option<&ClientIdentity>) -> Self {
        let config = |alpn: &[&[u8]]| Arc::new(client_config(trust, identity, alpn));
        Self { either: config(&[b"h2", b"http/1.1"]), http_1: config(&[b"http/1.1"]) }
    }
}

/// The protocols to offer in ALPN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AlpnOffer {
    /// HTTP/2, else HTTP/1.1.
    Either,
    /// HTTP/1.1 only, for requests that HTTP/2 cannot express, such as `Upgrade`.
    Http1,
}

/// Why a TLS handshake failed.
#[derive(Debug)]
pub(crate) enum HandshakeError {
    /// The connection broke; a new one may succeed.
    Broken(io::Error),
    /// The origin or our configuration is wrong; a new connection fails, too.
    Refused(DialError),
}

impl From<DialError> for HandshakeError {
    fn from(error: DialError) -> Self {
        Self::Refused(error)
    }
}

impl UpstreamTls {
    /// Trusts the system's roots and those in `extra`, except as `others` specify.
    pub(crate) fn new(extra: Option<PathBuf>, others: Vec<OriginTlsSettings>) -> Self {
        let others = others.into_iter().map(|origin| (origin, OnceCell::new())).collect();
        let (roots, usual) = (OnceCell::new(), OnceCell::new());
        Self { shared: Arc::new(UpstreamTlsState { extra, roots, usual, others }) }
    }

    /// Loads the roots.
    pub(crate) async fn prepare(&self) -> Result<(), DialError> {
        self.roots().await.map(|_| ())
    }

    /// Performs the handshake and verifies that the origin is `host`.
    ///
    /// # Errors
    /// [`HandshakeError`] shows whether a new connection may succeed.
    pub(crate) async fn handshake(
        &self,
        link: TcpLink,
        (host, port): (&str, u16),
        offer: AlpnOffer,
    ) -> Result<TlsStream<TcpLink>, HandshakeError> {
        let configs = self.configs(host, port).await?;
        let config = match offer {
            AlpnOffer::Either => &configs.either,
            AlpnOffer::Http1 => &configs.http_1,
        };
        let name = ServerName::try_from(without_zone(host).to_owned()).map_err(|_| DialError::Tls {
            host: host.to_owned(),
            reason: "no certificate can contain this name".into(),
        })?;
        TlsConnector::from(Arc::clone(config)).connect(name, link).await.map_err(|error| {
            match diagnose(host, &error) {
                Some(refused) => HandshakeError::Refused(refused),
                None => HandshakeError::Broken(error),
            }
        })
    }

    /// The configuration for an origin.
    async fn configs(&self, host: &str, port: u16) -> Result<&AlpnConfigs, DialError> {
        let is_meant = |origin: &OriginTlsSettings| {
            origin.port.is_none_or(|only| only == port) && origin.host.matches(host)
        };
        let other = self.shared.others.iter().find(|(origin, _)| is_meant(origin));
        let Some((OriginTlsSettings { trust, identity, .. }, configs)) = other else {
            let usual = async || Ok(AlpnConfigs::new(&ServerTrust::Roots(self.roots().await?), None));
            return self.shared.usual.get_or_try_init(usual).await;
        };
        let load = async || {
            let trust = match trust {
                Some(trust) => trust.clone(),
                None => ServerTrust::Roots(self.roots().await?),
            };
            Ok(AlpnConfigs::new(&trust, identity.as_ref()))
        };
        configs.get_or_try_init(load).await
    }

    async fn roots(&self) -> Result<Arc<RootCertStore>, DialError> {
        self.shared.roots.get_or_try_init(|| self.load()).await.cloned()
    }

    async fn load(&self) -> Result<Arc<RootCertStore>, DialError> {
        let shared = Arc::clone(&self.shared);
        let loaded = tokio::task::spawn_blocking(move || system(shared.extra.as_deref())).await;
        let roots = loaded.map_err(|error| error.to_string());
        let roots =
            roots.and_then(|roots| roots.map_err(|error| error.to_string())).map_err(DialError::Roots)?;
        for warning in &roots.warnings {
            warn!(warning, "some root certificates cannot be used");
        }
        Ok(roots.store)
    }
}

/// What the origin did wrong; `None` if the connection merely broke.
fn diagnose(host: &str, error: &io::Error) -> Option<DialError> {
    let host = host.to_owned();
    let cause = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    Some(match cause {
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            let reason =
                "UnknownIssuer; add your own CA to upstream.ca_file, or a self-signed certificate to \
                 [[upstream.tls]]"
                    .to_owned();
            DialError::Certificate { host, reason }
        }
        rustls::Error::InvalidCertificate(CertificateError::Other(other)) => {
            let mut reason = other.to_string();
            if reason == "CaUsedAsEndEntity" {
                reason += ": it is a CA's own, as `openssl req -x509` makes them; name it with certificate in \
                           [[upstream.tls]]";
            }
            DialError::Certificate { host, reason }
        }
        rustls::Error::InvalidCertificate(reason) => {
            DialError::Certificate { host, reason: reason.to_string() }
        }
        rustls::Error::NoCertificatesPresented => {
            DialError::Certificate { host, reason: "it presented none".to_owned() }
        }
        other => DialError::Tls { host, reason: other.to_string() + client_certificate_hint(other) },
    })
}

/// The remedy if an origin requires a client certificate, which TLS 1.3 reports only after the handshake.
pub(crate) fn hint(error: &io::Error) -> &'static str {
    client_certificate_hint(error)
}

/// Compares texts, because h2 keeps only the text of an error.
fn client_certificate_hint(error: &impl fmt::Display) -> &'static str {
    let required = rustls::Error::AlertReceived(AlertDescription::CertificateRequired);
    if error.to_string() == required.to_string() {
        "; it requires a client certificate: set client_cert in [[upstream.tls]]"
    } else {
        ""
    }
}
