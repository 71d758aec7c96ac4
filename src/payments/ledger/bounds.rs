//! How much of the ledger is kept.

use std::time::Duration;

/// Which rows are removed once only their sums are needed: the oldest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LedgerBounds {
    /// How long rows are kept.
    pub keep: Duration,
    /// How large they may be together, in bytes.
    pub max_size: u64,
}
