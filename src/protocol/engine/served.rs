//! Authorizations of served payments, until their chain shows whether sellers used them. What a seller states about a payment
//! is a claim, and one that it never redeems costs nothing.

use std::collections::{BTreeSet, VecDeque};

use super::authorization::{Authorization, KnownAuthorization};
use super::chain_use::{AuthorizationTime, Shown, UseDoubt};
use crate::protocol::budget::{BudgetAmount, BudgetKey};
use crate::protocol::policy::AuthorizationLimits;
use crate::protocol::schemes::UseQuery;

/// The authorizations, in the order in which they were served.
#[derive(Debug, Default)]
pub(super) struct ServedAuthorizations(VecDeque<ServedAuthorization>);

/// An authorization whose payment was served.
#[derive(Clone, Debug)]
pub(super) struct ServedAuthorization {
    pub(super) nonce: [u8; 32],
    /// What to ask its chain.
    pub(super) query: UseQuery,
    /// What it counts for in its budgets, and since which minute.
    pub(super) counted: Vec<(BudgetKey, BudgetAmount, u64)>,
    /// When it expires, in seconds since 1970.
    pub(super) valid_before: u64,
    /// The same by the running clock.
    pub(super) runs_until: u64,
}

impl ServedAuthorizations {
    pub(super) fn push(&mut self, served: ServedAuthorization) {
        self.0.push_back(served);
    }

    /// Adds what the journal has of an earlier run.
    pub(super) fn restore(&mut self, known: &KnownAuthorization, now: AuthorizationTime) {
        let Authorization { nonce, draft, payer, counted, .. } = &known.authorization;
        let Some((query, valid_before)) = draft.use_query(*payer).zip(draft.valid_before()) else { return };
        // The budgets of runs have ended with the process.
        let counted = counted.iter().filter(|(budget, ..)| !budget.is_of_run()).cloned().collect();
        let runs_until = now.running.saturating_add(valid_before.saturating_sub(now.wall));
        self.push(ServedAuthorization { nonce: *nonce, query, counted, valid_before, runs_until });
    }

    /// Removes the oldest, if there are too many or no chain is asked about them any more; returns their nonces.
    pub(super) fn forget_old(
        &mut self,
        chains: &BTreeSet<u64>,
        now: AuthorizationTime,
        limits: &AuthorizationLimits,
    ) -> Vec<[u8; 32]> {
        let most = if limits.served_checks == 0 { 0 } else { limits.open };
        let mut forgotten = Vec::new();
        while let Some(oldest) = self.0.front()
            && (self.0.len() > most
                || !chains.contains(&oldest.query.chain_id)
                || oldest.has_expired(now, limits.ask_chain_for.as_secs()))
        {
            forgotten.push(oldest.nonce);
            self.0.pop_front();
        }
        forgotten
    }

    /// The first `most` of this chain that are due, which depends on the nonce and on whether it has expired.
    pub(super) fn due(
        &self,
        chain: u64,
        now: AuthorizationTime,
        most: usize,
        is_due: impl Fn(&[u8; 32], bool) -> bool,
    ) -> Vec<UseDoubt> {
        let of_chain = self.0.iter().filter(|served| served.query.chain_id == chain);
        let due = of_chain.filter_map(|served| {
            let has_expired = served.has_expired(now, 0);
            is_due(&served.nonce, has_expired).then(|| UseDoubt {
                nonce: served.nonce,
                query: served.query.clone(),
                has_expired,
            })
        });
        due.take(most).collect()
    }

    /// The chain has shown whether one was used, in a confirmed block with this time, in seconds since 1970.
    pub(super) fn shown(
        &mut self,
        nonce: &[u8; 32],
        is_used: bool,
        block_time: u64,
        now: AuthorizationTime,
    ) -> Option<Shown> {
        let index = self.0.iter().position(|served| served.nonce == *nonce)?;
        let served = self.0.get(index)?;
        // The same as for one whose outcome is unclear: until then it may be used in a later block.
        if !is_used && (block_time <= served.valid_before || !served.has_expired(now, 0)) {
            return Some(Shown::Nothing);
        }
        let served = self.0.remove(index)?;
        Some(if is_used { Shown::Confirmed } else { Shown::Unused { counted: served.counted } })
    }
}

impl ServedAuthorization {
    /// Whether it expired at least this many seconds ago.
    fn has_expired(&self, now: AuthorizationTime, ago: u64) -> bool {
        self.valid_before.saturating_add(ago) <= now.wall
            && self.runs_until.saturating_add(ago) <= now.running
    }
}
