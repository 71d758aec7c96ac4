//! Why an offer cannot be understood.

use http::HeaderName;

use crate::protocol::address::NotAnAddress;
use crate::protocol::money::NotAnAmount;

/// Why a 402 with `RDN-*` fields cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MalformedChannelOffer {
    /// A field that every offer has is not there.
    #[error("{0} is missing")]
    Missing(HeaderName),
    /// A field stands there twice.
    #[error("{0} is there more than once")]
    Doubled(HeaderName),
    /// A field has bytes other than visible ASCII.
    #[error("{0} is not text")]
    NotText(HeaderName),
    /// A field should be a number of base units.
    #[error("{0} is {1}")]
    NotAnAmount(HeaderName, NotAnAmount),
    /// A field should be an address.
    #[error("{0} is {1}")]
    NotAnAddress(HeaderName, NotAnAddress),
    /// A field should be a signature.
    #[error("{0} is not a signature of 65 bytes")]
    NotASignature(HeaderName),
}
