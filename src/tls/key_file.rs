//! Certificates and keys in PEM files of the user.

use std::path::{Path, PathBuf};

use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, Error};

use super::certificate;
use super::certificate::Described;
use super::provider::provider;
use super::roots;
use super::roots::RootsError;
use crate::private;
use crate::private::PrivateFileError;

/// Why a file with a certificate or a key cannot be used. Contains no key.
#[derive(Debug, thiserror::Error)]
pub enum TlsFileError {
    /// The certificates cannot be read.
    #[error(transparent)]
    Certificates(#[from] RootsError),
    /// The key file cannot be read, or its permissions are unsafe.
    #[error(transparent)]
    Key(#[from] PrivateFileError),
    /// There is not exactly one certificate.
    #[error("{} contains {count} certificates; exactly one is required", path.display())]
    NotOne {
        /// The file.
        path: PathBuf,
        /// The number of certificates.
        count: usize,
    },
    /// rustls rejects the certificate.
    #[error("{} cannot be used: {error}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// The reason.
        error: Error,
    },
    /// rustls rejects the key.
    #[error("the key in {} cannot be used: {error}", path.display())]
    UnusableKey {
        /// The file.
        path: PathBuf,
        /// The reason.
        error: Error,
    },
    /// The key is encrypted.
    #[error("the key in {} is encrypted; `openssl pkey -in FILE -out NEW` removes the password", .0.display())]
    Encrypted(PathBuf),
    /// The file contains no key.
    #[error("{} does not contain a PEM private key", .0.display())]
    NoKey(PathBuf),
    /// The key belongs to another certificate.
    #[error("the key in {} does not belong to the certificate in {}", key.display(), certificate.display())]
    OtherKey {
        /// The file of the certificate.
        certificate: PathBuf,
        /// The file of the key.
        key: PathBuf,
    },
}

impl TlsFileError {
    /// Whether the key file is the problem, rather than the certificate.
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

/// A certificate with its key.
pub(super) struct LoadedPair {
    /// The chain, at least one certificate, and its key.
    pub(super) certified: CertifiedKey,
    /// The first certificate.
    pub(super) described: Described,
}

/// Loads a certificate with intermediates, and its key, in PEM; the key must be unencrypted and private to this user.
/// Blocks on the disk.
pub(super) fn load_pair(path: &Path, key_path: &Path) -> Result<LoadedPair, TlsFileError> {
    let chain = roots::certificates(path)?;
    let described = certificate::describe(&chain[0]).ok_or_else(|| unreadable(path))?;
    let secret = private::read(key_path)?;
    let has = |mark: &[u8]| secret.windows(mark.len()).any(|part| part == mark);
    if has(b"BEGIN ENCRYPTED PRIVATE KEY") || has(b"Proc-Type: 4,ENCRYPTED") {
        return Err(TlsFileError::Encrypted(key_path.to_owned()));
    }
    let key = PrivateKeyDer::from_pem_slice(&secret);
    let key = key.map_err(|_| TlsFileError::NoKey(key_path.to_owned()))?;
    let unusable = |error| TlsFileError::UnusableKey { path: key_path.to_owned(), error };
    let key = provider().key_provider.load_private_key(key).map_err(unusable)?;
    // Compared here because rustls would parse the certificate as a server's and reject version 1, which `openssl
    // x509 -req` creates and servers accept from clients.
    let belongs = key.public_key().is_none_or(|public| public.ends_with(&described.public));
    if !belongs {
        return Err(TlsFileError::OtherKey { certificate: path.to_owned(), key: key_path.to_owned() });
    }
    Ok(LoadedPair { certified: CertifiedKey::new(chain, key), described })
}

/// The error for a certificate that cannot be parsed.
pub(super) fn unreadable(path: &Path) -> TlsFileError {
    TlsFileError::Unusable { path: path.to_owned(), error: CertificateError::BadEncoding.into() }
}
