//! One client request that wants to be paid: how far it has come, and what it has cost so far.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::HostName;
use crate::protocol::channel::{ChannelDraft, InDoubt};
use crate::protocol::policy::{Complaint, SpendLimit};
use crate::protocol::{Address, Amount, Channel, ChannelId, Offer};

/// A host, and whether its requests may use the channels of other hosts.
pub(super) type QueueKey = (HostName, bool);

/// One client request that wants to be paid.
#[derive(Debug)]
pub(super) struct Purchase {
    pub(super) offer: Offer,
    pub(super) limit: SpendLimit,
    pub(super) deadline: Instant,
    pub(super) stage: Stage,
    /// How many different payments were granted.
    pub(super) rounds: u32,
    /// By how much this request raised what sellers were shown, as far as that was or can still be redeemed.
    pub(super) raised: Vec<Raise>,
    /// True once a channel was opened or topped up because of this request: that happens once.
    pub(super) is_funded: bool,
    /// True when a channel that the chain no longer knows was left for another one.
    pub(super) reopened: bool,
    /// Totals that were presented for this request, questions left out.
    pub(super) presented: Vec<Presented>,
    pub(super) corrections: u32,
    pub(super) retries: BTreeMap<Complaint, RetryState>,
}

/// A payment of one request raised what the seller was shown of a channel, from one total to a higher one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Raise {
    pub(super) channel: ChannelId,
    pub(super) from: Amount,
    pub(super) to: Amount,
}

/// A total that was presented for one request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Presented {
    pub(super) channel: ChannelId,
    pub(super) total: Amount,
    /// True if its seller was not shown as much before.
    pub(super) is_new: bool,
    /// How many payments were signed on the channel before it, in this run.
    pub(super) after: u64,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Stage {
    /// Waits until the key is unlocked and the chain synced.
    Starting { until: Instant },
    /// Waits in its receiver's queue.
    Queued,
    /// Waits until the record of this payment is on disk; and what was so before it.
    Recording { draft: ChannelDraft, before: Before },
    /// Has this payment in hand. Where it was never shown to the seller: what was so before it.
    InFlight { draft: ChannelDraft, unsent: Option<Before> },
    /// Waits to present the same payment again.
    Backoff { draft: ChannelDraft, until: Instant },
}

/// What a channel goes back to when a payment never leaves.
#[derive(Clone, Copy, Debug)]
pub(super) struct Before {
    pub(super) in_doubt: Option<InDoubt>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct RetryState {
    attempts: u32,
    since: Instant,
}

impl Purchase {
    pub(super) fn receiver(&self) -> Address {
        self.offer.terms().payee
    }

    pub(super) fn price(&self) -> Amount {
        self.offer.terms().price.amount
    }

    /// The host that asks for money, without a port.
    pub(super) fn host(&self) -> &HostName {
        &self.limit.host
    }

    /// The queue that it waits in: those who wait in one queue may use the same channels.
    pub(super) fn queue(&self) -> QueueKey {
        (Arc::clone(self.host()), self.shares())
    }

    /// True when channels of other hosts may pay for it: its rule lists the receiver.
    pub(super) fn shares(&self) -> bool {
        self.limit.receivers.contains(&self.receiver())
    }

    /// Whether the policy lets another channel pay if one is gone.
    pub(super) fn reopens(&self) -> bool {
        self.limit.hooks.reopens()
    }

    /// Whether one more payment for this request would let sellers redeem more than one price for it.
    pub(super) fn exceeds_price(&self, raise: Amount) -> bool {
        let sum = self.raised.iter().fold(raise, |sum, raised| sum.saturating_add(raised.by()));
        !raise.is_zero() && sum > self.price()
    }

    /// The seller proves that it holds a total. If that is older than this request, only what lies above it is this
    /// request's. It is not if it was signed for this request, or perhaps for another one that the channel was lent to
    /// in between.
    pub(super) fn is_proven(&mut self, channel: ChannelId, known: &Channel, total: Amount) {
        let ours = || self.presented.iter().filter(|presented| presented.channel == channel);
        let Some(first) = ours().next() else { return };
        let is_alone = first.after + ours().count() as u64 == known.payments;
        let is_older = total > known.signed || is_alone && ours().all(|presented| presented.total != total);
        if !is_older {
            return;
        }
        for raise in self.raised.iter_mut().filter(|raise| raise.channel == channel) {
            raise.from = raise.from.max(total);
        }
    }

    /// True when sellers can redeem something of a channel because of this request.
    pub(super) fn has_raised(&self, channel: ChannelId) -> bool {
        self.raised.iter().any(|raise| raise.channel == channel && !raise.by().is_zero())
    }

    /// A channel was settled on `total`: what was signed above it cannot be redeemed any more.
    pub(super) fn is_settled(&mut self, channel: ChannelId, total: Amount) {
        for raise in self.raised.iter_mut().filter(|raise| raise.channel == channel) {
            raise.to = raise.to.min(total);
        }
    }

    /// When it is to be looked at again; `None` while it has a payment in hand.
    pub(super) fn due(&self) -> Option<Instant> {
        match self.stage {
            Stage::Starting { until } | Stage::Backoff { until, .. } => Some(until.min(self.deadline)),
            Stage::Queued | Stage::Recording { .. } => Some(self.deadline),
            Stage::InFlight { .. } => None,
        }
    }

    /// Counts one more attempt after a complaint; `None` when the retries with it is at its end.
    pub(super) fn retry(
        &mut self,
        complaint: Complaint,
        times: u32,
        within: Duration,
        now: Instant,
    ) -> Result<(), u32> {
        let retries = self.retries.entry(complaint).or_insert(RetryState { attempts: 0, since: now });
        if retries.attempts >= times || now.duration_since(retries.since) >= within {
            return Err(retries.attempts);
        }
        retries.attempts += 1;
        Ok(())
    }
}

impl Raise {
    fn by(&self) -> Amount {
        self.to.saturating_sub(self.from)
    }
}
