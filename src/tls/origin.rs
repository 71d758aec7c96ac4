//! How an origin proves itself where that is other than usual, and what we show one that wants to know us.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme,
};

use super::certificate;
use super::roots;
use super::roots::RootsError;
use crate::private;
use crate::private::PrivateFileError;

/// By what origins are verified.
#[derive(Clone, Debug)]
pub enum ServerTrust {
    /// These roots.
    Roots(Arc<RootCertStore>),
    /// One certificate, and no other.
    Exactly(Arc<PinnedCertificate>),
}

/// One certificate that is accepted as it is: for any name, whoever signed it, while it is valid.
#[derive(Debug)]
pub struct PinnedCertificate {
    certificate: CertificateDer<'static>,
    validity: Range<SystemTime>,
}

/// A certificate of our own, and its key.
#[derive(Clone)]
pub struct ClientIdentity {
    resolver: Arc<SingleCertAndKey>,
    validity: Range<SystemTime>,
}

/// Why a file about an origin cannot be used. Holds no key.
#[derive(Debug, thiserror::Error)]
pub enum OriginError {
    /// The certificates cannot be read.
    #[error(transparent)]
    Certificates(#[from] RootsError),
    /// The file of the key, or who may touch it.
    #[error(transparent)]
    Key(#[from] PrivateFileError),
    /// More than one certificate where one is meant.
    #[error("{} holds {count} certificates, and exactly one is meant", path.display())]
    NotOne {
        /// Which file.
        path: PathBuf,
        /// How many.
        count: usize,
    },
    /// TLS cannot work with it.
    #[error("{} cannot be used: {error}", path.display())]
    Unusable {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: Error,
    },
    /// TLS cannot sign with it.
    #[error("the key in {} cannot be used: {error}", path.display())]
    UnusableKey {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: Error,
    },
    /// The key is under a password.
    #[error("the key in {} has a password; `openssl pkey -in FILE -out NEW` takes it away", .0.display())]
    Encrypted(PathBuf),
    /// There is no key.
    #[error("{} holds no private key in PEM", .0.display())]
    NoKey(PathBuf),
    /// The key is that of another certificate.
    #[error("the key in {} does not belong to the certificate in {}", key.display(), certificate.display())]
    OtherKey {
        /// The file of the certificate.
        certificate: PathBuf,
        /// The file of the key.
        key: PathBuf,
    },
}

impl OriginError {
    /// True where the file of a key is what is wrong.
    pub fn is_of_the_key(&self) -> bool {
        matches!(
            self,
            Self::Key(_)
                | Self::Encrypted(_)
                | Self::NoKey(_)
                | Self::OtherKey { .. }
                | Self::UnusableKey { .. }
        )
    }
}

/// The origin showed another certificate.
#[derive(Debug)]
struct NotThePinned {
    shown: String,
    pinned: String,
}

impl std::error::Error for NotThePinned {}

impl fmt::Display for NotThePinned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { shown, pinned } = self;
        write!(f, "it is not the one that upstream.tls names: SHA-256 {shown}, and not {pinned}")
    }
}

impl PinnedCertificate {
    /// Reads a file that holds exactly one certificate, PEM. Blocks on the disk.
    pub fn load(path: &Path) -> Result<Self, OriginError> {
        let mut found = roots::certificates(path)?;
        let (Some(certificate), true) = (found.pop(), found.is_empty()) else {
            return Err(OriginError::NotOne { path: path.to_owned(), count: found.len() + 1 });
        };
        let unusable = |error| OriginError::Unusable { path: path.to_owned(), error };
        ParsedCertificate::try_from(&certificate).map_err(unusable)?;
        let validity = certificate::describe(&certificate).ok_or_else(|| unreadable(path))?.validity;
        Ok(Self { certificate, validity })
    }

    /// From when until when it is valid.
    pub fn validity(&self) -> Range<SystemTime> {
        self.validity.clone()
    }
}

impl ClientIdentity {
    /// Reads a certificate, those between it and a root, and its key: PEM, the key without a password and only readable by
    /// this user. Blocks on the disk.
    pub fn load(path: &Path, key_path: &Path) -> Result<Self, OriginError> {
        let chain = roots::certificates(path)?;
        let described = certificate::describe(&chain[0]).ok_or_else(|| unreadable(path))?;
        let secret = private::read(key_path)?;
        let has = |mark: &[u8]| secret.windows(mark.len()).any(|part| part == mark);
        if has(b"BEGIN ENCRYPTED PRIVATE KEY") || has(b"Proc-Type: 4,ENCRYPTED") {
            return Err(OriginError::Encrypted(key_path.to_owned()));
        }
        let key = PrivateKeyDer::from_pem_slice(&secret);
        let key = key.map_err(|_| OriginError::NoKey(key_path.to_owned()))?;
        let unusable = |error| OriginError::UnusableKey { path: key_path.to_owned(), error };
        let key = super::provider().key_provider.load_private_key(key).map_err(unusable)?;
        // Compared here: rustls would read the certificate as a server's, and refuse those of version 1, which
        // `openssl x509 -req` makes and servers take.
        let belongs = key.public_key().is_none_or(|public| public.ends_with(&described.public));
        if !belongs {
            return Err(OriginError::OtherKey { certificate: path.to_owned(), key: key_path.to_owned() });
        }
        let resolver = Arc::new(SingleCertAndKey::from(CertifiedKey::new(chain, key)));
        Ok(Self { resolver, validity: described.validity })
    }

    /// From when until when it is valid.
    pub fn validity(&self) -> Range<SystemTime> {
        self.validity.clone()
    }
}

impl fmt::Debug for ClientIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("validity", &self.validity).finish_non_exhaustive()
    }
}

fn unreadable(path: &Path) -> OriginError {
    OriginError::Unusable { path: path.to_owned(), error: CertificateError::BadEncoding.into() }
}

/// A client that verifies servers by `trust`, shows them `identity` if they ask, and offers the protocols `alpn`, the best
/// first.
#[expect(
    clippy::expect_used,
    reason = "the provider knows the default versions: each test that connects shows it"
)]
pub fn client_config(trust: &ServerTrust, identity: Option<&ClientIdentity>, alpn: &[&[u8]]) -> ClientConfig {
    let builder = ClientConfig::builder_with_provider(super::provider())
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
    /// The certificate itself is the proof, so neither its name nor its issuer counts, and whether it may be a CA's does not
    /// either: `openssl req -x509` makes it one.
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
        let algorithms = super::provider().signature_verification_algorithms;
        verify_tls12_signature(message, shown, signed, &algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = super::provider().signature_verification_algorithms;
        verify_tls13_signature(message, shown, signed, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        super::provider().signature_verification_algorithms.supported_schemes()
    }
}

fn unix(time: SystemTime) -> UnixTime {
    UnixTime::since_unix_epoch(time.duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// The SHA-256 of a certificate, as openssl writes it.
fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    use sha2::{Digest as _, Sha256};
    let pairs: Vec<String> = Sha256::digest(certificate).iter().map(|byte| format!("{byte:02X}")).collect();
    pairs.join(":")
}
