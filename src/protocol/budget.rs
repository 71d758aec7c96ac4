//! Budgets: how much may be spent together, across requests, hosts and restarts.
//!
//! A budget counts each payment at the latest time at which it was signed. Sums slide with time, or follow the calendar: a
//! payment leaves a window once the window has passed it, without a reset.

mod account;
mod amount;
mod calendar;
mod coverage;
mod definition;
mod hold;
mod over;
mod set;
mod window;

pub use account::{BudgetIndex, BudgetNotice, BudgetView, Budgets};
pub(in crate::protocol) use account::{Change, HeldAmounts, Need, RowId, Shortage};
pub use amount::BudgetAmount;
pub use calendar::Calendar;
pub use coverage::Coverage;
pub use definition::{Budget, BudgetLimits, BudgetUnit};
pub use hold::{CoveredBy, Hold};
pub use over::OverBudget;
pub use set::{BudgetKey, BudgetRef, BudgetRow, BudgetSet};
pub(in crate::protocol) use window::WINDOWS;
pub use window::Window;
