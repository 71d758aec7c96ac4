//! Purchases in one-shot schemes: each payment is a separate authorization, without a channel.
//!
//! A request gets one authorization. While its outcome is unknown, the same one is presented again, since a second one
//! could be redeemed in addition.
//! redeemed beside it.

use std::time::Instant;

use super::authorization::{Authorization, OneShotPurchase, OneShotStage};
use super::blocked::{Action, Blocked};
use super::{Effect, Engine, Outcome, PurchaseId, Record, Start};
use crate::protocol::Refusal;
use crate::protocol::policy::{Complaint, Retry, SpendLimit};
use crate::protocol::refusal::Awaited;
use crate::protocol::schemes::{Offer, Reply};

impl Engine {
    pub(super) fn demand_one_shot(
        &mut self,
        id: PurchaseId,
        offer: &Offer,
        limit: SpendLimit,
        nonce: [u8; 32],
        now: Instant,
    ) {
        let terms = offer.terms();
        let refusal = match (&self.start, offer.draw_one_shot(nonce)) {
            (Start::Waiting(reason), _) => Refusal::NotReady(reason.clone()),
            (Start::Stopped(_), _) => Refusal::ShuttingDown,
            (Start::Ready(_), None) => Refusal::UnknownScheme,
            (Start::Ready(_), Some(draft)) => match limit.check(&terms) {
                Err(refusal) => refusal,
                Ok(()) => {
                    let authorization = Authorization { nonce, terms: terms.clone() };
                    let after = [Some(self.next_write()), None];
                    self.records.push(Record::Authorization(Box::new(authorization)));
                    self.blocked.push(Blocked { after, action: Action::GrantOneShot(id) });
                    let deadline = now + self.policy.pay_timeout;
                    let (stage, retries, since) = (OneShotStage::Recording, 0, now);
                    let purchase =
                        OneShotPurchase { terms, limit, nonce, draft, deadline, stage, retries, since };
                    self.one_shots.insert(id, purchase);
                    return;
                }
            },
        };
        self.effects.push_back(Effect::Refuse(id, refusal));
    }

    /// Grants the payment once its authorization is recorded.
    pub(super) fn grant_one_shot(&mut self, id: PurchaseId) {
        if let Some(purchase) = self.one_shots.get_mut(&id) {
            purchase.stage = OneShotStage::InFlight;
            self.effects.push_back(Effect::Grant(id, purchase.draft.clone()));
        }
    }

    pub(super) fn refuse_one_shot(&mut self, id: PurchaseId, refusal: Refusal) {
        if self.one_shots.remove(&id).is_some() {
            self.effects.push_back(Effect::Refuse(id, refusal));
        }
    }

    /// Refuses waiting purchases; payments in flight continue.
    pub(super) fn stop_one_shots(&mut self) {
        let waiting = self.one_shots.extract_if(.., |_, purchase| purchase.due().is_some());
        for (id, _) in waiting {
            self.effects.push_back(Effect::Refuse(id, Refusal::ShuttingDown));
        }
    }

    /// Records that the payment was not sent this time.
    pub(super) fn withdraw_one_shot(&mut self, id: PurchaseId) {
        if let Some(purchase) = self.one_shots.remove(&id) {
            // If it was sent before, it stays in doubt.
            if purchase.retries == 0 {
                self.records.push(Record::AuthorizationEnded(purchase.nonce));
            }
        }
    }

    pub(super) fn answer_one_shot(&mut self, id: PurchaseId, outcome: Outcome, now: Instant) {
        let refusal = match outcome {
            Outcome::Accepted => {
                if let Some(purchase) = self.one_shots.remove(&id) {
                    self.records.push(Record::AuthorizationEnded(purchase.nonce));
                }
                return;
            }
            Outcome::InDoubt => {
                self.one_shots.remove(&id);
                return;
            }
            Outcome::Rejected(offer) | Outcome::Advised(offer, _) => {
                match self.present_again(id, &offer, now) {
                    Ok(()) => return,
                    Err(refusal) => refusal,
                }
            }
        };
        self.refuse_one_shot(id, refusal);
    }

    /// Schedules the same payment again, if the seller may accept it later.
    fn present_again(&mut self, id: PurchaseId, offer: &Offer, now: Instant) -> Result<(), Refusal> {
        let Some(purchase) = self.one_shots.get_mut(&id) else { return Err(Refusal::ShuttingDown) };
        match offer.judge_one_shot(&purchase.draft) {
            Reply::Stop(refusal) => return Err(refusal),
            Reply::Later => {}
        }
        if offer.terms() != purchase.terms {
            return Err(Refusal::SecondPrice { price: purchase.price().amount });
        }
        let complaint = Complaint::InsufficientConfirmations;
        let Some(Retry::Retry { every, times, within }) = purchase.limit.hooks.retry(complaint) else {
            return Err(Refusal::HookAborts { complaint });
        };
        if purchase.retries >= times || now.saturating_duration_since(purchase.since) >= within {
            return Err(Refusal::HookGaveUp { complaint, attempts: purchase.retries });
        }
        let at = now + every;
        if at >= purchase.deadline {
            return Err(Refusal::Deadline { waited_for: Awaited::Seller });
        }
        purchase.retries += 1;
        purchase.stage = OneShotStage::Backoff { until: at };
        Ok(())
    }

    /// Presents payments again that are due, and refuses those that have waited for the journal too long.
    pub(super) fn tick_one_shots(&mut self, now: Instant) {
        let is_due = |purchase: &OneShotPurchase| purchase.due().is_some_and(|due| due <= now);
        let due: Vec<PurchaseId> =
            self.one_shots.iter().filter(|(_, purchase)| is_due(purchase)).map(|(id, _)| *id).collect();
        for id in due {
            match self.one_shots.get(&id).map(|purchase| purchase.stage) {
                Some(OneShotStage::Recording) => {
                    self.refuse_one_shot(id, Refusal::Deadline { waited_for: Awaited::Journal });
                }
                Some(OneShotStage::Backoff { .. }) => self.grant_one_shot(id),
                Some(OneShotStage::InFlight) | None => {}
            }
        }
    }
}
