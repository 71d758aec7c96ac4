//! Records, and what waits until they are durable.

use std::sync::Arc;
use std::time::Instant;

use super::blocked::{Action, Blocked};
use super::fit::BudgetIndices;
use super::ids::{PurchaseId, Seq};
use super::purchase::Stage;
use super::slot::{Slot, SlotWrite};
use super::{Effect, Engine, Record};
use crate::protocol::channel::ChannelDraft;
use crate::protocol::{Amount, Channel, ChannelId, Refusal};

impl Engine {
    /// The number that the records of the current input will get.
    pub(super) fn next_write(&self) -> Seq {
        Seq(self.newest.0 + 1)
    }

    /// Handles the success of all writes up to `seq` since the last result.
    pub(super) fn durable(&mut self, seq: Seq) {
        self.ended = seq;
        // Those of an earlier write that has failed were in this one, too.
        self.repeated.retain(|(write, _)| *write > seq);
        for slot in self.slots.values_mut() {
            slot.durable(seq);
        }
        self.budget_writes_ended(seq, true);
        let is_ready = |blocked: &mut Blocked| blocked.after.iter().flatten().all(|after| *after <= seq);
        let ready: Vec<Blocked> = self.blocked.extract_if(.., is_ready).collect();
        for Blocked { action, .. } in ready {
            match action {
                Action::Send(hash) => self.effects.push_back(Effect::Send(hash)),
                Action::Grant(id, draft) => {
                    // A client that has disconnected gets nothing.
                    if let Some(purchase) = self.purchases.get_mut(&id)
                        && let Stage::Recording { before, .. } = purchase.stage
                    {
                        purchase.stage = Stage::InFlight { draft, unsent: Some(before) };
                        let granted = purchase.offer.on_channel(draft);
                        self.effects.push_back(Effect::Grant(id, granted));
                    }
                }
                Action::GrantOneShot(id) => self.grant_one_shot(id),
            }
        }
    }

    /// Handles the failure of all writes up to `seq` since the last result. The journal is unchanged, so limits stay as
    /// they are known, and everything that depends on one of these writes is cancelled.
    pub(super) fn not_recorded(&mut self, seq: Seq, reason: &str, now: Instant) {
        let failed = Seq(self.ended.0 + 1)..=seq;
        self.ended = seq;
        for slot in self.slots.values_mut() {
            if slot.not_recorded(seq) {
                self.is_dirty = true;
            }
        }
        self.budget_writes_ended(seq, false);
        let has_failed = |blocked: &mut Blocked| {
            let is_in_between = blocked.since.is_some_and(|since| {
                let last = blocked.after.iter().flatten().max();
                last.is_some_and(|last| since <= *failed.end() && last >= failed.start())
            });
            is_in_between || blocked.after.iter().flatten().any(|after| failed.contains(after))
        };
        let off: Vec<Blocked> = self.blocked.extract_if(.., has_failed).collect();
        for Blocked { action, .. } in off {
            match action {
                Action::Send(hash) => self.effects.push_back(Effect::Discard(hash, reason.to_owned())),
                Action::Grant(id, draft) => self.not_granted(id, &draft, reason, now),
                Action::GrantOneShot(id) => {
                    self.uncount_one_shot(id);
                    self.refuse_one_shot(id, Refusal::StoreFailed(reason.to_owned()));
                }
            }
        }
    }

    fn not_granted(&mut self, id: PurchaseId, draft: &ChannelDraft, reason: &str, now: Instant) {
        self.take_back(id);
        // Purchases that wait behind it would fail on the same disk, one after the other.
        let queues = self.queues.remove(&draft.channel.receiver).unwrap_or_default();
        for waiting in queues.into_values().flatten() {
            self.refuse(waiting, Refusal::StoreFailed(reason.to_owned()), now);
        }
        if self.purchases.contains_key(&id) {
            self.refuse(id, Refusal::StoreFailed(reason.to_owned()), now);
        }
    }

    /// Records a channel with its limit as it is, or is about to be.
    pub(super) fn persist_channel(&mut self, id: ChannelId) {
        self.persist_up_to(id, Slot::limit_ahead);
    }

    /// Records a channel with this limit, and its host if the journal may not know it.
    pub(super) fn persist_up_to(&mut self, id: ChannelId, limit: impl FnOnce(&Slot) -> Amount) {
        let Some(slot) = self.slots.get(&id) else { return };
        self.persist_hold(id, limit(slot), Arc::clone(slot.budgets_ahead()));
    }

    /// Records a channel with this limit and the budgets of what may be signed up to it.
    pub(super) fn persist_hold(&mut self, id: ChannelId, limit: Amount, budgets: BudgetIndices) {
        let seq = self.next_write();
        let Some(slot) = self.slots.get_mut(&id) else { return };
        slot.is_dirty = false;
        slot.writes.push_back(SlotWrite { seq, limit, budgets });
        self.records.push(Record::Channel(id, Channel { durable_limit: limit, ..slot.channel }));
        self.persist_host(id);
        self.record_budgets(id, limit);
        self.update_held(&id);
    }

    /// Records the host of a channel if the journal may not know it.
    pub(super) fn persist_host(&mut self, id: ChannelId) {
        let seq = self.next_write();
        let Some(slot) = self.slots.get_mut(&id) else { return };
        if let Some(host) = slot.host.as_ref().filter(|_| slot.is_host_unwritten) {
            self.records.push(Record::Host(id, Arc::clone(host)));
            (slot.is_host_unwritten, slot.host_write) = (false, Some(seq));
        }
    }
}

impl Slot {
    /// The durable limit once all pending writes have succeeded.
    pub(super) fn limit_ahead(&self) -> Amount {
        self.writes.back().map_or(self.channel.durable_limit, |write| write.limit)
    }

    /// The writes up to this one that have not failed are durable.
    fn durable(&mut self, seq: Seq) {
        let ended = self.writes.partition_point(|write| write.seq <= seq);
        if let Some(write) = self.writes.drain(..ended).next_back() {
            (self.channel.durable_limit, self.budgets) = (write.limit, write.budgets);
        }
        if self.host_write.is_some_and(|write| write <= seq) {
            self.host_write = None;
        }
    }

    /// The writes up to this one have failed; true if one of them was of this channel.
    fn not_recorded(&mut self, seq: Seq) -> bool {
        let before = self.writes.len();
        self.writes.retain(|write| write.seq > seq);
        let has_failed = self.writes.len() < before;
        self.is_dirty |= has_failed;
        if self.host_write.take_if(|write| *write <= seq).is_some() {
            (self.is_host_unwritten, self.is_dirty) = (true, true);
            return true;
        }
        has_failed
    }
}
