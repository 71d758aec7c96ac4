//! Lists what is held for payments without a certain outcome.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Engine;
use super::open_hold::{HoldReason, OpenHold, ShownBy};
use super::purchase::{Purchase, Stage};
use super::slot::Slot;
use crate::protocol::budget::BudgetIndex;
use crate::protocol::{Amount, ChannelId, Money, Phase};

impl Engine {
    /// Everything that is held, by reason.
    #[must_use]
    pub fn holds(&self, now: Instant) -> Vec<OpenHold> {
        let mut holds: Vec<OpenHold> = self.one_shot_holds(now).chain(self.unclear_holds()).collect();
        for (id, slot) in self.slots.iter().filter(|(_, slot)| slot.channel.phase != Phase::Gone) {
            self.add_holds_of(*id, slot, now, &mut holds);
        }
        holds.sort_by_key(|hold| hold.reason);
        holds
    }

    fn one_shot_holds(&self, now: Instant) -> impl Iterator<Item = OpenHold> {
        self.one_shots.values().filter(|purchase| purchase.is_recorded()).map(move |purchase| OpenHold {
            reason: HoldReason::InFlight,
            held: purchase.price().clone(),
            payee: purchase.terms.payee,
            channel: None,
            host: Some(Arc::clone(&purchase.limit.host)),
            budgets: self.names(purchase.counted.iter().map(|(index, ..)| *index)),
            age: now.saturating_duration_since(purchase.since),
            free_in: Some(purchase.deadline.saturating_duration_since(now)),
            shown_by: None,
        })
    }

    /// The authorizations in doubt.
    fn unclear_holds(&self) -> impl Iterator<Item = OpenHold> {
        self.open_authorizations.unclear(self.time, &self.policy.authorizations).map(|open| {
            let mut budgets: Vec<_> = open.budgets.iter().map(|budget| Arc::clone(&budget.name)).collect();
            budgets.sort_unstable();
            budgets.dedup();
            OpenHold {
                reason: HoldReason::InDoubt,
                held: open.terms.price,
                payee: open.terms.payee,
                channel: None,
                host: Some(open.host).filter(|host| !host.is_empty()),
                budgets,
                age: Duration::from_secs(self.time.wall.saturating_sub(open.since)),
                free_in: None,
                shown_by: Some(ShownBy { valid_before: open.valid_before, chain: open.chain }),
            }
        })
    }

    fn add_holds_of(&self, id: ChannelId, slot: &Slot, now: Instant, holds: &mut Vec<OpenHold>) {
        let channel = &slot.channel;
        let unused = slot.used.map_or(Duration::ZERO, |used| now.saturating_duration_since(used));
        let mut add = |reason, amount: Amount, budgets, (age, free_in)| {
            if amount.is_zero() {
                return;
            }
            holds.push(OpenHold {
                reason,
                held: Money::channel_token(amount),
                payee: id.receiver,
                channel: Some(id),
                host: slot.host.clone(),
                budgets,
                age,
                free_in,
                shown_by: None,
            });
        };
        let counted = || self.names(slot.covered.iter().map(|covered| covered.index));
        let paying = slot.lease.and_then(|lease| self.purchases.get(&lease)).filter(|it| it.is_paying());
        if let Some(purchase) = paying {
            let left = purchase.deadline.saturating_duration_since(now);
            let age = self.policy.pay_timeout.saturating_sub(left);
            let budgets = self.names(purchase.budgets.iter().copied());
            add(HoldReason::InFlight, purchase.price(), budgets, (age, Some(left)));
        } else if let Some(unclear) = channel.in_doubt {
            add(HoldReason::InDoubt, unclear.price, counted(), (unused, None));
        }
        let doubted = channel.exposure().saturating_sub(channel.promised);
        add(HoldReason::AfterCrash, doubted, counted(), (unused, None));
        let budgets = slot.budgets_ahead();
        if !budgets.is_empty() {
            let ready = slot.limit_ahead().saturating_sub(channel.promised);
            add(HoldReason::Ready, ready, self.names(budgets.iter().copied()), (unused, None));
        }
    }

    fn names(&self, indices: impl Iterator<Item = BudgetIndex>) -> Vec<Arc<str>> {
        let mut names: Vec<Arc<str>> =
            indices.map(|index| Arc::clone(&self.budgets.key(index).name)).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

impl Purchase {
    /// Whether a payment is signed or about to be.
    fn is_paying(&self) -> bool {
        match self.stage {
            Stage::Recording { .. }
            | Stage::InFlight { .. }
            | Stage::Backoff { .. }
            | Stage::Consulting { presented: Some(_), .. } => true,
            Stage::Starting { .. } | Stage::Queued | Stage::Consulting { presented: None, .. } => false,
        }
    }
}
