//! The local CA and the tunnels that it is for.

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use super::error::StartError;
use crate::admin::CaLocation;
use crate::config;
use crate::config::Config;
use crate::proxy::frontend::CaFiles;
use crate::proxy::interception::Interception;
use crate::tls;
use crate::tls::{Authority, AuthorityError, Leaves, Name, NotAName};

/// The CA of intercepted tunnels, as programs learn of it: known once there is one, and the same until the end.
#[derive(Clone, Debug, Default)]
pub(super) struct SharedCa {
    pub location: Arc<OnceLock<CaLocation>>,
    pub files: Arc<OnceLock<CaFiles>>,
    pub leaves: Arc<OnceLock<Arc<Leaves>>>,
}

impl SharedCa {
    pub(super) fn set(&self, interception: Option<&Interception>) {
        let Some(interception) = interception else { return };
        // A second one would be the same.
        let _ = self.location.set(ca_location(interception));
        let _ = self.files.set(ca_files(interception));
        let _ = self.leaves.set(Arc::clone(&interception.leaves));
    }
}

/// The local CA and its certificates, if any host is intercepted: `known` if they are open. Blocks on the disk.
pub(super) fn interception(
    config: &Config,
    known: Option<&Arc<Leaves>>,
) -> Result<Option<Interception>, StartError> {
    let hosts = config.intercept.hosts.clone();
    if hosts.is_empty() {
        return Ok(None);
    }
    let leaves = match known {
        Some(leaves) => Arc::clone(leaves),
        None => {
            let authority = Arc::new(authority(config)?);
            Arc::new(Leaves::new(authority, config.limits.certificate_cache)?)
        }
    };
    let authority = leaves.authority();
    let permitted = match &config.intercept.authority {
        config::CaSource::Generated { permitted } => names(permitted).map_err(AuthorityError::from)?,
        config::CaSource::Files { .. } => Vec::new(),
    };
    for warning in authority.warnings(&permitted, SystemTime::now()) {
        tracing::warn!("{warning}");
    }
    if authority.is_new() && known.is_none() {
        let path = authority.path().display();
        tracing::info!(%path, "created a local CA to intercept HTTPS; `tollpass ca trust` shows how to make programs trust it");
    }
    Ok(Some(Interception { hosts, leaves }))
}

/// The files of the CA.
fn ca_location(interception: &Interception) -> CaLocation {
    let authority = interception.leaves.authority();
    CaLocation { certificate: authority.path().to_owned(), key: authority.key_path().to_owned() }
}

/// The certificate that clients must trust for intercepted hosts.
fn ca_files(interception: &Interception) -> CaFiles {
    let certificate = interception.leaves.authority().certificate();
    CaFiles { pem: tls::pem(certificate).into(), der: certificate.to_vec().into() }
}

/// Opens the CA that signs for intercepted hosts, or creates it. Blocks on the disk.
pub fn authority(config: &Config) -> Result<Authority, AuthorityError> {
    authority_in(&config.state_dir, &config.intercept.authority)
}

/// Like [`authority`], given only the state directory and the CA's configuration.
pub fn authority_in(state_dir: &Path, config: &config::CaSource) -> Result<Authority, AuthorityError> {
    match config {
        config::CaSource::Files { certificate, key } => Authority::load(certificate, key),
        config::CaSource::Generated { permitted } => Authority::open(state_dir, &names(permitted)?),
    }
}

/// Converts host names of the configuration to names for certificates.
pub fn names(hosts: &[String]) -> Result<Vec<Name>, NotAName> {
    hosts.iter().map(|host| host.parse()).collect()
}
