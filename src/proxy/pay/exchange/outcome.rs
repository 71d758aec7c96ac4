//! What an exchange leaves: prices to remember, sellers that deliver or do not, and the response if the policy stops.

use std::fmt;
use std::sync::Arc;

use http::{Response, StatusCode};
use tokio::time::Instant;

use super::{Exchange, HeldAnswer, SentAhead, Spent};
use crate::payments::{Payments, Undelivered};
use crate::protocol::engine::HostName;
use crate::protocol::schemes::Receipt;
use crate::protocol::{AssetId, Draft, Money, Offer, Refusal};
use crate::proxy::pay::delivery::{DeliveryRecord, is_event_stream};
use crate::proxy::pay::orphans::Handover;
use crate::proxy::request_service::RequestService;
use crate::proxy::{Body, ForwardError, error_response};

impl<S> Exchange<S>
where
    S: RequestService<ForwardError> + Clone + Send + Sync + 'static,
    S::Future: Send,
{
    /// The seller served with this status. A 4xx tells nothing: the request may be at fault.
    pub(super) fn delivered(&self, status: StatusCode) {
        if let Some(payments) = &self.settings().payments
            && !status.is_client_error()
        {
            payments.delivered(&self.limit.host);
        }
    }

    /// No response came to a payment. That is not the seller's failure if the client has not sent all of its request.
    pub(super) async fn lost_delivery(&self) {
        if self.kept.is_complete() {
            self.undelivered().await;
        }
    }

    /// The record of the delivery of a paid response.
    pub(super) fn delivery(
        &self,
        answer: &Response<Body>,
        undelivered: Option<Undelivered>,
        left: Option<(Handover, Instant)>,
    ) -> DeliveryRecord {
        DeliveryRecord {
            undelivered,
            left,
            writes_to: self.writes_to.clone(),
            is_stream: is_event_stream(answer.headers()),
            tells: !answer.status().is_client_error(),
            shared: Arc::clone(&self.shared),
            host: HostName::clone(&self.limit.host),
            request: self.request.clone(),
        }
    }

    /// The seller may have taken a payment, and did not deliver. Boxed: rare.
    pub(super) async fn undelivered(&self) {
        if let Some(payments) = &self.settings().payments {
            Box::pin(payments.undelivered(&self.limit.host)).await;
        }
    }

    /// Compares the price with what was paid before; a dry run pauses no host.
    ///
    /// # Errors
    /// The host is paused.
    pub(super) async fn check_rise(&self, offer: &Offer) -> Result<(), Refusal> {
        match &self.settings().payments {
            Some(payments) if self.settings().dry_run.is_none() => {
                payments.check_rise(&self.name, offer, &self.limit.host).await
            }
            _ => Ok(()),
        }
    }

    /// Remembers the price, unless the response suggests that nothing was charged.
    pub(super) fn learn(&self, receipt: Receipt) {
        let (Some(payments), Some(id), Some(attempt)) = (&self.settings().payments, &self.id, &self.attempt)
        else {
            return;
        };
        // One that was sent ahead in vain at first is no success, even if it was accepted later.
        let was_asked = attempt.was_asked() || self.sent_ahead == SentAhead::InVain;
        let offer = attempt.offer();
        payments.learn_seller_url(offer, &self.head.uri);
        if receipt != Receipt::NotCharged {
            payments.learn_paid(&self.name, &offer.terms().price, &self.limit.host);
        }
        if !offer.can_go_ahead() {
            return;
        }
        match receipt {
            // A later authorization might be taken without a sign of it.
            Receipt::Unstated if offer.can_be_continued() => payments.quotes().forget(id),
            Receipt::Stated => payments.quotes().learn(id, offer, true, was_asked),
            Receipt::Unstated => payments.quotes().learn(id, offer, false, was_asked),
            Receipt::NotCharged => payments.quotes().forget(id),
        }
    }

    /// Remembers the price of a request that cannot be resent, so that the next one is paid at once, if its length is
    /// known. Not for an authorization, which belongs to a purchase: what makes that the same again includes the body.
    pub(super) fn remember_for_next(&self) {
        if let (Some(payments), Some(id), Some(offer)) = (&self.settings().payments, &self.id, self.offer())
            && self.kept.is_sized()
            && !offer.can_be_continued()
        {
            payments.quotes().learn(id, offer, false, true);
        }
    }

    pub(super) fn forget(&self) {
        if let (Some(payments), Some(id)) = (&self.settings().payments, &self.id) {
            payments.quotes().forget(id);
        }
    }

    pub(super) fn tell(&self, draft: &Draft, answer: &Response<Body>) {
        let price = draft.price();
        tracing::info!(
            target: "tollpass::paid",
            %price,
            total = draft.on_channel().map(|draft| tracing::field::display(draft.total)),
            channel = draft.on_channel().map(|draft| tracing::field::display(draft.channel)),
            status = answer.status().as_u16(),
            "paid {} for {}",
            ShownPrice(&price, self.settings().payments.as_ref()),
            self.request,
        );
        self.tell_of_success(draft, answer);
    }

    /// The response to the client if the policy stops after a payment was presented.
    pub(super) fn refuse(&mut self, held: &HeldAnswer, refusal: &Refusal) -> Response<Body> {
        self.forget();
        self.not_paid(held, refusal)
    }

    /// The response to the client if the policy stops: the 402, unless a payment was taken.
    pub(in crate::proxy::pay) fn not_paid(&mut self, held: &HeldAnswer, refusal: &Refusal) -> Response<Body> {
        if let Refusal::PaidAnswerLost { .. } | Refusal::PaidNotDelivered { .. } = refusal {
            if let Spent::Unclear(price) = &self.spent {
                self.spent = Spent::Paid(price.clone());
            }
            let (request, reason) = (&self.request, refusal.reason().as_str());
            tracing::error!(%request, reason, details = %refusal, "the seller took a payment but withheld the response");
            let kind = Some("http_protocol_error");
            return error_response::refusal(StatusCode::BAD_GATEWAY, kind, refusal);
        }
        held.give_back(refusal)
    }
}

/// A price as people read it: with its symbol, except in the token of the channels, whose limits have none either.
struct ShownPrice<'a>(&'a Money, Option<&'a Payments>);

impl fmt::Display for ShownPrice<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.0.asset, self.1) {
            (AssetId::Token(_), Some(payments)) => f.write_str(&payments.approvals().show(self.0)),
            _ => self.0.fmt(f),
        }
    }
}
