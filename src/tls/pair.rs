//! Certificate and key on disk. Our own pair cannot become inconsistent: the key file also contains the certificate and
//! is replaced atomically; the certificate file is a copy, restored if missing.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tempfile::{NamedTempFile, PersistError};
use zeroize::Zeroizing;

use super::encode::pem;
use super::error::AuthorityError;
use crate::error_chain::without_temporary_name;
use crate::private;

/// The certificate, readable by all users.
pub(super) const CERTIFICATE: &str = "ca.pem";
/// The key together with its certificate.
pub(super) const KEY: &str = "ca-key.pem";
/// The certificate that `renew` replaced, kept to show which CA to stop trusting.
pub(super) const OLD: &str = "ca.pem.old";

/// The largest certificate file to read, far above any chain.
const MAX_FILE: u64 = 1 << 20;

/// A key and its certificate, followed by intermediates up to a root.
pub(super) struct Pair {
    pub(super) key: Zeroizing<PrivateKeyDer<'static>>,
    pub(super) certificates: Vec<CertificateDer<'static>>,
}

/// Loads our own pair, if there is one, and restores the copy of its certificate.
pub(super) fn open(directory: &Path) -> Result<Option<Pair>, AuthorityError> {
    let (path, copy) = (directory.join(KEY), directory.join(CERTIFICATE));
    if !exists(&path)? {
        if !exists(&copy)? {
            return Ok(None);
        }
        // The key is written before the copy: another process may have created both since the first check.
        if !exists(&path)? {
            return Err(AuthorityError::KeyLost { certificate: copy, key: path });
        }
    }
    let pair = read_private(&path, &path)?;
    let text = pem(&pair.certificates[0]);
    if fs::read(&copy).ok().as_deref() != Some(text.as_bytes()) {
        write(directory, &copy, text.as_bytes(), 0o644).map_err(|error| io_at(&copy, error))?;
    }
    Ok(Some(pair))
}

/// Writes a new pair into the directory, unless another process has created one.
pub(super) fn create(
    directory: &Path,
    key: &str,
    certificate: &CertificateDer<'_>,
) -> Result<(), AuthorityError> {
    let path = directory.join(KEY);
    match staged(directory, &whole(key, certificate), 0o600)
        .and_then(|file| kept(file.persist_noclobber(&path)))
    {
        // Another process was faster: its pair is used.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made.and_then(|()| sync(directory)).map_err(|error| io_at(&path, error)),
    }
}

/// Replaces the pair, and keeps the certificate of the old one.
pub(super) fn replace(
    directory: &Path,
    key: &str,
    certificate: &CertificateDer<'_>,
) -> Result<(), AuthorityError> {
    let (path, copy, old) = (directory.join(KEY), directory.join(CERTIFICATE), directory.join(OLD));
    match fs::read(&copy) {
        Ok(bytes) => write(directory, &old, &bytes, 0o644).map_err(|error| io_at(&old, error))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(io_at(&copy, error)),
    }
    write(directory, &path, &whole(key, certificate), 0o600).map_err(|error| io_at(&path, error))
}

/// Loads the user's pair from two files.
pub(super) fn load(certificate: &Path, key: &Path) -> Result<Pair, AuthorityError> {
    read_private(key, certificate)
}

/// Creates the directory for this user only, unless it exists.
pub(super) fn directory(directory: &Path) -> Result<(), AuthorityError> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(|error| io_at(directory, error))
}

fn read_private(key: &Path, certificate: &Path) -> Result<Pair, AuthorityError> {
    let secret = private::read(key)?;
    let public = match key == certificate {
        true => None,
        false => Some(read(certificate).map_err(|error| io_at(certificate, error))?),
    };
    let public = public.as_deref().unwrap_or(&secret);
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(public).collect();
    let certificates = certificates.ok().filter(|found| !found.is_empty());
    let certificates = certificates.ok_or_else(|| AuthorityError::NoCertificate(certificate.to_owned()))?;
    let key = PrivateKeyDer::from_pem_slice(&secret).map_err(|_| AuthorityError::NoKey(key.to_owned()))?;
    Ok(Pair { key: Zeroizing::new(key), certificates })
}

/// Key and certificate in one file.
fn whole(key: &str, certificate: &CertificateDer<'_>) -> Zeroizing<Vec<u8>> {
    let certificate = pem(certificate);
    // Allocated once: growing would leave copies of the key behind.
    let mut text = Zeroizing::new(Vec::with_capacity(key.len() + certificate.len()));
    text.extend_from_slice(key.as_bytes());
    text.extend_from_slice(certificate.as_bytes());
    text
}

fn write(directory: &Path, path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    staged(directory, bytes, mode).and_then(|file| kept(file.persist(path))).and_then(|()| sync(directory))
}

/// Writes a temporary file, synced to disk.
fn staged(directory: &Path, bytes: &[u8], mode: u32) -> io::Result<NamedTempFile> {
    let mut file = tempfile::Builder::new()
        .prefix(".ca-")
        .permissions(Permissions::from_mode(mode))
        .tempfile_in(directory)?;
    file.write_all(bytes)?;
    // The umask may have removed permissions.
    file.as_file().set_permissions(Permissions::from_mode(mode))?;
    file.as_file().sync_all()?;
    Ok(file)
}

fn kept(persisted: Result<File, PersistError>) -> io::Result<()> {
    persisted.map(drop).map_err(|error| error.error)
}

fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // Before opening it: opening a named pipe would block until there is a writer.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    File::open(path)?.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(io::Error::other(format!("larger than {MAX_FILE} bytes")));
    }
    Ok(bytes)
}

fn exists(path: &Path) -> Result<bool, AuthorityError> {
    path.try_exists().map_err(|error| io_at(path, error))
}

fn io_at(path: &Path, error: io::Error) -> AuthorityError {
    AuthorityError::Io { path: PathBuf::from(path), error: without_temporary_name(error) }
}
