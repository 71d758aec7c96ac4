//! Encodes certificates.

use rustls::pki_types::CertificateDer;

/// A certificate in PEM (RFC 7468), with a trailing newline.
pub fn pem(certificate: &CertificateDer<'_>) -> String {
    let lines = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    pem::encode_config(&pem::Pem::new("CERTIFICATE", certificate.as_ref()), lines)
}
