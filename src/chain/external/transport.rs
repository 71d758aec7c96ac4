//! What programs and endpoints have in common.

/// The largest answer that is read, in bytes.
pub(super) const MAX_ANSWER: usize = 64 * 1024;

/// Why a request has no answer.
#[derive(Debug)]
pub(super) enum Unanswered {
    /// The signer did not get it.
    NotAsked(String),
    /// The signer may have got it.
    Unclear(String),
}

/// The URL of the endpoint cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("wallet.signer is not usable: {0}")]
pub struct UnusableSigner(pub(super) String);
