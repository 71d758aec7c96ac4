//! Errors of the local CA, with remedies.

use std::io;
use std::path::PathBuf;
use std::time::SystemTime;

use super::name::NotAName;
use crate::private::PrivateFileError;

/// Why there is no CA to sign with. Contains no key.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A file or the directory cannot be read or written.
    #[error(
        "cannot use {path}: {error}; let this user read and write it, or name another one with state_dir or \
         intercept.ca_cert", path = path.display()
    )]
    Io {
        /// The path.
        path: PathBuf,
        /// The error of the operating system.
        error: io::Error,
    },
    /// The key file cannot be read, or its permissions are unsafe.
    #[error(transparent)]
    Key(#[from] PrivateFileError),
    /// The certificate exists, but its key is missing.
    #[error(
        "{} exists, but its key {} is missing: restore the key, or create a new CA with `tollpass ca renew` and trust \
         that one",
        certificate.display(), key.display()
    )]
    KeyLost {
        /// The certificate.
        certificate: PathBuf,
        /// The expected path of its key.
        key: PathBuf,
    },
    /// The file contains no certificate.
    #[error("{} does not contain a PEM certificate (\"-----BEGIN CERTIFICATE-----\")", .0.display())]
    NoCertificate(PathBuf),
    /// The file contains no usable key.
    #[error(
        "{} does not contain an unencrypted PEM private key; `openssl pkey -in FILE -out NEW` removes a password",
        .0.display()
    )]
    NoKey(PathBuf),
    /// The key is of an unsupported type.
    #[error("the key of {} has an unsupported type: use ECDSA P-256 or P-384, RSA of 2048 to 8192 bits, or Ed25519", .0.display())]
    KeyKind(PathBuf),
    /// The key belongs to another certificate.
    #[error("the key does not belong to the certificate {}; configure a matching pair", .0.display())]
    OtherKey(PathBuf),
    /// The certificate may not sign certificates.
    #[error("the certificate {} is not a CA certificate: {why}; create one with basicConstraints CA:TRUE and keyUsage keyCertSign", path.display())]
    NotACa {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: &'static str,
    },
    /// It has expired.
    #[error("the CA {} expired on {}; {}", path.display(), date(*end), remedy(*is_ours))]
    Expired {
        /// Its certificate.
        path: PathBuf,
        /// The end of its validity.
        end: SystemTime,
        /// True if tollpass created it.
        is_ours: bool,
    },
    /// It is not yet valid.
    #[error("the CA {} is valid only from {}; is this machine's clock right?", path.display(), date(*begin))]
    TooEarly {
        /// Its certificate.
        path: PathBuf,
        /// The start of its validity.
        begin: SystemTime,
    },
    /// Its subject cannot be copied into the certificates that it signs.
    #[error(
        "the subject of {} cannot be copied into certificates (an attribute that occurs twice, such as DC=, or two in \
         one RDN); use a CA with a simple subject, such as O and CN",
        .0.display()
    )]
    Subject(PathBuf),
    /// A name constraint would not be a valid name.
    #[error(
        "cannot constrain the CA to the configured names: {0}; correct the name, or switch name_constraints off"
    )]
    Name(#[from] NotAName),
    /// Generating a key or signing failed.
    #[error("cannot create a certificate: {0}")]
    Signing(#[from] rcgen::Error),
}

/// The date (UTC) of a time, such as `2026-01-31`.
pub fn date(time: SystemTime) -> String {
    let mut text = humantime::format_rfc3339_seconds(time).to_string();
    text.truncate("2026-01-01".len());
    text
}

pub(super) fn remedy(is_ours: bool) -> &'static str {
    match is_ours {
        true => {
            "`tollpass ca renew` creates a new one, which a running proxy uses after a restart and which programs must \
                 trust"
        }
        false => "configure a new one with intercept.ca_cert and intercept.ca_key",
    }
}
