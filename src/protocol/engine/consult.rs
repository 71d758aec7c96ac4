//! Questions to an approver. While one is asked, its purchase keeps the channel of the payment that the seller has
//! rejected; before the first payment, it holds nothing.

use std::time::Instant;

use super::authorization::OneShotStage;
use super::purchase::{Stage, Topic};
use super::question::Question;
use super::{Effect, Engine, PurchaseId, Reopens, Start};
use crate::protocol::channel::ChannelDraft;
use crate::protocol::policy::{Complaint, Decision, Hooks, Requested};
use crate::protocol::refusal::Awaited;
use crate::protocol::{Account, Money, Offer, Refusal};

/// The hook for a price that a seller asks for.
const PAYMENT_REQUESTED: &str = "payment_requested";

impl Topic {
    fn hook(self) -> &'static str {
        match self {
            Self::Price => PAYMENT_REQUESTED,
            Self::Complaint(complaint) => complaint.hook(),
        }
    }

    fn question(self, hooks: &Hooks) -> Question {
        let webhook = match self {
            Self::Price => hooks.payment_requested.webhook.as_ref(),
            Self::Complaint(complaint) => hooks.webhook(complaint),
        };
        Question { hook: self.hook(), webhook: webhook.cloned() }
    }

    /// What a decision means. A price requires an approver; a complaint does not.
    fn read(self, decision: Option<Decision>) -> Result<Option<Reopens>, Refusal> {
        let hook = self.hook();
        match decision {
            Some(Decision::Abort { reason }) => Err(Refusal::ApproverRefused { hook, reason }),
            Some(Decision::Reopen) => Ok(Some(Reopens(true))),
            Some(Decision::Retry) => Ok(Some(Reopens(false))),
            Some(_) => Ok(None),
            None if self == Self::Price => Err(Refusal::NoApprover { hook }),
            None => Ok(None),
        }
    }
}

impl Engine {
    /// Whether the policy wants the price of an offer: `Ok(true)` if an approver must be asked.
    ///
    /// # Errors
    /// [`Refusal::NotWanted`].
    pub fn must_ask(&self, hooks: &Hooks, offer: &Offer) -> Result<bool, Refusal> {
        self.must_ask_about(hooks, &offer.terms().price)
    }

    /// The same for a price, or for the sum of several.
    pub(super) fn must_ask_about(&self, hooks: &Hooks, price: &Money) -> Result<bool, Refusal> {
        match (hooks.payment_requested.action, &hooks.ask_above) {
            (Requested::Abort, _) => Err(Refusal::NotWanted),
            (Requested::Pay, None) => Ok(false),
            (Requested::Ask, None) => Ok(true),
            (Requested::Pay | Requested::Ask, Some(limit)) => {
                let token = self.account().map(Account::token_asset);
                Ok(limit.is_exceeded(price, token))
            }
        }
    }

    /// Asks whether the price of a purchase that holds no payment is wanted, or enqueues it.
    pub(super) fn seek_approval(&mut self, id: PurchaseId, now: Instant) {
        let Some(purchase) = self.purchases.get(&id) else { return };
        match self.must_ask(&purchase.limit.hooks, &purchase.offer) {
            Ok(false) => self.enqueue_approved(id, now),
            Ok(true) => self.consult(id, None, Topic::Price),
            Err(refusal) => self.refuse(id, refusal, now),
        }
    }

    /// Asks about the seller's response to a payment as far as the policy requires it, then handles it.
    pub(super) fn review(&mut self, id: PurchaseId, draft: ChannelDraft, offer: Offer, now: Instant) {
        let Some(purchase) = self.purchases.get(&id) else { return };
        let (price, paid) = (offer.terms().price, Money::channel_token(draft.price));
        // Approval of one price does not extend to a higher one. One that the rule forbids is never paid, so there is
        // nothing to ask.
        let is_raised = price.asset != paid.asset || price.amount > paid.amount;
        let is_allowed = self.check(&offer, &purchase.limit).is_ok();
        let asks =
            if is_raised && is_allowed { self.must_ask(&purchase.limit.hooks, &offer) } else { Ok(false) };
        let Some(purchase) = self.purchases.get_mut(&id) else { return };
        purchase.rejection = Some(Box::new(offer));
        match asks {
            Ok(true) => self.consult(id, Some(draft), Topic::Price),
            Ok(false) => self.review_complaint(id, draft, now),
            Err(refusal) => self.refuse(id, refusal, now),
        }
    }

    /// Asks how to handle the seller's complaint, unless the policy ends the purchase anyway.
    fn review_complaint(&mut self, id: PurchaseId, draft: ChannelDraft, now: Instant) {
        let Some(purchase) = self.purchases.get_mut(&id) else { return };
        let Some(offer) = &purchase.rejection else { return };
        let is_other_price = offer.terms().price != Money::channel_token(draft.price);
        let complaint = offer.complaint(&draft).or(is_other_price.then_some(Complaint::InvalidAmount));
        match complaint {
            Some(complaint) if !purchase.limit.hooks.aborts(complaint) => {
                self.consult(id, Some(draft), Topic::Complaint(complaint));
            }
            Some(_) | None => self.handle_rejection(id, draft, None, now),
        }
    }

    /// Handles the seller's response to a payment, now that all questions about it are answered.
    fn handle_rejection(
        &mut self,
        id: PurchaseId,
        draft: ChannelDraft,
        reopens: Option<Reopens>,
        now: Instant,
    ) {
        let Some(purchase) = self.purchases.get_mut(&id) else { return };
        let Some(offer) = purchase.rejection.take() else { return };
        let reopens = reopens.unwrap_or(Reopens(purchase.reopens()));
        self.rejected(id, draft, *offer, reopens, now);
    }

    fn consult(&mut self, id: PurchaseId, presented: Option<ChannelDraft>, topic: Topic) {
        let Some(purchase) = self.purchases.get_mut(&id) else { return };
        purchase.stage = Stage::Consulting { presented, topic };
        let question = topic.question(&purchase.limit.hooks);
        self.effects.push_back(Effect::Consult(id, question));
    }

    /// Continues a purchase after a decision; `None` if there is no approver.
    pub(super) fn consulted(&mut self, id: PurchaseId, decision: Option<Decision>, now: Instant) {
        let Some(Stage::Consulting { presented, topic }) =
            self.purchases.get(&id).map(|purchase| purchase.stage)
        else {
            return self.consulted_one_shot(id, decision, now);
        };
        let reopens = match topic.read(decision) {
            _ if matches!(self.start, Start::Stopped(_)) => Err(Refusal::ShuttingDown),
            read => read,
        };
        match (reopens, presented, topic) {
            (Err(refusal), ..) => self.refuse(id, refusal, now),
            (Ok(_), None, _) => self.enqueue_approved(id, now),
            (Ok(_), Some(draft), Topic::Price) => self.review_complaint(id, draft, now),
            (Ok(reopens), Some(draft), Topic::Complaint(_)) => {
                self.handle_rejection(id, draft, reopens, now);
            }
        }
    }

    /// Asks about a one-shot purchase.
    pub(super) fn consult_one_shot(&mut self, id: PurchaseId, topic: Topic) {
        let Some(purchase) = self.one_shots.get_mut(&id) else { return };
        purchase.stage = OneShotStage::Consulting { topic };
        let question = topic.question(&purchase.limit.hooks);
        self.effects.push_back(Effect::Consult(id, question));
    }

    fn consulted_one_shot(&mut self, id: PurchaseId, decision: Option<Decision>, now: Instant) {
        let Some(OneShotStage::Consulting { topic }) = self.one_shots.get(&id).map(|purchase| purchase.stage)
        else {
            return self.effects.push_back(Effect::Refuse(id, Refusal::ShuttingDown));
        };
        let done = match topic.read(decision) {
            _ if matches!(self.start, Start::Stopped(_)) => Err(Refusal::ShuttingDown),
            Err(refusal) => Err(refusal),
            Ok(_) => match topic {
                Topic::Price => self.begin_one_shot(id, now),
                Topic::Complaint(complaint) => self.back_off_one_shot(id, complaint, now),
            },
        };
        if let Err(refusal) = done {
            self.refuse_one_shot(id, refusal);
        }
    }
}

/// The refusal of a request whose deadline passes before it gets a payment.
pub(super) fn too_late() -> Refusal {
    Refusal::Deadline { waited_for: Awaited::Request }
}
