//! What is paid for one `tollpass run`, and what it may still spend.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;

use super::clock::running;
use super::report::SpendingReport;
use super::shared_engine::SharedEngine;
use super::spending::SpendingTotals;
use crate::mutex::lock;
use crate::protocol::Refusal;
use crate::protocol::budget::{Budget, BudgetAmount, BudgetRef, BudgetSet, BudgetUnit};
use crate::protocol::engine::Input;
use crate::protocol::refusal::RunOver;

/// The account of one `tollpass run`: what is paid for the programs that use its port.
#[derive(Debug)]
pub struct RunAccount {
    id: u64,
    place: RunPlace,
    budget: Option<BudgetRef>,
    /// How long it may spend, and when that is over by the running clock.
    lasts: Option<(Duration, Duration)>,
    has_ended: AtomicBool,
    /// Whether the `tollpass run` process has left.
    is_closed: AtomicBool,
    spending: Arc<Mutex<SpendingTotals>>,
    /// How many of its requests wait for a payment or hold one.
    purchases: watch::Sender<usize>,
    engine: Arc<SharedEngine>,
}

/// Which programs a run has, and what it is a part of.
#[derive(Clone, Debug)]
pub struct RunPlace {
    /// The run that it is within.
    pub parent: Option<Arc<RunAccount>>,
    /// The `tollpass run` process, from which its programs descend; `None` if the system does not tell.
    pub root: Option<i32>,
    /// The address of its port.
    pub port: SocketAddr,
}

/// What a run may spend, in addition to all other limits.
#[derive(Clone, Debug, Default)]
pub struct RunTerms {
    /// The most, in this unit.
    pub budget: Option<(BudgetUnit, BudgetAmount)>,
    /// For how long.
    pub lasts: Option<Duration>,
}

/// A request of a run that waits for a payment or holds one, until dropped.
#[derive(Debug)]
pub(super) struct RunPurchase(Arc<RunAccount>);

impl RunAccount {
    pub(super) fn open(
        id: u64,
        place: RunPlace,
        terms: RunTerms,
        spending: SpendingTotals,
        engine: Arc<SharedEngine>,
    ) -> Self {
        let RunTerms { budget, lasts } = terms;
        let budget = budget.map(|(unit, most)| {
            let budget = Arc::new(Budget::of_run(id, unit, most));
            engine.submit(Input::BeginBudget(Arc::clone(&budget)));
            BudgetRef { budget, host: None }
        });
        Self {
            id,
            place,
            budget,
            // A time beyond every clock is over never.
            lasts: lasts.and_then(|time| Some((time, running().checked_add(time)?))),
            has_ended: AtomicBool::new(false),
            is_closed: AtomicBool::new(false),
            spending: Arc::new(Mutex::new(spending)),
            purchases: watch::Sender::new(0),
            engine,
        }
    }

    /// Its number, unique within the process.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The `tollpass run` process.
    #[must_use]
    pub fn root(&self) -> Option<i32> {
        self.place.root
    }

    /// The address of its port.
    #[must_use]
    pub fn port(&self) -> SocketAddr {
        self.place.port
    }

    /// Whether a program of `other` takes nothing out of that by spending in this one: they are the same, this one is within
    /// it, or one process has opened both for its programs.
    #[must_use]
    pub fn is_within(&self, other: &Self) -> bool {
        self.chain().any(|run| run.id == other.id || (run.root().is_some() && run.root() == other.root()))
    }

    /// Whether the `tollpass run` process has not left.
    pub(super) fn is_open(&self) -> bool {
        !self.is_closed.load(Ordering::Acquire)
    }

    /// Ends the run for good: the `tollpass run` process has left.
    pub(crate) fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
        self.end();
    }

    /// The run, and those that it is within, the innermost first.
    pub(super) fn chain(&self) -> impl Iterator<Item = &Self> {
        std::iter::successors(Some(self), |run| run.place.parent.as_deref())
    }

    /// The budgets of a request of the run, in addition to others.
    pub(crate) fn budgets(&self, others: &BudgetSet) -> BudgetSet {
        let own = self.chain().filter_map(|run| run.budget.as_ref());
        others.iter().chain(own).cloned().collect()
    }

    /// Whether its requests count in the budget of a run that has this name.
    pub(super) fn counts_in(&self, name: &str) -> bool {
        self.chain().filter_map(|run| run.budget.as_ref()).any(|budget| *budget.budget.name == *name)
    }

    /// Whether the run may still spend: neither it nor one that it is within is over.
    ///
    /// # Errors
    /// [`Refusal::RunOver`].
    pub(crate) fn check(&self) -> Result<(), Refusal> {
        self.chain().try_for_each(Self::check_alone)
    }

    fn check_alone(&self) -> Result<(), Refusal> {
        if self.has_ended.load(Ordering::Acquire) {
            return Err(Refusal::RunOver(RunOver::Ended));
        }
        match self.lasts {
            Some((time, until)) if running() >= until => Err(Refusal::RunOver(RunOver::Time(time))),
            _ => Ok(()),
        }
    }

    /// Ends its permission to spend, and its budget.
    pub(crate) fn end(&self) {
        self.has_ended.store(true, Ordering::Release);
        self.end_budget();
    }

    fn end_budget(&self) {
        if let Some(budget) = &self.budget {
            self.engine.submit(Input::EndBudget(budget.key()));
        }
    }

    /// What was paid for it.
    pub(super) fn report(&self) -> SpendingReport {
        let mut spending = lock(&self.spending);
        spending.free(&self.engine.freed);
        spending.report()
    }

    pub(super) fn spending(&self) -> &Arc<Mutex<SpendingTotals>> {
        &self.spending
    }

    /// Counts a request that is about to ask for a payment.
    pub(super) fn enter(self: &Arc<Self>) -> RunPurchase {
        self.chain().for_each(|run| run.purchases.send_modify(|count| *count += 1));
        RunPurchase(Arc::clone(self))
    }

    /// Waits until none of its requests waits for a payment or holds one.
    pub async fn settled(&self) {
        // The sender lives as long as the account.
        let _ = self.purchases.subscribe().wait_for(|count| *count == 0).await;
    }
}

impl Drop for RunAccount {
    fn drop(&mut self) {
        // A request that came when it ended may have used the budget once more.
        self.end_budget();
    }
}

impl Drop for RunPurchase {
    fn drop(&mut self) {
        self.0.chain().for_each(|run| run.purchases.send_modify(|count| *count = count.saturating_sub(1)));
    }
}
