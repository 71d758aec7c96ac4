//! What was paid to whom since the process started, in memory. The journal knows channels and totals; only this knows for
//! which host a payment was made.
//!
//! Leases fill it when they come back, so that it counts what the engine counts. A payment counts by how much it raises
//! what the seller can redeem: presenting the same total again adds nothing, and what was presented stays counted,
//! whatever becomes of the next attempt.

mod channel;
mod one_shot;
mod totals;

use std::sync::{Arc, Mutex};

use self::channel::ChannelGuard;
use self::one_shot::OneShotGuard;
pub(super) use self::totals::{Delivery, SpendingTotals};
use crate::payments::run_account::RunAccount;
use crate::protocol::{Amount, Draft};

/// Accounts for the payments of one client request in each report that contains them.
#[derive(Debug)]
pub(super) struct PaymentGuards {
    /// For the report of the process.
    process: PaymentGuard,
    /// For the reports of its run, and of those around it.
    runs: Vec<PaymentGuard>,
}

impl PaymentGuards {
    /// Accounts for the payment `draft`, and those that follow it, for a request of `run` to `host`, which has a port
    /// unless it is the scheme's default.
    pub(super) fn new(
        totals: &Arc<Mutex<SpendingTotals>>,
        run: Option<&RunAccount>,
        host: &Arc<str>,
        draft: &Draft,
    ) -> Self {
        let guard = |totals: &Arc<Mutex<SpendingTotals>>| {
            PaymentGuard::new(Arc::clone(totals), Arc::clone(host), draft)
        };
        let runs = run.into_iter().flat_map(RunAccount::chain).map(|run| guard(run.spending()));
        Self { process: guard(totals), runs: runs.collect() }
    }

    fn each(&mut self, mut change: impl FnMut(&mut PaymentGuard)) {
        change(&mut self.process);
        self.runs.iter_mut().for_each(change);
    }

    /// A payment is about to be sent.
    pub(super) fn begin(&mut self, draft: &Draft) {
        self.each(|guard| guard.begin(draft));
    }

    /// The seller has seen what was sent and asks again: it stays counted, whatever comes next.
    pub(super) fn answered(&mut self) {
        self.each(PaymentGuard::answered);
    }

    /// The seller has proven that it holds `total` of a channel of what was presented.
    pub(super) fn registered(&mut self, total: Amount) {
        self.each(|guard| guard.registered(total));
    }

    /// Records the outcome of the last payment; no-op if none was presented.
    pub(super) fn end(&mut self, how: Delivery) {
        self.each(|guard| guard.end(how));
    }
}

/// Accounts for the payments of one client request in one report.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "a box would cost each payment on a channel an allocation")]
enum PaymentGuard {
    /// On a channel.
    Channel(ChannelGuard),
    /// With an authorization.
    OneShot(OneShotGuard),
}

impl PaymentGuard {
    /// Accounts for the payment `draft`, and those that follow it, for a request to `host`, which has a port unless it is the
    /// scheme's default.
    fn new(totals: Arc<Mutex<SpendingTotals>>, host: Arc<str>, draft: &Draft) -> Self {
        match draft.on_channel() {
            Some(draft) => Self::Channel(ChannelGuard::new(totals, host, draft.channel.receiver)),
            None => {
                let paid = (draft.payee(), draft.price());
                Self::OneShot(OneShotGuard::new(totals, host, paid, draft.nonce().unwrap_or_default()))
            }
        }
    }

    /// A payment is about to be sent.
    fn begin(&mut self, draft: &Draft) {
        match (self, draft.on_channel()) {
            (Self::Channel(guard), Some(draft)) => guard.begin(draft),
            (Self::OneShot(guard), None) => guard.begin(),
            // A request is paid in one way.
            (Self::Channel(_), None) | (Self::OneShot(_), Some(_)) => {}
        }
    }

    /// The seller has seen what was sent and asks again: it stays counted, whatever comes next.
    fn answered(&mut self) {
        match self {
            Self::Channel(guard) => guard.answered(),
            Self::OneShot(guard) => guard.answered(),
        }
    }

    /// The seller has proven that it holds `total` of a channel of what was presented.
    fn registered(&mut self, total: Amount) {
        match self {
            Self::Channel(guard) => guard.registered(total),
            Self::OneShot(_) => {}
        }
    }

    /// Records the outcome of the last payment; no-op if none was presented.
    fn end(&mut self, how: Delivery) {
        match self {
            Self::Channel(guard) => guard.end(how),
            Self::OneShot(guard) => guard.end(how),
        }
    }
}
