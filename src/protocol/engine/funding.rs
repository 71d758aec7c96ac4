//! Decides whether and how much to fund for a purchase: limits, and backoff after failures.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::demand::DemandStep;
use super::purchase::Purchase;
use super::{Balance, Effect, Engine, Failure, HostName, OpFailure};
use crate::protocol::refusal::FundingRetry;
use crate::protocol::{Address, Amount, ChannelId, ChannelOp, OnChain, Phase, Refusal};

/// The pause after a failure doubles with each further one, up to this or `deposit.retry_after`, whichever is longer.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);
/// How long a balance is considered current.
const BALANCE_FRESH: Duration = Duration::from_secs(1);
/// How many failures to remember; further ones replace expired ones.
const MAX_FAILURES: usize = 1024;

impl Engine {
    /// Funds a channel for `purchase`, if nothing prevents it.
    pub(super) fn funding_step(
        &self,
        purchase: &Purchase,
        receiver: Address,
        price: Amount,
        now: Instant,
    ) -> DemandStep {
        let key = (receiver, Arc::clone(purchase.host()));
        if let Some(failure) = self.failures.get(&key).filter(|failure| now < failure.until) {
            let is_fresh = now.saturating_duration_since(failure.looked) < BALANCE_FRESH;
            return if is_fresh || failure.balance.is_none() {
                DemandStep::Refuse(failure.refusal(now))
            } else {
                DemandStep::QueryBalance
            };
        }
        if self.intents.contains_key(&receiver) {
            // Whichever host they were for: their outcome is still unknown.
            let unresolved = self.unresolved.get(&receiver).filter(|failure| now < failure.until);
            return unresolved.map_or(DemandStep::Resume, |failure| DemandStep::Refuse(failure.refusal(now)));
        }
        let op = match self.op_for(purchase, receiver, price) {
            Ok(op) => op,
            Err(refusal) => return DemandStep::Refuse(refusal),
        };
        // Nothing is funded for a payment that would not be granted.
        if purchase.exceeds_price(self.raise_after(&op, price)) {
            return DemandStep::Refuse(Refusal::SecondPrice { price });
        }
        if purchase.is_funded {
            return DemandStep::Refuse(Refusal::FundedOnce);
        }
        let (max, within) = (self.policy.deposit.max_count, self.policy.deposit.count_window);
        if self.recent_deposits(&key, now) >= max as usize {
            let free_in = self.deposit_possible_in(&key, now);
            return DemandStep::Refuse(Refusal::TooManyDeposits { receiver, max, within, free_in });
        }
        DemandStep::Fund(op)
    }

    /// Tops up the free channel with the most left, by what is missing to the target; if every channel is leased or
    /// full, opens another one.
    fn op_for(&self, purchase: &Purchase, receiver: Address, price: Amount) -> Result<ChannelOp, Refusal> {
        let deposit = self.policy.deposit;
        let cap = deposit.max_per_channel;
        if let Some((id, slot)) =
            self.usable_slots(purchase, receiver).find(|(_, slot)| !slot.channel.unseen().is_zero())
        {
            let (sent, shown) = (slot.channel.funded, slot.channel.deposit);
            return Err(Refusal::DepositUnseen { channel: *id, sent, shown });
        }
        let limited = self.deposit_room(receiver);
        let left = limited.map_or(Amount::MAX, |(room, _)| room);
        let largest = self
            .usable_slots(purchase, receiver)
            .filter(|(_, slot)| slot.lease.is_none())
            .map(|(id, slot)| (id, &slot.channel))
            .max_by_key(|(id, channel)| (channel.left(), **id));
        if let Some((id, channel)) = largest {
            let missing = channel.acknowledged.saturating_add(price).saturating_sub(channel.deposit);
            let room = cap.saturating_sub(channel.funded).min(left);
            if missing <= room {
                let wanted = deposit.top_up.of(price).saturating_sub(channel.left());
                return Ok(ChannelOp::TopUp { channel: *id, added: wanted.max(missing).min(room) });
            }
        }
        if price > cap {
            return Err(Refusal::DepositCap { price, cap });
        }
        if let Some((room, limit)) = limited
            && price > room
        {
            return Err(Refusal::DepositLimit { price, limit: Box::new(limit) });
        }
        Ok(ChannelOp::Open { receiver, deposit: deposit.initial.of(price).max(price).min(cap).min(left) })
    }

    /// By how much a payment from the channel that `op` funds will raise what was presented to its seller.
    fn raise_after(&self, op: &ChannelOp, price: Amount) -> Amount {
        let ChannelOp::TopUp { channel, .. } = op else { return price };
        self.channel(channel)
            .map_or(price, |known| known.acknowledged.saturating_add(price).saturating_sub(known.presented))
    }

    fn recent_deposits(&self, key: &(Address, HostName), now: Instant) -> usize {
        let within = self.policy.deposit.count_window;
        let is_recent = |at: &&Instant| now.saturating_duration_since(**at) < within;
        self.deposits.get(key).map_or(0, |times| times.iter().rev().take_while(is_recent).count())
    }

    /// The time until fewer than `deposit.max_count` deposits are in the window.
    fn deposit_possible_in(&self, key: &(Address, HostName), now: Instant) -> Option<Duration> {
        let times = self.deposits.get(key)?;
        let last = times.get(times.len().checked_sub(self.policy.deposit.max_count as usize)?)?;
        Some(self.policy.deposit.count_window.saturating_sub(now.saturating_duration_since(*last)))
    }

    /// Counts a deposit.
    pub(super) fn count_deposit(&mut self, receiver: Address, host: &HostName, now: Instant) {
        let within = self.policy.deposit.count_window;
        self.deposits.retain(|_, times| {
            while times.front().is_some_and(|at| now.saturating_duration_since(*at) >= within) {
                times.pop_front();
            }
            !times.is_empty()
        });
        self.deposits.entry((receiver, Arc::clone(host))).or_default().push_back(now);
    }

    /// Loads the deposits made before the start.
    pub(super) fn remember_deposits(&mut self, deposits: Vec<(Address, HostName, Duration)>, now: Instant) {
        for (receiver, host, ago) in deposits {
            // If the machine has not been up for that long, the deposit counts as made just now.
            let at = now.checked_sub(ago).unwrap_or(now);
            self.deposits.entry((receiver, host)).or_default().push_back(at);
        }
        for times in self.deposits.values_mut() {
            VecDeque::make_contiguous(times).sort_unstable();
        }
    }

    /// Remembers that funding for `host` failed. `was_sent`: a transaction was sent for it.
    pub(super) fn failed(&mut self, host: HostName, failure: OpFailure, was_sent: bool, now: Instant) {
        let OpFailure { op, reason, balance, .. } = failure;
        let balance = (!was_sent).then_some(balance);
        self.remember_failure(host, (op, reason), None, balance, now);
    }

    /// Remembers why the outcome of an operation's transactions is still unknown.
    pub(super) fn unresolved(&mut self, failure: &OpFailure, now: Instant) {
        let OpFailure { op, reason, .. } = failure;
        let until = now + self.policy.deposit.retry_after;
        let failure = Failure {
            op: *op,
            reason: reason.clone(),
            since: now,
            until,
            unseen: None,
            times: 1,
            balance: None,
            looked: now,
        };
        self.unresolved.insert(op.receiver(), failure);
    }

    fn remember_failure(
        &mut self,
        host: HostName,
        (op, reason): (ChannelOp, String),
        unseen: Option<ChannelId>,
        balance: Option<Option<Balance>>,
        now: Instant,
    ) {
        if self.failures.len() >= MAX_FAILURES {
            self.failures.retain(|_, failure| now < failure.until);
        }
        let key = (op.receiver(), host);
        let times = self.failures.get(&key).map_or(1, |before| before.times.saturating_add(1));
        let first = self.policy.deposit.retry_after;
        let doubled = 1_u32.checked_shl(times - 1).unwrap_or(u32::MAX);
        let pause = first.saturating_mul(doubled).min(first.max(LONGEST_PAUSE));
        let until = now + pause;
        let failure = Failure { op, reason, since: now, until, unseen, times, balance, looked: now };
        self.failures.insert(key, failure);
    }

    /// Queries the payer's balance, unless a query is pending.
    pub(super) fn query_balance(&mut self) {
        if !std::mem::replace(&mut self.is_querying_balance, true) {
            self.effects.push_back(Effect::QueryBalance);
        }
    }

    /// Lets operations that failed with another balance be retried at once.
    pub(super) fn balance_known(&mut self, balance: Option<Balance>, now: Instant) {
        self.is_querying_balance = false;
        for failure in self.failures.values_mut() {
            failure.looked = now;
            if balance.is_some() && failure.balance.is_some_and(|before| before != balance) {
                failure.until = now;
            }
        }
        for receiver in self.queues.keys().copied().collect::<Vec<_>>() {
            self.dispatch(receiver, now);
        }
    }

    /// Handles a completed funding operation of `host`. The chain must show its effect: money is not sent again while
    /// earlier money is not visible.
    pub(super) fn funded(&mut self, id: ChannelId, op: ChannelOp, host: HostName, now: Instant) {
        let Some(channel) = self.channel(&id) else { return };
        let reason = match channel.phase {
            Phase::Open if channel.unseen().is_zero() => {
                self.failures.remove(&(id.receiver, host));
                return;
            }
            Phase::Open => format!(
                "the transaction succeeded, but the chain shows a deposit of {} instead of {}",
                channel.deposit, channel.funded
            ),
            Phase::Closing { .. } => "the transaction succeeded, but the channel is being closed".to_owned(),
            Phase::Gone => "the transaction succeeded, but the contract does not know the channel".to_owned(),
        };
        self.remember_failure(host, (op, reason), Some(id), None, now);
    }

    /// Handles a channel whose funds are all visible: the wait for them is over.
    pub(super) fn shows(&mut self, id: ChannelId) {
        let is_fine =
            self.channel(&id).is_some_and(|known| known.phase == Phase::Open && known.unseen().is_zero());
        if is_fine {
            self.failures.retain(|_, failure| failure.unseen != Some(id));
        }
    }

    /// Handles a sync by the user: deposits that it does not show are no longer awaited.
    pub(super) fn give_up_unseen(&mut self, shown: &[(ChannelId, Option<OnChain>)]) {
        for (id, on_chain) in shown {
            let is_clear =
                !self.intents.contains_key(&id.receiver) && !self.funding.contains_key(&id.receiver);
            let is_unseen = self.channel(id).is_some_and(|channel| !channel.unseen().is_zero());
            if let (Some(on_chain), true, true) = (on_chain, is_clear, is_unseen) {
                self.change(id, |channel| channel.funded = on_chain.deposit);
            }
        }
    }
}

impl Failure {
    /// The refusal of a purchase that would retry now.
    fn refusal(&self, now: Instant) -> Refusal {
        let ago = now.saturating_duration_since(self.since);
        let next = self.until.saturating_duration_since(now);
        let retry = FundingRetry { ago, next };
        Refusal::FundFailed { op: Box::new(self.op), reason: self.reason.clone(), retry }
    }
}
