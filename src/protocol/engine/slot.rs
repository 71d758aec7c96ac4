//! Everything the engine stores for one channel.

use std::collections::VecDeque;
use std::time::Instant;

use super::fit::BudgetIndices;
use super::ids::{PurchaseId, Seq};
use crate::protocol::budget::{BudgetAmount, BudgetIndex, Change, Coverage, HeldAmounts};
use crate::protocol::host_name::HostName;
use crate::protocol::{Amount, Channel};

/// One channel with its engine state.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) channel: Channel,
    /// Its host. Without one, it becomes that of the first host that pays from it.
    pub(super) host: Option<HostName>,
    /// True if the journal may not know the host.
    pub(super) is_host_unwritten: bool,
    /// The purchase that leases it.
    pub(super) lease: Option<PurchaseId>,
    /// True while it must not be leased, because it is about to be closed.
    pub(super) is_locked: bool,
    /// When it last carried a payment; since the start if that is unknown.
    pub(super) used: Option<Instant>,
    /// True while the journal has an older state.
    pub(super) is_dirty: bool,
    /// Its pending writes, in order.
    pub(super) writes: VecDeque<SlotWrite>,
    /// The budgets of what may be signed up to the durable limit.
    pub(super) budgets: BudgetIndices,
    /// What its hold counts for in each budget.
    pub(super) counted: Vec<(BudgetIndex, HeldAmounts)>,
    /// The totals that budgets have counted.
    pub(super) covered: Vec<CoveredTotals>,
    /// Changes of budgets that are part of the next write.
    pub(super) unrecorded: Vec<(BudgetIndex, u64, Change)>,
    /// The pending write of its host.
    pub(super) host_write: Option<Seq>,
    /// A lower deposit that the chain has shown once.
    pub(super) lower: Option<Amount>,
    /// True if the contract did not have it at the last reading, and no settlement explains that.
    pub(super) is_missing: bool,
    /// The total that it was settled at.
    pub(super) settled: Option<Amount>,
    /// True if it vanished in this run, as after a reorganisation: its opening may be mined again.
    pub(super) is_undone: bool,
}

/// A pending write of a channel.
#[derive(Clone, Debug)]
pub(super) struct SlotWrite {
    pub(super) seq: Seq,
    /// Its durable limit.
    pub(super) limit: Amount,
    /// The budgets of what may be signed up to the limit.
    pub(super) budgets: BudgetIndices,
}

/// The totals of a channel that a budget has counted, and the cost of each base unit.
#[derive(Debug)]
pub(super) struct CoveredTotals {
    pub(super) index: BudgetIndex,
    pub(super) each: BudgetAmount,
    pub(super) coverage: Coverage,
    /// What is no longer counted, because the channel was settled at a lower total.
    pub(super) lost: Vec<(Amount, Amount)>,
}

impl Slot {
    pub(super) fn new(channel: Channel, host: Option<HostName>) -> Self {
        Self {
            channel,
            host,
            is_host_unwritten: false,
            lease: None,
            is_locked: false,
            used: None,
            is_dirty: false,
            writes: VecDeque::new(),
            budgets: BudgetIndices::default(),
            counted: Vec::new(),
            covered: Vec::new(),
            unrecorded: Vec::new(),
            host_write: None,
            lower: None,
            is_missing: false,
            settled: None,
            is_undone: false,
        }
    }
}
