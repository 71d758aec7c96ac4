//! Which budgets apply to a payment, and how the journal names them.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::amount::BudgetAmount;
use super::definition::Budget;
use super::window::Window;
use crate::protocol::host_name::HostName;

/// A budget that applies to a payment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BudgetRef {
    /// The budget.
    pub budget: Arc<Budget>,
    /// The host, if every host has one of its own.
    pub host: Option<HostName>,
}

/// The budgets that apply to a payment, each once.
pub type BudgetSet = Arc<[BudgetRef]>;

/// Identifies a budget across restarts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "(String, String, Option<String>)", into = "(String, String, Option<String>)")]
pub struct BudgetKey {
    /// Its name.
    pub name: Arc<str>,
    /// The tag of its unit: in another unit it starts from 0.
    pub unit: Arc<str>,
    /// The host, if every host has one of its own.
    pub host: Option<HostName>,
}

/// What the journal contains of a budget: the sum of one bucket of a window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BudgetRow {
    /// The budget.
    pub key: BudgetKey,
    /// The window.
    pub window: Window,
    /// The first minute of the bucket, since 1970.
    pub start: u64,
    /// What was spent.
    pub spent: BudgetAmount,
    /// The number of payments, ever; 0 except in [`Window::Total`].
    pub payments: u64,
}

impl From<(String, String, Option<String>)> for BudgetKey {
    fn from((name, unit, host): (String, String, Option<String>)) -> Self {
        Self { name: name.into(), unit: unit.into(), host: host.map(Into::into) }
    }
}

impl From<BudgetKey> for (String, String, Option<String>) {
    fn from(BudgetKey { name, unit, host }: BudgetKey) -> Self {
        (name.to_string(), unit.to_string(), host.map(|host| host.to_string()))
    }
}

impl BudgetKey {
    /// Whether it is the budget of a run, which does not outlive the process.
    pub fn is_of_run(&self) -> bool {
        Budget::is_name_of_run(&self.name)
    }
}

impl BudgetRow {
    /// Adds up rows of the same bucket.
    pub fn merged(rows: Vec<Self>) -> Vec<Self> {
        let mut merged: Vec<Self> = Vec::with_capacity(rows.len());
        for row in rows {
            let is_same = |other: &&mut Self| {
                (&other.key, other.window, other.start) == (&row.key, row.window, row.start)
            };
            match merged.iter_mut().find(is_same) {
                Some(same) => {
                    same.spent = same.spent.plus(row.spent);
                    same.payments = same.payments.saturating_add(row.payments);
                }
                None => merged.push(row),
            }
        }
        merged
    }
}

impl BudgetRef {
    /// The budget's key.
    pub fn key(&self) -> BudgetKey {
        let Budget { name, tag, .. } = &*self.budget;
        BudgetKey { name: Arc::clone(name), unit: Arc::clone(tag), host: self.host.clone() }
    }
}
