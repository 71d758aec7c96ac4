//! TLS to origins: whom to trust, and the handshake. What an origin cannot prove ends here, before a request is sent.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{CertificateError, ClientConfig};
use tokio::sync::OnceCell;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tracing::warn;

use super::dial::{DialError, Link};
use crate::tls::{client_config, system};

/// How origins prove who they are.
#[derive(Clone, Debug)]
pub(super) struct Secure {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// PEM certificates that are trusted besides the system's.
    extra: Option<PathBuf>,
    /// Made when the first origin over TLS is asked for: reading the system's roots takes longer than starting.
    configs: OnceCell<Configs>,
}

#[derive(Debug)]
struct Configs {
    either: Arc<ClientConfig>,
    http_1: Arc<ClientConfig>,
}

/// Which protocols are offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Offer {
    /// HTTP/2, else HTTP/1.1.
    Either,
    /// HTTP/1.1 only: for what HTTP/2 has no way of asking, such as another protocol.
    Http1,
}

/// Why no keys were agreed on.
#[derive(Debug)]
pub(super) enum Disagreed {
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
    /// Trusts the system's roots, and those in `extra`.
    pub(super) fn new(extra: Option<PathBuf>) -> Self {
        Self { shared: Arc::new(Shared { extra, configs: OnceCell::new() }) }
    }

    /// Reads the roots.
    pub(super) async fn prepare(&self) -> Result<(), DialError> {
        self.shared.configs.get_or_try_init(|| self.load()).await.map(|_| ())
    }

    /// Agrees on keys with the origin that calls itself `host`, and checks that it is.
    ///
    /// # Errors
    /// [`Disagreed`] says whether another connection may do.
    pub(super) async fn agree(
        &self,
        link: Link,
        host: &str,
        offer: Offer,
    ) -> Result<TlsStream<Link>, Disagreed> {
        let configs = self.shared.configs.get_or_try_init(|| self.load()).await?;
        let config = match offer {
            Offer::Either => &configs.either,
            Offer::Http1 => &configs.http_1,
        };
        let name = ServerName::try_from(host.to_owned()).map_err(|_| DialError::Tls {
            host: host.to_owned(),
            reason: "it is no name that a certificate can hold".into(),
        })?;
        TlsConnector::from(Arc::clone(config)).connect(name, link).await.map_err(|error| {
            match judge(host, &error) {
                Some(judged) => Disagreed::Refused(judged),
                None => Disagreed::Broken(error),
            }
        })
    }

    async fn load(&self) -> Result<Configs, DialError> {
        let shared = Arc::clone(&self.shared);
        let loaded = tokio::task::spawn_blocking(move || system(shared.extra.as_deref())).await;
        let roots = loaded.map_err(|error| error.to_string());
        let roots =
            roots.and_then(|roots| roots.map_err(|error| error.to_string())).map_err(DialError::Roots)?;
        for warning in &roots.warnings {
            warn!(warning, "not all roots can be used");
        }
        let config = |alpn: &[&[u8]]| Arc::new(client_config(&roots, alpn));
        Ok(Configs { either: config(&[b"h2", b"http/1.1"]), http_1: config(&[b"http/1.1"]) })
    }
}

/// What the origin did wrong; `None` where the connection only broke.
fn judge(host: &str, error: &io::Error) -> Option<DialError> {
    let host = host.to_owned();
    let cause = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    Some(match cause {
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            let reason = "UnknownIssuer; a CA of your own can be named in upstream.ca_file".to_owned();
            DialError::Certificate { host, reason }
        }
        rustls::Error::InvalidCertificate(reason) => {
            DialError::Certificate { host, reason: reason.to_string() }
        }
        rustls::Error::NoCertificatesPresented => {
            DialError::Certificate { host, reason: "it showed none".to_owned() }
        }
        other => DialError::Tls { host, reason: other.to_string() },
    })
}
