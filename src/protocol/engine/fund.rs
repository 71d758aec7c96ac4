//! Channel operations in progress, and the state of channels on the chain.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use super::blocked::{Action, Blocked};
use super::fit::BudgetIndices;
use super::op_failure::{OpFailure, OpRefused};
use super::slot::Slot;
use super::{Effect, Engine, Funding, HostName, Record, Start};
use crate::protocol::{Address, Amount, Channel, ChannelId, ChannelOp, Intent, OnChain, Phase};

/// How far the cursor moves before it is recorded again, in blocks.
const CURSOR_STEP: u64 = 256;

impl Engine {
    /// Starts an operation for a host or the user, unless older transactions for the same receiver must be resolved
    /// first.
    pub(super) fn start_op(&mut self, op: ChannelOp, host: Option<HostName>) {
        let receiver = op.receiver();
        if self.intents.contains_key(&receiver) {
            return self.resume(receiver);
        }
        self.funding.insert(receiver, Funding { op: Some(op), host });
        self.effects.push_back(Effect::Submit(op));
    }

    /// Resolves a receiver's transactions with unknown outcome.
    pub(super) fn resume(&mut self, receiver: Address) {
        let Some(intents) = self.intents.get(&receiver) else { return };
        let host = intents.last().and_then(|intent| intent.host.as_deref().map(HostName::from));
        self.funding.insert(receiver, Funding { op: None, host });
        self.effects.push_back(Effect::Resume(receiver, intents.clone()));
    }

    /// The same, unless a transaction for the receiver is already awaited.
    pub(super) fn resume_if_idle(&mut self, receiver: Address) {
        if !self.funding.contains_key(&receiver) {
            self.resume(receiver);
        }
    }

    pub(super) fn intend(&mut self, mut intent: Intent, now: Instant) {
        let (hash, receiver) = (intent.hash, intent.op.receiver());
        let host = self.funding.get(&receiver).and_then(|funding| funding.host.clone());
        intent.host = host.as_deref().map(str::to_owned);
        if self.intents.get(&receiver).is_none_or(Vec::is_empty) {
            // If that could not be written earlier, an older transaction would be taken for this one after a crash.
            self.forget_intents(receiver);
        }
        let known = self.intents.entry(receiver).or_default();
        let is_first_to_move = intent.moves && !known.iter().any(|known| known.moves);
        known.push(intent.clone());
        if is_first_to_move {
            self.send_money(&intent.op, host, now);
        }
        self.records.push(Record::Intent(intent));
        let after = [Some(self.next_write()), None];
        self.blocked.push(Blocked { after, since: None, action: Action::Send(hash) });
    }

    /// Counts funds that are about to be sent into a channel, whatever the chain shows.
    fn send_money(&mut self, op: &ChannelOp, host: Option<HostName>, now: Instant) {
        if let ChannelOp::TopUp { channel: id, added } = op {
            self.change(id, |channel| channel.funded = channel.funded.saturating_add(*added));
            self.persist_channel(*id);
        }
        if let (
            ChannelOp::Open { receiver, .. } | ChannelOp::TopUp { channel: ChannelId { receiver, .. }, .. },
            Some(host),
        ) = (op, host)
        {
            self.count_deposit(*receiver, &host, now);
            self.records.push(Record::Deposit(*receiver, host));
        }
    }

    /// Uncounts funds that provably did not arrive.
    fn take_back_money(&mut self, intents: &[Intent]) {
        let moved = intents.iter().find(|intent| intent.moves).map(|intent| intent.op);
        if let Some(ChannelOp::TopUp { channel: id, added }) = moved {
            self.change(&id, |channel| {
                channel.funded = channel.funded.saturating_sub(added).max(channel.deposit);
            });
            self.persist_channel(id);
        }
    }

    /// Whether a user operation may start now: transactions for one receiver run one after the other, and each deposit
    /// must be above 0 and within the limit.
    pub fn may_start(&self, op: &ChannelOp) -> Result<(), OpRefused> {
        if self.account().is_none() {
            return Err(self.why_no_account());
        }
        if self.is_frozen {
            return Err(OpRefused::Frozen);
        }
        self.check_amount(op)?;
        let receiver = op.receiver();
        let is_busy = self.funding.contains_key(&receiver) || self.intents.contains_key(&receiver);
        if is_busy { Err(OpRefused::Busy(receiver)) } else { Ok(()) }
    }

    /// Why no account is known.
    pub fn why_no_account(&self) -> OpRefused {
        if matches!(self.start, Start::NoChain) { OpRefused::NoChain } else { OpRefused::NotReady }
    }

    /// Checks that a channel, and all channels together, may hold the amount of an operation.
    ///
    /// # Errors
    /// [`OpRefused::Nothing`] for an amount of 0, [`OpRefused::AboveCap`] for one above `deposit.max_per_channel`,
    /// [`OpRefused::AboveLimit`] if it would exceed `deposit.max_per_receiver` or `deposit.max_total`.
    pub fn check_amount(&self, op: &ChannelOp) -> Result<(), OpRefused> {
        let (before, amount) = match op {
            ChannelOp::Open { deposit, .. } => (Amount::ZERO, *deposit),
            ChannelOp::TopUp { channel, added } => {
                (self.channel(channel).map_or(Amount::ZERO, |channel| channel.funded), *added)
            }
            ChannelOp::CloseTogether { .. } | ChannelOp::CloseAlone { .. } | ChannelOp::Settle { .. } => {
                return Ok(());
            }
        };
        if amount.is_zero() {
            return Err(OpRefused::Nothing);
        }
        let (deposit, cap) = (before.saturating_add(amount), self.policy.deposit.max_per_channel);
        if deposit > cap {
            return Err(OpRefused::AboveCap { deposit, cap });
        }
        self.check_deposit_room(op, amount)
    }

    pub(super) fn ordered(
        &mut self,
        receiver: Address,
        result: Result<Option<(ChannelId, Option<OnChain>)>, OpFailure>,
        now: Instant,
    ) {
        let is_final = result.as_ref().map_or_else(|failure| failure.is_final, |_| true);
        let funding = self.funding.remove(&receiver);
        let host = funding.as_ref().and_then(|funding| funding.host.clone());
        let intents = self.intents.get(&receiver).cloned().unwrap_or_default();
        match result {
            Ok(Some((id, on_chain))) => {
                let moved = intents.iter().rfind(|intent| intent.moves).map(|intent| intent.op);
                let op = funding.and_then(|funding| funding.op).or(moved);
                self.carried_out(id, on_chain, op, host, now);
            }
            Ok(None) => self.take_back_money(&intents),
            Err(failure) => {
                if failure.is_final {
                    self.take_back_money(&intents);
                } else {
                    self.unresolved(&failure, now);
                }
                if let (ChannelOp::Open { .. } | ChannelOp::TopUp { .. }, Some(host)) = (failure.op, host) {
                    self.failed(host, failure, !intents.is_empty(), now);
                }
            }
        }
        if is_final {
            self.unresolved.remove(&receiver);
        }
        if is_final && self.intents.remove(&receiver).is_some() {
            self.forget_intents(receiver);
        }
        self.dispatch(receiver, now);
    }

    /// Records that no transaction for the receiver is awaited any more, with what they have changed: an earlier write that
    /// was to record that may have failed, or may fail yet, and a crash would leave neither.
    fn forget_intents(&mut self, receiver: Address) {
        let is_unwritten = |(id, slot): &(&ChannelId, &Slot)| {
            id.receiver == receiver && (slot.is_dirty || !slot.writes.is_empty())
        };
        let unwritten: Vec<ChannelId> = self.slots.iter().filter(is_unwritten).map(|(id, _)| *id).collect();
        unwritten.into_iter().for_each(|id| self.persist_channel(id));
        self.records.push(Record::IntentsResolved(receiver));
    }

    fn carried_out(
        &mut self,
        id: ChannelId,
        on_chain: Option<OnChain>,
        op: Option<ChannelOp>,
        host: Option<HostName>,
        now: Instant,
    ) {
        if let (None, Some(slot)) = (on_chain, self.slots.get_mut(&id)) {
            // However it ended, it was at no more than this; the chain provides the total.
            slot.settled.get_or_insert(slot.channel.exposure());
        }
        match op {
            Some(ChannelOp::Open { deposit, .. }) => self.opened(id, on_chain, deposit, host.as_ref()),
            // A node that shows less than before shows an older state: the watcher will read it again.
            Some(ChannelOp::TopUp { .. })
                if on_chain.is_some_and(|shown| {
                    self.channel(&id).is_some_and(|known| shown.deposit < known.deposit)
                }) => {}
            _ => self.take_over(id, on_chain),
        }
        if let (Some(op @ (ChannelOp::Open { .. } | ChannelOp::TopUp { .. })), Some(host)) = (op, host) {
            self.funded(id, op, host, now);
        }
    }

    /// Adds a new channel of ours: nothing was signed on it, and it belongs to the host that it was opened for.
    fn opened(&mut self, id: ChannelId, on_chain: Option<OnChain>, deposit: Amount, host: Option<&HostName>) {
        let nothing = OnChain {
            deposit: Amount::ZERO,
            settle_block: 0,
            closing_balance: Amount::ZERO,
            withdrawn: Amount::ZERO,
        };
        let slot = self.slot_or_insert(id, Channel::new(nothing));
        if let (None, Some(host)) = (&slot.host, host) {
            slot.host = Some(Arc::clone(host));
            slot.is_host_unwritten = true;
        }
        if let Some(on_chain) = on_chain {
            slot.channel.observe(Some(on_chain));
        }
        slot.channel.funded = slot.channel.funded.max(deposit);
        self.persist_channel(id);
    }

    /// A channel that is not open signs no more; what was signed above the total that it was settled at is lost.
    fn end_hold(&mut self, id: ChannelId) {
        let Some(slot) = self.slots.get(&id).filter(|slot| slot.channel.phase != Phase::Open) else { return };
        let (holds, limit) =
            (!slot.budgets_ahead().is_empty(), slot.limit_ahead().min(slot.channel.promised));
        if let Some(settled) = slot.settled.filter(|_| slot.channel.phase == Phase::Gone) {
            self.uncount_above(id, settled);
        }
        if holds {
            self.persist_hold(id, limit, BudgetIndices::default());
        }
    }

    pub(super) fn seller_total(&mut self, id: ChannelId, total: Amount, proven: bool) {
        self.change(&id, |channel| channel.correct(total, proven));
    }

    pub(super) fn observe(
        &mut self,
        channels: Vec<(ChannelId, Option<OnChain>)>,
        settled: &BTreeMap<ChannelId, Amount>,
        cursor: u64,
        now: Instant,
    ) {
        for (id, total) in settled {
            if let Some(slot) = self.slots.get_mut(id) {
                slot.settled = Some(*total);
            }
        }
        let mut receivers = Vec::new();
        for (id, on_chain) in channels {
            if let Some(slot) = self.slots.get_mut(&id)
                && on_chain.is_some()
                && !settled.contains_key(&id)
            {
                // A reorganisation has undone its settlement.
                slot.settled = None;
                self.count_again(id);
            }
            if self.is_premature(id, on_chain) {
                continue;
            }
            self.take_over(id, on_chain);
            self.end_hold(id);
            self.shows(id);
            if let Some(slot) = self.slots.get_mut(&id) {
                // It is unknown when it was used before: it counts as used now.
                slot.used.get_or_insert(now);
            }
            receivers.push(id.receiver);
        }
        // Reading some blocks again costs less than a durable write for each.
        if cursor.abs_diff(self.cursor) >= CURSOR_STEP {
            self.cursor = cursor;
            self.records.push(Record::Cursor(cursor));
        }
        receivers.dedup();
        for receiver in receivers {
            self.dispatch(receiver, now);
        }
    }

    /// True for a reading that must be confirmed: an opening of ours without enough confirmations; a lower deposit seen
    /// only once, which may have been read before a top-up; or a channel missing only once, which may have been settled
    /// between reading the events and the channel.
    fn is_premature(&mut self, id: ChannelId, on_chain: Option<OnChain>) -> bool {
        let Some(slot) = self.slots.get_mut(&id) else {
            let is_expected =
                self.funding.contains_key(&id.receiver) || self.intents.contains_key(&id.receiver);
            return on_chain.is_some() && is_expected;
        };
        let was_missing = std::mem::take(&mut slot.is_missing);
        let Some(on_chain) = on_chain else {
            slot.is_missing = slot.channel.phase != Phase::Gone && !was_missing && slot.settled.is_none();
            return slot.is_missing;
        };
        if on_chain.deposit >= slot.channel.deposit {
            slot.lower = None;
            return false;
        }
        slot.lower.replace(on_chain.deposit) != Some(on_chain.deposit)
    }

    /// A channel that was not known may be one whose opening was undone: its deposit is locked only once.
    fn opened_again(&mut self, receiver: Address, deposit: Amount) {
        let is_same = |(id, slot): &(&ChannelId, &mut Slot)| {
            id.receiver == receiver && slot.is_undone && slot.channel.funded == deposit
        };
        if let Some((_, slot)) = self.slots.iter_mut().find(is_same) {
            slot.is_undone = false;
        }
    }

    /// Updates a channel from the contract's state, and records it if it changed.
    fn take_over(&mut self, id: ChannelId, on_chain: Option<OnChain>) {
        let before = self.channel(&id).copied();
        let after = match (before, on_chain) {
            (Some(mut channel), on_chain) => {
                channel.observe(on_chain);
                channel
            }
            (None, Some(on_chain)) => Channel::found(on_chain),
            (None, None) => return,
        };
        if before.is_none() {
            self.opened_again(id.receiver, after.deposit);
        }
        if before != Some(after) {
            let has_vanished = before.is_some_and(|before| before.phase != after.phase);
            let slot = self.slot_or_insert(id, after);
            slot.channel = after;
            slot.is_undone = after.phase == Phase::Gone && (slot.is_undone || has_vanished);
            self.end_hold(id);
            self.persist_channel(id);
        }
    }
}
