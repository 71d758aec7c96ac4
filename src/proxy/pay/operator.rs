//! Approval of a payment by the operator (`tollpass approve`). While a request waits, it holds no payment and no channel;
//! afterwards its offer is read and checked again, and only the approved terms are paid.

use std::sync::Arc;

use http::Response;
use tokio::time::Instant;

use super::exchange::Exchange;
use super::held_answer::HeldAnswer;
use super::{plain_http, strip};
use crate::payments::WantedPayment;
use crate::protocol::engine::Question;
use crate::protocol::policy::{Allow, SpendLimit, SpendOrigin};
use crate::protocol::schemes;
use crate::protocol::{Offer, Refusal};
use crate::proxy::handling::SafeUrl;
use crate::proxy::request_service::RequestService;
use crate::proxy::{Body, ForwardError};

/// The hook for a price that a seller asks for.
const PAYMENT_REQUESTED: &str = "payment_requested";

impl<S> Exchange<S> {
    /// Whether the operator's approval would lift this refusal.
    pub(super) fn asks_operator(&self, refusal: &Refusal) -> bool {
        let settings = &self.shared.settings;
        settings.asks_operator && matches!(refusal, Refusal::NoApprover { hook: PAYMENT_REQUESTED })
    }

    /// Whether the operator has approved the current offer, for this request or in advance.
    pub(super) fn has_approval(&self, question: &Question) -> bool {
        let settings = &self.shared.settings;
        let is_operators = settings.asks_operator
            && settings.approver.is_none()
            && question.webhook.is_none()
            && question.hook == PAYMENT_REQUESTED;
        let Some(terms) = self.offer().map(Offer::terms).filter(|_| is_operators) else { return false };
        self.operator.has_approved(&terms)
            || settings.payments.as_ref().is_some_and(|payments| {
                let asset = payments.known_asset(&terms.price.asset);
                payments.approvals().is_covered(&self.limit.host, &terms, &asset)
            })
    }
}

impl<S> Exchange<S>
where
    S: RequestService<ForwardError> + Clone + Send + Sync + 'static,
    S::Future: Send,
{
    /// Waits for the operator if that lifts `refusal`, then asks the seller for its offer again. `Err` is the response to
    /// the client.
    pub(super) async fn approved_offer(
        &mut self,
        refusal: Refusal,
        held: HeldAnswer,
    ) -> Result<Result<(HeldAnswer, Offer), Response<Body>>, ForwardError> {
        let asked = match self.offer().cloned() {
            Some(offer) if self.asks_operator(&refusal) => self.ask_operator(&offer).await.map(|()| offer),
            _ => Err(refusal),
        };
        let offer = match asked {
            Ok(offer) => offer,
            Err(refusal) => return Ok(Err(self.not_paid(&held, &refusal))),
        };
        if let Err(refusal) = self.follow_rules() {
            return Ok(Err(self.not_paid(&held, &refusal)));
        }
        if self.is_body_deferred() {
            // A request without a payment would make the client upload its body for nothing.
            return Ok(Ok((held, offer)));
        }
        drop(held);
        let mut answer = self.unpaid(self.head.extensions.clone()).await?;
        strip::answer_cookies(answer.headers_mut());
        if !schemes::may_ask(answer.status(), answer.headers()) {
            return Ok(Err(strip::answer(self.let_through(answer, None).await)));
        }
        Ok(self.read_402(answer, None, None).await)
    }

    /// Applies the rule that a reload has put in the place of the request's.
    ///
    /// # Errors
    /// The host, or the client, is not paid any more.
    fn follow_rules(&mut self) -> Result<(), Refusal> {
        let rules = self.settings().rules.get();
        let policy = &rules.policy;
        if policy.version == self.limit.origin.version {
            return Ok(());
        }
        let host = || self.request.host();
        let client = policy.client_by_now(&self.limit);
        if let (Some(proven), None) = (&self.limit.origin.client, client) {
            return Err(Refusal::ClientRemoved { client: proven.client.name.clone() });
        }
        let Some(rule) = policy.rule_by_now(&self.limit) else {
            return Err(match client.filter(|client| client.rules.is_some()) {
                Some(client) => Refusal::NoClientRule { client: client.name.clone(), host: host() },
                None => Refusal::NoRule { host: host() },
            });
        };
        let Allow::Pay { max_price, receivers, preference, allow_plain_http, hooks, .. } = &rule.allow else {
            return Err(Refusal::Denied { host: host() });
        };
        let origin = SpendOrigin { version: policy.version, ..self.limit.origin.clone() };
        self.limit = SpendLimit {
            host: Arc::clone(&self.limit.host),
            max_price: max_price.clone(),
            receivers: receivers.clone(),
            preference: Arc::clone(preference),
            hooks: Arc::clone(hooks),
            budgets: policy.budgets_by_now(&self.limit),
            origin,
        };
        self.is_loopback_only = plain_http::is_limited(&self.head.uri, *allow_plain_http);
        self.origin.1 = rule.host.clone();
        Ok(())
    }

    /// Waits until the operator approves this offer.
    async fn ask_operator(&mut self, offer: &Offer) -> Result<(), Refusal> {
        let settings = self.settings();
        let Some(payments) = &settings.payments else { return Err(Refusal::NoWallet) };
        let (approvals, terms) = (payments.approvals().clone(), offer.terms());
        let wanted = WantedPayment {
            method: self.head.method.to_string(),
            url: SafeUrl(&self.head.uri).to_string(),
            host: self.limit.host.to_string(),
            client: self.operator.client.clone(),
            asset: payments.known_asset(&terms.price.asset),
            terms: terms.clone(),
        };
        let shutdown = settings.shutdown.clone();
        let until = *self.operator.until.get_or_insert_with(|| approvals.until());
        tokio::select! {
            approved = approvals.ask(wanted, until) => approved?,
            () = shutdown.stopping() => return Err(Refusal::ShuttingDown),
        }
        self.operator.approved = Some(Box::new(terms));
        self.deadline = Instant::now() + self.settings().pay_timeout();
        Ok(())
    }
}
