//! What is paid for one `tollpass run`.

use std::sync::{Arc, Mutex};

use tokio::sync::watch;

use super::report::SpendingReport;
use super::spending::SpendingTotals;
use crate::mutex::lock;

/// The account of one `tollpass run`: what is paid for the programs that use its port.
#[derive(Debug)]
pub struct RunAccount {
    id: u64,
    spending: Arc<Mutex<SpendingTotals>>,
    /// How many of its requests wait for a payment or hold one.
    purchases: watch::Sender<usize>,
}

/// A request of a run that waits for a payment or holds one, until dropped.
#[derive(Debug)]
pub(super) struct RunPurchase(Arc<RunAccount>);

impl RunAccount {
    /// An account of which the report lists at most this many payees; `since` is in milliseconds since 1970.
    pub(super) fn new(id: u64, report_payees: usize, since: u64) -> Self {
        let spending = Arc::new(Mutex::new(SpendingTotals::new(report_payees, since)));
        Self { id, spending, purchases: watch::Sender::new(0) }
    }

    /// Its number, unique within the process.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// What was paid for it.
    pub(super) fn report(&self) -> SpendingReport {
        lock(&self.spending).report()
    }

    pub(super) fn spending(&self) -> &Arc<Mutex<SpendingTotals>> {
        &self.spending
    }

    /// Counts a request that is about to ask for a payment.
    pub(super) fn enter(self: &Arc<Self>) -> RunPurchase {
        self.purchases.send_modify(|count| *count += 1);
        RunPurchase(Arc::clone(self))
    }

    /// Waits until none of its requests waits for a payment or holds one.
    pub async fn settled(&self) {
        // The sender lives as long as the account.
        let _ = self.purchases.subscribe().wait_for(|count| *count == 0).await;
    }
}

impl Drop for RunPurchase {
    fn drop(&mut self) {
        self.0.purchases.send_modify(|count| *count = count.saturating_sub(1));
    }
}
