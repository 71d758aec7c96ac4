//! The journal: a SQLite file that preserves promises and pending transactions across a crash.
//!
//! One file, `tollpass.db`, readable with any SQLite tool. Amounts are decimal text, addresses and hashes hexadecimal
//! text. Every write is one durable transaction (write-ahead log, synchronous = FULL), except that rows of the ledger
//! become durable with the next write, and what became of authorizations with that or half a second later.

mod allowances;
mod approvals;
mod budgets;
mod error;
mod file;
mod ledger;
mod load;
mod pauses;
mod rows;
mod schema;
mod write;
#[cfg(feature = "testing")]
mod write_hook;
pub(crate) mod writer;

pub use error::JournalError;
pub use file::{FILE, Journal, sidecar_files};
#[cfg(feature = "testing")]
pub use ledger::{LedgerFlaw, VerifiedLedger};
pub use ledger::{LedgerHeads, LedgerPlace, LedgerReader, LedgerSums};
pub use load::{AccountChannels, AccountId, StoredAccount};
#[cfg(feature = "testing")]
pub use schema::LEDGER_VERSION;
#[cfg(feature = "testing")]
pub use write_hook::{before_ledger, before_writes};
pub(crate) use writer::WRITE_LATENCY;

#[cfg(test)]
mod tests;
