//! The names of the payment schemes.

use std::fmt;

/// A payment scheme.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SchemeName {
    /// µRaiden: signed totals over a channel.
    MicroRaiden,
    /// x402, `exact`: one authorization for each price.
    X402,
    /// The scheme of the tests: one signature for each price.
    #[cfg(feature = "testing")]
    TestToken,
}

impl SchemeName {
    /// Whether its payments draw on channels.
    #[must_use]
    pub const fn uses_channels(self) -> bool {
        match self {
            Self::MicroRaiden => true,
            Self::X402 => false,
            #[cfg(feature = "testing")]
            Self::TestToken => false,
        }
    }

    /// The name in logs, reports and the journal.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::MicroRaiden => "microraiden",
            Self::X402 => "x402",
            #[cfg(feature = "testing")]
            Self::TestToken => "test-token",
        }
    }
}

impl fmt::Display for SchemeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
