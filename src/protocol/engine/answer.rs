//! Processes the outcomes of presented payments.

use std::time::Instant;

use super::purchase::Stage;
use super::{Engine, Outcome, PurchaseId, Reopens, Start};
use crate::protocol::channel::ChannelDraft;
use crate::protocol::policy::{Adopt, Complaint, Retry};
use crate::protocol::refusal::Awaited;
use crate::protocol::schemes::{Holding, Verdict, Violation};
use crate::protocol::{Amount, Offer, Phase, Refusal};

impl Engine {
    pub(super) fn answer(&mut self, id: PurchaseId, outcome: Outcome, now: Instant) {
        let Some(purchase) = self.purchases.get(&id) else { return };
        let Stage::InFlight { draft, .. } = purchase.stage else { return };
        self.presented(id);
        self.change(&draft.channel, |channel| channel.present(draft.total));
        match outcome {
            Outcome::Accepted => {
                let channel = self.channel(&draft.channel);
                // The answer to a query proves nothing about the seller's total.
                if !channel.is_some_and(|channel| channel.is_query(draft.total)) {
                    self.acknowledge(&draft, draft.total);
                }
                self.remove(id, now);
            }
            Outcome::Taken | Outcome::Unclear | Outcome::Unneeded | Outcome::InDoubt => self.remove(id, now),
            Outcome::Rejected(offer) => self.review(id, draft, *offer, now),
        }
    }

    /// Notes that the payment of a purchase was presented: it stays counted in its budgets.
    fn presented(&mut self, id: PurchaseId) {
        if let Some(purchase) = self.purchases.get_mut(&id) {
            purchase.counted.clear();
        }
    }

    /// Handles another 402 of the seller after the payment `draft`.
    pub(super) fn rejected(
        &mut self,
        id: PurchaseId,
        draft: ChannelDraft,
        offer: Offer,
        reopens: Reopens,
        now: Instant,
    ) {
        let Start::Ready(account) = self.start else {
            return self.refuse(id, Refusal::ShuttingDown, now);
        };
        let may_reopen = reopens.0 && self.may_reopen(id, &draft);
        let (Some(purchase), Some(channel)) =
            (self.purchases.get_mut(&id), self.slots.get(&draft.channel).map(|slot| &slot.channel))
        else {
            return;
        };
        let signed: Vec<Amount> = purchase
            .presented
            .iter()
            .filter(|presented| presented.channel == draft.channel && presented.is_new)
            .map(|presented| presented.total)
            .collect();
        let payee = offer.terms().payee;
        let verdict = offer.judge(channel, &draft, &signed, &account);
        match verdict {
            // Waiting does not help: the channel is useless to another payee.
            Verdict::Again(_) if payee != draft.channel.receiver => {
                return self.refuse(id, Refusal::ReceiverChanged(payee), now);
            }
            Verdict::Again(Complaint::NonexistingChannel) if may_reopen => {
                return self.reopen(id, &draft, now);
            }
            Verdict::Again(complaint) => return self.pause(id, draft, complaint, reopens, now),
            Verdict::Violation(violation) => {
                let refusal = match (violation, offer.check_contract(account.contract)) {
                    (Violation::Silent, _) if payee != draft.channel.receiver => {
                        Refusal::ReceiverChanged(payee)
                    }
                    (Violation::Silent, Err(Refusal::ForeignContract { theirs, .. })) => {
                        Refusal::ContractChanged(theirs)
                    }
                    _ => violation.into(),
                };
                return self.refuse(id, refusal, now);
            }
            Verdict::Registered(total) => {
                self.acknowledge(&draft, total);
                return self.refuse(id, Refusal::PaidAnswerLost { total }, now);
            }
            Verdict::Correct(holding) | Verdict::Confirm(holding) => {
                if holding.proven {
                    purchase.is_proven(draft.channel, channel, holding.total);
                }
                purchase.offer = offer.clone();
                self.correct(&draft, holding);
            }
        }
        if let Err(refusal) = self.may_go_on(id, &draft, &offer, verdict, now) {
            return self.refuse(id, refusal, now);
        }
        self.pay_again(id, &draft, now);
    }

    /// Returns the channel of a purchase, and lets the purchase choose again.
    fn pay_again(&mut self, id: PurchaseId, draft: &ChannelDraft, now: Instant) {
        if let Some(slot) = self.slots.get_mut(&draft.channel) {
            slot.lease = None;
        }
        self.enqueue(id, draft.channel.receiver, true);
        self.dispatch(draft.channel.receiver, now);
    }

    /// Checks a corrected total before another payment is made.
    fn may_go_on(
        &mut self,
        id: PurchaseId,
        draft: &ChannelDraft,
        offer: &Offer,
        verdict: Verdict,
        now: Instant,
    ) -> Result<(), Refusal> {
        let Some(purchase) = self.purchases.get(&id) else { return Err(Refusal::ShuttingDown) };
        let terms = offer.terms();
        if terms.payee != draft.channel.receiver {
            return Err(Refusal::ReceiverChanged(terms.payee));
        }
        self.check(offer, &purchase.limit)?;
        if now >= purchase.deadline {
            return Err(Refusal::Deadline { waited_for: Awaited::Seller });
        }
        if matches!(verdict, Verdict::Confirm(_)) {
            return Ok(());
        }
        let Some(purchase) = self.purchases.get_mut(&id) else { return Err(Refusal::ShuttingDown) };
        let complaint = Complaint::InvalidAmount;
        let times = match purchase.limit.hooks.invalid_amount.action {
            Adopt::Abort => return Err(Refusal::HookAborts { complaint }),
            Adopt::Adopt { times } => times,
        };
        if purchase.corrections >= times {
            return Err(Refusal::HookGaveUp { complaint, attempts: purchase.corrections });
        }
        purchase.corrections += 1;
        let next = self.channel(&draft.channel).and_then(|channel| channel.next_total(terms.price.amount));
        if next == Some(draft.total) { Err(Refusal::NoProgress) } else { Ok(()) }
    }

    /// Whether the chain confirms the seller's claim that the channel does not exist. Only then can nothing more that
    /// was signed on it be redeemed, so that the cost of paying from another channel is known.
    fn may_reopen(&self, id: PurchaseId, draft: &ChannelDraft) -> bool {
        let is_gone = self.channel(&draft.channel).is_some_and(|channel| channel.phase == Phase::Gone);
        is_gone && self.purchases.get(&id).is_some_and(|purchase| !purchase.reopened)
    }

    /// Abandons a channel that is gone, whose promises stay recorded, and pays from another one. What a settlement paid
    /// out of this request's promise still counts.
    fn reopen(&mut self, id: PurchaseId, draft: &ChannelDraft, now: Instant) {
        let Some(purchase) = self.purchases.get_mut(&id) else { return };
        let settled = self.slots.get(&draft.channel).and_then(|slot| slot.settled).unwrap_or_default();
        purchase.is_settled(draft.channel, settled);
        if settled >= draft.total && purchase.has_raised(draft.channel) {
            return self.refuse(id, Refusal::PaidAnswerLost { total: settled }, now);
        }
        if now >= purchase.deadline {
            return self.refuse(id, Refusal::Deadline { waited_for: Awaited::Seller }, now);
        }
        purchase.reopened = true;
        self.pay_again(id, draft, now);
    }

    /// Keeps the channel and waits before presenting the same payment again.
    fn pause(
        &mut self,
        id: PurchaseId,
        draft: ChannelDraft,
        complaint: Complaint,
        Reopens(reopens): Reopens,
        now: Instant,
    ) {
        let allowed = self.purchases.get(&id).map_or(Ok(()), |purchase| self.check_allowed(&purchase.limit));
        if let Err(refusal) = allowed {
            return self.refuse(id, refusal, now);
        }
        let Some(purchase) = self.purchases.get_mut(&id) else { return };
        let hooks = &purchase.limit.hooks;
        let is_doubted = complaint == Complaint::NonexistingChannel && reopens && !purchase.reopened;
        let Some(Retry::Retry { every, times, within }) = hooks.retry(complaint) else {
            return self.refuse(id, Refusal::HookAborts { complaint }, now);
        };
        if let Err(attempts) = purchase.retry(complaint, times, within, now) {
            let refusal = if is_doubted {
                Refusal::ChannelExists { channel: draft.channel, attempts }
            } else {
                Refusal::HookGaveUp { complaint, attempts }
            };
            return self.refuse(id, refusal, now);
        }
        let until = now + every;
        if until >= purchase.deadline {
            return self.refuse(id, Refusal::Deadline { waited_for: Awaited::Seller }, now);
        }
        purchase.stage = Stage::Backoff { draft, until };
    }

    /// Records that the seller took the payment.
    fn acknowledge(&mut self, draft: &ChannelDraft, total: Amount) {
        self.change(&draft.channel, |channel| {
            channel.acknowledged = total;
            channel.promised = channel.promised.max(total);
            channel.in_doubt = None;
        });
    }

    /// Applies the total that the seller claims.
    fn correct(&mut self, draft: &ChannelDraft, holding: Holding) {
        self.change(&draft.channel, |channel| channel.correct(holding.total, holding.proven));
    }
}
