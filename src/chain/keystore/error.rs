//! Errors of V3 keystores.

/// Why a keystore cannot be decrypted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum V3Error {
    /// It is not JSON, or a member is missing or has the wrong type.
    #[error("not a V3 keystore: {0}")]
    Shape(String),
    /// It uses an unsupported feature.
    #[error("the keystore's {0}")]
    Unsupported(String),
    /// The key derivation would take too much memory or time.
    #[error("the keystore's key derivation is out of bounds: {0}; it was not made by a common wallet")]
    Excessive(String),
    /// The MAC does not match.
    #[error("the password is wrong, or the keystore is damaged")]
    WrongPassword,
}
