//! What the journal contains about the budgets of a channel.

use serde::{Deserialize, Serialize};

use super::amount::BudgetAmount;
use super::coverage::Coverage;
use super::set::BudgetKey;
use crate::protocol::Amount;

/// The totals of a channel that may be signed without another record, and the budgets that pay for them. After a crash,
/// all of them count as spent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// The highest total whose payments are counted.
    pub above: Amount,
    /// The highest total that may be signed.
    pub upto: Amount,
    /// The budgets of the totals in between, with the cost of one base unit in each.
    pub budgets: Vec<(BudgetKey, BudgetAmount)>,
    /// What the budgets have counted, and when.
    pub covered: Vec<CoveredBy>,
}

impl Hold {
    /// Removes the budgets of runs.
    pub fn forget_runs(&mut self) {
        self.budgets.retain(|(key, _)| !key.is_of_run());
        self.covered.retain(|covered| !covered.budget.is_of_run());
    }
}

/// The totals of a channel that a budget has counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoveredBy {
    /// The budget.
    pub budget: BudgetKey,
    /// The cost at which it counted each base unit.
    pub each: BudgetAmount,
    /// The totals.
    pub coverage: Coverage,
}
