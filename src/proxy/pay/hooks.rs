//! The hooks of an exchange that a rule pays. The engine decides when to ask about a payment; this module asks, and applies
//! the hooks for requests and responses. Hooks can only stop an exchange.

use futures_util::future::BoxFuture;
use http::{HeaderMap, Response, StatusCode, response};
use tokio::time::Instant;

use super::exchange::{Exchange, Spent};
use super::url::without_user;
use super::webhook::ApprovalRequest;
use crate::payments::Consultant;
use crate::protocol::engine::Question;
use crate::protocol::policy::{Decision, Exit, Init, Mark, OnError, OnResponse, Success, Webhook};
use crate::protocol::{Amount, Draft, Offer, Refusal};
use crate::proxy::{Body, error_response};

/// The state of the exchange when a hook runs.
#[derive(Clone, Copy, Default)]
pub(super) struct HookContext<'a> {
    draft: Option<&'a Draft>,
    answer: Option<(StatusCode, &'a HeaderMap)>,
    /// True for the final response to the client, after the pay deadline.
    is_final: bool,
    /// The amounts paid and in doubt, for hooks that report them.
    paid: Option<Amount>,
    unclear: Option<Amount>,
}

/// Asks an approver what the engine wants to know about an exchange.
pub(super) struct ExchangeConsultant<'e, S> {
    exchange: &'e Exchange<S>,
    context: HookContext<'e>,
}

impl<S: Sync> Consultant for ExchangeConsultant<'_, S> {
    fn consult<'a>(&'a self, question: &'a Question) -> BoxFuture<'a, Option<Decision>> {
        let Self { exchange, context } = self;
        if exchange.has_approval(question) {
            return Box::pin(std::future::ready(Some(Decision::Pay)));
        }
        Box::pin(exchange.decide(question.hook, question.webhook.as_ref(), *context))
    }
}

impl<S> Exchange<S>
where
    S: Sync,
{
    /// Asks about the payment that follows `draft`, if any, and this head of a 402; without one if the price is
    /// remembered.
    pub(super) fn consultant<'e>(
        &'e self,
        draft: Option<&'e Draft>,
        held: Option<&'e response::Parts>,
    ) -> ExchangeConsultant<'e, S> {
        let answer = held.map(|head| (head.status, &head.headers));
        ExchangeConsultant {
            exchange: self,
            context: HookContext { draft, answer, ..HookContext::default() },
        }
    }

    /// Runs `init`: whether the request may be sent.
    pub(super) async fn may_begin(&self) -> Result<(), Refusal> {
        let hook = &self.limit.hooks.init;
        match hook.action {
            Init::Pass => Ok(()),
            Init::Ask => self.must_ask("init", hook.webhook.as_ref(), HookContext::default()).await,
        }
    }

    /// Runs `http_response` for a 402, before it is used.
    pub(super) async fn may_read(
        &self,
        head: &response::Parts,
        draft: Option<&Draft>,
    ) -> Result<(), Refusal> {
        let answer = Some((head.status, &head.headers));
        self.inspect(HookContext { draft, answer, ..HookContext::default() }).await
    }

    /// The response to the client: the origin's, or an error if a hook withholds it.
    pub(super) async fn let_through(&self, answer: Response<Body>, draft: Option<&Draft>) -> Response<Body> {
        let hooks = &self.limit.hooks;
        if hooks.http_response.action == OnResponse::Pass && hooks.http_error.action == OnError::Pass {
            return answer;
        }
        let (head, body) = answer.into_parts();
        let answer = Some((head.status, &head.headers));
        let turn = HookContext { draft, answer, is_final: true, ..HookContext::default() };
        match Box::pin(self.inspect(turn)).await {
            Ok(()) => Response::from_parts(head, body),
            Err(refusal) => {
                let (request, reason) = (&self.request, refusal.reason().as_str());
                tracing::info!(%request, reason, details = %refusal, "response withheld by policy");
                error_response::refusal(StatusCode::BAD_GATEWAY, None, &refusal)
            }
        }
    }

    /// Notifies the webhook of `success` that a request was paid.
    pub(super) fn tell_of_success(&self, draft: &Draft, answer: &Response<Body>) {
        let hook = &self.limit.hooks.success;
        if hook.action == Success::Tell {
            let answer = Some((answer.status(), answer.headers()));
            let paid = Some(draft.price().amount);
            let turn = HookContext { draft: Some(draft), answer, is_final: true, paid, unclear: None };
            let by = Instant::now() + self.shared.settings.pay_timeout();
            let request = self.approval_request("success", turn);
            self.shared.approvals.tell(hook.webhook.as_ref(), request, by, &self.shared.settings.shutdown);
        }
    }

    /// Runs `http_response` and `http_error` for a response.
    async fn inspect(&self, turn: HookContext<'_>) -> Result<(), Refusal> {
        let Some((status, headers)) = turn.answer else { return Ok(()) };
        let aborts = |hook, mark| Err(Refusal::AnswerAborts { hook, status: status.as_u16(), mark });
        let hook = &self.limit.hooks.http_response;
        match &hook.action {
            OnResponse::Pass => {}
            OnResponse::Abort(marks) => {
                if let Some(mark) = marks.found(status, headers) {
                    return aborts("http_response", mark);
                }
            }
            OnResponse::Ask(marks) if marks.found(status, headers).is_none() => {}
            OnResponse::Ask(_) | OnResponse::AskAlways => {
                self.must_ask("http_response", hook.webhook.as_ref(), turn).await?;
            }
        }
        let is_error = status.is_client_error() || status.is_server_error();
        if !is_error || status == StatusCode::PAYMENT_REQUIRED {
            return Ok(());
        }
        let hook = &self.limit.hooks.http_error;
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

    /// Asks the webhook, else the approver; `None` if there is neither. Box the future: it is rarely needed, and larger
    /// than the rest of an exchange.
    async fn ask(
        &self,
        hook: &'static str,
        webhook: Option<&Webhook>,
        turn: HookContext<'_>,
    ) -> Result<Option<Decision>, Refusal> {
        match self.decide(hook, webhook, turn).await {
            Some(Decision::Abort { reason }) => Err(Refusal::ApproverRefused { hook, reason }),
            decision => Ok(decision),
        }
    }

    /// The decision of the webhook, else of the approver; `None` if there is neither.
    async fn decide(
        &self,
        hook: &'static str,
        webhook: Option<&Webhook>,
        turn: HookContext<'_>,
    ) -> Option<Decision> {
        let request = self.approval_request(hook, turn);
        let by =
            if turn.is_final { Instant::now() + self.shared.settings.pay_timeout() } else { self.deadline };
        self.shared.approvals.ask(webhook, &request, by).await
    }
}

impl<S> Exchange<S> {
    /// Notifies the webhook of `exit` that the request has ended, once; without a response if the client disconnected
    /// before it.
    pub(super) fn tell_of_exit(&mut self, answer: Option<(StatusCode, &HeaderMap)>) {
        if self.limit.hooks.exit.action != Exit::Tell || std::mem::replace(&mut self.has_ended, true) {
            return;
        }
        let (paid, unclear) = match &self.spent {
            Spent::Nothing => (None, None),
            Spent::Unclear(price) => (None, Some(price.amount)),
            Spent::Paid(price) => (Some(price.amount), None),
        };
        let request =
            self.approval_request("exit", HookContext { answer, is_final: true, paid, unclear, draft: None });
        let settings = &self.shared.settings;
        let by = Instant::now() + settings.pay_timeout();
        self.shared.approvals.tell(self.limit.hooks.exit.webhook.as_ref(), request, by, &settings.shutdown);
    }

    fn approval_request(&self, hook: &'static str, turn: HookContext<'_>) -> ApprovalRequest {
        let terms = self.offer().map(Offer::terms);
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
            headers: turn.answer.map(|(_, headers)| ApprovalRequest::fields(headers)).unwrap_or_default(),
        }
    }
}
