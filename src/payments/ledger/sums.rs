//! Sums over rows.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use super::row::{LedgerRow, LedgerState};
use super::signed_amount::SignedAmount;
use crate::protocol::Amount;

/// The length of a day, in milliseconds.
pub const DAY: u64 = 24 * 3600 * 1000;

/// What rows are added up by.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SumKey {
    /// The day, counted from 1970 in UTC.
    pub day: u64,
    /// The network of the asset.
    pub network: String,
    /// The token on this network.
    pub token: String,
    /// The host, with its port.
    pub host: String,
    /// The client.
    pub client: String,
    /// The rule.
    pub rule: String,
}

/// What rows add up to, in base units of one asset.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LedgerSum {
    /// The number of payments that began.
    pub payments: u64,
    /// What sellers took.
    pub paid: SignedAmount,
    /// What is held or was sent, with an outcome that is outstanding.
    pub in_flight: SignedAmount,
    /// What sellers may have taken.
    pub in_doubt: SignedAmount,
    /// What sellers may have taken for unknown requests, less what settlements returned.
    pub unknown: SignedAmount,
}

/// When each payment began, of all whose rows were passed in order. All rows of a payment count at this time, so that the sums
/// of a period are those of the payments that began in it.
#[derive(Debug, Default)]
pub struct PaymentTimes(HashMap<u64, u64>);

impl PaymentTimes {
    /// When the payment of a row began, in milliseconds since 1970; `None` if its first row was not passed.
    pub fn of(&mut self, row: &LedgerRow) -> Option<u64> {
        if row.previous.is_none() {
            self.0.insert(row.payment, row.at);
            return Some(row.at);
        }
        self.0.get(&row.payment).copied()
    }
}

impl SumKey {
    /// The key of a row.
    #[must_use]
    pub fn of(row: &LedgerRow) -> Self {
        Self {
            day: row.at / DAY,
            network: row.parties.network.clone(),
            token: row.parties.token.clone(),
            host: row.parties.host.clone(),
            client: row.parties.client.clone(),
            rule: row.parties.rule.clone(),
        }
    }

    /// The key of all clients and rules together.
    #[must_use]
    pub(in crate::payments) fn of_everyone(self) -> Self {
        Self { client: String::new(), rule: String::new(), ..self }
    }
}

impl LedgerSum {
    /// Adds a row. The state before is subtracted, so that each payment counts once.
    pub fn add(&mut self, row: &LedgerRow) {
        match row.previous {
            Some((state, counted)) => {
                let minus = SignedAmount::difference(Amount::ZERO, counted);
                self.add_to(state, minus);
            }
            None => self.payments += u64::from(row.state.is_payment()),
        }
        self.add_to(row.state, row.counts.into());
        self.unknown = self.unknown.plus(row.adjusts);
    }

    /// Adds another sum.
    pub fn merge(&mut self, other: &Self) {
        self.payments = self.payments.saturating_add(other.payments);
        self.paid = self.paid.plus(other.paid);
        self.in_flight = self.in_flight.plus(other.in_flight);
        self.in_doubt = self.in_doubt.plus(other.in_doubt);
        self.unknown = self.unknown.plus(other.unknown);
    }

    /// The most that sellers can hold.
    #[must_use]
    pub fn total(&self) -> SignedAmount {
        self.paid.plus(self.in_flight).plus(self.in_doubt).plus(self.unknown)
    }

    fn add_to(&mut self, state: LedgerState, amount: SignedAmount) {
        let sum = match state {
            LedgerState::Held | LedgerState::Sent => &mut self.in_flight,
            LedgerState::Paid | LedgerState::PaidNotDelivered => &mut self.paid,
            LedgerState::Refused | LedgerState::InDoubt => &mut self.in_doubt,
            LedgerState::Expired
            | LedgerState::Unsent
            | LedgerState::Recovered
            | LedgerState::Settled
            | LedgerState::Gap => return,
        };
        *sum = sum.plus(amount);
    }
}

/// How many sums of removed rows are kept; of more, the oldest lose their day, then their rule and client, then their host.
const MAX_SUMS: usize = 4096;

/// Merges sums until they are few enough.
pub(in crate::payments) fn limit(sums: BTreeMap<SumKey, LedgerSum>) -> BTreeMap<SumKey, LedgerSum> {
    let mut sums = sums;
    let coarser: [fn(SumKey) -> SumKey; 3] = [
        |key| SumKey { day: 0, ..key },
        |key| SumKey { client: String::new(), rule: String::new(), ..key },
        |key| SumKey { host: String::new(), ..key },
    ];
    for coarser in coarser {
        // Half of them, so that this is rare.
        let excess = if sums.len() > MAX_SUMS { sums.len().saturating_sub(MAX_SUMS / 2) } else { 0 };
        let old: Vec<SumKey> = sums.keys().take(excess).cloned().collect();
        for key in old {
            if let Some(sum) = sums.remove(&key) {
                sums.entry(coarser(key)).or_default().merge(&sum);
            }
        }
    }
    sums
}

/// The canonical encoding of the sums of removed rows, the last of which has the number `removed`.
pub(in crate::payments) fn encode(removed: u64, sums: &BTreeMap<SumKey, LedgerSum>) -> Vec<u8> {
    let mut bytes = removed.to_le_bytes().to_vec();
    for (SumKey { day, network, token, host, client, rule }, sum) in sums {
        bytes.extend_from_slice(&day.to_le_bytes());
        bytes.extend_from_slice(&sum.payments.to_le_bytes());
        let amounts = [sum.paid, sum.in_flight, sum.in_doubt, sum.unknown].map(|amount| amount.to_string());
        let texts = [network, token, host, client, rule].into_iter().chain(&amounts);
        for text in texts {
            bytes.extend_from_slice(&(text.len() as u64).to_le_bytes());
            bytes.extend_from_slice(text.as_bytes());
        }
    }
    bytes
}
