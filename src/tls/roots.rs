//! The roots that tollpass trusts as a client: the system's, and those of an additional file. Nothing here weakens
//! verification.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

/// The largest file of roots to read, far above any system's.
const MAX_FILE: u64 = 16 << 20;

/// Root certificates for verifying servers.
#[derive(Clone, Debug)]
pub struct Roots {
    /// The store for rustls.
    pub store: Arc<RootCertStore>,
    /// The certificates themselves, for export.
    pub certificates: Vec<CertificateDer<'static>>,
    /// Warnings about certificates that could not be read.
    pub warnings: Vec<String>,
}

/// Why there are no root certificates.
#[derive(Debug, thiserror::Error)]
pub enum RootsError {
    /// The system has none, and no file was given.
    #[error(
        "this system has no root certificates{}; install them (on Debian, Alpine and Fedora: \
         the package ca-certificates), or name a file with SSL_CERT_FILE or upstream.ca_file",
        why(.0)
    )]
    None(Vec<String>),
    /// The file cannot be read.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        error: io::Error,
    },
    /// The file contains no certificate.
    #[error("{} does not contain a PEM certificate (\"-----BEGIN CERTIFICATE-----\")", .0.display())]
    NoCertificate(PathBuf),
    /// A certificate in the file cannot be a root.
    #[error("certificate {number} of {} cannot be used: {error}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// The position of the certificate, from 1.
        number: usize,
        /// The reason.
        error: rustls::Error,
    },
}

/// Loads the system's roots, or those that `SSL_CERT_FILE` and `SSL_CERT_DIR` name, and those in `extra`, a PEM file.
/// Unreadable system roots are warnings as long as there are others. Blocks on the disk.
pub fn system(extra: Option<&Path>) -> Result<Roots, RootsError> {
    let found = rustls_native_certs::load_native_certs();
    let mut warnings: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
    let mut store = RootCertStore::empty();
    let mut certificates = found.certs;
    // Ignore system certificates that rustls cannot use as roots.
    let all = certificates.len();
    certificates.retain(|certificate| store.add(certificate.clone()).is_ok());
    if certificates.len() < all {
        warnings.push(format!(
            "{} of the system's {all} root certificates cannot be read",
            all - certificates.len()
        ));
    }
    if let Some(path) = extra {
        certificates.extend(add(&mut store, path)?);
    }
    if certificates.is_empty() {
        return Err(RootsError::None(warnings));
    }
    Ok(Roots { store: Arc::new(store), certificates, warnings })
}

/// Loads the roots of a PEM file only, at least one. Blocks on the disk.
pub fn only(path: &Path) -> Result<Arc<RootCertStore>, RootsError> {
    let mut store = RootCertStore::empty();
    add(&mut store, path)?;
    Ok(Arc::new(store))
}

/// Adds all roots of a file and returns them.
fn add(store: &mut RootCertStore, path: &Path) -> Result<Vec<CertificateDer<'static>>, RootsError> {
    let found = certificates(path)?;
    for (index, certificate) in found.iter().enumerate() {
        let unusable = |error| RootsError::Unusable { path: path.to_owned(), number: index + 1, error };
        store.add(certificate.clone()).map_err(unusable)?;
    }
    Ok(found)
}

/// Loads the certificates of a PEM file, at least one. Blocks on the disk.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, RootsError> {
    let io = |error| RootsError::Io { path: path.to_owned(), error };
    // Before opening it: opening a named pipe would block until there is a writer.
    if !fs::metadata(path).map_err(io)?.is_file() {
        return Err(io(io::Error::other("not a regular file")));
    }
    let mut text = Vec::new();
    File::open(path).and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut text)).map_err(io)?;
    if text.len() as u64 > MAX_FILE {
        return Err(io(io::Error::other(format!("larger than {MAX_FILE} bytes"))));
    }
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    read.ok().filter(|found| !found.is_empty()).ok_or_else(|| RootsError::NoCertificate(path.to_owned()))
}

fn why(warnings: &[String]) -> String {
    if warnings.is_empty() { String::new() } else { format!(" ({})", warnings.join("; ")) }
}

#[cfg(test)]
mod tests {
    use crate::tls::roots::*;
    use crate::tls::{Authority, pem};

    #[test]
    fn a_file_adds_to_the_systems_roots() {
        let directory = tempfile::tempdir().unwrap();
        let authority = Authority::open(directory.path(), &[]).unwrap();
        let alone = system(None).map_or(0, |roots| roots.certificates.len());
        let more = system(Some(authority.path())).unwrap();
        assert_eq!((more.certificates.len(), more.store.len()), (alone + 1, alone + 1));
        assert!(more.certificates.contains(authority.certificate()));
        assert_eq!(only(authority.path()).unwrap().len(), 1);
    }

    #[test]
    fn a_file_without_a_root_is_reported() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("roots.pem");
        let error = |text: &str| {
            std::fs::write(&path, text).unwrap();
            let error = system(Some(&path)).unwrap_err().to_string();
            assert!(error.contains(path.to_str().unwrap()), "{error}");
            error
        };
        assert!(error("").contains("does not contain a PEM certificate"));
        assert!(
            error("-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n")
                .contains("not contain a PEM certificate")
        );
        let authority = Authority::open(directory.path(), &[]).unwrap();
        let good = pem(authority.certificate());
        let bad = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(error(&format!("{good}{bad}")).contains("certificate 2 of"));
        assert!(
            system(Some(&directory.path().join("none"))).unwrap_err().to_string().contains("No such file")
        );
        assert!(system(Some(directory.path())).unwrap_err().to_string().contains("not a regular file"));
    }
}
