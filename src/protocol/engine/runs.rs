//! Budgets of runs: they begin and end while the proxy runs.

use std::sync::Arc;

use super::{Engine, Record};
use crate::protocol::ChannelId;
use crate::protocol::budget::{Budget, BudgetIndex, BudgetKey};

impl Engine {
    /// The budget of a run applies from now on.
    pub(super) fn begin_budget(&mut self, budget: Arc<Budget>) {
        self.budgets.define(&[budget]);
    }

    /// A run is over: its budget is forgotten once no purchase counts in it.
    pub(super) fn end_budget(&mut self, key: &BudgetKey) {
        if let Some(index) = self.budgets.find(key).filter(|index| !self.ending.contains(index)) {
            self.ending.push(index);
        }
    }

    /// Forgets the budgets of runs that are over. What was signed stays counted in all others.
    pub(super) fn forget_ended_budgets(&mut self) {
        let ending = std::mem::take(&mut self.ending);
        let (used, unused): (Vec<_>, Vec<_>) = ending.into_iter().partition(|index| self.is_used(*index));
        self.ending = used;
        for index in unused {
            self.forget_budget(index);
        }
    }

    fn is_used(&self, index: BudgetIndex) -> bool {
        let key = self.budgets.key(index);
        let is_it = |budget: &crate::protocol::budget::BudgetRef| budget.key() == *key;
        self.purchases.values().any(|purchase| purchase.budgets.contains(&index))
            || self.one_shots.values().any(|purchase| purchase.limit.budgets.iter().any(is_it))
    }

    fn forget_budget(&mut self, index: BudgetIndex) {
        let without =
            |budgets: &[BudgetIndex]| budgets.iter().filter(|other| **other != index).copied().collect();
        let mut changed: Vec<ChannelId> = Vec::new();
        for (id, slot) in &mut self.slots {
            slot.covered.retain(|covered| covered.index != index);
            slot.unrecorded.retain(|(other, ..)| *other != index);
            // The journal still has it in the hold of the channel, where it means nothing any more.
            let budgets = slot.writes.iter_mut().map(|write| &mut write.budgets).chain([&mut slot.budgets]);
            for budgets in budgets.filter(|budgets| budgets.contains(&index)) {
                *budgets = without(budgets);
            }
            if slot.counted.iter().any(|(other, _)| *other == index) {
                changed.push(*id);
            }
        }
        for id in changed {
            self.update_held(&id);
        }
        for (_, rows) in &mut self.budget_writes {
            rows.retain(|(other, ..)| *other != index);
        }
        let key = self.budgets.forget(index);
        self.records.push(Record::BudgetEnded(Box::new(key)));
    }
}
