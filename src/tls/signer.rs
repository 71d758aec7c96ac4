//! Adapts a private key in any format that rustls reads to sign certificates with rcgen.

use std::fmt;
use std::sync::Arc;

use rcgen::{PublicKeyData, SignatureAlgorithm, SigningKey};
use rustls::SignatureScheme;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::PrivateKeyDer;
use rustls::sign::Signer;
use x509_parser::prelude::{FromDer as _, SubjectPublicKeyInfo};

/// The signature algorithm for each type of key.
const KINDS: [(SignatureScheme, &SignatureAlgorithm); 4] = [
    (SignatureScheme::ECDSA_NISTP256_SHA256, &rcgen::PKCS_ECDSA_P256_SHA256),
    (SignatureScheme::ECDSA_NISTP384_SHA384, &rcgen::PKCS_ECDSA_P384_SHA384),
    (SignatureScheme::RSA_PKCS1_SHA256, &rcgen::PKCS_RSA_SHA256),
    (SignatureScheme::ED25519, &rcgen::PKCS_ED25519),
];

/// A key that signs certificates, without revealing the private part.
pub(super) struct CaKey {
    signer: Box<dyn Signer>,
    algorithm: &'static SignatureAlgorithm,
    /// The public key, as in the bit string of a SubjectPublicKeyInfo.
    public: Vec<u8>,
}

impl CaKey {
    /// Loads a key in PKCS #8, SEC 1 or PKCS #1; `None` if its type is unsupported.
    pub(super) fn new(key: &PrivateKeyDer<'_>) -> Option<Self> {
        let key: Arc<dyn rustls::sign::SigningKey> = any_supported_type(key).ok()?;
        let info = key.public_key()?;
        let (_, info) = SubjectPublicKeyInfo::from_der(&info).ok()?;
        let public = info.subject_public_key.data.to_vec();
        KINDS.into_iter().find_map(|(scheme, algorithm)| {
            let signer = key.choose_scheme(&[scheme])?;
            Some(Self { signer, algorithm, public: public.clone() })
        })
    }
}

impl PublicKeyData for CaKey {
    fn der_bytes(&self) -> &[u8] {
        &self.public
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.algorithm
    }
}

impl SigningKey for CaKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.signer.sign(message).map_err(|_| rcgen::Error::RemoteKeyError)
    }
}

impl fmt::Debug for CaKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CaKey").field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}
