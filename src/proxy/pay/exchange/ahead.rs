//! Payments that go with the first request, by a remembered offer.
//!
//! On a channel, a payment that the seller does not take costs nothing: the next one replaces it. An authorization can be
//! redeemed until it expires, whatever the seller asks for then. So it lives for a short time, no request presents one beside
//! another of the same purchase, and if the seller wants another, that is paid only if both together fit the rule's limit.

use std::convert::Infallible;

use http::Response;
use http_body::Body as _;
use tokio::sync::oneshot;

use super::{Attempt, Exchange, HeldAnswer, Leased, SentAhead};
use crate::payments::Lease;
use crate::protocol::quote::Quote;
use crate::protocol::{Offer, Refusal};
use crate::proxy::request_service::RequestService;
use crate::proxy::{Body, ForwardError};

impl<S> Exchange<S>
where
    S: RequestService<ForwardError> + Clone + Send + Sync + 'static,
    S::Future: Send,
{
    /// Asks for a payment of a remembered price, or for the response to an earlier request for the same purchase. `None`: the
    /// request goes without one. An offer that the seller then makes is refused for the same reason, unless that depends on
    /// the price.
    pub(in crate::proxy::pay) async fn ahead(&mut self, quote: Box<Quote>) -> Option<Leased> {
        if self.settings().payments.is_none() {
            self.unpayable = Some(Refusal::NoWallet);
            return None;
        }
        let joined = self.join_run().await;
        if let Err(refusal) = joined.and(self.spender.check().await) {
            self.unpayable = Some(refusal);
            return None;
        }
        let can_be_continued = quote.offer.can_be_continued();
        if !can_be_continued && self.may_be_bought() || can_be_continued && self.kept.check().is_err() {
            return None;
        }
        self.start_clock();
        // The paid request must carry the length, and the body is a part of what a later request can continue.
        let is_sized = self.first.as_ref().is_none_or(|body| body.size_hint().exact().is_some());
        if can_be_continued || !is_sized {
            // So the body is sent from its start.
            self.first = None;
            if let Err(refusal) = Box::pin(self.whole()).await {
                // Without a known price the next request streams.
                self.forget();
                self.unpayable = Some(refusal);
                return None;
            }
        }
        let offer = quote.offer.clone();
        self.attempt = Some(Attempt::Ahead(quote));
        if can_be_continued {
            // Boxed, like what follows: payments on a channel do not carry it.
            match Box::pin(self.orphan_key()).await {
                Ok(bought) => self.bought = Some(bought),
                Err(refusal) => {
                    self.unpayable = Some(refusal);
                    return None;
                }
            }
        }
        let refusal = match self.leased_ahead(offer).await {
            Ok(leased) => return Some(leased),
            Err(refusal) => refusal,
        };
        self.bought = None;
        match refusal {
            refusal if refusal.is_about_terms() => self.forget(),
            // The operator is asked about the seller's current offer.
            refusal if self.asks_operator(&refusal) => {}
            // What an earlier request left in doubt may be what the seller asks for now.
            Refusal::OutcomeUnclear { .. } => {}
            refusal => self.unpayable = Some(refusal),
        }
        None
    }

    async fn leased_ahead(&mut self, offer: Offer) -> Result<Leased, Refusal> {
        if let Some(bought) = self.bought
            && let Some(answer) = Box::pin(self.paid_before(bought)).await?
        {
            return Ok(Leased::Answer(answer));
        }
        let lease = self.lease(offer, None, None).await?;
        if self.bought.is_some() {
            self.sent_ahead = SentAhead::Yes;
        }
        Ok(Leased::Payment(lease))
    }

    /// The payment that was sent ahead was not accepted at once: the next request asks for the price again.
    pub(super) fn fail_ahead(&mut self) {
        if self.sent_ahead != SentAhead::Yes {
            return;
        }
        self.sent_ahead = SentAhead::InVain;
        if let (Some(payments), Some(id)) = (&self.settings().payments, &self.id) {
            payments.quotes().fail(id);
        }
    }

    /// Whether the seller has not asked for the payment that it was presented: it may have become free.
    pub(super) fn is_unneeded(&self) -> bool {
        self.sent_ahead != SentAhead::No && self.attempt.as_ref().is_some_and(|attempt| !attempt.was_asked())
    }

    /// Asks for a payment of what a seller wants in response to one that was sent ahead, which it can redeem until that
    /// expires. `Err` is the response to the client.
    pub(super) async fn pay_anew(
        &mut self,
        outdated: Box<Lease>,
        newer: &HeldAnswer,
        offer: Offer,
        has_left: &mut oneshot::Receiver<Infallible>,
    ) -> Result<Box<Lease>, Response<Body>> {
        self.sent_ahead = SentAhead::No;
        tracing::info!(
            request = %self.request,
            sent = %outdated.draft().price(),
            asked = %offer.terms().price,
            "the seller does not take the payment that was sent ahead, which it can redeem until that expires"
        );
        let next = async {
            self.may_pay(&offer, newer).await?;
            self.lease(offer, Some(&newer.head), Some(&outdated)).await
        };
        let next = tokio::select! {
            next = next => next,
            // Nothing more is signed for a client that has left.
            _ = has_left => Err(Refusal::ClientLeft),
        };
        // Until the end of this exchange, so that no other request presents it meanwhile.
        self.outdated = Some(outdated);
        next.map_err(|refusal| {
            let asks = self.asks_operator(&refusal);
            self.refuse(newer, if asks { &Refusal::TermsNeedApproval } else { &refusal })
        })
    }
}
