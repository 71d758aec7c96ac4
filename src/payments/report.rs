//! The report of what was paid to each payee since the process started.

use serde::{Deserialize, Serialize};

use crate::protocol::{Account, Address, Amount};

/// What was paid to whom since the process started. Amounts are base units of the channel contract's token, except in
/// `other_assets`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpendingReport {
    /// When the process started, in milliseconds since 1970; it tells the reports of two processes apart.
    pub since: u64,
    /// The paying account and its token, once they are known.
    pub from: Option<Account>,
    /// One entry for each host and receiver, the most expensive first.
    pub payees: Vec<PayeeSpending>,
    /// What went to payees beyond `limits.report_payees`.
    pub others: Spending,
    /// Payments in flight, whose outcome is not known yet.
    pub under_way: Tally,
    /// The same for each other asset.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub other_assets: Vec<AssetSpending>,
}

/// What was paid in one asset; amounts are in its base units.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssetSpending {
    /// The network, as a CAIP-2 id.
    pub network: String,
    /// The token on this network.
    pub token: String,
    /// One entry for each host and receiver, the most expensive first.
    pub payees: Vec<PayeeSpending>,
    /// What went to payees beyond `limits.report_payees`.
    pub others: Spending,
    /// Payments in flight, whose outcome is not known yet.
    pub under_way: Tally,
}

/// What was paid to one receiver for one host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PayeeSpending {
    /// The host, with its port unless it is the scheme's default.
    pub host: String,
    /// The receiver.
    pub receiver: Address,
    /// What was paid.
    #[serde(flatten)]
    pub spent: Spending,
}

/// Money that was signed away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spending {
    /// What the seller took.
    pub paid: Tally,
    /// What the seller may have taken: the answer was lost or an error, or the seller asked again.
    pub unclear: Tally,
    /// What was in doubt until a later payment was taken in its place; part of `paid`.
    #[serde(default, skip_serializing_if = "Tally::is_nothing")]
    pub cleared: Tally,
}

/// A number of requests and what they cost together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// The number of requests.
    pub requests: u64,
    /// Their price, in base units.
    pub amount: Amount,
}

impl SpendingReport {
    /// The sum over all payees, in the channel contract's token.
    #[must_use]
    pub fn total(&self) -> Spending {
        sum(&self.payees, self.others)
    }
}

impl AssetSpending {
    /// The sum over all payees.
    #[must_use]
    pub fn total(&self) -> Spending {
        sum(&self.payees, self.others)
    }

    pub(super) fn is_nothing(&self) -> bool {
        self.total() == Spending::default() && self.under_way.is_nothing()
    }
}

fn sum(payees: &[PayeeSpending], others: Spending) -> Spending {
    payees.iter().fold(others, |total, payee| total.plus(&payee.spent))
}

/// The most expensive first.
pub(super) fn sort(payees: &mut [PayeeSpending]) {
    payees.sort_by(|one, other| {
        let price = |payee: &PayeeSpending| (payee.spent.paid.amount, payee.spent.unclear.amount);
        let by_name = || (&one.host, one.receiver).cmp(&(&other.host, other.receiver));
        price(other).cmp(&price(one)).then_with(by_name)
    });
}

impl Spending {
    /// The sum of both.
    #[must_use]
    pub fn plus(&self, more: &Self) -> Self {
        Self {
            paid: self.paid.plus(&more.paid),
            unclear: self.unclear.plus(&more.unclear),
            cleared: self.cleared.plus(&more.cleared),
        }
    }
}

impl Tally {
    pub(super) fn of(amount: Amount) -> Self {
        Self { requests: 1, amount }
    }

    fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    pub(super) fn plus(&self, more: &Self) -> Self {
        Self {
            requests: self.requests.saturating_add(more.requests),
            amount: self.amount.saturating_add(more.amount),
        }
    }

    pub(super) fn minus(&self, less: &Self) -> Self {
        Self {
            requests: self.requests.saturating_sub(less.requests),
            amount: self.amount.saturating_sub(less.amount),
        }
    }
}
