//! For tests: a service without a key, which pays nothing and whose runs can be opened.

use std::sync::Arc;
use std::time::Duration;

use super::handle::Payments;
use super::journal::Journal;
use super::ledger::LedgerBounds;
use crate::limits::Limits;
use crate::protocol::Policy;

/// The service, and its directory. It is stopped when its runtime ends.
pub(crate) fn idle() -> (Payments, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let journal = Journal::open(directory.path()).unwrap();
    let bounds = LedgerBounds { keep: Duration::from_secs(60), max_size: 1 << 20 };
    let policy = Arc::new(Policy::builder().build());
    let (payments, _task) = Payments::spawn(policy, journal, bounds, [].into(), &Limits::default()).unwrap();
    (payments, directory)
}
