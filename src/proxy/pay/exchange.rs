//! A paid exchange: sends the request with a payment until the seller accepts it or the policy stops.

mod ahead;
mod attended;
mod outcome;
mod sending;

use std::convert::Infallible;
use std::sync::Arc;

use http::{Extensions, HeaderMap, HeaderValue, Request, Response, header, request, response};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};
use tower::ServiceExt as _;

use super::held_answer::{HeldAnswer, Unoffered, hold_answer, read_offers};
use super::operator_state::OperatorState;
use super::orphans::{Bought, ClaimedOrphan, OrphanKey};
use super::plain_http;
use super::purchase_hash;
use super::purchase_hash::PurchaseHash;
use super::settings::{PaySettings, PayShared};
use super::spender::Spender;
use super::url::without_user;
use crate::payments::{Lease, PaidRequest, Payments, RunAccount};
use crate::protocol::engine::PurchaseKey;
use crate::protocol::policy::{HostPattern, ProxyClient, SpendLimit};
use crate::protocol::quote::{Quote, RequestId};
use crate::protocol::safe_text::safe_text;
use crate::protocol::schemes;
use crate::protocol::{Answer, Draft, Money, Offer, Refusal};
use crate::proxy::client_connection::ClientConnection;
use crate::proxy::downstream::client_io::ConnectionId;
use crate::proxy::handling::{Handling, RequestName};
use crate::proxy::message::headers;
use crate::proxy::replay::Kept;
use crate::proxy::request_service::RequestService;
use crate::proxy::upstream::egress::PinnedAddr;
use crate::proxy::{Body, ForwardError};

/// The header of requests that their origin performs once, however often they are sent.
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// How much is shown of a content coding, in characters.
const LONGEST_CODING: usize = 40;

/// A request that may be paid.
pub(super) struct Exchange<S> {
    pub(super) shared: Arc<PayShared>,
    inner: S,
    pub(super) head: request::Parts,
    /// The client's body, until it is first sent.
    first: Option<Body>,
    kept: Kept,
    /// The request's name in the log.
    pub(super) request: RequestName,
    /// The method and URL without user info, under which prices are remembered.
    name: String,
    /// The key of the remembered price; `None` without a wallet.
    id: Option<RequestId>,
    /// What is being paid.
    attempt: Option<Attempt>,
    /// Whether the payment is an authorization that the seller had not asked for.
    sent_ahead: SentAhead,
    /// One that was sent ahead in vain: the seller can redeem it until it expires.
    outdated: Option<Box<Lease>>,
    /// The other offers of the 402, the preferred one first.
    others: Vec<Offer>,
    /// What it buys, if its payment expires: later requests can continue it.
    bought: Option<OrphanKey>,
    /// Why no offer is paid; known if a payment ahead was refused.
    unpayable: Option<Refusal>,
    pub(super) deadline: Instant,
    /// Whether the deadline is set, which happens once.
    is_timed: bool,
    /// Whether requests without a payment ask for data instead of a page.
    pub(super) asks_as_program: bool,
    /// Whether all requests ask for a response without a content coding: offers in another could not be read.
    pub(super) asks_for_identity: bool,
    /// The headers that prove to the seller who pays, for one request without a payment.
    pub(super) proof: Option<HeaderMap>,
    /// Whether that was tried.
    pub(super) has_signed_in: bool,
    /// What the rule permits.
    pub(super) limit: SpendLimit,
    /// What the operator has approved.
    pub(super) operator: OperatorState,
    /// Whether the payment may only be sent to this machine.
    pub(super) is_loopback_only: bool,
    /// The program that would spend.
    spender: Spender,
    /// The client, if it has a name, and the host pattern of the rule.
    pub(super) origin: (Option<Arc<ProxyClient>>, HostPattern),
    /// The connection that the request came on.
    pub(super) connection: Option<Arc<ClientConnection>>,
    /// Where the response is written, over HTTP/1.1.
    pub(super) writes_to: Option<ConnectionId>,
    /// The run whose program sent the request.
    run: Option<Arc<RunAccount>>,
    /// How many payments were presented.
    pub(super) attempts: u32,
    /// What the request has cost so far.
    pub(super) spent: Spent,
    /// True once the `exit` hook has run.
    pub(super) has_ended: bool,
}

/// What a payment is made for.
#[derive(Clone, Debug)]
enum Attempt {
    /// A price that is remembered from an earlier request: the payment goes with the first request.
    Ahead(Box<Quote>),
    /// An offer that the seller made in this exchange.
    After(Box<Offer>),
}

/// Whether an authorization was sent before the seller asked for one: it can be redeemed even if the seller then wants another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SentAhead {
    No,
    Yes,
    /// It was not accepted at once, and its price is forgotten.
    InVain,
}

impl Attempt {
    fn offer(&self) -> &Offer {
        match self {
            Self::Ahead(quote) => &quote.offer,
            Self::After(offer) => offer,
        }
    }

    /// True if the seller asked for the price in this exchange.
    fn was_asked(&self) -> bool {
        matches!(self, Self::After(_))
    }
}

/// The cost of a request.
#[derive(Clone, Debug)]
pub(super) enum Spent {
    Nothing,
    /// The seller was presented this much, and may have taken it.
    Unclear(Money),
    Paid(Money),
}

/// What a request gets once its offer was accepted.
pub(super) enum Leased {
    /// A signed payment.
    Payment(Box<Lease>),
    /// The response to an earlier request for the same purchase.
    Answer(Box<Response<Body>>),
}

impl<S> Exchange<S>
where
    S: RequestService<ForwardError> + Clone + Send + Sync + 'static,
    S::Future: Send,
{
    pub(super) fn new(
        shared: Arc<PayShared>,
        inner: S,
        request: RequestName,
        (head, first, kept): (request::Parts, Body, Kept),
        (limit, is_loopback_only, spender): (SpendLimit, bool, Spender),
        origin: (Option<Arc<ProxyClient>>, HostPattern),
    ) -> Self {
        let name = [head.method.as_str(), &without_user(&head.uri)].join(" ");
        let deadline = Instant::now() + shared.settings.pay_timeout();
        let first = Some(first);
        let id = shared.settings.payments.as_ref().map(|payments| payments.quotes().id(&name));
        let (attempt, unpayable, is_timed, attempts) = (None, None, false, 0);
        let (spent, has_ended) = (Spent::Nothing, false);
        Self {
            shared,
            inner,
            request,
            head,
            first,
            kept,
            name,
            id,
            attempt,
            sent_ahead: SentAhead::No,
            outdated: None,
            others: Vec::new(),
            bought: None,
            unpayable,
            deadline,
            is_timed,
            asks_as_program: false,
            asks_for_identity: false,
            proof: None,
            has_signed_in: false,
            limit,
            operator: OperatorState::default(),
            is_loopback_only,
            spender,
            origin,
            connection: None,
            writes_to: None,
            run: None,
            attempts,
            spent,
            has_ended,
        }
    }

    /// Ends the request with the final response to the client.
    pub(super) fn finish(&mut self, mut answer: Response<Body>) -> Response<Body> {
        self.tell_of_exit(Some((answer.status(), answer.headers())));
        let why = |answer: &mut Response<Body>| {
            answer.extensions_mut().remove::<Handling>().and_then(|handling| handling.explanation().cloned())
        };
        let handling = match &self.spent {
            Spent::Nothing => return answer,
            Spent::Unclear(price) => {
                Handling::InDoubt { price: price.clone(), explanation: why(&mut answer) }
            }
            Spent::Paid(price) => Handling::Paid { price: price.clone(), withheld: why(&mut answer) },
        };
        answer.extensions_mut().insert(handling);
        answer
    }

    /// Reads a 402, after the hook `http_response`, and buffers its body within the limits. `Err` is the response to
    /// pass on. Box the future: 402s are rare, and the exchange is moved often.
    pub(super) async fn read_402(
        &mut self,
        answer: Response<Body>,
        draft: Option<&Draft>,
        has_left: Option<&mut oneshot::Receiver<Infallible>>,
    ) -> Result<(HeldAnswer, Offer), Response<Body>> {
        let read = self.look_at_402(answer, draft, has_left).await;
        read.map_err(|unoffered| unoffered.told(&self.request))
    }

    /// The same, but without telling the client why there is no offer to pay.
    pub(super) async fn look_at_402(
        &mut self,
        answer: Response<Body>,
        draft: Option<&Draft>,
        has_left: Option<&mut oneshot::Receiver<Infallible>>,
    ) -> Result<(HeldAnswer, Offer), Unoffered> {
        self.start_clock();
        let (head, body) = answer.into_parts();
        let view = Answer { status: head.status, headers: &head.headers, body: None };
        let mut offers = schemes::read(&view);
        let (head, body) =
            if offers == Err(Refusal::UnknownScheme) && schemes::wants_body(head.status, &head.headers) {
                let HeldAnswer { head, body, trailers, .. } =
                    hold_answer(self.settings(), &self.request, head, body).await?;
                offers = read_offers(&head, &body).await;
                if offers == Err(Refusal::UnknownScheme)
                    && let Some(coding) = headers::content_coding(&head.headers)
                {
                    // A payment is presented again, so that what the seller says of it can be read.
                    self.asks_for_identity = true;
                    offers = Err(Refusal::Compressed { coding: safe_text(coding, LONGEST_CODING).into() });
                }
                (head, Body::with_trailers(body, trailers))
            } else {
                (head, body)
            };
        if let (Err(Refusal::UnsupportedOffers { offers }), Some(payments)) =
            (&offers, &self.settings().payments)
        {
            payments.count_unsupported(offers.clone());
        }
        let offer = offers.and_then(|offers| self.choose(offers, draft).ok_or(Refusal::UnknownScheme));
        if let Ok(offer) = &offer {
            self.attempt = Some(Attempt::After(Box::new(offer.clone())));
        }
        let seen = match has_left {
            None => self.may_read(&head, draft).await,
            Some(has_left) => tokio::select! {
                biased;
                seen = self.may_read(&head, draft) => seen,
                _ = has_left => Err(Refusal::ClientLeft),
            },
        };
        match seen.and(offer) {
            Ok(offer) => Ok((hold_answer(self.settings(), &self.request, head, body).await?, offer)),
            Err(refusal) => {
                Err(Unoffered { answer: Response::from_parts(head, body), refusal: Some(refusal) })
            }
        }
    }

    fn ask_for_identity(&self, headers: &mut HeaderMap) {
        if self.asks_for_identity {
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        }
    }

    /// Starts the deadline `limits.pay_timeout` of the client's request, which includes its upload and all payments.
    pub(super) fn start_clock(&mut self) {
        if !std::mem::replace(&mut self.is_timed, true) {
            self.deadline = Instant::now() + self.settings().pay_timeout();
        }
    }

    /// The offer to pay: after a payment, one of the same scheme.
    fn choose(&mut self, mut offers: Vec<Offer>, draft: Option<&Draft>) -> Option<Offer> {
        let Some(payments) = &self.settings().payments else { return offers.into_iter().next() };
        if let Some(draft) = draft {
            let presented = draft.terms();
            if self.sent_ahead != SentAhead::No && offers.iter().all(|offer| offer.terms() != presented) {
                // The seller asks for the first time.
                offers = payments.sort(offers, &self.limit);
            }
            offers.sort_by_key(|offer| {
                let terms = offer.terms();
                (terms.scheme != presented.scheme, terms != presented, !offer.is_paid_by(draft))
            });
            return offers.into_iter().next();
        }
        if let Some(index) = offers.iter().position(|offer| self.operator.has_approved(&offer.terms())) {
            return Some(offers.swap_remove(index));
        }
        let mut offers = payments.sort(offers, &self.limit).into_iter();
        let best = offers.next();
        self.others = offers.collect();
        best
    }

    /// The next offer of the same 402, if nothing was signed for the one that was refused and another may be paid instead.
    pub(super) fn next_offer(&mut self, refusal: &Refusal) -> Option<Offer> {
        if !refusal.leaves_other_offers() {
            return None;
        }
        let payments = self.settings().payments.as_ref()?;
        let place = self.others.iter().position(|offer| payments.check(offer, &self.limit).is_ok())?;
        let next = self.others.remove(place);
        tracing::debug!(request = %self.request, details = %refusal, "trying the seller's next offer");
        self.attempt = Some(Attempt::After(Box::new(next.clone())));
        Some(next)
    }

    /// Asks for a payment until the deadline. `held` is the head of the 402; absent if the price is remembered. `outdated` was
    /// sent before that.
    async fn lease(
        &self,
        offer: Offer,
        held: Option<&response::Parts>,
        outdated: Option<&Lease>,
    ) -> Result<Box<Lease>, Refusal> {
        let Some(payments) = &self.settings().payments else { return Err(Refusal::NoWallet) };
        let consultant = self.consultant(None, held);
        if let Some(dry_run) = &self.settings().dry_run {
            return Err(Box::pin(self.rehearse((payments, dry_run), &offer, &consultant)).await);
        }
        let named = (self.head.method.clone(), &self.head.uri);
        let request = PaidRequest::new(named, self.origin.clone(), Arc::clone(&self.limit.budgets));
        let request = request.of_run(self.run.clone()).with_key(self.bought.map(|key| key.bought.purchase));
        let request = match (outdated, held) {
            (Some(outdated), _) => outdated.outdates(request),
            (None, Some(_)) => request,
            (None, None) => request.ahead(),
        };
        payments.pay(request, offer, self.limit.clone(), self.deadline.into_std(), &consultant).await
    }

    pub(super) fn settings(&self) -> &PaySettings {
        &self.shared.settings
    }

    /// The remembered price of this request.
    pub(super) fn recall(&self) -> Option<Box<Quote>> {
        if self.shared.unreadable.contains(&self.name) {
            return None;
        }
        self.settings().payments.as_ref()?.quotes().recall(self.id.as_ref()?).map(Box::new)
    }

    /// Counts the request in the run that its program belongs to, if it belongs to one.
    ///
    /// # Errors
    /// That is not known.
    async fn join_run(&mut self) -> Result<(), Refusal> {
        let (None, Some(connection)) = (&self.run, &self.connection) else { return Ok(()) };
        let Some(payments) = &self.shared.settings.payments else { return Ok(()) };
        let found = connection.find_run(|| payments.open_runs()).await;
        if let Some(run) = found.map_err(|error| Refusal::UnknownRun(error.to_string().into()))? {
            self.limit.budgets = run.budgets(&self.limit.budgets);
            self.run = Some(run);
        }
        Ok(())
    }

    /// Checks that the seller's offer may be paid for this request, and that the request can be sent again.
    ///
    /// # Errors
    /// Why not.
    async fn may_pay(&mut self, offer: &Offer, held: &HeldAnswer) -> Result<(), Refusal> {
        // Before the client has to upload a body for nothing.
        self.check_offer(offer, held).await?;
        self.check_rise(offer).await?;
        if self.shared.unreadable.contains(&self.name) {
            return Err(Refusal::AnswerUnreadable);
        }
        if let Err(refusal) = self.whole().await {
            self.remember_for_next();
            return Err(refusal);
        }
        self.first = None;
        Ok(())
    }

    /// Asks for a payment of the seller's offer.
    pub(super) async fn afterwards(&mut self, offer: Offer, held: &HeldAnswer) -> Result<Leased, Refusal> {
        if let Some(refusal) = self.unpayable.take() {
            return Err(refusal);
        }
        self.may_pay(&offer, held).await?;
        let can_be_continued = offer.can_be_continued();
        if can_be_continued || self.may_be_bought() {
            let bought = self.orphan_key().await?;
            if let Some(answer) = self.paid_before(bought).await? {
                return Ok(Leased::Answer(answer));
            }
            match &self.settings().payments {
                Some(payments) if !can_be_continued => payments.check_purchase(bought.bought.purchase)?,
                _ => self.bought = Some(bought),
            }
        }
        self.lease(offer, Some(&held.head), None).await.map(Leased::Payment)
    }

    /// What an earlier request must have in common with this one.
    ///
    /// # Errors
    /// The body cannot be read.
    async fn orphan_key(&self) -> Result<OrphanKey, Refusal> {
        let purchase = self.purchase_key().await?;
        let headers = &self.head.headers;
        let bought = Bought { purchase, cookies: purchase_hash::of_cookies(headers) };
        Ok(OrphanKey { bought, headers: purchase_hash::of_headers(headers) })
    }

    /// The response to an earlier request whose client has left, if it was paid for.
    ///
    /// # Errors
    /// It was paid, but the headers of this request differ: the response may be for another client.
    async fn paid_before(&self, bought: OrphanKey) -> Result<Option<Box<Response<Body>>>, Refusal> {
        let Some(orphan) = ClaimedOrphan::of(&self.shared.orphans, bought) else { return Ok(None) };
        let Ok(found) = timeout_at(self.deadline, orphan.answer()).await else { return Ok(None) };
        let answer = found.map_err(|retry_after| Refusal::PaidNotDelivered { retry_after })?;
        if answer.is_some() {
            tracing::info!(request = %self.request, "returned the response that an earlier request paid for");
        }
        Ok(answer.map(Box::new))
    }

    /// Checks that this request may be paid on the terms of this offer, as far as that is known before.
    ///
    /// # Errors
    /// Why not.
    pub(super) async fn check_offer(&mut self, offer: &Offer, held: &HeldAnswer) -> Result<(), Refusal> {
        let peer = held.head.extensions.get().copied();
        self.check_parties(peer).await?;
        self.settings().payments.as_ref().ok_or(Refusal::NoWallet)?.check(offer, &self.limit)
    }

    /// Checks that this client may use the wallet, and that what is signed may go to `peer`, which has asked for it.
    ///
    /// # Errors
    /// Why not.
    pub(super) async fn check_parties(&mut self, peer: Option<PinnedAddr>) -> Result<(), Refusal> {
        self.join_run().await?;
        if let Some(run) = &self.run {
            run.check()?;
        }
        let Some(payments) = &self.settings().payments else { return Err(Refusal::NoWallet) };
        payments.check_allowed(&self.limit)?;
        self.spender.check().await?;
        if self.is_loopback_only {
            plain_http::check(&self.head.uri, peer.map(|peer| peer.0.ip()))?;
        }
        Ok(())
    }

    /// Whether an earlier request may have bought the same, in a scheme whose payments expire.
    fn may_be_bought(&self) -> bool {
        !self.shared.orphans.is_empty()
            || self.settings().payments.as_ref().is_some_and(Payments::has_purchases_in_doubt)
    }

    /// What makes a later request the same purchase: method, URL, client, `Authorization`, and the body or its
    /// `Idempotency-Key`.
    async fn purchase_key(&self) -> Result<PurchaseKey, Refusal> {
        let mut hash = PurchaseHash::new(&self.name, self.origin.0.as_deref(), &self.head.headers);
        if !hash.is_complete() {
            // A client that waits with its body for `100 Continue` is not asked for one that could not be sent after that.
            self.check_kept()?;
            let adding = async {
                let body = self.kept.replay().await.map_err(|error| error.to_string())?;
                hash.add_body(body).await
            };
            let added = timeout_at(self.deadline, adding).await.map_err(|_| body_too_late())?;
            added.map_err(Refusal::NotReplayable)?;
            // Keeping it may have failed although all of it was read.
            self.check_kept()?;
        }
        let Some(payments) = &self.settings().payments else { return Err(Refusal::NoWallet) };
        Ok(payments.purchase_key(&hash.finish()))
    }

    /// Checks that the body can still be sent again.
    ///
    /// # Errors
    /// Why not.
    fn check_kept(&self) -> Result<(), Refusal> {
        self.kept.check().map_err(|error| Refusal::NotReplayable(error.to_string()))
    }

    /// Whether the payment may be presented again without another request of the client. The seller may have performed the
    /// request that carried it: repeating that is up to the client, unless the request is idempotent or either side
    /// recognizes it.
    fn may_repeat(&self, draft: &Draft, was_asked: bool) -> bool {
        draft.valid_before().is_some()
            && (was_asked
                || self.head.method.is_idempotent()
                || draft.is_identified()
                || self.head.headers.contains_key(IDEMPOTENCY_KEY))
    }

    /// Sends the request without a payment, and once more if the origin states that it did not process it and only the
    /// body was too large to be retained lower down.
    pub(super) async fn unpaid(&mut self, extensions: Extensions) -> Result<Response<Body>, ForwardError> {
        // A proof goes to the same address only.
        let pinned = self.proof.is_some().then(|| extensions.clone());
        match self.send_unpaid(extensions).await {
            Err(ForwardError::NotProcessed { is_repeated: false, .. }) if self.kept.check().is_ok() => {
                self.send_unpaid(pinned.unwrap_or_else(|| self.head.extensions.clone())).await
            }
            answer => answer,
        }
    }

    async fn send_unpaid(&mut self, extensions: Extensions) -> Result<Response<Body>, ForwardError> {
        let is_first = self.first.is_some();
        let body = match self.first.take() {
            Some(body) => body,
            None => self.kept.replay().await.map_err(|error| ForwardError::RequestBody(error.to_string()))?,
        };
        self.inner.ready().await?;
        // Only now, so that the future does not hold the head.
        let mut head = self.head.clone();
        head.extensions = extensions;
        if !is_first && !self.is_body_deferred() {
            head.headers.remove(header::EXPECT);
        }
        if let Some(proof) = &self.proof {
            head.headers.extend(proof.clone());
        }
        if self.asks_as_program {
            head.headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        }
        self.ask_for_identity(&mut head.headers);
        self.inner.call(Request::from_parts(head, body)).await
    }

    /// Whether the client waits with its body for `100 Continue`: then nothing needs to be kept, and the seller
    /// requests the body once it is paid.
    pub(super) fn is_body_deferred(&self) -> bool {
        self.head.headers.contains_key(header::EXPECT) && self.kept.is_unread()
    }

    /// Reads the body to its end, since nothing is signed for a request that could not be sent again.
    pub(super) async fn whole(&self) -> Result<(), Refusal> {
        if self.is_body_deferred() {
            return Ok(());
        }
        match timeout_at(self.deadline, self.kept.whole()).await {
            Ok(whole) => whole.map_err(|error| Refusal::NotReplayable(error.to_string())),
            Err(_) => Err(body_too_late()),
        }
    }
}

impl<S> Exchange<S> {
    /// The offer that is being paid.
    pub(super) fn offer(&self) -> Option<&Offer> {
        self.attempt.as_ref().map(Attempt::offer)
    }
}

impl<S> Drop for Exchange<S> {
    fn drop(&mut self) {
        // If the client disconnected before the response.
        if Handle::try_current().is_ok() {
            self.tell_of_exit(None);
        }
    }
}

/// The refusal if the client takes too long to send its request.
fn body_too_late() -> Refusal {
    Refusal::NotReplayable("its body did not arrive within limits.pay_timeout".to_owned())
}
