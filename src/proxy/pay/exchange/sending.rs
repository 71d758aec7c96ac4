//! Sends payments, and judges by the responses what became of them.

use std::convert::Infallible;
use std::fmt;

use http::{Request, Response, StatusCode, header};
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;
use tokio::time::{Instant, timeout_at};
use tower::ServiceExt as _;

use super::{Exchange, HeldAnswer, SentAhead, Spent};
use crate::failpoint;
use crate::payments::Lease;
use crate::protocol::refusal::Awaited;
use crate::protocol::schemes::{Assessment, Receipt};
use crate::protocol::{Answer, Draft, Offer, ReasonCode, Refusal};
use crate::proxy::extensions::LoopbackOnly;
use crate::proxy::handling::{Handling, RequestName};
use crate::proxy::message::recorded::RecordedBody;
use crate::proxy::pay::orphans::{Handover, ServedAgain};
use crate::proxy::pay::strip;
use crate::proxy::request_service::RequestService;
use crate::proxy::upstream::egress::PinnedAddr;
use crate::proxy::upstream::error::DialError;
use crate::proxy::{Body, CarriesPayment, ForwardError, error_response};

/// How often to send a payment that was provably not sent (stale pooled connection), that the seller says it has not
/// processed, or that costs nothing more.
const MAX_SENDS: u32 = 2;

/// The result of sending a payment.
pub(super) enum SendResult {
    /// The final response to the client.
    Done(Response<Body>),
    /// The seller responded with another 402.
    Again(Box<Again>),
    /// It is not clear what happened to the payment, which may be presented again.
    Unclear(Box<UnclearPayment>),
}

/// A payment whose outcome is unclear.
pub(super) struct UnclearPayment {
    lease: Box<Lease>,
    /// The response to the client if that stays unclear.
    answer: Response<Body>,
}

/// A payment to which the seller responded with another 402.
pub(super) struct Again {
    lease: Box<Lease>,
    held: HeldAnswer,
    offer: Offer,
}

impl<S> Exchange<S>
where
    S: RequestService<ForwardError> + Clone + Send + Sync + 'static,
    S::Future: Send,
{
    /// Pays again while the seller responds with another 402 and the policy allows it, and presents the same payment again
    /// while its outcome is unclear. `held` is the 402 that was paid, if there was one.
    pub(super) async fn pay_again(
        &mut self,
        mut sent: SendResult,
        mut held: Option<HeldAnswer>,
        mut has_left: oneshot::Receiver<Infallible>,
    ) -> Response<Body> {
        loop {
            let next = match sent {
                SendResult::Done(answer) => return answer,
                SendResult::Again(again) => {
                    let Again { lease, held: newer, offer } = *again;
                    let presented = lease.draft().nonce();
                    let next = self.answer_402(lease, &newer, offer, &mut has_left).await;
                    held = Some(newer);
                    // On a channel, the seller has shown what it holds.
                    next.map(|lease| {
                        let is_same = presented.is_some() && lease.draft().nonce() == presented;
                        (lease, is_same)
                    })
                }
                SendResult::Unclear(unclear) => {
                    let next = self.repeat(*unclear, held.as_ref(), &mut has_left).await;
                    next.map(|lease| (lease, true))
                }
            };
            sent = match next {
                Ok(lease) => self.send(lease, held.as_ref(), &mut has_left).await,
                Err(answer) => return answer,
            };
        }
    }

    /// Asks for the next payment after another 402. `Err` is the response to the client.
    async fn answer_402(
        &mut self,
        returned: Box<Lease>,
        newer: &HeldAnswer,
        offer: Offer,
        has_left: &mut oneshot::Receiver<Infallible>,
    ) -> Result<Box<Lease>, Response<Body>> {
        // Once it was presented before, a refusal no longer shows that nothing moved.
        let is_first = self.sent_ahead != SentAhead::No && self.attempts == 1 && !returned.is_joined();
        if is_first && offer.outdates(returned.draft()) {
            return Box::pin(self.pay_anew(returned, newer, offer, has_left)).await;
        }
        if let Err(refusal) = self.whole().await {
            self.remember_for_next();
            return Err(newer.give_back(&refusal));
        }
        let draft = returned.draft().clone();
        if let Err(refusal) = self.check_rise(&offer).await {
            return Err(self.refuse(newer, &refusal));
        }
        let consultant = self.consultant(Some(&draft), Some(&newer.head));
        let next = tokio::select! {
            next = returned.reject(offer, &consultant) => next,
            // Nothing more is signed for a client that has left.
            _ = has_left => Err(Refusal::ClientLeft),
        };
        match next {
            Ok(lease) => Ok(lease),
            // Waiting would keep the channel of the payment that the seller rejected.
            Err(refusal) if self.asks_operator(&refusal) => {
                Err(self.refuse(newer, &Refusal::TermsNeedApproval))
            }
            Err(refusal) => {
                if refusal.is_failure_of_seller() {
                    self.undelivered().await;
                }
                Err(self.refuse(newer, &refusal))
            }
        }
    }

    /// Asks for the same payment again. `Err` is the response to the client.
    async fn repeat(
        &mut self,
        unclear: UnclearPayment,
        held: Option<&HeldAnswer>,
        has_left: &mut oneshot::Receiver<Infallible>,
    ) -> Result<Box<Lease>, Response<Body>> {
        let UnclearPayment { lease, answer } = unclear;
        let draft = lease.draft().clone();
        let consultant = self.consultant(Some(&draft), held.map(|held| &held.head));
        let next = tokio::select! {
            next = lease.repeat(&consultant) => next,
            _ = has_left => Err(Refusal::ClientLeft),
        };
        match next {
            Ok(lease) => Ok(lease),
            Err(refusal) => {
                if refusal.is_failure_of_seller() {
                    self.undelivered().await;
                }
                tracing::warn!(request = %self.request, price = %draft.price(), details = %refusal, "the payment is in doubt");
                Err(unclear_response(answer, &refusal))
            }
        }
    }

    /// Presents a payment. Once the seller may have seen it, in this exchange too, it stays in doubt, whatever the next
    /// attempt's result.
    pub(super) async fn send(
        &mut self,
        (mut lease, mut is_presented): (Box<Lease>, bool),
        held: Option<&HeldAnswer>,
        has_left: &mut oneshot::Receiver<Infallible>,
    ) -> SendResult {
        self.attempts += 1;
        let mut sendings = 0;
        loop {
            if self.deadline <= Instant::now() {
                if is_presented {
                    self.lost_delivery().await;
                    return SendResult::Done(late(&self.request, &lease, "pay_timeout"));
                }
                lease.unsent();
                return SendResult::Done(unsent_response(
                    held,
                    &Refusal::Deadline { waited_for: Awaited::Seller },
                ));
            }
            let request = match self.request(&lease, held).await {
                Ok(request) => request,
                Err(refusal) if is_presented => {
                    return SendResult::Done(lost(&self.request, &lease, &refusal));
                }
                Err(refusal) => {
                    lease.unsent();
                    return SendResult::Done(unsent_response(held, &refusal));
                }
            };
            sendings += 1;
            lease.begin();
            failpoint::point("payment about to be sent");
            let answer_by = Instant::now() + self.settings().limits.answer_timeout;
            let by = answer_by.min(self.deadline);
            let answer = timeout_at(by, async { self.inner.ready().await?.call(request).await }).await;
            failpoint::point("payment answered");
            if !matches!(&answer, Ok(Err(error)) if error.is_unsent()) {
                is_presented = true;
                self.presented(lease.draft());
            }
            return match answer {
                Ok(Ok(answer)) => self.judge(lease, answer, has_left).await,
                Ok(Err(ForwardError::Unwritten(_))) if sendings < MAX_SENDS => continue,
                Ok(Err(ForwardError::NotProcessed { is_repeated: false, .. })) if sendings < MAX_SENDS => {
                    continue;
                }
                // On a channel, the same total pays once, however often it comes: most often, a kept connection was closed.
                Ok(Err(ForwardError::Lost(_)))
                    if sendings < MAX_SENDS
                        && lease.draft().on_channel().is_some()
                        && self.head.method.is_idempotent()
                        && self.kept.check().is_ok() =>
                {
                    continue;
                }
                Ok(Err(error)) if error.is_unsent() && !is_presented => {
                    lease.unsent();
                    if matches!(error, ForwardError::Dial(DialError::PlainPayment { .. })) {
                        // The next request asks for the price again, and learns why it is not paid.
                        self.forget();
                    }
                    SendResult::Done(error_response::report(&error, &self.request))
                }
                Ok(Err(error)) => {
                    self.fail_ahead();
                    if error.will_repeat() {
                        self.shared.unreadable.add(&self.name);
                        self.forget();
                    }
                    let answer = lost(&self.request, &lease, &error);
                    if self.may_repeat(lease.draft(), false) && !error.will_repeat() {
                        return SendResult::Unclear(Box::new(UnclearPayment { lease, answer }));
                    }
                    self.lost_delivery().await;
                    SendResult::Done(answer)
                }
                Err(_) => {
                    self.fail_ahead();
                    let limit = if by == answer_by { "answer_timeout" } else { "pay_timeout" };
                    let answer = late(&self.request, &lease, limit);
                    if self.may_repeat(lease.draft(), false) {
                        return SendResult::Unclear(Box::new(UnclearPayment { lease, answer }));
                    }
                    self.lost_delivery().await;
                    SendResult::Done(answer)
                }
            };
        }
    }

    /// The request with a payment, pinned to the address that sent the 402.
    async fn request(&mut self, lease: &Lease, held: Option<&HeldAnswer>) -> Result<Request<Body>, Refusal> {
        let body = match self.first.take() {
            Some(body) => body,
            None => self.kept.replay().await.map_err(|error| Refusal::NotReplayable(error.to_string()))?,
        };
        let mut request = Request::from_parts(self.head.clone(), body);
        if !self.is_body_deferred() {
            request.headers_mut().remove(header::EXPECT);
        }
        self.ask_for_identity(request.headers_mut());
        lease.attach(request.headers_mut());
        let extensions = request.extensions_mut();
        extensions.insert(CarriesPayment);
        if self.is_loopback_only {
            extensions.insert(LoopbackOnly);
        }
        if let Some(peer) = held.and_then(|held| held.head.extensions.get::<PinnedAddr>()) {
            extensions.insert(*peer);
        }
        Ok(request)
    }

    /// Records that the seller may have taken this payment.
    fn presented(&mut self, draft: &Draft) {
        let asked = draft.price();
        self.spent = match self.spent {
            Spent::Unclear(ref price) if price.asset == asked.asset && price.amount > asked.amount => return,
            Spent::Unclear(_) | Spent::Nothing | Spent::Paid(_) => Spent::Unclear(asked),
        };
    }

    /// Judges the payment by the head of the response.
    async fn judge(
        &mut self,
        lease: Box<Lease>,
        mut answer: Response<Body>,
        has_left: &mut oneshot::Receiver<Infallible>,
    ) -> SendResult {
        strip::answer_cookies(answer.headers_mut());
        let draft = lease.draft().clone();
        let view = Answer { status: answer.status(), headers: answer.headers(), body: None };
        let statement = draft.statement(&view, self.head.uri.query().is_none());
        let mut delivery = None;
        let assessment = draft.assess(&view);
        if assessment != Assessment::Paid(Receipt::Stated) {
            self.fail_ahead();
        }
        match assessment {
            Assessment::Asked => {
                return match Box::pin(self.read_402(answer, Some(&draft), Some(&mut *has_left))).await {
                    Ok((held, offer)) => SendResult::Again(Box::new(Again { lease, held, offer })),
                    Err(handed_on) if self.may_repeat(&draft, true) && !is_ours_to_stop(&handed_on) => {
                        SendResult::Unclear(Box::new(UnclearPayment { lease, answer: handed_on }))
                    }
                    // Malformed, too large or stopped by a hook: the payment stays in doubt.
                    Err(handed_on) => {
                        self.forget();
                        if has_left.try_recv() == Err(TryRecvError::Empty) {
                            self.undelivered().await;
                        }
                        tracing::warn!(
                            request = %self.request,
                            price = %draft.price(),
                            "a payment was presented, and the 402 after it cannot be used: the payment is in doubt"
                        );
                        SendResult::Done(handed_on)
                    }
                };
            }
            Assessment::Taken => {
                self.undelivered().await;
                let retry_after = self.settings().rules.get().policy.authorizations.retry_window;
                explain(&mut answer, &Refusal::PaidNotDelivered { retry_after });
                self.tell(&draft, &answer);
                self.spent = Spent::Paid(draft.price());
                lease.taken(statement);
            }
            Assessment::Unclear
                if self.may_repeat(&draft, answer.status() == StatusCode::PAYMENT_REQUIRED) =>
            {
                return SendResult::Unclear(Box::new(UnclearPayment { lease, answer }));
            }
            Assessment::Unclear | Assessment::InDoubt => {
                // Before the lease returns, so that a request that waits for it sees the pause.
                if answer.status().is_server_error() {
                    self.undelivered().await;
                }
                lease.doubted(statement);
            }
            Assessment::Paid(Receipt::Unstated) if self.is_unneeded() => {
                self.delivered(answer.status());
                tracing::warn!(
                    request = %self.request,
                    price = %draft.price(),
                    "the seller served without a receipt for the payment that was sent ahead, and may not have wanted it: the payment is in doubt"
                );
                lease.unneeded();
            }
            Assessment::Paid(receipt) => {
                self.tell(&draft, &answer);
                self.spent = Spent::Paid(draft.price());
                let mut undelivered = lease.accept(receipt, statement);
                let left = match has_left.try_recv() {
                    Err(TryRecvError::Empty) => None,
                    _ => Some((Handover::default(), Instant::now())),
                };
                if let Some((handover, _)) = &left {
                    answer.extensions_mut().insert(handover.clone());
                }
                if let Some(undelivered) = &mut undelivered {
                    if left.is_none() {
                        undelivered.begin();
                    }
                    if draft.is_identified() {
                        answer.extensions_mut().insert(ServedAgain);
                    }
                }
                delivery = Some(self.delivery(&answer, undelivered, left));
                if let Some(outdated) = self.outdated.take() {
                    outdated.unneeded();
                }
                self.learn(receipt);
            }
        }
        let answer = strip::answer(self.let_through(answer, Some(&draft)).await);
        SendResult::Done(match delivery {
            Some(delivery) => answer.map(|body| Body::Recorded(Box::new(RecordedBody::new(body, delivery)))),
            None => answer,
        })
    }
}

/// The response if a payment could not be sent.
fn unsent_response(held: Option<&HeldAnswer>, refusal: &Refusal) -> Response<Body> {
    match held {
        Some(held) => held.give_back(refusal),
        None => error_response::refusal(StatusCode::BAD_REQUEST, Some("http_request_error"), refusal),
    }
}

/// Whether a 402 that cannot be used was stopped here, rather than being unusable in itself.
fn is_ours_to_stop(answer: &Response<Body>) -> bool {
    let useless = [ReasonCode::UnknownScheme, ReasonCode::OfferMalformed, ReasonCode::UnsupportedOffers];
    match answer.extensions().get::<Handling>() {
        Some(Handling::Unpaid(explanation)) => !useless.contains(&explanation.reason),
        _ => true,
    }
}

/// The response if it stays unclear what happened to a payment: the seller's last one, unless that asks for a payment.
fn unclear_response(answer: Response<Body>, refusal: &Refusal) -> Response<Body> {
    if answer.status() != StatusCode::PAYMENT_REQUIRED {
        let mut answer = strip::answer(answer);
        explain(&mut answer, refusal);
        return answer;
    }
    error_response::refusal(StatusCode::BAD_GATEWAY, Some("http_protocol_error"), refusal)
}

/// Adds what became of a payment to the seller's response.
fn explain(answer: &mut Response<Body>, refusal: &Refusal) {
    // Our own response says more.
    if answer.extensions().get::<Handling>().is_none() {
        error_response::append_proxy_status(answer.headers_mut(), refusal.reason(), &refusal.to_string());
    }
    error_response::set_retry_after(answer.headers_mut(), refusal);
}

fn lost(request: &RequestName, lease: &Lease, error: &dyn fmt::Display) -> Response<Body> {
    tracing::warn!(%request, %error, price = %lease.draft().price(), "a payment was sent, but its response was lost");
    let details = format!("a payment was sent, but its response was lost: {error}");
    let (status, kind) = (StatusCode::BAD_GATEWAY, Some("http_response_incomplete"));
    error_response::problem(status, kind, ReasonCode::PaymentInDoubt, &details)
}

fn late(request: &RequestName, lease: &Lease, limit: &str) -> Response<Body> {
    tracing::warn!(%request, price = %lease.draft().price(), "a payment was sent, but no response came in time");
    let details = format!("a payment was sent, but no response came within limits.{limit}");
    let (status, kind) = (StatusCode::GATEWAY_TIMEOUT, Some("http_response_timeout"));
    error_response::problem(status, kind, ReasonCode::PaymentInDoubt, &details)
}
