//! From a demand to a granted payment: checks, queues, and the choice of a channel.

use std::collections::BTreeMap;
use std::time::Instant;

use super::purchase::{Before, Purchase, Raise, Stage};
use super::{Allowance, Book, Effect, Funding, PurchaseId, Start};
use crate::protocol::channel::Unclear;
use crate::protocol::refusal::Awaited;
use crate::protocol::{
    Address, Amount, Challenge, Channel, ChannelId, Draft, Facts, Intent, Order, Phase, Refusal, microraiden,
};

/// What can be done for a purchase at the head of its queue.
enum Step {
    Pay(ChannelId, Amount),
    Fund(Order),
    /// Nothing for this one.
    Wait,
    /// Nothing for anybody: every channel is lent, or there is none, and another one is on its way or not wanted.
    WaitAll,
    Refuse(Refusal),
}

/// The channels to one receiver, as a purchase finds them.
#[derive(Default)]
struct Choice {
    /// How many are open.
    open: usize,
    /// How many of them are lent.
    lent: usize,
    /// The free one with the least left that suffices: what is left, the channel, and its next total.
    payable: Option<(Amount, ChannelId, Amount)>,
}

impl Book {
    pub(super) fn become_ready(
        &mut self,
        facts: Facts,
        channels: Vec<(ChannelId, Channel)>,
        intents: Vec<Intent>,
    ) {
        self.start = Start::Ready(facts);
        self.channels.extend(channels.into_iter().map(|(id, channel)| (id, channel.recover())));
        for intent in intents {
            self.intents.entry(intent.order.receiver()).or_default().push(intent);
        }
        for receiver in self.intents.keys().copied().collect::<Vec<_>>() {
            self.resume(receiver);
        }
    }

    /// Lines up who came before the book was ready.
    pub(super) fn admit_early(&mut self, now: Instant) {
        let early: Vec<PurchaseId> = self
            .purchases
            .iter()
            .filter(|(_, purchase)| matches!(purchase.stage, Stage::Early { .. }))
            .map(|(id, _)| *id)
            .collect();
        for id in early {
            self.admit(id, now);
        }
    }

    pub(super) fn demand(
        &mut self,
        id: PurchaseId,
        challenge: Challenge,
        allowance: Allowance,
        now: Instant,
    ) {
        let purchase = Purchase {
            challenge,
            allowance,
            deadline: now + self.policy.pay_within,
            stage: Stage::Early { until: now + self.policy.ready_within },
            rounds: 0,
            raised: BTreeMap::new(),
            reopened: false,
            signed: Vec::new(),
            adoptions: 0,
            patience: Default::default(),
        };
        self.purchases.insert(id, purchase);
        match self.start {
            Start::Waiting(_) => {}
            Start::Ready(_) => self.admit(id, now),
            Start::Stopped(_) => self.refuse(id, Refusal::ShuttingDown, now),
        }
    }

    /// Checks a demand and lines it up.
    fn admit(&mut self, id: PurchaseId, now: Instant) {
        let (Some(purchase), Start::Ready(facts)) = (self.purchases.get(&id), &self.start) else { return };
        if let Err(refusal) = check(&purchase.challenge, &purchase.allowance, facts) {
            return self.refuse(id, refusal, now);
        }
        let receiver = purchase.receiver();
        self.line_up(id, receiver, false);
        self.pump(receiver, now);
    }

    /// Puts a purchase into its receiver's queue, at the head if it was served before.
    pub(super) fn line_up(&mut self, id: PurchaseId, receiver: Address, first: bool) {
        let Some(purchase) = self.purchases.get_mut(&id) else { return };
        purchase.stage = Stage::Queued;
        let queue = self.queues.entry(receiver).or_default();
        if first { queue.push_front(id) } else { queue.push_back(id) }
    }

    /// Serves whom it can of those who wait for a channel to `receiver`, first come first.
    pub(super) fn pump(&mut self, receiver: Address, now: Instant) {
        if matches!(self.start, Start::Stopped(_)) {
            return;
        }
        let mut place = 0;
        while let Some(&id) = self.queues.get(&receiver).and_then(|queue| queue.get(place)) {
            match self.step(id, receiver, now) {
                Step::WaitAll => return,
                Step::Wait => place += 1,
                Step::Pay(channel, total) => {
                    self.unqueue(receiver, place);
                    self.grant(id, channel, total);
                }
                Step::Fund(order) => {
                    self.order(order);
                    place += 1;
                }
                Step::Refuse(refusal) => {
                    // Out of the queue first: a purchase that is refused must not be served again below.
                    self.unqueue(receiver, place);
                    self.effects.push_back(Effect::Refuse(id, refusal));
                    self.purchases.remove(&id);
                }
            }
        }
        if self.queues.get(&receiver).is_some_and(|queue| queue.is_empty()) {
            self.queues.remove(&receiver);
        }
    }

    fn unqueue(&mut self, receiver: Address, place: usize) {
        if let Some(queue) = self.queues.get_mut(&receiver) {
            queue.remove(place);
        }
    }

    /// Looks over the channels once: this is done for every payment, however many wait.
    fn choose(&self, receiver: Address, price: Amount) -> Choice {
        let mut choice = Choice::default();
        for (id, channel) in self.open_channels(receiver) {
            choice.open += 1;
            if self.leases.contains_key(id) {
                choice.lent += 1;
            } else if let Some(total) = channel.next_total(price) {
                let this = (channel.left(), *id, total);
                choice.payable = Some(choice.payable.map_or(this, |best| best.min(this)));
            }
        }
        choice
    }

    /// Sufficiently funded: the channel with the least left. Else top up the one with most. Else open.
    fn step(&self, id: PurchaseId, receiver: Address, now: Instant) -> Step {
        let Some(purchase) = self.purchases.get(&id) else {
            return Step::Refuse(Refusal::Deadline { waited_for: Awaited::Channel });
        };
        if purchase.rounds >= self.policy.rounds {
            return Step::Refuse(Refusal::Rounds { rounds: purchase.rounds });
        }
        let price = purchase.price();
        let Choice { open, lent, payable } = self.choose(receiver, price);
        if let Some((_, channel, total)) = payable {
            return Step::Pay(channel, total);
        }
        let wait = if lent == open { Step::WaitAll } else { Step::Wait };
        if lent > 0 && open >= self.policy.deposit.channels as usize {
            return wait;
        }
        match self.funding.get(&receiver) {
            Some(Funding::Running(_)) => return wait,
            // A channel that is lent comes back; only who has none is told that there will be none.
            Some(Funding::Failed { until, .. }) if now < *until && lent > 0 => return wait,
            Some(Funding::Failed { until, refusal }) if now < *until => {
                return Step::Refuse(refusal.clone());
            }
            Some(Funding::Failed { .. }) | None => {}
        }
        match self.funding_step(receiver, price) {
            // No money is moved for a payment that would not be granted.
            Step::Fund(order) if purchase.exceeds_price(self.raise_after(&order, price)) => {
                Step::Refuse(Refusal::SecondPrice { price })
            }
            step => step,
        }
    }

    /// By how much a payment from the channel that `order` funds will raise what its seller was shown.
    fn raise_after(&self, order: &Order, price: Amount) -> Amount {
        let Order::TopUp { channel, .. } = order else { return price };
        self.channels.get(channel).map_or(price, |known| {
            known.acknowledged.saturating_add(price).saturating_sub(self.shown(channel, known))
        })
    }

    /// The highest total that the seller was shown of a channel.
    fn shown(&self, id: &ChannelId, channel: &Channel) -> Amount {
        self.shown.get(id).copied().unwrap_or(channel.promised).max(channel.acknowledged)
    }

    /// Tops up the free channel with most left; where every channel is lent or full, opens another one.
    fn funding_step(&self, receiver: Address, price: Amount) -> Step {
        let deposit = self.policy.deposit;
        let cap = deposit.max_per_channel;
        let largest = self
            .open_channels(receiver)
            .filter(|(id, _)| !self.leases.contains_key(id))
            .max_by_key(|(id, channel)| (channel.left(), **id));
        if let Some((id, channel)) = largest {
            let missing = channel.acknowledged.saturating_add(price).saturating_sub(channel.deposit);
            let room = cap.saturating_sub(channel.deposit);
            if missing <= room {
                let added = price.saturating_mul(deposit.top_up).max(missing).min(room);
                return Step::Fund(Order::TopUp { channel: *id, added });
            }
        }
        if price > cap {
            return Step::Refuse(Refusal::DepositCap { price, cap });
        }
        let initial = price.saturating_mul(deposit.initial.max(1)).min(cap);
        Step::Fund(Order::Open { receiver, deposit: initial })
    }

    pub(super) fn open_channels(&self, receiver: Address) -> impl Iterator<Item = (&ChannelId, &Channel)> {
        let first = ChannelId { receiver, open_block: 0 };
        let last = ChannelId { receiver, open_block: u32::MAX };
        self.channels
            .range(first..=last)
            .filter(|(id, channel)| channel.phase == Phase::Open && !self.held.contains(id))
            .filter(|(id, _)| !self.is_ending(id))
    }

    /// True while an order that ends the channel is under way, or its transaction may still take effect.
    fn is_ending(&self, id: &ChannelId) -> bool {
        let ends = |order: &Order| match order {
            Order::CloseTogether { channel, .. } | Order::CloseAlone { channel, .. } => channel == id,
            Order::Open { .. } | Order::TopUp { .. } | Order::Settle { .. } => false,
        };
        let is_ordered = matches!(
            self.funding.get(&id.receiver),
            Some(Funding::Running(Some(order))) if ends(order)
        );
        is_ordered || self.intents.get(&id.receiver).into_iter().flatten().any(|intent| ends(&intent.order))
    }

    /// Lends a channel: puts the new total on record, then grants it.
    fn grant(&mut self, id: PurchaseId, channel_id: ChannelId, total: Amount) {
        let Some(shown) = self.channels.get(&channel_id).map(|channel| self.shown(&channel_id, channel))
        else {
            return;
        };
        let (Some(purchase), Some(channel)) =
            (self.purchases.get_mut(&id), self.channels.get_mut(&channel_id))
        else {
            return;
        };
        let price = purchase.price();
        // What a crash left in doubt counts as raised until the seller proves that it is older.
        let raise = total.saturating_sub(shown);
        if purchase.exceeds_price(raise) {
            self.effects.push_back(Effect::Refuse(id, Refusal::SecondPrice { price }));
            self.purchases.remove(&id);
            return;
        }
        if !raise.is_zero() {
            let first = Raise { above: shown, by: Amount::ZERO };
            let raised = purchase.raised.entry(channel_id).or_insert(first);
            raised.by = raised.by.saturating_add(raise);
        }
        purchase.rounds += 1;
        let before = Before { unclear: channel.unclear, shown };
        if !channel.may_have_sent(total) {
            purchase.signed.push((channel_id, total));
        }
        channel.promised = channel.promised.max(total);
        if shown.max(total) < channel.promised {
            self.shown.insert(channel_id, shown.max(total));
        } else {
            self.shown.remove(&channel_id);
        }
        channel.unclear = Some(match before.unclear {
            // What a crash left in doubt stays so until the seller has answered.
            Some(Unclear { total: bound, price: None }) => Unclear { total: bound.max(total), price: None },
            _ => Unclear { total, price: Some(price) },
        });
        let draft = Draft { channel: channel_id, total, price };
        purchase.stage = Stage::Presented { draft, unsent: Some(before) };
        self.leases.insert(channel_id, id);
        let ahead = price.saturating_mul(self.policy.reserve_ahead);
        if total > channel.reserved {
            channel.reserved = channel.bound(ahead);
            self.record(channel_id);
        } else {
            self.dirty.insert(channel_id);
            self.reserve(channel_id, ahead);
        }
        self.effects.push_back(Effect::Grant(id, draft));
    }

    /// Moves the bound on disk ahead in good time, without making anybody wait for it: where less than half is left,
    /// and with it those of the seller's other channels that have used a quarter, because one write serves them all.
    fn reserve(&mut self, id: ChannelId, ahead: Amount) {
        let left = |channel: &Channel| channel.reserved.saturating_sub(channel.promised);
        let full = |channel: &Channel| channel.bound(ahead).saturating_sub(channel.promised);
        let is_low = self.channels.get(&id).is_some_and(|channel| left(channel) < full(channel).halved());
        if !is_low || self.reserving.contains_key(&id) {
            return;
        }
        let has_used_some = |channel: &Channel| {
            let full = full(channel);
            // With nothing left it may never have paid; in doubt it first asks the seller.
            !left(channel).is_zero()
                && !channel.is_in_doubt()
                && left(channel) < full.saturating_sub(full.halved().halved())
        };
        let moved: Vec<(ChannelId, Channel)> = self
            .open_channels(id.receiver)
            .filter(|(other, _)| !self.reserving.contains_key(other))
            .filter(|(other, channel)| **other == id || has_used_some(channel))
            .map(|(other, channel)| (*other, Channel { reserved: channel.bound(ahead), ..*channel }))
            .collect();
        self.reserving.extend(moved.iter().map(|(id, channel)| (*id, channel.reserved)));
        self.effects.push_back(Effect::Reserve(moved));
    }
}

impl Allowance {
    /// Checks what a seller asks for against the rule alone.
    pub fn check(&self, challenge: &Challenge) -> Result<(), Refusal> {
        let Challenge::MicroRaiden(microraiden::Challenge { price, receiver, .. }) = challenge;
        if !self.receivers.is_empty() && !self.receivers.contains(receiver) {
            return Err(Refusal::ForeignReceiver(*receiver));
        }
        if price.is_zero() {
            return Err(Refusal::PriceZero);
        }
        if *price > self.max_price {
            return Err(Refusal::TooExpensive { price: *price, max_price: self.max_price });
        }
        Ok(())
    }
}

/// Checks what a seller asks for against what the user allows and where the money is.
pub(super) fn check(challenge: &Challenge, allowance: &Allowance, facts: &Facts) -> Result<(), Refusal> {
    let Challenge::MicroRaiden(microraiden::Challenge { contract, token, .. }) = challenge;
    if *contract != facts.contract {
        return Err(Refusal::ForeignContract { theirs: *contract, ours: facts.contract });
    }
    if let Some(token) = token.filter(|token| *token != facts.token) {
        return Err(Refusal::ForeignToken { theirs: token, ours: facts.token });
    }
    allowance.check(challenge)
}
