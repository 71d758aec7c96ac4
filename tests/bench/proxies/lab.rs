//! Files that the processes share: one CA, which signs for the origin and for what is intercepted.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tempfile::TempDir;

/// A temporary directory with the files.
pub struct Lab(TempDir);

impl Lab {
    pub fn create() -> anyhow::Result<Self> {
        let lab = Self(tempfile::tempdir()?);
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, "CA of the benchmark");
        fs::write(lab.path().join(CA), params.self_signed(&key)?.pem())?;
        write_private(&lab.path().join(CA_KEY), &key.serialize_pem())?;
        let issuer = Issuer::new(params, key);
        let key = KeyPair::generate()?;
        let leaf = leaf(&["localhost", "127.0.0.1"])?.signed_by(&key, &issuer)?;
        fs::write(lab.path().join(LEAF), leaf.pem())?;
        write_private(&lab.path().join(LEAF_KEY), &key.serialize_pem())?;
        Ok(lab)
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// A new directory for one process.
    pub fn scratch(&self) -> anyhow::Result<TempDir> {
        Ok(tempfile::tempdir_in(&self.0)?)
    }
}

const CA: &str = "ca.pem";
const CA_KEY: &str = "ca-key.pem";
const LEAF: &str = "origin.pem";
const LEAF_KEY: &str = "origin-key.pem";

/// The CA's certificate and key.
pub fn ca(directory: &Path) -> [PathBuf; 2] {
    [CA, CA_KEY].map(|name| directory.join(name))
}

/// The CA as an issuer.
pub fn issuer(directory: &Path) -> anyhow::Result<Issuer<'static, KeyPair>> {
    let [certificate, key] = ca(directory);
    let key = KeyPair::from_pem(&fs::read_to_string(key)?)?;
    Ok(Issuer::from_ca_cert_pem(&fs::read_to_string(certificate)?, key)?)
}

/// A certificate of a server, not yet signed.
pub fn leaf(names: &[&str]) -> anyhow::Result<CertificateParams> {
    Ok(CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())?)
}

/// The origin's side of TLS.
pub fn origin_tls(directory: &Path) -> anyhow::Result<ServerConfig> {
    let certificate = CertificateDer::from_pem_file(directory.join(LEAF))?;
    server_tls(certificate, PrivateKeyDer::from_pem_file(directory.join(LEAF_KEY))?)
}

/// A server's side of TLS with this certificate.
pub fn server_tls(
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
) -> anyhow::Result<ServerConfig> {
    Ok(ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)?)
}

/// A client's side of TLS, which trusts only the CA and resumes sessions.
pub fn client_tls(directory: &Path) -> anyhow::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(directory.join(CA)).context("the CA's certificate")?)?;
    Ok(ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Writes a file that other users cannot read.
pub fn write_private(path: &Path, text: &str) -> anyhow::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    Ok(file.write_all(text.as_bytes())?)
}
