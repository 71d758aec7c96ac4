//! Purchases in one-shot schemes: each payment is a separate authorization, without a channel.
//!
//! A request gets one authorization. While its outcome is unknown, the same one is presented again, since a second one
//! could be redeemed in addition.

use std::sync::Arc;
use std::time::Instant;

use super::authorization::{Authorization, OneShotPurchase, OneShotStage};
use super::blocked::{Action, Blocked};
use super::consult::too_late;
use super::fit::Fit;
use super::purchase::Topic;
use super::{Effect, Engine, Outcome, PurchaseId, Record, Seq, Start};
use crate::protocol::Refusal;
use crate::protocol::policy::{Complaint, Retry, SpendLimit};
use crate::protocol::refusal::Awaited;
use crate::protocol::schemes::{Offer, Reply};

impl Engine {
    pub(super) fn demand_one_shot(
        &mut self,
        id: PurchaseId,
        offer: &Offer,
        (limit, deadline, nonce): (SpendLimit, Instant, [u8; 32]),
        now: Instant,
    ) {
        let terms = offer.terms();
        if matches!(self.start, Start::Stopped(_)) {
            return self.effects.push_back(Effect::Refuse(id, Refusal::ShuttingDown));
        }
        if now >= deadline {
            return self.effects.push_back(Effect::Refuse(id, too_late()));
        }
        let draft = offer.draw_one_shot(nonce).ok_or(Refusal::UnknownScheme);
        let asks = self
            .check(offer, &limit)
            .and_then(|()| Ok(self.fit_one_shot(&limit.budgets, &terms.price).map(drop)?))
            .and_then(|()| self.must_ask(&limit.hooks, offer));
        match draft.and_then(|draft| Ok((draft, asks?))) {
            Err(refusal) => self.effects.push_back(Effect::Refuse(id, refusal)),
            Ok((draft, asks)) => {
                let ready_by = now + self.policy.ready_timeout;
                let (stage, retries, since) = (OneShotStage::Starting, 0, now);
                let counted = Vec::new();
                let purchase = OneShotPurchase {
                    terms,
                    limit,
                    counted,
                    nonce,
                    draft,
                    ready_by,
                    deadline,
                    stage,
                    retries,
                    since,
                };
                self.one_shots.insert(id, purchase);
                if asks {
                    self.consult_one_shot(id, Topic::Price);
                } else if self.is_unlocked {
                    self.record_one_shot(id);
                }
            }
        }
    }

    /// Records an approved purchase, or lets it wait for the key.
    ///
    /// # Errors
    /// Its deadline has passed.
    pub(super) fn begin_one_shot(&mut self, id: PurchaseId, now: Instant) -> Result<(), Refusal> {
        let ready_timeout = self.policy.ready_timeout;
        let Some(purchase) = self.one_shots.get_mut(&id) else { return Err(Refusal::ShuttingDown) };
        if now >= purchase.deadline {
            return Err(too_late());
        }
        purchase.stage = OneShotStage::Starting;
        purchase.ready_by = now + ready_timeout;
        if self.is_unlocked {
            self.record_one_shot(id);
        }
        Ok(())
    }

    /// The key is unlocked: records what has waited for it.
    pub(super) fn start_one_shots(&mut self) {
        let is_starting = |purchase: &OneShotPurchase| matches!(purchase.stage, OneShotStage::Starting);
        let waiting: Vec<PurchaseId> =
            self.one_shots.iter().filter(|(_, purchase)| is_starting(purchase)).map(|(id, _)| *id).collect();
        for id in waiting {
            self.record_one_shot(id);
        }
    }

    /// Records the authorization; it is granted once it is on disk.
    fn record_one_shot(&mut self, id: PurchaseId) {
        let after = [Some(self.next_write()), None];
        if self.is_frozen {
            return self.refuse_one_shot(id, Refusal::Frozen);
        }
        let Some(purchase) = self.one_shots.get(&id) else { return };
        let (budgets, price) = (Arc::clone(&purchase.limit.budgets), purchase.price().clone());
        let since = match self.fit_one_shot(&budgets, &price) {
            Ok(Fit { tight: None }) => None,
            Ok(Fit { tight: Some(lowered) }) => {
                for (id, limit) in lowered {
                    self.persist_up_to(id, |_| limit);
                }
                Some(Seq(self.ended.0 + 1))
            }
            Err(over) => return self.refuse_one_shot(id, over.into()),
        };
        self.count_one_shot(id, &budgets, &price);
        let Some(purchase) = self.one_shots.get_mut(&id) else { return };
        purchase.stage = OneShotStage::Recording;
        let authorization = Authorization { nonce: purchase.nonce, terms: purchase.terms.clone() };
        self.records.push(Record::Authorization(Box::new(authorization)));
        self.blocked.push(Blocked { after, since, action: Action::GrantOneShot(id) });
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
    pub(super) fn refuse_waiting_one_shots(&mut self, refusal: &Refusal) {
        let waiting: Vec<_> = self.one_shots.extract_if(.., |_, purchase| purchase.due().is_some()).collect();
        for (id, mut purchase) in waiting {
            self.end_unsigned(&mut purchase);
            self.effects.push_back(Effect::Refuse(id, refusal.clone()));
        }
    }

    /// Records that an authorization was never signed, if its own record may be on disk.
    fn end_unsigned(&mut self, purchase: &mut OneShotPurchase) {
        if matches!(purchase.stage, OneShotStage::Recording) {
            self.discount(purchase);
            self.records.push(Record::AuthorizationEnded(purchase.nonce));
        }
    }

    /// Records that the payment was not sent this time.
    pub(super) fn withdraw_one_shot(&mut self, id: PurchaseId) {
        if let Some(mut purchase) = self.one_shots.remove(&id) {
            // If it was sent before, it stays in doubt.
            let is_unsent = matches!(purchase.stage, OneShotStage::Recording | OneShotStage::InFlight);
            if purchase.retries == 0 && is_unsent {
                self.discount(&mut purchase);
                self.records.push(Record::AuthorizationEnded(purchase.nonce));
            }
        }
    }

    pub(super) fn answer_one_shot(&mut self, id: PurchaseId, outcome: Outcome) {
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
            Outcome::Rejected(offer) => match self.review_one_shot(id, &offer) {
                Ok(()) => return,
                Err(refusal) => refusal,
            },
        };
        self.refuse_one_shot(id, refusal);
    }

    /// Asks whether to present the same payment again, if the seller may accept it later.
    fn review_one_shot(&mut self, id: PurchaseId, offer: &Offer) -> Result<(), Refusal> {
        if self.is_frozen {
            return Err(Refusal::Frozen);
        }
        let Some(purchase) = self.one_shots.get(&id) else { return Err(Refusal::ShuttingDown) };
        match offer.judge_one_shot(&purchase.draft) {
            Reply::Stop(refusal) => return Err(refusal),
            Reply::Later => {}
        }
        if offer.terms() != purchase.terms {
            return Err(Refusal::SecondPrice { price: purchase.price().amount });
        }
        let complaint = Complaint::InsufficientConfirmations;
        if purchase.limit.hooks.aborts(complaint) {
            return Err(Refusal::HookAborts { complaint });
        }
        self.consult_one_shot(id, Topic::Complaint(complaint));
        Ok(())
    }

    /// Schedules the same payment again.
    ///
    /// # Errors
    /// The retries or the time are used up.
    pub(super) fn back_off_one_shot(
        &mut self,
        id: PurchaseId,
        complaint: Complaint,
        now: Instant,
    ) -> Result<(), Refusal> {
        let Some(purchase) = self.one_shots.get_mut(&id) else { return Err(Refusal::ShuttingDown) };
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
                Some(OneShotStage::Starting) => {
                    let reason = match &self.start {
                        Start::Waiting(reason) => reason.clone(),
                        _ => "the key is locked".to_owned(),
                    };
                    self.refuse_one_shot(id, Refusal::NotReady(reason));
                }
                Some(OneShotStage::Recording) => {
                    if let Some(mut purchase) = self.one_shots.remove(&id) {
                        self.end_unsigned(&mut purchase);
                        let refusal = Refusal::Deadline { waited_for: Awaited::Journal };
                        self.effects.push_back(Effect::Refuse(id, refusal));
                    }
                }
                Some(OneShotStage::Backoff { .. }) => self.grant_one_shot(id),
                Some(OneShotStage::InFlight | OneShotStage::Consulting { .. }) | None => {}
            }
        }
    }
}
