//! Why offers cannot be understood, in any scheme.

use super::microraiden::MalformedChannelOffer;
#[cfg(feature = "testing")]
use super::test_token::MalformedTokenOffer;
use super::x402::MalformedExactOffer;

/// Why the offers of a response are malformed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// In µRaiden.
    #[error(transparent)]
    MicroRaiden(#[from] MalformedChannelOffer),
    /// In x402.
    #[error(transparent)]
    X402(#[from] MalformedExactOffer),
    /// In the scheme for tests.
    #[cfg(feature = "testing")]
    #[error(transparent)]
    TestToken(#[from] MalformedTokenOffer),
}
