//! What chains are asked about authorizations, and what follows from what they show.

use crate::protocol::budget::{BudgetAmount, BudgetKey};
use crate::protocol::schemes::UseQuery;

/// An authorization that a chain is to be asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UseDoubt {
    /// Its nonce.
    pub nonce: [u8; 32],
    /// What to ask.
    pub query: UseQuery,
    /// Whether it has expired, so that the chain can also show that it never was used.
    pub has_expired: bool,
}

/// What follows from what a chain has shown.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Shown {
    /// Nothing.
    Nothing,
    /// It was used: its purchase, which was not delivered, is not repeated until this time.
    Used { until: u64 },
    /// It was used, as the seller that served said.
    Confirmed,
    /// It expired unused: what it counted for.
    Unused { counted: Vec<(BudgetKey, BudgetAmount, u64)> },
}

/// The time, in seconds. An authorization has expired if it has by both clocks: setting the wall clock forward ends nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AuthorizationTime {
    /// Since 1970, by the wall clock, as payees and chains see it.
    pub wall: u64,
    /// By a clock that only runs on.
    pub running: u64,
}
