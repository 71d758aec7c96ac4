//! What chains show about authorizations whose outcome is unclear.

use std::collections::BTreeSet;

use super::chain_use::{Shown, UseDoubt};
use super::ids::Seq;
use super::open_authorization::UnclearAuthorization;
use super::{Engine, Record};
use crate::protocol::budget::Change;

impl Engine {
    /// Sets the chains that can be asked.
    pub fn set_chains(&mut self, chains: BTreeSet<u64>) {
        self.open_authorizations.set_chains(chains);
    }

    /// The authorizations that this chain is to be asked about, once the key is unlocked.
    pub fn doubts(&mut self, chain: u64) -> Vec<UseDoubt> {
        if !self.is_unlocked {
            return Vec::new();
        }
        self.forget_old_authorizations();
        self.open_authorizations.doubts(chain, self.time)
    }

    /// Whether an authorization with an unclear outcome has this nonce.
    pub fn has_open_authorization(&self, nonce: &[u8; 32]) -> bool {
        self.open_authorizations.contains(nonce)
    }

    /// The authorizations whose outcome stays unclear, as this chain has not shown it for as long as it is asked; each once.
    pub fn take_given_up(&mut self, chain: u64) -> Vec<UnclearAuthorization> {
        self.open_authorizations.take_given_up(chain)
    }

    /// The authorizations of served payments that this chain is to be asked about, `most` at the most: those that are due, which
    /// depends on the nonce and on whether it has expired.
    pub fn served(&self, chain: u64, most: usize, is_due: impl Fn(&[u8; 32], bool) -> bool) -> Vec<UseDoubt> {
        match self.is_unlocked {
            true => self.open_authorizations.served().due(chain, self.time, most, is_due),
            false => Vec::new(),
        }
    }

    /// A chain has shown whether an authorization was used, in a confirmed block with this time.
    pub(super) fn usage_shown(&mut self, nonce: &[u8; 32], is_used: bool, block_time: u64) {
        let times = (self.time, self.policy.authorizations.retry_window.as_secs());
        match self.open_authorizations.shown(nonce, is_used, block_time, times) {
            Shown::Nothing => {}
            Shown::Used { until } => self.record_until_durable(Record::AuthorizationUsed(*nonce, until)),
            Shown::Confirmed => self.record_until_durable(Record::AuthorizationConfirmed(*nonce)),
            Shown::Unused { counted } => {
                self.record_until_durable(Record::AuthorizationUnused(*nonce));
                let mut changes = Vec::new();
                for (budget, minus, at) in counted {
                    // The budget of a run may be over.
                    let Some(index) = self.budgets.find(&budget) else { continue };
                    self.budgets.discharge(index, at, minus);
                    self.budgets.count_payment(index, false);
                    changes.push((index, at, Change { minus, payments_undone: 1, ..Change::default() }));
                }
                self.record_changes(&changes);
            }
        }
    }

    /// Forgets authorizations of served payments that no chain is asked about any more.
    pub(super) fn forget_served(&mut self) {
        let forgotten = self.open_authorizations.forget_served(self.time, &self.policy.authorizations);
        self.records.extend(forgotten.into_iter().map(Record::AuthorizationEnded));
    }

    /// Adds a record to the current write, and to all later ones until one of them is durable. So whatever write frees the
    /// money of an authorization also ends that: otherwise it could be freed twice.
    pub(super) fn record_until_durable(&mut self, record: Record) {
        self.repeated.push((self.next_write(), record.clone()));
        self.records.push(record);
    }

    /// What the current write repeats.
    pub(super) fn repeat_records(&self) -> Vec<Record> {
        let is_earlier = |(write, _): &&(Seq, Record)| *write <= self.newest;
        self.repeated.iter().filter(is_earlier).map(|(_, record)| record.clone()).collect()
    }
}
