//! TLS to origins: whom to trust, and the handshake. What an origin cannot prove ends here, before a request is sent.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{AlertDescription, CertificateError, ClientConfig, RootCertStore};
use tokio::sync::OnceCell;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tracing::warn;

use super::dial::{DialError, Link};
use crate::protocol::policy::HostPattern;
use crate::proxy::message::target::without_zone;
use crate::tls::{Identity, Trust, client_config, system};

/// TLS with some origins, where it is other than usual.
#[derive(Clone, Debug)]
pub struct OriginTls {
    /// Which hosts.
    pub host: HostPattern,
    /// On which port; any when absent.
    pub port: Option<u16>,
    /// By what they are verified; as usual when absent.
    pub trust: Option<Trust>,
    /// What we show them.
    pub identity: Option<Identity>,
}

/// How origins prove who they are, and what we show them.
#[derive(Clone, Debug)]
pub(crate) struct Secure {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// PEM certificates that are trusted besides the system's.
    extra: Option<PathBuf>,
    /// Read when the first origin is asked for that is verified by them: it takes longer than starting.
    roots: OnceCell<Arc<RootCertStore>>,
    usual: OnceCell<Configs>,
    /// Each with settings, and so with sessions to resume, of its own. The first one that matches counts.
    others: Vec<(OriginTls, OnceCell<Configs>)>,
}

#[derive(Debug)]
struct Configs {
    either: Arc<ClientConfig>,
    http_1: Arc<ClientConfig>,
}

impl Configs {
    fn new(trust: &Trust, identity: Option<&Identity>) -> Self {
        let config = |alpn: &[&[u8]]| Arc::new(client_config(trust, identity, alpn));
        Self { either: config(&[b"h2", b"http/1.1"]), http_1: config(&[b"http/1.1"]) }
    }
}

/// Which protocols are offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Offer {
    /// HTTP/2, else HTTP/1.1.
    Either,
    /// HTTP/1.1 only: for what HTTP/2 has no way of asking, such as another protocol.
    Http1,
}

/// Why no keys were agreed on.
#[derive(Debug)]
pub(crate) enum Disagreed {
    /// The connection broke; another one may do.
    Broken(io::Error),
    /// The origin, or what we know of it, is not as it must be.
    Refused(DialError),
}

impl From<DialError> for Disagreed {
    fn from(error: DialError) -> Self {
        Self::Refused(error)
    }
}

impl Secure {
    /// Trusts the system's roots, and those in `extra`, but where `others` say otherwise.
    pub(crate) fn new(extra: Option<PathBuf>, others: Vec<OriginTls>) -> Self {
        let others = others.into_iter().map(|origin| (origin, OnceCell::new())).collect();
        let (roots, usual) = (OnceCell::new(), OnceCell::new());
        Self { shared: Arc::new(Shared { extra, roots, usual, others }) }
    }

    /// Reads the roots.
    pub(crate) async fn prepare(&self) -> Result<(), DialError> {
        self.roots().await.map(|_| ())
    }

    /// Agrees on keys with the origin that calls itself `host`, and checks that it is.
    ///
    /// # Errors
    /// [`Disagreed`] says whether another connection may do.
    pub(crate) async fn agree(
        &self,
        link: Link,
        (host, port): (&str, u16),
        offer: Offer,
    ) -> Result<TlsStream<Link>, Disagreed> {
        let configs = self.configs(host, port).await?;
        let config = match offer {
            Offer::Either => &configs.either,
            Offer::Http1 => &configs.http_1,
        };
        let name = ServerName::try_from(without_zone(host).to_owned()).map_err(|_| DialError::Tls {
            host: host.to_owned(),
            reason: "a certificate cannot hold this name".into(),
        })?;
        TlsConnector::from(Arc::clone(config)).connect(name, link).await.map_err(|error| {
            match judge(host, &error) {
                Some(judged) => Disagreed::Refused(judged),
                None => Disagreed::Broken(error),
            }
        })
    }

    /// The settings for an origin.
    async fn configs(&self, host: &str, port: u16) -> Result<&Configs, DialError> {
        let is_meant =
            |origin: &OriginTls| origin.port.is_none_or(|only| only == port) && origin.host.matches(host);
        let other = self.shared.others.iter().find(|(origin, _)| is_meant(origin));
        let Some((OriginTls { trust, identity, .. }, configs)) = other else {
            let usual = async || Ok(Configs::new(&Trust::Roots(self.roots().await?), None));
            return self.shared.usual.get_or_try_init(usual).await;
        };
        let load = async || {
            let trust = match trust {
                Some(trust) => trust.clone(),
                None => Trust::Roots(self.roots().await?),
            };
            Ok(Configs::new(&trust, identity.as_ref()))
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
            warn!(warning, "not all roots can be used");
        }
        Ok(roots.store)
    }
}

/// What the origin did wrong; `None` where the connection only broke.
fn judge(host: &str, error: &io::Error) -> Option<DialError> {
    let host = host.to_owned();
    let cause = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    Some(match cause {
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            let reason =
                "UnknownIssuer; a CA of your own can be named in upstream.ca_file, and a self-signed \
                 certificate in [[upstream.tls]]"
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
            DialError::Certificate { host, reason: "it showed none".to_owned() }
        }
        other => DialError::Tls { host, reason: other.to_string() + unknown(other) },
    })
}

/// What to do where an origin wants to know who we are: in TLS 1.3 it says so only after the handshake.
pub(crate) fn hint(error: &io::Error) -> &'static str {
    error.get_ref().and_then(|cause| cause.downcast_ref()).map_or("", unknown)
}

fn unknown(error: &rustls::Error) -> &'static str {
    if matches!(error, rustls::Error::AlertReceived(AlertDescription::CertificateRequired)) {
        "; it wants a certificate of ours: name one with client_cert in [[upstream.tls]]"
    } else {
        ""
    }
}
