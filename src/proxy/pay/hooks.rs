//! The hooks of an exchange that a rule pays for: what the policy says at each turn, and whom it asks first. It only
//! ever stops an exchange; what goes on goes on by the book.

use http::{HeaderMap, Response, StatusCode, response};
use tokio::time::Instant;

use super::exchange::{Exchange, Spent};
use super::settings::PaySettings;
use super::url::without_user;
use super::webhook::{ApprovalRequest, Decision};
use crate::protocol::engine::Reopens;
use crate::protocol::policy::{
    Complaint, Exit, Init, Mark, OnError, OnResponse, Requested, Success, Webhook,
};
use crate::protocol::{Amount, Draft, Offer, Refusal};
use crate::proxy::{Body, error_response};

/// What is known of the exchange when a hook is called.
#[derive(Clone, Copy, Default)]
struct HookContext<'a> {
    draft: Option<&'a Draft>,
    answer: Option<(StatusCode, &'a HeaderMap)>,
    /// True for the answer that the client is to get: the time for paying is over then.
    is_final: bool,
    /// What was paid, and what may have been, where that is told.
    paid: Option<Amount>,
    unclear: Option<Amount>,
}

impl<S> Exchange<S>
where
    S: Sync,
{
    /// Whether the request may be sent at all.
    pub(super) async fn may_begin(&self) -> Result<(), Refusal> {
        let hook = &self.hooks.init;
        match hook.action {
            Init::Pass => Ok(()),
            Init::Ask => self.must_ask("init", hook.webhook.as_ref(), HookContext::default()).await,
        }
    }

    /// Whether the first payment is wanted. `held` is the head of the 402 that asks for it; without one the price is
    /// remembered from before.
    pub(super) async fn may_pay(&self, held: Option<&response::Parts>) -> Result<(), Refusal> {
        let answer = held.map(|head| (head.status, &head.headers));
        self.is_wanted(HookContext { answer, ..HookContext::default() }).await
    }

    /// What `http_response` says of a 402, whatever is made of it afterwards.
    pub(super) async fn may_read(
        &self,
        head: &response::Parts,
        draft: Option<&Draft>,
    ) -> Result<(), Refusal> {
        let answer = Some((head.status, &head.headers));
        self.inspect(HookContext { draft, answer, ..HookContext::default() }).await
    }

    /// What `payment_requested` says of the price that is asked for.
    async fn is_wanted(&self, turn: HookContext<'_>) -> Result<(), Refusal> {
        let hook = &self.hooks.payment_requested;
        match hook.action {
            Requested::Pay => Ok(()),
            Requested::Abort => Err(Refusal::NotWanted),
            Requested::Ask => self.must_ask("payment_requested", hook.webhook.as_ref(), turn).await,
        }
    }

    /// Whether the purchase may go on after a 402 in answer to the payment `draft`. `Some` decides in place of the policy
    /// whether another channel may pay.
    pub(super) async fn may_go_on(
        &self,
        draft: &Draft,
        held: &response::Parts,
        offer: &Offer,
    ) -> Result<Option<Reopens>, Refusal> {
        let answer = Some((held.status, &held.headers));
        let turn = HookContext { draft: Some(draft), answer, ..HookContext::default() };
        let (price, paid) = (offer.terms().price, draft.price());
        if price.asset != paid.asset || price.amount > paid.amount {
            // A yes to one price is none to a higher one.
            self.is_wanted(turn).await?;
        }
        let is_other_price = price != paid;
        match offer.complaint(draft).or(is_other_price.then_some(Complaint::InvalidAmount)) {
            Some(complaint) if !self.hooks.aborts(complaint) => {
                let decision =
                    Box::pin(self.ask(complaint.hook(), self.hooks.webhook(complaint), turn)).await?;
                Ok(match decision {
                    Some(Decision::Reopen) => Some(Reopens(true)),
                    Some(Decision::Retry) => Some(Reopens(false)),
                    Some(_) | None => None,
                })
            }
            Some(_) | None => Ok(None),
        }
    }

    /// The answer for the client: the origin's, or one of our own where a hook does not let it through.
    pub(super) async fn let_through(&self, answer: Response<Body>, draft: Option<&Draft>) -> Response<Body> {
        let (head, body) = answer.into_parts();
        let answer = Some((head.status, &head.headers));
        let turn = HookContext { draft, answer, is_final: true, ..HookContext::default() };
        match self.inspect(turn).await {
            Ok(()) => Response::from_parts(head, body),
            Err(refusal) => {
                tracing::info!(request = %self.request, reason = %refusal, "response withheld by policy");
                error_response::problem(StatusCode::BAD_GATEWAY, None, &refusal.to_string())
            }
        }
    }

    /// Tells whom the policy names that a request was paid.
    pub(super) fn tell_of_success(&self, draft: &Draft, answer: &Response<Body>) {
        let hook = &self.hooks.success;
        if hook.action == Success::Tell {
            let answer = Some((answer.status(), answer.headers()));
            let paid = Some(draft.price().amount);
            let turn = HookContext { draft: Some(draft), answer, is_final: true, paid, unclear: None };
            let by = Instant::now() + self.shared.settings.policy.pay_timeout;
            let request = self.approval_request("success", turn);
            self.shared.approvals.tell(hook.webhook.as_ref(), request, by, &self.shared.settings.shutdown);
        }
    }

    /// What `http_response` and `http_error` say of an answer.
    async fn inspect(&self, turn: HookContext<'_>) -> Result<(), Refusal> {
        let Some((status, fields)) = turn.answer else { return Ok(()) };
        let aborts = |hook, mark| Err(Refusal::AnswerAborts { hook, status: status.as_u16(), mark });
        let hook = &self.hooks.http_response;
        match &hook.action {
            OnResponse::Pass => {}
            OnResponse::Abort(marks) => {
                if let Some(mark) = marks.found(status, fields) {
                    return aborts("http_response", mark);
                }
            }
            OnResponse::Ask(marks) if marks.found(status, fields).is_none() => {}
            OnResponse::Ask(_) | OnResponse::AskAlways => {
                self.must_ask("http_response", hook.webhook.as_ref(), turn).await?;
            }
        }
        let is_error = status.is_client_error() || status.is_server_error();
        if !is_error || status == StatusCode::PAYMENT_REQUIRED {
            return Ok(());
        }
        let hook = &self.hooks.http_error;
        match hook.action {
            OnError::Pass => Ok(()),
            OnError::Abort => aborts("http_error", Mark::Status),
            OnError::Ask => self.must_ask("http_error", hook.webhook.as_ref(), turn).await,
        }
    }

    async fn must_ask(
        &self,
        hook: &'static str,
        webhook: Option<&Webhook>,
        turn: HookContext<'_>,
    ) -> Result<(), Refusal> {
        match Box::pin(self.ask(hook, webhook, turn)).await? {
            Some(_) => Ok(()),
            None => Err(Refusal::NoApprover { hook }),
        }
    }

    /// Asks the webhook, else the approver; `None` when there is neither. To be boxed: seldom needed, and larger than all
    /// the rest of an exchange.
    async fn ask(
        &self,
        hook: &'static str,
        webhook: Option<&Webhook>,
        turn: HookContext<'_>,
    ) -> Result<Option<Decision>, Refusal> {
        let request = self.approval_request(hook, turn);
        let by = if turn.is_final {
            Instant::now() + self.shared.settings.policy.pay_timeout
        } else {
            self.deadline
        };
        match self.shared.approvals.ask(webhook, &request, by).await {
            Some(Decision::Abort { reason }) => Err(Refusal::ApproverRefused { hook, reason }),
            decision => Ok(decision),
        }
    }
}

impl<S> Exchange<S> {
    /// Tells whom the policy names that the request has ended, once; without an answer if the client left before one
    /// came.
    pub(super) fn tell_of_exit(&mut self, answer: Option<(StatusCode, &HeaderMap)>) {
        if self.hooks.exit.action != Exit::Tell || std::mem::replace(&mut self.has_ended, true) {
            return;
        }
        let (paid, unclear) = match &self.spent {
            Spent::Nothing => (None, None),
            Spent::Unclear(price) => (None, Some(price.amount)),
            Spent::Paid(price) => (Some(price.amount), None),
        };
        let request =
            self.approval_request("exit", HookContext { answer, is_final: true, paid, unclear, draft: None });
        let PaySettings { policy, shutdown, .. } = &self.shared.settings;
        let by = Instant::now() + policy.pay_timeout;
        self.shared.approvals.tell(self.hooks.exit.webhook.as_ref(), request, by, shutdown);
    }

    fn approval_request(&self, hook: &'static str, turn: HookContext<'_>) -> ApprovalRequest {
        let terms = self.offer.as_ref().map(Offer::terms);
        ApprovalRequest {
            hook,
            method: self.head.method.to_string(),
            url: without_user(&self.head.uri),
            price: terms.as_ref().map(|terms| terms.price.amount),
            receiver: terms.as_ref().map(|terms| terms.payee),
            channel: turn.draft.and_then(Draft::on_channel).map(|draft| draft.channel),
            attempt: self.attempts,
            status: turn.answer.map(|(status, _)| status.as_u16()),
            paid: turn.paid,
            unclear: turn.unclear,
            headers: turn.answer.map(|(_, fields)| ApprovalRequest::fields(fields)).unwrap_or_default(),
        }
    }
}
