//! From a demand to a granted payment: checks, queues, and the choice of a channel.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use super::blocked::{Action, Blocked};
use super::consult::too_late;
use super::fit::{Fit, Signable};
use super::purchase::{Before, Presented, Purchase, QueueKey, Raise, Stage};
use super::slot::Slot;
use super::{Effect, Engine, PurchaseId, Seq, Start};
use crate::protocol::budget::OverBudget;
use crate::protocol::channel::{ChannelDraft, InDoubt};
use crate::protocol::policy::SpendLimit;
use crate::protocol::refusal::Awaited;
use crate::protocol::{
    Account, Address, Amount, Channel, ChannelId, ChannelOp, Intent, Offer, Phase, Refusal,
};

/// The next step for a purchase at the head of its queue.
pub(super) enum DemandStep {
    Pay(ChannelId, Amount, Fit),
    Fund(ChannelOp),
    /// Earlier transactions for the receiver must be resolved first.
    Resume,
    /// The last attempt failed: whether to retry depends on the payer's balance.
    QueryBalance,
    /// Nothing for this purchase.
    Wait,
    /// Nothing for any purchase: every channel is leased, or there is none, and another one is pending or not wanted.
    WaitAll,
    Refuse(Refusal),
}

/// The channels to one receiver that a purchase may use.
#[derive(Default)]
struct Choice {
    /// How many are open.
    open: usize,
    /// How many of them are leased.
    lent: usize,
    /// The free channel with the least left that suffices: whether its payment would exceed the price of the request,
    /// what is left, the channel, and its next total.
    payable: Option<(bool, Amount, ChannelId, Amount)>,
}

impl Engine {
    pub(super) fn become_ready(
        &mut self,
        account: Account,
        channels: Vec<(ChannelId, Channel)>,
        intents: Vec<Intent>,
    ) {
        self.start = Start::Ready(account);
        self.budgets.set_channel_token(account.token_asset());
        for (id, channel) in channels {
            self.slot_or_insert(id, channel.recover());
        }
        for intent in intents {
            self.intents.entry(intent.op.receiver()).or_default().push(intent);
        }
        for receiver in self.intents.keys().copied().collect::<Vec<_>>() {
            self.resume(receiver);
        }
    }

    /// Starts what waits for the key only, and refuses what needs a chain if there is none.
    pub(super) fn unlocked(&mut self, payer: Address, has_chain: bool, now: Instant) {
        self.is_unlocked = true;
        self.payer = Some(payer);
        self.start_one_shots();
        if !has_chain && matches!(self.start, Start::Waiting(_)) {
            self.start = Start::NoChain;
            for id in self.starting() {
                self.refuse(id, Refusal::NoChain, now);
            }
        }
    }

    /// Enqueues purchases that came before the engine was ready.
    pub(super) fn check_starting(&mut self, now: Instant) {
        for id in self.starting() {
            self.check_demand(id, now);
        }
    }

    fn starting(&self) -> Vec<PurchaseId> {
        let is_starting = |purchase: &Purchase| matches!(purchase.stage, Stage::Starting { .. });
        self.purchases.iter().filter(|(_, purchase)| is_starting(purchase)).map(|(id, _)| *id).collect()
    }

    pub(super) fn demand(
        &mut self,
        id: PurchaseId,
        offer: Offer,
        limit: SpendLimit,
        deadline: Instant,
        now: Instant,
    ) {
        let limit = self.by_now(limit);
        let budgets = self.open_budgets(&limit.budgets);
        let purchase = Purchase {
            offer,
            limit,
            budgets,
            counted: Vec::new(),
            deadline,
            is_late: false,
            stage: Stage::Starting { until: now + self.policy.ready_timeout },
            rounds: 0,
            raised: Vec::new(),
            is_funded: false,
            reopened: false,
            presented: Vec::new(),
            rejection: None,
            corrections: 0,
            retries: Default::default(),
        };
        self.purchases.insert(id, purchase);
        if now >= deadline {
            return self.refuse(id, too_late(), now);
        }
        match self.start {
            Start::Waiting(_) => {}
            Start::NoChain => self.refuse(id, Refusal::NoChain, now),
            Start::Ready(_) => self.check_demand(id, now),
            Start::Stopped(_) => self.refuse(id, Refusal::ShuttingDown, now),
        }
    }

    /// Checks a demand, then asks whether it is wanted.
    fn check_demand(&mut self, id: PurchaseId, now: Instant) {
        let Some(purchase) = self.purchases.get(&id) else { return };
        match self.check(&purchase.offer, &purchase.limit).and_then(|()| self.check_budgets(id)) {
            Ok(()) => self.seek_approval(id, now),
            Err(refusal) => self.refuse(id, refusal, now),
        }
    }

    /// Enqueues a purchase whose price is allowed and wanted.
    pub(super) fn enqueue_approved(&mut self, id: PurchaseId, now: Instant) {
        let pay_timeout = self.policy.pay_timeout;
        let Some(purchase) = self.purchases.get_mut(&id) else { return };
        if now >= purchase.deadline {
            return self.refuse(id, too_late(), now);
        }
        purchase.is_late = purchase.deadline.saturating_duration_since(now) < pay_timeout / 2;
        let receiver = purchase.receiver();
        // Usually no other purchase waits and a channel is free, so that this one needs no queue.
        if matches!(self.start, Start::Ready(_))
            && !self.queues.contains_key(&receiver)
            && let DemandStep::Pay(channel, total, fit) = self.step(id, receiver, now)
        {
            return self.grant(id, channel, total, fit);
        }
        self.enqueue(id, receiver, false);
        self.dispatch(receiver, now);
    }

    /// Adds a purchase to the queue of its receiver and host, at the head if it was served before.
    pub(super) fn enqueue(&mut self, id: PurchaseId, receiver: Address, first: bool) {
        let Some(purchase) = self.purchases.get_mut(&id) else { return };
        purchase.stage = Stage::Queued;
        let queue = self.queues.entry(receiver).or_default().entry(purchase.queue()).or_default();
        if first { queue.push_front(id) } else { queue.push_back(id) }
    }

    /// Serves all purchases that wait for a channel to `receiver` and can be served, first come first served per host.
    pub(super) fn dispatch(&mut self, receiver: Address, now: Instant) {
        if matches!(self.start, Start::Stopped(_)) {
            return;
        }
        let Some(queues) = self.queues.get(&receiver) else { return };
        let mut keys: Vec<_> =
            queues.iter().map(|(key, queue)| (queue.front().copied(), key.clone())).collect();
        // A channel that several hosts share goes to the request that has waited longest.
        keys.sort_unstable_by_key(|(first, _)| *first);
        for (_, key) in keys {
            self.dispatch_queue(receiver, &key, now);
            self.drop_empty_queue(receiver, &key);
        }
    }

    fn dispatch_queue(&mut self, receiver: Address, key: &QueueKey, now: Instant) {
        let mut place = 0;
        while let Some(&id) = self.queue_mut(receiver, key).and_then(|queue| queue.get(place)) {
            match self.step(id, receiver, now) {
                DemandStep::WaitAll => return,
                DemandStep::Wait => place += 1,
                DemandStep::Pay(channel, total, fit) => {
                    self.unqueue(receiver, key, place);
                    self.grant(id, channel, total, fit);
                }
                DemandStep::Fund(op) => {
                    if let Some(purchase) = self.purchases.get_mut(&id) {
                        purchase.is_funded = true;
                    }
                    self.start_op(op, Some(Arc::clone(&key.0)));
                    place += 1;
                }
                DemandStep::Resume => {
                    self.resume(receiver);
                    place += 1;
                }
                DemandStep::QueryBalance => {
                    self.query_balance();
                    place += 1;
                }
                DemandStep::Refuse(refusal) => {
                    // Removed first: a refused purchase must not be served again below.
                    self.unqueue(receiver, key, place);
                    self.effects.push_back(Effect::Refuse(id, refusal));
                    self.purchases.remove(&id);
                }
            }
        }
    }

    pub(super) fn queue_mut(
        &mut self,
        receiver: Address,
        key: &QueueKey,
    ) -> Option<&mut VecDeque<PurchaseId>> {
        self.queues.get_mut(&receiver)?.get_mut(key)
    }

    fn unqueue(&mut self, receiver: Address, key: &QueueKey, place: usize) {
        if let Some(queue) = self.queue_mut(receiver, key) {
            queue.remove(place);
        }
    }

    pub(super) fn drop_empty_queue(&mut self, receiver: Address, key: &QueueKey) {
        let Some(queues) = self.queues.get_mut(&receiver) else { return };
        if queues.get(key).is_some_and(VecDeque::is_empty) {
            queues.remove(key);
        }
        if queues.is_empty() {
            self.queues.remove(&receiver);
        }
    }

    /// Chooses a channel in one pass (hot path).
    fn choose(&self, purchase: &Purchase, receiver: Address, price: Amount) -> Choice {
        let mut choice = Choice::default();
        for (id, Slot { channel, lease, .. }) in self.usable_slots(purchase, receiver) {
            choice.open += 1;
            if lease.is_some() {
                choice.lent += 1;
            } else if let Some(total) = channel.next_total(price) {
                // A channel that may pay takes precedence, however little the others have left.
                let exceeds = purchase.exceeds_price(total.saturating_sub(channel.presented));
                let this = (exceeds, channel.left(), *id, total);
                choice.payable = Some(choice.payable.map_or(this, |best| best.min(this)));
            }
        }
        choice
    }

    /// The open channels to `receiver` that may pay for a purchase: those of its host and those without a host, or all
    /// if its rule lists the receiver.
    pub(super) fn usable_slots<'a>(
        &'a self,
        purchase: &'a Purchase,
        receiver: Address,
    ) -> impl Iterator<Item = (&'a ChannelId, &'a Slot)> {
        let shares = purchase.shares();
        self.open_slots(receiver)
            .filter(move |(_, slot)| shares || slot.host.as_ref().is_none_or(|host| host == purchase.host()))
    }

    /// The next step: pay from the channel with the least left that suffices; else top up the one with the most; else
    /// open one.
    fn step(&self, id: PurchaseId, receiver: Address, now: Instant) -> DemandStep {
        let Some(purchase) = self.purchases.get(&id) else {
            return DemandStep::Refuse(Refusal::Deadline { waited_for: Awaited::Channel });
        };
        if let Err(refusal) = self.check_allowed(&purchase.limit) {
            return DemandStep::Refuse(refusal);
        }
        if purchase.rounds >= self.policy.max_attempts {
            return DemandStep::Refuse(Refusal::Rounds { rounds: purchase.rounds });
        }
        let price = purchase.price();
        let Choice { open, lent, payable } = self.choose(purchase, receiver, price);
        if let Some((_, _, channel, total)) = payable {
            if purchase.budgets.is_empty() {
                return DemandStep::Pay(channel, total, Fit::default());
            }
            return match self.fit_best(purchase, (channel, total), price) {
                Ok((channel, total, fit)) => DemandStep::Pay(channel, total, fit),
                Err(over) => DemandStep::Refuse(over.into()),
            };
        }
        let wait = if lent == open { DemandStep::WaitAll } else { DemandStep::Wait };
        let is_full = lent > 0 && open >= self.policy.deposit.channels as usize;
        if is_full || self.funding.contains_key(&receiver) {
            return wait;
        }
        // Nothing is deposited for a payment that could not be made then.
        if let Err(over) = self.fit(&purchase.budgets, None, Amount::ZERO, price) {
            return if lent > 0 { wait } else { DemandStep::Refuse(over.into()) };
        }
        let step = self.funding_step(purchase, receiver, price, now);
        // A leased channel will return, so only a request without any channel is refused.
        match step {
            DemandStep::Refuse(refusal) if lent > 0 && refusal.is_about_funding() => wait,
            DemandStep::QueryBalance if lent > 0 => wait,
            step => step,
        }
    }

    /// The best channel whose payment fits into the budgets of a purchase: the chosen one, if possible without lowering
    /// what other channels hold.
    fn fit_best(
        &self,
        purchase: &Purchase,
        (channel, total): (ChannelId, Amount),
        price: Amount,
    ) -> Result<(ChannelId, Amount, Fit), OverBudget> {
        let chosen = self.fit(&purchase.budgets, Some(channel), total, price);
        if matches!(chosen, Ok(Fit { tight: None })) {
            return chosen.map(|fit| (channel, total, fit));
        }
        let mut best = chosen.map(|fit| (channel, total, fit));
        let free = self.usable_slots(purchase, purchase.receiver()).filter(|(_, slot)| slot.lease.is_none());
        for (id, slot) in free {
            let Some(total) = slot.channel.next_total(price) else { continue };
            if purchase.exceeds_price(total.saturating_sub(slot.channel.presented)) {
                continue;
            }
            match self.fit(&purchase.budgets, Some(*id), total, price) {
                Ok(fit @ Fit { tight: None }) => return Ok((*id, total, fit)),
                Ok(fit) if best.is_err() => best = Ok((*id, total, fit)),
                Ok(_) | Err(_) => {}
            }
        }
        best
    }

    pub(super) fn open_slots(&self, receiver: Address) -> impl Iterator<Item = (&ChannelId, &Slot)> {
        let first = ChannelId { receiver, open_block: 0 };
        let last = ChannelId { receiver, open_block: u32::MAX };
        self.slots.range(first..=last).filter(|(id, slot)| self.is_open(id, slot))
    }

    /// Whether a channel can be leased, now or once it returns.
    pub(super) fn is_open(&self, id: &ChannelId, slot: &Slot) -> bool {
        slot.channel.phase == Phase::Open && !slot.is_locked && !self.is_ending(id)
    }

    /// True while an operation that ends the channel is pending, or its transaction may still take effect.
    fn is_ending(&self, id: &ChannelId) -> bool {
        let ends = |op: &ChannelOp| match op {
            ChannelOp::CloseTogether { channel, .. } | ChannelOp::CloseAlone { channel, .. } => channel == id,
            ChannelOp::Open { .. } | ChannelOp::TopUp { .. } | ChannelOp::Settle { .. } => false,
        };
        let running = self.funding.get(&id.receiver).and_then(|funding| funding.op.as_ref());
        let is_ordered = running.is_some_and(ends);
        is_ordered || self.intents.get(&id.receiver).into_iter().flatten().any(|intent| ends(&intent.op))
    }

    /// Leases a channel: records the new total, then grants the payment.
    fn grant(&mut self, id: PurchaseId, channel_id: ChannelId, total: Amount, fit: Fit) {
        let (Some(purchase), Some(slot)) = (self.purchases.get_mut(&id), self.slots.get_mut(&channel_id))
        else {
            return;
        };
        let price = purchase.price();
        let channel = &mut slot.channel;
        let (from, raise) = (channel.presented, total.saturating_sub(channel.presented));
        if purchase.exceeds_price(raise) {
            self.effects.push_back(Effect::Refuse(id, Refusal::SecondPrice { price }));
            self.purchases.remove(&id);
            return;
        }
        if !raise.is_zero() {
            purchase.raised.push(Raise { channel: channel_id, from, to: total });
        }
        purchase.rounds += 1;
        if slot.host.is_none() {
            slot.host = Some(Arc::clone(purchase.host()));
            slot.is_host_unwritten = true;
        }
        let before = Before { in_doubt: channel.in_doubt };
        let promised_before = channel.promised;
        let pays = !channel.is_query(total);
        if pays {
            let is_new = !raise.is_zero();
            let after = channel.payments;
            purchase.presented.push(Presented { channel: channel_id, total, is_new, after });
            channel.payments += 1;
            channel.promised = channel.promised.max(total);
            channel.signed = channel.signed.max(total);
            channel.in_doubt = Some(InDoubt { total, price });
        }
        let draft = ChannelDraft { channel: channel_id, total, price, is_query: !pays };
        slot.lease = Some(id);
        (slot.is_dirty, self.is_dirty) = (true, true);
        let ahead = price.saturating_mul(self.policy.sign_ahead);
        let budgets = Arc::clone(&purchase.budgets);
        let mut is_covered = true;
        if pays && !budgets.is_empty() {
            is_covered = self.count(id, channel_id, total, promised_before);
            self.update_held(&channel_id);
        }
        let Some(slot) = self.slots.get(&channel_id) else { return };
        let promised = slot.channel.promised;
        // A record caused by another purchase suffices, if it becomes durable.
        let mut record = match slot.signable(total, &budgets) {
            Signable::Now if is_covered => None,
            Signable::After(seq) if is_covered => Some(seq),
            Signable::Now | Signable::After(_) | Signable::Never => Some(self.next_write()),
        };
        let since = fit.tight.is_some().then(|| Seq(self.ended.0 + 1));
        if let Some(lowered) = fit.tight {
            record = Some(self.next_write());
            for (id, limit) in lowered {
                self.persist_up_to(id, |_| limit);
            }
            self.persist_hold(channel_id, promised, Arc::clone(&budgets));
        } else if record == Some(self.next_write()) {
            let bound = self.bound(slot, &budgets, ahead).max(total);
            let limit = if budgets.is_empty() { bound.max(slot.limit_ahead()) } else { bound };
            self.persist_hold(channel_id, limit, Arc::clone(&budgets));
        }
        if record != Some(self.next_write()) {
            self.reserve(channel_id, ahead);
        }
        self.persist_host(channel_id);
        let host = self.slots.get(&channel_id).and_then(|slot| slot.host_write);
        let Some(purchase) = self.purchases.get_mut(&id) else { return };
        if record.or(host).is_none() {
            purchase.stage = Stage::InFlight { draft, unsent: Some(before) };
            self.effects.push_back(Effect::Grant(id, purchase.offer.on_channel(draft)));
        } else {
            purchase.stage = Stage::Recording { draft, before };
            let after = [record, host];
            self.blocked.push(Blocked { after, since, action: Action::Grant(id, draft) });
        }
    }

    /// Raises the durable limit in advance, so that no payment waits for it: if less than half of the range is left,
    /// also for those of the seller's other channels that have used a quarter, since one write serves all.
    fn reserve(&mut self, id: ChannelId, ahead: Amount) {
        let left = |slot: &Slot| slot.limit_ahead().saturating_sub(slot.channel.promised);
        let full =
            |slot: &Slot| self.bound(slot, slot.budgets_ahead(), ahead).saturating_sub(slot.channel.promised);
        let is_low = self.slots.get(&id).is_some_and(|slot| left(slot) < full(slot).halved());
        if !is_low {
            return;
        }
        let has_used_some = |slot: &Slot| {
            let full = full(slot);
            // With nothing left it may never have paid; in doubt it first queries the seller.
            !left(slot).is_zero()
                && !slot.channel.has_doubt()
                && left(slot) < full.saturating_sub(full.halved().halved())
        };
        let moved: Vec<ChannelId> = self
            .open_slots(id.receiver)
            .filter(|(other, slot)| **other == id || has_used_some(slot))
            .map(|(other, _)| *other)
            .collect();
        for id in moved {
            // One after the other, as each takes from the same budgets.
            let Some(slot) = self.slots.get(&id) else { continue };
            let limit = self.bound(slot, slot.budgets_ahead(), ahead).max(slot.limit_ahead());
            self.persist_up_to(id, |_| limit);
        }
    }
}
