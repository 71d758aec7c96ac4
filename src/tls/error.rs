//! Why there is no CA to sign with, and what to do about it.

use std::io;
use std::path::PathBuf;
use std::time::SystemTime;

use super::name::NotAName;
use crate::private::PrivateFileError;

/// Why there is no CA to sign with. Holds no key.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A file or the directory cannot be read or written.
    #[error("{path}: {error}", path = path.display())]
    Io {
        /// Which one.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// The file of the key, or who may touch it.
    #[error(transparent)]
    Key(#[from] PrivateFileError),
    /// The certificate is there and its key is not.
    #[error(
        "{} is there, but its key {} is not: put the key back, or make a new CA with `tollpass ca renew`, and trust \
         that one",
        certificate.display(), key.display()
    )]
    KeyLost {
        /// The certificate.
        certificate: PathBuf,
        /// Where its key should be.
        key: PathBuf,
    },
    /// The file holds no certificate.
    #[error("{} holds no certificate in PEM (\"-----BEGIN CERTIFICATE-----\")", .0.display())]
    NoCertificate(PathBuf),
    /// The file holds no key.
    #[error(
        "{} holds no private key in PEM without a password; `openssl pkey -in FILE -out NEW` takes a password away",
        .0.display()
    )]
    NoKey(PathBuf),
    /// The key is of a kind that is not known.
    #[error("the key of {} cannot sign here: use ECDSA P-256 or P-384, RSA of 2048 to 8192 bits, or Ed25519", .0.display())]
    KeyKind(PathBuf),
    /// The key belongs to another certificate.
    #[error("the key does not belong to the certificate {}; give both of the same CA", .0.display())]
    OtherKey(PathBuf),
    /// The certificate may not sign others.
    #[error("the certificate {} cannot be a CA's: {why}; make one with basicConstraints CA:TRUE and keyUsage keyCertSign", path.display())]
    NotACa {
        /// Which file.
        path: PathBuf,
        /// What is missing.
        why: &'static str,
    },
    /// Its time is over.
    #[error("the CA {} expired on {}; {}", path.display(), date(*end), remedy(*is_ours))]
    Expired {
        /// Its certificate.
        path: PathBuf,
        /// When.
        end: SystemTime,
        /// True for one that tollpass made.
        is_ours: bool,
    },
    /// Its time has not come.
    #[error("the CA {} is valid only from {}; is this machine's clock right?", path.display(), date(*begin))]
    TooEarly {
        /// Its certificate.
        path: PathBuf,
        /// From when.
        begin: SystemTime,
    },
    /// Its subject cannot be repeated in what it signs.
    #[error(
        "the subject of {} cannot be written again as it stands (a part that is there twice, such as DC=, or two in \
         one); use a CA with a simple subject, such as O and CN",
        .0.display()
    )]
    Subject(PathBuf),
    /// It should be bound to what is no name.
    #[error("the CA cannot be bound to its names: {0}; correct it, or switch name_constraints off")]
    Name(#[from] NotAName),
    /// Making a key or a signature failed.
    #[error("cannot make a certificate: {0}")]
    Signing(#[from] rcgen::Error),
}

/// The day of a time (UTC), as people write it: `2026-01-31`.
pub fn date(time: SystemTime) -> String {
    let mut text = humantime::format_rfc3339_seconds(time).to_string();
    text.truncate("2026-01-01".len());
    text
}

pub(super) fn remedy(is_ours: bool) -> &'static str {
    match is_ours {
        true => {
            "`tollpass ca renew` makes a new one, which a running proxy takes at its next start and which programs must \
                 trust"
        }
        false => "give a new one with intercept.ca_cert and intercept.ca_key",
    }
}
