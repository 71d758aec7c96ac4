//! Signs in where a seller offers that with its 402: what was bought before is not bought again. A seller may also want
//! nothing else.

use http::{HeaderMap, Response, StatusCode};
use tokio::time::{Instant, timeout_at};

use super::exchange::Exchange;
use super::held_answer::{HeldAnswer, Unoffered};
use super::strip;
use crate::protocol::Offer;
use crate::protocol::policy::Requested;
use crate::protocol::schemes::{self, SignIn};
use crate::proxy::extensions::LoopbackOnly;
use crate::proxy::request_service::RequestService;
use crate::proxy::upstream::egress::PinnedAddr;
use crate::proxy::{Body, ForwardError};

/// What came of signing in.
pub(super) enum SignedIn {
    /// The seller does not offer it, or it is not possible now.
    Not,
    /// The seller wants to be paid nevertheless.
    Offered(Box<(HeldAnswer, Offer)>),
    /// The response to the client.
    Answered(Response<Body>),
}

impl<S> Exchange<S>
where
    S: RequestService<ForwardError> + Clone + Send + Sync + 'static,
    S::Future: Send,
{
    /// Sends the request with a proof of who pays, once, if the seller takes that and the rule would pay this offer.
    ///
    /// # Errors
    /// No response came. The seller may have served the request, so that it is not paid instead.
    pub(super) async fn sign_in(
        &mut self,
        offer: &Offer,
        held: &HeldAnswer,
    ) -> Result<SignedIn, ForwardError> {
        let Some(challenge) = offer.sign_in(&held.head.headers, &self.head.uri) else {
            return Ok(SignedIn::Not);
        };
        let proof = match self.may_sign_in() && self.check_offer(offer, held).await.is_ok() {
            true => self.proof(&challenge).await,
            false => None,
        };
        let peer = held.head.extensions.get().copied();
        self.prove(proof, peer).await
    }

    /// The same where the seller wants nothing but the proof: its 402 has no offers.
    ///
    /// # Errors
    /// As for [`Self::sign_in`].
    pub(super) async fn sign_in_alone(&mut self, unoffered: &Unoffered) -> Result<SignedIn, ForwardError> {
        if !unoffered.is_empty() {
            return Ok(SignedIn::Not);
        }
        let Unoffered { answer, .. } = unoffered;
        let challenge = schemes::sign_in_alone(answer.headers(), &self.head.uri, &self.limit);
        let Some(challenge) = challenge else { return Ok(SignedIn::Not) };
        let peer = answer.extensions().get().copied();
        let proof = match self.may_sign_in() && self.check_parties(peer).await.is_ok() {
            true => self.proof(&challenge).await,
            false => None,
        };
        self.prove(proof, peer).await
    }

    /// Sends the request with a proof, if there is one, to the address that has asked for it.
    async fn prove(
        &mut self,
        proof: Option<HeaderMap>,
        peer: Option<PinnedAddr>,
    ) -> Result<SignedIn, ForwardError> {
        let Some(proof) = proof else { return Ok(SignedIn::Not) };
        tracing::debug!(request = %self.request, "signing in");
        let mut extensions = self.head.extensions.clone();
        if self.is_loopback_only {
            extensions.insert(LoopbackOnly);
        }
        if let Some(peer) = peer {
            extensions.insert(peer);
        }
        self.proof = Some(proof);
        let answer = self.unpaid(extensions).await;
        self.proof = None;
        let mut answer = answer?;
        strip::answer_cookies(answer.headers_mut());
        if schemes::may_ask(answer.status(), answer.headers()) {
            return Ok(match self.read_402(answer, None, None).await {
                Ok(read) => SignedIn::Offered(Box::new(read)),
                Err(unpaid) => SignedIn::Answered(unpaid),
            });
        }
        if let StatusCode::BAD_REQUEST
        | StatusCode::UNAUTHORIZED
        | StatusCode::FORBIDDEN
        | StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE = answer.status()
        {
            // The proof may be at fault, and nothing was served: the offer stands.
            return Ok(SignedIn::Not);
        }
        if !answer.status().is_client_error() && !answer.status().is_server_error() {
            tracing::info!(request = %self.request, "signed in, and not paid again");
        }
        Ok(SignedIn::Answered(strip::answer(self.let_through(answer, None).await)))
    }

    /// Whether this request can be sent once more with a proof, and the user wants to pay at all. Where the client waits with its body, it would upload that
    /// for nothing.
    fn may_sign_in(&self) -> bool {
        !self.has_signed_in
            && self.settings().dry_run.is_none()
            && !self.is_body_deferred()
            && self.limit.hooks.payment_requested.action != Requested::Abort
    }

    /// The headers that prove who pays; `None` without a signature.
    async fn proof(&mut self, challenge: &SignIn) -> Option<HeaderMap> {
        self.whole().await.ok()?;
        // Whatever comes of it, the signer is asked once.
        self.has_signed_in = true;
        let payments = self.settings().payments.as_ref()?;
        let mut proof = HeaderMap::new();
        let signed = payments.sign_in(challenge, &self.limit.host, self.deadline.into_std(), &mut proof);
        let by = self.deadline.min(Instant::now() + self.settings().ready_timeout());
        let signed = timeout_at(by, signed).await.ok()?;
        if let Err(refusal) = &signed {
            tracing::debug!(request = %self.request, details = %refusal, "not signed in");
        }
        // A program that signs in by itself knows better.
        let is_own = proof.keys().any(|name| self.head.headers.contains_key(name));
        (signed.is_ok() && !is_own).then_some(proof)
    }
}
