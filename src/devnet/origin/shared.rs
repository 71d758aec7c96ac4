//! State shared by the tasks of one seller.

use std::sync::{Mutex, MutexGuard};

use http::HeaderMap;

use super::authorized::AuthorizedShop;
use super::faults::Faults;
use super::ledger::Ledger;
use super::proofs::Notary;
use super::resources::Shop;
use crate::mutex::lock;
use crate::protocol::Address;

/// State shared by the tasks of one seller.
pub(super) struct SellerShared {
    pub notary: Notary,
    pub letterhead: HeaderMap,
    pub token: Address,
    pub shop: Shop,
    pub authorized: Option<AuthorizedShop>,
    pub ledger: Mutex<Ledger>,
    pub faults: Mutex<Faults>,
    /// True while responses to payments are delayed.
    pub held: tokio::sync::watch::Sender<bool>,
    pub counts: tokio::sync::watch::Sender<Counts>,
}

/// Counters that tests can wait for.
#[derive(Clone, Copy, Default)]
pub(super) struct Counts {
    pub exchanges: u64,
    pub payments: u64,
    pub channels: usize,
    pub polls: u64,
}

impl SellerShared {
    /// Reads or changes the ledger and notifies waiters.
    pub(super) fn with_ledger<T>(&self, work: impl FnOnce(&mut Ledger) -> T) -> T {
        let mut ledger = self.ledger();
        let result = work(&mut ledger);
        let (payments, channels) = (ledger.payments, ledger.channels.len());
        self.counts.send_if_modified(|counts| {
            let changed = counts.payments != payments || counts.channels != channels;
            (counts.payments, counts.channels) = (payments, channels);
            changed
        });
        result
    }

    // No code that holds these locks can panic half-way through a change.
    pub(super) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        lock(&self.ledger)
    }

    pub(super) fn faults(&self) -> MutexGuard<'_, Faults> {
        lock(&self.faults)
    }
}
