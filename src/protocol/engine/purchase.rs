//! One client request that wants to be paid: its state and cost so far.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::HostName;
use super::fit::{BudgetIndices, CountedRange};
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
    pub(super) budgets: BudgetIndices,
    /// What its payment newly counts for in the budgets, until it is presented.
    pub(super) counted: Vec<CountedRange>,
    pub(super) deadline: Instant,
    /// True if most of the time for the request had passed before it asked for a payment.
    pub(super) is_late: bool,
    pub(super) stage: Stage,
    /// How many different payments were granted.
    pub(super) rounds: u32,
    /// By how much this request raised what sellers were presented, as far as that was or can still be redeemed.
    pub(super) raised: Vec<Raise>,
    /// True once a channel was opened or topped up for this request, which happens at most once.
    pub(super) is_funded: bool,
    /// True once a channel that no longer exists on the chain was replaced.
    pub(super) reopened: bool,
    /// Totals that were presented for this request, without queries.
    pub(super) presented: Vec<Presented>,
    /// The seller's response to the latest payment, while an approver is asked about it.
    pub(super) rejection: Option<Box<Offer>>,
    pub(super) corrections: u32,
    pub(super) retries: BTreeMap<Complaint, RetryState>,
}

/// A payment of one request that raised what the seller of a channel was presented, from one total to a higher one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Raise {
    pub(super) channel: ChannelId,
    pub(super) from: Amount,
    pub(super) to: Amount,
}

/// A total presented for one request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Presented {
    pub(super) channel: ChannelId,
    pub(super) total: Amount,
    /// True if this much had not been presented to its seller before.
    pub(super) is_new: bool,
    /// How many payments had been signed on the channel before it, in this run.
    pub(super) after: u64,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Stage {
    /// Waits for start-up.
    Starting { until: Instant },
    /// Waits in its receiver's queue.
    Queued,
    /// Waits until the record of this payment is durable; with the state before it.
    Recording { draft: ChannelDraft, before: Before },
    /// Holds this payment. If it was never presented: with the state before it.
    InFlight { draft: ChannelDraft, unsent: Option<Before> },
    /// Waits for an approver, who is asked before the first payment or about the response to this one.
    Consulting { presented: Option<ChannelDraft>, topic: Topic },
    /// Waits to present the same payment again.
    Backoff { draft: ChannelDraft, until: Instant },
}

/// What an approver is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Topic {
    Price,
    Complaint(Complaint),
}

/// The state to restore if a payment is never sent.
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

    /// The host of the request, without a port.
    pub(super) fn host(&self) -> &HostName {
        &self.limit.host
    }

    /// The queue that it waits in: purchases in one queue may use the same channels.
    pub(super) fn queue(&self) -> QueueKey {
        (Arc::clone(self.host()), self.shares())
    }

    /// Whether channels of other hosts may pay for it: its rule lists the receiver.
    pub(super) fn shares(&self) -> bool {
        self.limit.receivers.contains(&self.receiver())
    }

    /// Whether the policy allows another channel to pay if one is gone.
    pub(super) fn reopens(&self) -> bool {
        self.limit.hooks.reopens()
    }

    /// Whether raising by this much more would let sellers redeem more than one price for this request.
    pub(super) fn exceeds_price(&self, raise: Amount) -> bool {
        let sum = self.raised.iter().fold(raise, |sum, raised| sum.saturating_add(raised.by()));
        !raise.is_zero() && sum > self.price()
    }

    /// Records that the seller has proven a total. If that is older than this request, only what lies above it counts
    /// for this request. It is not older if it was signed for this request, or possibly for another one that leased the
    /// channel in between.
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

    /// Whether sellers can redeem something of a channel because of this request.
    pub(super) fn has_raised(&self, channel: ChannelId) -> bool {
        self.raised.iter().any(|raise| raise.channel == channel && !raise.by().is_zero())
    }

    /// Records that a channel was settled at `total`: what was signed above it can no longer be redeemed.
    pub(super) fn is_settled(&mut self, channel: ChannelId, total: Amount) {
        for raise in self.raised.iter_mut().filter(|raise| raise.channel == channel) {
            raise.to = raise.to.min(total);
        }
    }

    /// When it must be processed again; `None` while it holds a payment or an approver is asked.
    pub(super) fn due(&self) -> Option<Instant> {
        match self.stage {
            Stage::Starting { until } | Stage::Backoff { until, .. } => Some(until.min(self.deadline)),
            Stage::Queued | Stage::Recording { .. } => Some(self.deadline),
            Stage::InFlight { .. } | Stage::Consulting { .. } => None,
        }
    }

    /// Counts one more attempt after a complaint; `None` if the retries are used up.
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
