//! Why offers cannot be understood.

use http::HeaderName;

use crate::protocol::safe_text::in_a_row;

/// Why a 402 that speaks x402 is malformed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MalformedExactOffer {
    /// A header occurs twice.
    #[error("duplicate header {0}")]
    Doubled(HeaderName),
    /// A header is not base64 of JSON.
    #[error("{0} is not JSON in base64")]
    NotJson(HeaderName),
    /// The offers lack a required member, or one has the wrong type.
    #[error("the x402 offers cannot be read: {0}")]
    Unreadable(Box<str>),
    /// The version is neither 1 nor 2, or it is in the wrong place.
    #[error("x402 version {0} is not supported here")]
    Version(u64),
    /// There are more offers than any seller needs.
    #[error("there are {count} x402 offers; at most {most} are read")]
    TooMany {
        /// How many.
        count: usize,
        /// How many are read.
        most: usize,
    },
    /// None of the offers is one that tollpass can pay; these are the offers, and why.
    #[error("tollpass cannot pay any of the x402 offers: {}", in_a_row(.0))]
    NoneSupported(Vec<String>),
}
