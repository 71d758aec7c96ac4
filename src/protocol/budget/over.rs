//! Why a budget does not allow a payment.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// A budget that does not allow a payment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OverBudget {
    /// An amount would be exceeded.
    Amount {
        /// The budget.
        budget: Arc<str>,
        /// The key of the limit.
        key: &'static str,
        /// The price.
        price: String,
        /// The limit.
        limit: String,
        /// How much of it is left.
        left: String,
        /// The time until enough is left, if nothing else is spent; `None`: never.
        free_in: Option<Duration>,
    },
    /// The number of payments would be exceeded.
    Payments {
        /// The budget.
        budget: Arc<str>,
        /// The limit.
        limit: u64,
    },
    /// The budget cannot count the asset.
    Asset {
        /// The budget.
        budget: Arc<str>,
        /// The asset.
        asset: String,
        /// Whether the budget is in dollars.
        is_usd: bool,
    },
}

impl OverBudget {
    /// The time until the same payment is possible, if nothing else is spent; `None`: never.
    pub fn free_in(&self) -> Option<Duration> {
        match self {
            Self::Amount { free_in, .. } => *free_in,
            Self::Payments { .. } | Self::Asset { .. } => None,
        }
    }
}

impl fmt::Display for OverBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Amount { budget, key, price, limit, left, free_in } => {
                write!(
                    f,
                    "the price {price} exceeds what is left of the budget {budget}: {left} of {key} = {limit}"
                )?;
                match free_in {
                    Some(time) => write!(f, "; enough is free in {}", humantime::format_duration(*time)),
                    None => f.write_str("; raise it to pay more"),
                }
            }
            Self::Payments { budget, limit } => {
                write!(
                    f,
                    "the budget {budget} allows {limit} payments, and all are made: raise payments to pay more"
                )
            }
            Self::Asset { budget, asset, is_usd: true } => {
                write!(
                    f,
                    "the budget {budget} is in dollars, and {asset} has no value: set usd in its [[asset]]"
                )
            }
            Self::Asset { budget, asset, is_usd: false } => {
                write!(f, "the budget {budget} cannot count {asset}: only its own token is paid under it")
            }
        }
    }
}
