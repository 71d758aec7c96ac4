//! How payments fit into their budgets.

use std::sync::Arc;

use super::ids::Seq;
use crate::protocol::budget::BudgetIndex;
use crate::protocol::{Amount, ChannelId};

/// The budgets of a purchase or a hold, in order.
pub(super) type BudgetIndices = Arc<[BudgetIndex]>;

/// New limits that channels must be lowered to, so that a payment fits into its budgets.
pub(super) type Lowered = Vec<(ChannelId, Amount)>;

/// A range of totals that a payment was counted for.
#[derive(Clone, Copy, Debug)]
pub(super) struct CountedRange {
    pub(super) index: BudgetIndex,
    pub(super) above: Amount,
    pub(super) upto: Amount,
}

/// How a payment fits into its budgets.
#[derive(Clone, Debug, Default)]
pub(super) struct Fit {
    /// It fits only if the pending writes succeed, and these channels are lowered in the same write as its own record.
    pub(super) tight: Option<Lowered>,
}

/// When a payment may be signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signable {
    Now,
    /// Once this write has succeeded.
    After(Seq),
    /// After another record.
    Never,
}
