//! The bundle of root certificates for other programs.

use super::authority::Authority;
use super::encode::pem;
use super::roots::Roots;

/// Root certificates and the CA in one PEM file, for programs that replace the system's roots with a file. Omits the CA
/// that this one replaced, which `roots` contains if `SSL_CERT_FILE` names an earlier bundle.
pub fn bundle(roots: &Roots, authority: &Authority) -> String {
    let (ours, old) = (authority.certificate(), authority.old());
    let others = roots.certificates.iter().filter(|root| *root != ours && Some(*root) != old.as_ref());
    others.chain([ours]).map(|certificate| pem(certificate)).collect()
}
