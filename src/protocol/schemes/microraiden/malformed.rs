//! Why an offer cannot be understood.

use http::HeaderName;

use crate::protocol::address::NotAnAddress;
use crate::protocol::money::NotAnAmount;

/// Why a 402 with `RDN-*` headers is malformed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MalformedChannelOffer {
    /// A required header is missing.
    #[error("{0} is missing")]
    Missing(HeaderName),
    /// A header occurs twice.
    #[error("duplicate header {0}")]
    Doubled(HeaderName),
    /// A header contains bytes other than visible ASCII.
    #[error("{0} is not text")]
    NotText(HeaderName),
    /// A header is not a number of base units.
    #[error("{0} is {1}")]
    NotAnAmount(HeaderName, NotAnAmount),
    /// A header is not an address.
    #[error("{0} is {1}")]
    NotAnAddress(HeaderName, NotAnAddress),
    /// A header is not a signature.
    #[error("{0} is not a signature of 65 bytes")]
    NotASignature(HeaderName),
}
