//! Verification of origins with unusual certificates, and our client certificates.

use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::SingleCertAndKey;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme,
};

use super::certificate;
use super::key_file;
use super::key_file::{LoadedPair, TlsFileError};
use super::provider::provider;
use super::roots;

/// How to verify an origin.
#[derive(Clone, Debug)]
pub enum ServerTrust {
    /// With these roots.
    Roots(Arc<RootCertStore>),
    /// Against one pinned certificate.
    Exactly(Arc<PinnedCertificate>),
}

/// A certificate that is accepted as it is while it is valid: for any name and from any issuer.
#[derive(Debug)]
pub struct PinnedCertificate {
    certificate: CertificateDer<'static>,
    validity: Range<SystemTime>,
}

/// A client certificate and its key.
#[derive(Clone)]
pub struct ClientIdentity {
    resolver: Arc<SingleCertAndKey>,
    validity: Range<SystemTime>,
}

/// The origin presented a different certificate.
#[derive(Debug)]
struct NotThePinned {
    shown: String,
    pinned: String,
}

impl std::error::Error for NotThePinned {}

impl fmt::Display for NotThePinned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { shown, pinned } = self;
        write!(f, "not the certificate pinned in upstream.tls: SHA-256 is {shown}, expected {pinned}")
    }
}

impl PinnedCertificate {
    /// Loads a PEM file with exactly one certificate. Blocks on the disk.
    pub fn load(path: &Path) -> Result<Self, TlsFileError> {
        let mut found = roots::certificates(path)?;
        let (Some(certificate), true) = (found.pop(), found.is_empty()) else {
            return Err(TlsFileError::NotOne { path: path.to_owned(), count: found.len() + 1 });
        };
        Self::pin(path, certificate)
    }

    /// Loads the first certificate of a PEM file, which others may follow. Blocks on the disk.
    pub fn first(path: &Path) -> Result<Self, TlsFileError> {
        let certificate = roots::certificates(path)?.into_iter().next();
        Self::pin(path, certificate.ok_or_else(|| key_file::unreadable(path))?)
    }

    fn pin(path: &Path, certificate: CertificateDer<'static>) -> Result<Self, TlsFileError> {
        let unusable = |error| TlsFileError::Unusable { path: path.to_owned(), error };
        ParsedCertificate::try_from(&certificate).map_err(unusable)?;
        let validity =
            certificate::describe(&certificate).ok_or_else(|| key_file::unreadable(path))?.validity;
        Ok(Self { certificate, validity })
    }

    /// Its validity period.
    pub fn validity(&self) -> Range<SystemTime> {
        self.validity.clone()
    }
}

impl ClientIdentity {
    /// Loads a client certificate with intermediates, and its key, in PEM; the key must be unencrypted and private to
    /// this user. Blocks on the disk.
    pub fn load(path: &Path, key_path: &Path) -> Result<Self, TlsFileError> {
        let LoadedPair { certified, described } = key_file::load_pair(path, key_path)?;
        Ok(Self { resolver: Arc::new(SingleCertAndKey::from(certified)), validity: described.validity })
    }

    /// Its validity period.
    pub fn validity(&self) -> Range<SystemTime> {
        self.validity.clone()
    }
}

impl fmt::Debug for ClientIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("validity", &self.validity).finish_non_exhaustive()
    }
}

/// A TLS client configuration that verifies servers with `trust`, presents `identity` on request, and offers the
/// protocols `alpn` in order of preference.
#[expect(
    clippy::expect_used,
    reason = "ring supports the default versions; every test that connects covers this"
)]
pub fn client_config(trust: &ServerTrust, identity: Option<&ClientIdentity>, alpn: &[&[u8]]) -> ClientConfig {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("ring has suites for the default versions");
    let builder = match trust {
        ServerTrust::Roots(store) => builder.with_root_certificates(Arc::clone(store)),
        ServerTrust::Exactly(pinned) => {
            let verifier = Arc::<PinnedCertificate>::clone(pinned);
            builder.dangerous().with_custom_certificate_verifier(verifier)
        }
    };
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some(ClientIdentity { resolver, .. }) => {
            builder.with_client_cert_resolver(Arc::<SingleCertAndKey>::clone(resolver))
        }
    };
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config
}

impl ServerCertVerifier for PinnedCertificate {
    /// The certificate itself is the proof, so its name, issuer and CA flag (which `openssl req -x509` sets) do not
    /// matter.
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if *shown != self.certificate {
            let (shown, pinned) = (fingerprint(shown), fingerprint(&self.certificate));
            let error = OtherError(Arc::new(NotThePinned { shown, pinned }));
            return Err(CertificateError::Other(error).into());
        }
        let time = UNIX_EPOCH + Duration::from_secs(now.as_secs());
        if time > self.validity.end {
            let not_after = unix(self.validity.end);
            return Err(CertificateError::ExpiredContext { time: now, not_after }.into());
        }
        if time < self.validity.start {
            let not_before = unix(self.validity.start);
            return Err(CertificateError::NotValidYetContext { time: now, not_before }.into());
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = provider().signature_verification_algorithms;
        verify_tls12_signature(message, shown, signed, &algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = provider().signature_verification_algorithms;
        verify_tls13_signature(message, shown, signed, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

fn unix(time: SystemTime) -> UnixTime {
    UnixTime::since_unix_epoch(time.duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// The SHA-256 of a certificate in the notation of openssl.
fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    use sha2::{Digest as _, Sha256};
    let pairs: Vec<String> = Sha256::digest(certificate).iter().map(|byte| format!("{byte:02X}")).collect();
    pairs.join(":")
}
