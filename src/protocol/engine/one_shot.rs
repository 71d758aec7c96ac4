//! Purchases in one-shot schemes: each payment is a separate authorization, without a channel.
//!
//! A request gets one authorization. While its outcome is unknown, the same one is presented again, since a second one
//! could be redeemed in addition. Only if the first one was sent before the seller asked, and the seller then asks for another,
//! a second one follows, as long as both together fit the limit of the request.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::authorization::{Authorization, Occasion, OneShotPurchase, OneShotStage};
use super::blocked::{Action, Blocked};
use super::consult::too_late;
use super::fit::Fit;
use super::open_authorization::Join;
use super::purchase::Topic;
use super::purchase_key::PurchaseKey;
use super::{Effect, Engine, Loss, Outcome, PurchaseId, Record, Seq, Start};
use crate::protocol::policy::{AuthorizationLimits, Complaint, Retry, SpendLimit};
use crate::protocol::refusal::Awaited;
use crate::protocol::schemes::{Draft, DrawContext, Offer, Reply};
use crate::protocol::{Amount, Money, Refusal};

/// The pause before a payment with an unclear outcome is presented for the third time; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// After this many doublings it stays the same.
const LONGEST_PAUSE: u32 = 6;

impl Engine {
    pub(super) fn demand_one_shot(
        &mut self,
        id: PurchaseId,
        (offer, occasion): (Offer, Occasion),
        (limit, deadline): (SpendLimit, Instant),
        (nonce, key): ([u8; 32], Option<PurchaseKey>),
        now: Instant,
    ) {
        if matches!(self.start, Start::Stopped(_)) {
            return self.effects.push_back(Effect::Refuse(id, Refusal::ShuttingDown));
        }
        if now >= deadline {
            return self.effects.push_back(Effect::Refuse(id, too_late()));
        }
        let limit = self.by_now(limit);
        let (draft, beside) = match self.draw_or_join((&offer, occasion), &limit, (nonce, key)) {
            Ok(drawn) => drawn,
            Err(refusal) => return self.effects.push_back(Effect::Refuse(id, refusal)),
        };
        let is_joined = beside.is_none();
        let terms = if is_joined { draft.terms() } else { offer.terms() };
        let asks = match beside {
            // It is approved and counted.
            None => self.check(&offer, &limit).map(|()| false),
            Some(beside) => {
                let amount = terms.price.amount.saturating_add(beside);
                let sum = Money { amount, asset: terms.price.asset.clone() };
                self.check(&offer, &limit)
                    .and_then(|()| Ok(self.fit_one_shot(&limit.budgets, &terms.price).map(drop)?))
                    .and_then(|()| self.must_ask_about(&limit.hooks, &sum))
            }
        };
        let asks = match asks {
            Ok(asks) => asks,
            Err(refusal) => {
                self.open_authorizations.release(&draft.nonce().unwrap_or(nonce));
                return self.effects.push_back(Effect::Refuse(id, refusal));
            }
        };
        let nonce = draft.nonce().unwrap_or(nonce);
        let purchase = OneShotPurchase {
            terms,
            limit,
            counted: Vec::new(),
            nonce,
            key,
            occasion,
            offer,
            draft,
            is_joined,
            ready_by: now + self.policy.ready_timeout,
            deadline,
            stage: OneShotStage::Starting,
            retries: 0,
            was_unclear: is_joined && !self.open_authorizations.take_refusal(&nonce),
            since: now,
        };
        self.one_shots.insert(id, purchase);
        if asks {
            self.consult_one_shot(id, Topic::Price);
        } else if self.is_unlocked {
            self.record_one_shot(id);
        }
    }

    /// The payment of a request: one that an earlier request for the same purchase left in doubt, if there is one. Beside
    /// any other: how much can be redeemed for the same purchase in addition.
    fn draw_or_join(
        &mut self,
        (offer, occasion): (&Offer, Occasion),
        limit: &SpendLimit,
        (nonce, key): ([u8; 32], Option<PurchaseKey>),
    ) -> Result<(Draft, Option<Amount>), Refusal> {
        let own = match occasion {
            Occasion::Asked | Occasion::Ahead => None,
            Occasion::Outdated(earlier) => Some(self.sent_ahead(earlier, offer)?),
        };
        let mut beside = Amount::ZERO;
        if let Some(key) = key {
            let times = (self.time, self.policy.authorizations.retry_window.as_secs());
            self.forget_old_authorizations();
            let purchase = (key, self.payer, own);
            match self.open_authorizations.join(purchase, &offer.terms(), limit, times)? {
                Join::Present(open) => return Ok((open.0, None)),
                Join::Separate { .. }
                    if self.open_authorizations.len(times.0, times.1) >= self.policy.authorizations.open =>
                {
                    return Err(Refusal::TooManyOpen);
                }
                Join::Separate { beside: others } => beside = others,
            }
        }
        Ok((self.draw_one_shot((offer, occasion), limit, nonce)?, Some(beside)))
    }

    /// The authorization of a purchase that was sent ahead, and presented once. Any other has no successor: a seller that took it
    /// the first time may refuse it the next.
    ///
    /// # Errors
    /// It was not, or no later request can continue it, so that nothing is known about what can be redeemed.
    fn sent_ahead(&self, id: PurchaseId, offer: &Offer) -> Result<[u8; 32], Refusal> {
        let earlier = self.one_shots.get(&id);
        let earlier = earlier.filter(|earlier| {
            earlier.occasion == Occasion::Ahead
                && earlier.key.is_some()
                && !earlier.is_joined
                && !earlier.was_unclear
        });
        let price = offer.terms().price.amount;
        earlier.map(|earlier| earlier.nonce).ok_or(Refusal::SecondPrice { price })
    }

    /// Whether a purchase may have been paid for by a request that has ended.
    pub fn has_purchases_in_doubt(&self) -> bool {
        self.open_authorizations.has_ended(self.time, self.policy.authorizations.retry_window.as_secs())
    }

    /// Checks that nothing else was signed for a purchase that may still be redeemed, or was taken a short time ago, before
    /// it is paid for in another scheme.
    ///
    /// # Errors
    /// Something was.
    pub fn check_purchase(&self, key: PurchaseKey) -> Result<(), Refusal> {
        self.open_authorizations.check(key, self.time, self.policy.authorizations.retry_window.as_secs())
    }

    fn draw_one_shot(
        &self,
        (offer, occasion): (&Offer, Occasion),
        limit: &SpendLimit,
        nonce: [u8; 32],
    ) -> Result<Draft, Refusal> {
        let terms = offer.terms();
        let AuthorizationLimits { max_validity, ahead_validity, .. } = self.policy.authorizations;
        let max_validity = match occasion {
            Occasion::Ahead => max_validity.min(ahead_validity),
            Occasion::Asked | Occasion::Outdated(_) => max_validity,
        };
        let context = DrawContext {
            nonce,
            now: self.time.wall,
            max_validity: max_validity.as_secs(),
            asset: limit.max_price.known(&terms.price.asset),
        };
        offer.draw_one_shot(&context)
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
        let Some(purchase) = self.one_shots.get(&id) else { return };
        if let Err(refusal) = self.check_allowed(&purchase.limit) {
            return self.refuse_one_shot(id, refusal);
        }
        if purchase.is_joined {
            // The key was locked when the request came.
            let payer = self.payer.unwrap_or_default();
            return match self.open_authorizations.check_payer(&purchase.nonce, payer, self.time) {
                Ok(()) => self.grant_one_shot(id),
                Err(refusal) => self.refuse_one_shot(id, refusal),
            };
        }
        // Drawn now: the request may have waited for a while.
        let asked = (&purchase.offer, purchase.occasion);
        let draft = match self.draw_one_shot(asked, &purchase.limit, purchase.nonce) {
            Ok(draft) => draft,
            Err(refusal) => return self.refuse_one_shot(id, refusal),
        };
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
        purchase.draft = draft;
        let (nonce, key, host) = (purchase.nonce, purchase.key, Arc::clone(&purchase.limit.host));
        let (terms, draft) = (purchase.terms.clone(), purchase.draft.clone());
        let counted = purchase.counted.iter();
        let counted =
            counted.map(|(index, cost, at)| (self.budgets.key(*index).clone(), *cost, *at)).collect();
        let payer = self.payer.unwrap_or_default();
        let authorization = Authorization { nonce, terms, draft, payer, key, host, counted };
        self.open_authorizations.begin(&authorization, self.time);
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
        if let Some(purchase) = self.one_shots.remove(&id) {
            self.open_authorizations.release(&purchase.nonce);
            self.effects.push_back(Effect::Refuse(id, refusal));
        }
    }

    /// Refuses waiting purchases whose limit is a reason to; payments in flight continue.
    pub(super) fn refuse_waiting_one_shots(&mut self, why: impl Fn(&SpendLimit) -> Option<Refusal>) {
        let waiting = self.one_shots.iter().filter(|(_, purchase)| purchase.due().is_some());
        let refused: Vec<_> =
            waiting.filter_map(|(id, purchase)| Some((*id, why(&purchase.limit)?))).collect();
        for (id, refusal) in refused {
            let Some(mut purchase) = self.one_shots.remove(&id) else { continue };
            self.end_unsigned(&mut purchase);
            self.open_authorizations.release(&purchase.nonce);
            self.effects.push_back(Effect::Refuse(id, refusal));
        }
    }

    /// Records that an authorization was never signed, if its own record may be on disk.
    fn end_unsigned(&mut self, purchase: &mut OneShotPurchase) {
        if matches!(purchase.stage, OneShotStage::Recording) {
            self.discount(purchase);
            self.end_never_signed(purchase.nonce);
        }
    }

    /// The seller took an authorization and does not deliver: its purchase is not repeated for a while.
    fn take_authorization(&mut self, nonce: [u8; 32]) {
        let until = self.time.wall.saturating_add(self.policy.authorizations.retry_window.as_secs());
        if self.open_authorizations.take(&nonce, until) {
            self.records.push(Record::AuthorizationTaken(nonce, until));
        }
    }

    /// The response to an accepted authorization has reached its client.
    pub(super) fn delivered(&mut self, nonce: [u8; 32]) {
        if !self.open_authorizations.contains(&nonce) {
            return;
        }
        self.records.push(match self.open_authorizations.serve(&nonce, &self.policy.authorizations) {
            true => Record::AuthorizationServed(nonce),
            false => Record::AuthorizationEnded(nonce),
        });
        self.forget_served();
    }

    /// The client has not got the whole response to an accepted authorization.
    pub(super) fn lost(&mut self, nonce: [u8; 32], loss: Loss) {
        let window = self.policy.authorizations.retry_window;
        let left = match loss {
            // Nothing more comes for it.
            Loss::CutOff if !self.open_authorizations.is_identified(&nonce) => {
                return self.take_authorization(nonce);
            }
            Loss::CutOff => window,
            Loss::ClientLeft { ago } => window.saturating_sub(ago),
        };
        match left.as_secs() {
            0 => self.delivered(nonce),
            left => self.open_authorizations.lose(&nonce, self.time.wall.saturating_add(left)),
        }
    }

    /// Forgets authorizations that no request and no chain has to do with any more.
    pub(super) fn forget_old_authorizations(&mut self) {
        for nonce in self.open_authorizations.lost_before(self.time) {
            self.delivered(nonce);
        }
        self.open_authorizations.forget_old(self.time, &self.policy.authorizations);
    }

    /// An authorization was accepted.
    fn end_authorization(&mut self, nonce: [u8; 32]) {
        self.open_authorizations.end(&nonce);
        self.records.push(Record::AuthorizationEnded(nonce));
    }

    /// An authorization was never signed, so that it counts in no budget any more.
    pub(super) fn end_never_signed(&mut self, nonce: [u8; 32]) {
        self.open_authorizations.end(&nonce);
        self.record_until_durable(Record::AuthorizationEnded(nonce));
    }

    /// Records that the payment was not sent this time.
    pub(super) fn withdraw_one_shot(&mut self, id: PurchaseId) {
        if let Some(mut purchase) = self.one_shots.remove(&id) {
            // If it was sent before, it stays in doubt.
            let is_unsent = matches!(purchase.stage, OneShotStage::Recording | OneShotStage::InFlight);
            if purchase.retries == 0 && !purchase.is_joined && is_unsent {
                self.discount(&mut purchase);
                self.end_never_signed(purchase.nonce);
            }
            self.open_authorizations.release(&purchase.nonce);
        }
    }

    pub(super) fn answer_one_shot(&mut self, id: PurchaseId, outcome: Outcome, now: Instant) {
        let refusal = match outcome {
            Outcome::Accepted => {
                // Otherwise its record stays until the client has the response: after a crash before that, the next
                // request for the purchase finds out that it is paid for.
                if let Some(purchase) = self.one_shots.remove(&id)
                    && !self.open_authorizations.contains(&purchase.nonce)
                {
                    self.end_authorization(purchase.nonce);
                }
                return;
            }
            Outcome::InDoubt => {
                if let Some(purchase) = self.one_shots.remove(&id) {
                    self.open_authorizations.release(&purchase.nonce);
                }
                return;
            }
            Outcome::Unneeded => {
                if let Some(purchase) = self.one_shots.remove(&id) {
                    self.open_authorizations.set_aside(&purchase.nonce);
                    self.records.push(Record::AuthorizationUnneeded(purchase.nonce));
                }
                return;
            }
            Outcome::Taken => {
                if let Some(purchase) = self.one_shots.remove(&id) {
                    self.take_authorization(purchase.nonce);
                    self.open_authorizations.release(&purchase.nonce);
                }
                return;
            }
            Outcome::Unclear => match self.repeat_one_shot(id, now) {
                Ok(()) => return,
                Err(refusal) => refusal,
            },
            Outcome::Rejected(offer) => match self.review_one_shot(id, &offer, now) {
                Ok(()) => return,
                Err(refusal) => refusal,
            },
        };
        self.refuse_one_shot(id, refusal);
    }

    /// Asks whether to present the same payment again, if the seller may accept it later.
    fn review_one_shot(&mut self, id: PurchaseId, offer: &Offer, now: Instant) -> Result<(), Refusal> {
        let Some(purchase) = self.one_shots.get(&id) else { return Err(Refusal::ShuttingDown) };
        let reply = match offer.judge_one_shot(&purchase.draft, self.time.wall) {
            Reply::Stop(Refusal::SellerRefused { .. } | Refusal::ClockSkew { .. })
                if purchase.was_unclear =>
            {
                Reply::Unclear
            }
            Reply::Stop(refusal @ (Refusal::SellerRefused { .. } | Refusal::ClockSkew { .. })) => {
                self.open_authorizations.refuse(&purchase.nonce);
                Reply::Stop(refusal)
            }
            reply => reply,
        };
        match reply {
            Reply::Stop(refusal) => return Err(refusal),
            Reply::Taken => {
                let nonce = purchase.nonce;
                self.take_authorization(nonce);
                let retry_after = self.policy.authorizations.retry_window;
                return Err(Refusal::PaidNotDelivered { retry_after });
            }
            // The seller would not recognize the payment under other terms.
            Reply::Unclear if offer.terms() != purchase.terms => {
                return Err(Refusal::StillUnclear { attempts: purchase.retries + 1 });
            }
            Reply::Unclear => return self.repeat_one_shot(id, now),
            // What the response says of the payment counts nevertheless.
            Reply::Later => self.check_allowed(&purchase.limit)?,
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

    /// Schedules the same payment again after an unclear outcome: at once, and then slower, while it is valid.
    ///
    /// # Errors
    /// The outcome stays unclear: the retries or the time are used up.
    fn repeat_one_shot(&mut self, id: PurchaseId, now: Instant) -> Result<(), Refusal> {
        let Some(purchase) = self.one_shots.get(&id) else { return Err(Refusal::ShuttingDown) };
        self.check_allowed(&purchase.limit)?;
        let Some(purchase) = self.one_shots.get_mut(&id) else { return Err(Refusal::ShuttingDown) };
        let pause = match purchase.retries {
            0 => Duration::ZERO,
            times => FIRST_PAUSE.saturating_mul(1 << (times.min(LONGEST_PAUSE) - 1)),
        };
        let at = now + pause;
        let is_usable = purchase.draft.is_usable(self.time.wall.saturating_add(pause.as_secs()));
        if purchase.retries >= self.policy.authorizations.unclear_repeats
            || at >= purchase.deadline
            || !is_usable
        {
            return Err(Refusal::StillUnclear { attempts: purchase.retries + 1 });
        }
        purchase.retries += 1;
        purchase.was_unclear = true;
        purchase.stage = OneShotStage::Backoff { until: at };
        if pause.is_zero() {
            self.grant_one_shot(id);
        }
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
        let Some(purchase) = self.one_shots.get(&id) else { return Err(Refusal::ShuttingDown) };
        self.check_allowed(&purchase.limit)?;
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
