//! Parses the parts of a CA certificate that matter for signing with it.

use std::ops::Range;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::CertificateDer;
use sha2::{Digest as _, Sha256};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;
use x509_parser::time::ASN1Time;

use super::constraints::Constraints;

/// The parsed parts of a certificate.
#[derive(Clone, Debug)]
pub(super) struct Described {
    /// The subject, for display.
    pub(super) subject: String,
    /// The first common name in the subject.
    pub(super) common_name: Option<String>,
    /// The SHA-256 of the whole certificate.
    pub(super) fingerprint: [u8; 32],
    /// The validity period.
    pub(super) validity: Range<SystemTime>,
    /// The public key, as in the bit string of a SubjectPublicKeyInfo.
    pub(super) public: Vec<u8>,
    /// Whether the basic constraints mark it as a CA.
    pub(super) is_ca: bool,
    /// Whether its key may sign certificates.
    pub(super) signs: bool,
    /// Whether subject and issuer are the same: a root.
    pub(super) is_root: bool,
    /// The names that it may sign for.
    pub(super) constraints: Constraints,
    /// The DER of its subject, to compare with the issuer of what it signs.
    pub(super) name: Vec<u8>,
}

/// Parses a certificate; `None` if it is invalid.
pub(super) fn describe(certificate: &CertificateDer<'_>) -> Option<Described> {
    let (rest, read) = X509Certificate::from_der(certificate).ok()?;
    let constraints = read.name_constraints().ok()?.map(|found| Constraints::read(found.value));
    if !rest.is_empty() || read.subject().iter().any(|part| part.iter().next().is_none()) {
        return None;
    }
    Some(Described {
        subject: read.subject().to_string(),
        common_name: read.subject().iter_common_name().find_map(|name| Some(name.as_str().ok()?.to_owned())),
        fingerprint: Sha256::digest(certificate).into(),
        validity: instant(&read.validity().not_before)..instant(&read.validity().not_after),
        public: read.public_key().subject_public_key.data.to_vec(),
        is_ca: read.is_ca(),
        // Without the extension, the key may be used for anything.
        signs: read.key_usage().ok()?.is_none_or(|usage| usage.value.key_cert_sign()),
        is_root: read.subject() == read.issuer(),
        constraints: constraints.unwrap_or_default(),
        name: read.subject().as_raw().to_vec(),
    })
}

/// The DER of a certificate's issuer.
pub(super) fn issuer(certificate: &CertificateDer<'_>) -> Option<Vec<u8>> {
    let (_, read) = X509Certificate::from_der(certificate).ok()?;
    Some(read.issuer().as_raw().to_vec())
}

/// Times before 1970 become 1970.
fn instant(time: &ASN1Time) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(time.timestamp()).unwrap_or_default())
}
