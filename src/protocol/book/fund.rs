//! Money on its way into channels, and what the chain says of them.

use std::collections::BTreeMap;
use std::time::Instant;

use super::{Book, Effect, Funding, Record};
use crate::protocol::{Address, Amount, Channel, ChannelId, Intent, OnChain, Order, Phase, Refusal};

/// How far the cursor moves before it is put on record again, in blocks.
const CURSOR_STEP: u64 = 256;

/// Why an order came to nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderFailure {
    /// What was ordered.
    pub order: Order,
    /// What went wrong and what to do.
    pub reason: String,
    /// True when none of its transactions can still take effect.
    pub is_final: bool,
}

/// Why an order of the user's is not taken now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unorderable {
    /// The key or the chain is not there yet.
    #[error("not ready: the key is not unlocked or the chain not synced yet")]
    NotReady,
    /// Another transaction for the receiver is under way.
    #[error("another transaction for {0} is under way; wait for it, then try again")]
    Busy(Address),
}

impl Book {
    /// Has an order carried out, unless older transactions for the same receiver must be cleared up first.
    pub(super) fn order(&mut self, order: Order) {
        let receiver = order.receiver();
        if self.intents.contains_key(&receiver) {
            return self.resume(receiver);
        }
        self.funding.insert(receiver, Funding::Running(Some(order)));
        self.effects.push_back(Effect::Submit(order));
    }

    /// Has the fate of a receiver's transactions found out.
    pub(super) fn resume(&mut self, receiver: Address) {
        let Some(intents) = self.intents.get(&receiver) else { return };
        self.funding.insert(receiver, Funding::Running(None));
        self.effects.push_back(Effect::Resume(receiver, intents.clone()));
    }

    /// The same, unless a transaction for the receiver is being waited for already.
    pub(super) fn resume_if_idle(&mut self, receiver: Address) {
        if !matches!(self.funding.get(&receiver), Some(Funding::Running(_))) {
            self.resume(receiver);
        }
    }

    pub(super) fn intend(&mut self, intent: Intent) {
        let (hash, receiver) = (intent.hash, intent.order.receiver());
        let known = self.intents.entry(receiver).or_default();
        if known.is_empty() {
            // Where that could not be written before, an older one would be taken for this one after a crash.
            self.effects.push_back(Effect::Persist(Record::IntentsSettled(receiver)));
        }
        known.push(intent.clone());
        self.effects.push_back(Effect::Persist(Record::Intent(intent)));
        self.effects.push_back(Effect::Send(hash));
    }

    /// Whether the user may order something now: transactions for one receiver go one after the other.
    pub fn may_order(&self, order: &Order) -> Result<(), Unorderable> {
        if self.facts().is_none() {
            return Err(Unorderable::NotReady);
        }
        let receiver = order.receiver();
        match self.funding.get(&receiver) {
            Some(Funding::Running(_)) => Err(Unorderable::Busy(receiver)),
            Some(Funding::Failed { .. }) | None if self.intents.contains_key(&receiver) => {
                Err(Unorderable::Busy(receiver))
            }
            Some(Funding::Failed { .. }) | None => Ok(()),
        }
    }

    pub(super) fn ordered(
        &mut self,
        receiver: Address,
        result: Result<Option<(ChannelId, Option<OnChain>)>, OrderFailure>,
        now: Instant,
    ) {
        let is_final = result.as_ref().map_or_else(|failure| failure.is_final, |_| true);
        match result {
            Ok(done) => {
                self.funding.remove(&receiver);
                if let Some((id, on_chain)) = done {
                    if let (None, Some(channel)) = (on_chain, self.channels.get(&id)) {
                        // Whoever ended it, it was on no more than this; the chain will tell.
                        self.settled.entry(id).or_insert(channel.exposure());
                    }
                    self.take_over(id, on_chain);
                }
            }
            Err(OrderFailure { order, reason, .. }) => {
                self.funding.remove(&receiver);
                if matches!(order, Order::Open { .. } | Order::TopUp { .. }) {
                    let until = now + self.policy.deposit.retry_after;
                    let refusal = Refusal::FundFailed { order: Box::new(order), reason };
                    self.funding.insert(receiver, Funding::Failed { until, refusal });
                }
            }
        }
        if is_final && self.intents.remove(&receiver).is_some() {
            self.effects.push_back(Effect::Persist(Record::IntentsSettled(receiver)));
        }
        self.pump(receiver, now);
    }

    pub(super) fn learned(&mut self, id: ChannelId, total: Amount) {
        let Some(channel) = self.channels.get_mut(&id) else { return };
        channel.acknowledged = total;
        channel.promised = channel.promised.max(total);
        channel.unclear = None;
        self.dirty.insert(id);
    }

    pub(super) fn observe(
        &mut self,
        channels: Vec<(ChannelId, Option<OnChain>)>,
        settled: &BTreeMap<ChannelId, Amount>,
        cursor: u64,
        now: Instant,
    ) {
        let known = settled.iter().filter(|(id, _)| self.channels.contains_key(id));
        self.settled.extend(known.map(|(id, total)| (*id, *total)));
        let mut receivers = Vec::new();
        for (id, on_chain) in channels {
            // It is not known when it was used before: it counts as used now.
            self.used.entry(id).or_insert(now);
            if on_chain.is_some() && !settled.contains_key(&id) {
                // A reorganisation has undone its settlement.
                self.settled.remove(&id);
            }
            if self.is_premature(id, on_chain) {
                continue;
            }
            self.take_over(id, on_chain);
            receivers.push(id.receiver);
        }
        // To look at some blocks again costs less than a durable write for each.
        if cursor.abs_diff(self.cursor) >= CURSOR_STEP {
            self.cursor = cursor;
            self.effects.push_back(Effect::Persist(Record::Cursor(cursor)));
        }
        receivers.dedup();
        for receiver in receivers {
            self.pump(receiver, now);
        }
    }

    /// True for news that must wait: an opening of ours that is not deep enough yet, a deposit that is lower than known
    /// and was seen only once, which may have been read before a top up, or a channel that was not there once, which may
    /// have been settled between the reading of the events and of the channel.
    fn is_premature(&mut self, id: ChannelId, on_chain: Option<OnChain>) -> bool {
        let Some(on_chain) = on_chain else { return self.is_vanishing(id) };
        self.vanished.remove(&id);
        let Some(channel) = self.channels.get(&id) else {
            let is_funding = matches!(self.funding.get(&id.receiver), Some(Funding::Running(_)));
            return is_funding || self.intents.contains_key(&id.receiver);
        };
        if on_chain.deposit >= channel.deposit {
            self.lower.remove(&id);
            return false;
        }
        self.lower.insert(id, on_chain.deposit) != Some(on_chain.deposit)
    }

    /// True where a channel that is not there must be looked at again.
    fn is_vanishing(&mut self, id: ChannelId) -> bool {
        let is_there = self.channels.get(&id).is_some_and(|channel| channel.phase != Phase::Gone);
        let was_seen = self.vanished.remove(&id);
        let must_wait = is_there && !was_seen && !self.settled.contains_key(&id);
        if must_wait {
            self.vanished.insert(id);
        }
        must_wait
    }

    /// Takes over what the contract says of a channel, and puts it on record when it is news.
    fn take_over(&mut self, id: ChannelId, on_chain: Option<OnChain>) {
        let before = self.channels.get(&id).copied();
        let after = match (before, on_chain) {
            (Some(mut channel), on_chain) => {
                channel.observe(on_chain);
                channel
            }
            (None, Some(on_chain)) => Channel::new(on_chain),
            (None, None) => return,
        };
        if before != Some(after) {
            self.channels.insert(id, after);
            self.record(id);
        }
    }
}
