//! TLS: the local CA, the certificates it signs, and the roots for verifying others. Independent of HTTP, rules and
//! money; opens no connections.

mod authority;
mod certificate;
mod constraints;
mod error;
mod leaf;
mod mint;
mod name;
mod origin;
mod pair;
mod roots;
mod signer;

use std::sync::{Arc, LazyLock};

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::CertificateDer;

pub use authority::Authority;
pub use error::{AuthorityError, date};
pub use leaf::{LeafError, Leaves};
pub use name::{Name, NotAName};
pub use origin::{ClientIdentity, OriginError, PinnedCertificate, ServerTrust, client_config};
pub use roots::{Roots, certificates, only, system};

/// The cryptography provider for all TLS: ring.
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| Arc::new(ring::default_provider()));
    Arc::clone(&PROVIDER)
}

/// Root certificates and the CA in one PEM file, for programs that replace the system's roots with a file. Omits the CA
/// that this one replaced, which `roots` contains if `SSL_CERT_FILE` names an earlier bundle.
pub fn bundle(roots: &Roots, authority: &Authority) -> String {
    let (ours, old) = (authority.certificate(), authority.old());
    let others = roots.certificates.iter().filter(|root| *root != ours && Some(*root) != old.as_ref());
    others.chain([ours]).map(|certificate| pem(certificate)).collect()
}

/// A certificate in PEM (RFC 7468), with a trailing newline.
pub fn pem(certificate: &CertificateDer<'_>) -> String {
    let lines = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    pem::encode_config(&pem::Pem::new("CERTIFICATE", certificate.as_ref()), lines)
}
