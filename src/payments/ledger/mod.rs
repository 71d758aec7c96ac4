//! The ledger: an append-only list in the journal of every payment and its states.
//!
//! Requests put events into a bounded queue in memory, and the journal thread turns them into rows in batches, so that
//! no payment on a channel waits for its row. A crash may lose such rows; the next start compares the ledger with the
//! recorded channels and adds one row for each channel with what is missing. The first row of a one-shot authorization
//! is written together with the authorization.
//!
//! Each row has a message authentication code over the row and the code of the row before it, with a key that is derived
//! from the wallet's. Nothing is signed before the wallet is unlocked, so no row is ever written without the key.

mod bounds;
mod counts;
mod event;
mod guard;
mod head;
mod parties;
mod parties_cache;
mod path;
mod queue;
mod request;
mod row;
mod seal;
mod signed_amount;
mod sums;
mod tables;
mod writer;

pub use bounds::LedgerBounds;
pub(super) use guard::LedgerGuard;
pub(super) use head::{HEAD_FILE, head_file, read_head};
pub(super) use queue::LedgerQueue;
pub use queue::LedgerWatch;
pub use request::PaidRequest;
pub use row::{LedgerRow, LedgerState, OnChainUse};
pub use seal::{LedgerKey, RowSeal};
pub use signed_amount::SignedAmount;
pub use sums::{DAY, LedgerSum, PaymentTimes, SumKey};
pub(super) use sums::{encode as encode_sums, limit as limit_sums};
pub(super) use tables::{CONFIRMATIONS, LEDGER, PARTIES, read as read_row, read_sums, select as select_rows};
pub(super) use writer::LedgerWriter;
