//! One client request that wants to be paid: how far it has come, and what it has cost so far.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::Allowance;
use crate::protocol::channel::Unclear;
use crate::protocol::microraiden::Complaint;
use crate::protocol::{Address, Amount, Challenge, ChannelId, Draft};

/// One client request that wants to be paid.
#[derive(Debug)]
pub(super) struct Purchase {
    pub(super) challenge: Challenge,
    pub(super) allowance: Allowance,
    pub(super) deadline: Instant,
    pub(super) stage: Stage,
    /// How many different payments were granted.
    pub(super) rounds: u32,
    /// By how much this request raised what the seller was shown of each channel, as far as that was or can still be
    /// redeemed.
    pub(super) raised: BTreeMap<ChannelId, Raise>,
    /// True when a channel that the chain no longer knows was left for another one.
    pub(super) reopened: bool,
    /// Totals that were first signed for this request.
    pub(super) signed: Vec<(ChannelId, Amount)>,
    pub(super) adoptions: u32,
    pub(super) patience: BTreeMap<Complaint, Patience>,
}

/// By how much one request raised what the seller was shown of a channel.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Raise {
    /// What it was shown before.
    pub(super) above: Amount,
    pub(super) by: Amount,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Stage {
    /// Waits until the key is unlocked and the chain synced.
    Early { until: Instant },
    /// Waits in its receiver's queue.
    Queued,
    /// Has this payment in hand. Where it was never shown to the seller: what was so before it.
    Presented { draft: Draft, unsent: Option<Before> },
    /// Waits to present the same payment again.
    Pausing { draft: Draft, until: Instant },
}

/// What a channel goes back to when a payment never leaves.
#[derive(Clone, Copy, Debug)]
pub(super) struct Before {
    pub(super) unclear: Option<Unclear>,
    pub(super) shown: Amount,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    attempts: u32,
    since: Instant,
}

impl Purchase {
    pub(super) fn receiver(&self) -> Address {
        let Challenge::MicroRaiden(challenge) = &self.challenge;
        challenge.receiver
    }

    pub(super) fn price(&self) -> Amount {
        let Challenge::MicroRaiden(challenge) = &self.challenge;
        challenge.price
    }

    /// Whether one more promise for this request would let the seller redeem more than one price for it.
    pub(super) fn exceeds_price(&self, raise: Amount) -> bool {
        let sum = self.raised.values().fold(raise, |sum, raised| sum.saturating_add(raised.by));
        !raise.is_zero() && sum > self.price()
    }

    /// When it is to be looked at again; `None` while it has a payment in hand.
    pub(super) fn due(&self) -> Option<Instant> {
        match self.stage {
            Stage::Early { until } | Stage::Pausing { until, .. } => Some(until.min(self.deadline)),
            Stage::Queued => Some(self.deadline),
            Stage::Presented { .. } => None,
        }
    }

    /// Counts one more attempt after a complaint; `None` when the patience with it is at its end.
    pub(super) fn wait_again(
        &mut self,
        complaint: Complaint,
        times: u32,
        within: Duration,
        now: Instant,
    ) -> Result<(), u32> {
        let patience = self.patience.entry(complaint).or_insert(Patience { attempts: 0, since: now });
        if patience.attempts >= times || now.duration_since(patience.since) >= within {
            return Err(patience.attempts);
        }
        patience.attempts += 1;
        Ok(())
    }
}

impl Raise {
    /// How much of it a settlement on `total` has paid out, at most.
    pub(super) fn paid_out(&self, total: Amount) -> Amount {
        self.by.min(total.saturating_sub(self.above))
    }
}
