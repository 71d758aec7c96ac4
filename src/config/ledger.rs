//! Reads `[ledger]`: how much of the ledger is kept.

use std::time::Duration;

use super::key::{Shape, Table, keys};
use super::section::Section;
use crate::limits::{DAY, GIB, KIB, MIB, Quantity, SECOND, bytes, time};

/// A year of 365.25 days, as in durations such as "2years".
const YEAR: u64 = 31_557_600 * SECOND;
const KEEP: Quantity = time(2 * YEAR, DAY..=100 * YEAR);
const MAX_SIZE: Quantity = bytes(256 * MIB, 64 * KIB..=1024 * GIB);

/// The keys of `[ledger]`.
pub(super) static LEDGER: Table = Table::new(
    "ledger",
    "How much of the ledger to keep.",
    keys! {
        /// How long to keep the rows of payments. Older ones are removed, and only their sums by day, asset, host, client and
        /// rule stay.
        "keep": Shape::Quantity(KEEP),
        /// How large the rows may be together, before the oldest are removed.
        "max_size": Shape::Quantity(MAX_SIZE),
    },
);

/// `[ledger]`: how much of the ledger is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LedgerConfig {
    /// How long rows are kept.
    pub keep: Duration,
    /// How large they may be together, in bytes.
    pub max_size: u64,
}

/// Reads `[ledger]`.
pub(super) fn read(section: &Section<'_>) -> LedgerConfig {
    LedgerConfig { keep: section.time("keep", KEEP), max_size: section.quantity("max_size", MAX_SIZE) }
}
