//! What is the same in every scheme about a seller's offer.

use std::fmt;

use crate::protocol::Address;
use crate::protocol::asset::Money;

/// The scheme-neutral part of an offer: all that rules, budgets, hooks, quotes, the report and the log may see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// What the seller asks for.
    pub price: Money,
    /// Who is paid.
    pub payee: Address,
    /// How it is paid.
    pub scheme: SchemeName,
}

/// A payment scheme.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SchemeName {
    /// µRaiden: signed totals over a channel.
    MicroRaiden,
    /// The scheme of the tests: one signature for each price.
    #[cfg(feature = "testing")]
    TestToken,
}

impl SchemeName {
    /// As logs and reports write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::MicroRaiden => "microraiden",
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
