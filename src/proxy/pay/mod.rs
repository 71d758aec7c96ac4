//! Pays for 402 responses: a tower layer around the service that sends requests to origins.
//!
//! It has the 402 parsed into offers, gets a signed payment from the payment service, and sends the request again. If
//! nothing is paid, the client gets the origin's own 402, with the reason in `Proxy-Status`.

mod browser;
pub(crate) mod budget_notices;
mod delivery;
pub mod dry_run;
mod embedded;
mod exchange;
mod held_answer;
mod hooks;
pub mod inspect;
mod operator;
mod operator_state;
mod orphans;
mod page;
mod plain_http;
mod purchase_hash;
pub mod refused;
mod rehearsal;
mod settings;
mod sign_in;
mod spender;
mod strip;
mod unreadable;
mod url;
pub mod webhook;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::{Extensions, HeaderMap, Method, Request, Response, StatusCode, header};
use tower::{Layer, Service};

use super::downstream::client_io::{ConnectionId, InterimSender};
use super::extensions::{Arrival, Confined, RemoteClient, RequestClient};
use super::handling::RequestName;
use super::message::{headers, target};
use super::replay;
use super::replay::keep;
use super::tunnel::upgrade;
use super::{Body, ForwardError, RequestService, error_response};
use crate::hosts::without_brackets;
use crate::protocol::Refusal;
use crate::protocol::engine::host_name;
use crate::protocol::policy::{Allow, HostPattern, ProxyClient, Rule, SpendLimit, SpendOrigin};
use crate::protocol::schemes;
pub use settings::PaySettings;

use exchange::{Exchange, Leased};
use held_answer::tell_why;
use orphans::Orphans;
use refused::REFUSED_REQUESTS;
use settings::PayShared;
use sign_in::SignedIn;
use spender::Spender;
use unreadable::Unreadable;
use webhook::Approvals;

/// Pays what the policy allows; wraps the service that forwards requests.
#[derive(Clone, Debug)]
pub struct PayLayer {
    shared: Arc<PayShared>,
}

/// The service that [`PayLayer`] makes.
#[derive(Clone, Debug)]
pub struct Pay<S> {
    inner: S,
    shared: Arc<PayShared>,
}

impl PayLayer {
    /// A layer with these settings.
    #[must_use]
    pub fn new(settings: PaySettings) -> Self {
        let approvals = Approvals::new(settings.approver.clone());
        let replay = replay::ReplayLimits::new(&settings.limits, settings.replay_directory.clone());
        Self {
            shared: Arc::new(PayShared {
                orphans: Arc::new(Orphans::new(settings.limits.kept_answers, settings.limits.retry_window)),
                settings,
                replay,
                approvals,
                unreadable: Unreadable::default(),
            }),
        }
    }
}

impl<S> Layer<S> for PayLayer {
    type Service = Pay<S>;

    fn layer(&self, inner: S) -> Pay<S> {
        Pay { inner, shared: Arc::clone(&self.shared) }
    }
}

impl<S> Service<Request<Body>> for Pay<S>
where
    S: RequestService<ForwardError> + Clone + Send + Sync + 'static,
    S::Future: Send + Unpin + 'static,
{
    type Response = Response<Body>;
    type Error = ForwardError;
    type Future = PayFuture<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), ForwardError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        match self.shared.judge(&request) {
            Judged::Pass => PayFuture::Pass { inner: self.inner.call(request), unpaid: None },
            Judged::Unpaid(unpaid) => {
                let unpaid = Some((RequestName::of(&request), unpaid));
                PayFuture::Pass { inner: self.inner.call(request), unpaid }
            }
            Judged::Pay(terms) => {
                let inner = self.inner.clone();
                PayFuture::Buy(Box::pin(begin(Arc::clone(&self.shared), inner, request, terms)))
            }
        }
    }
}

/// How to handle a request, according to the rules.
enum Judged {
    /// A request that cannot be paid: a tunnel, or one without an origin.
    Pass,
    /// If the response is a 402, it is not paid.
    Unpaid(Unpaid),
    /// If the response is a 402, it is paid on these terms.
    Pay(RequestTerms),
}

/// The terms on which a request may be paid.
struct RequestTerms {
    limit: SpendLimit,
    /// Whether a remembered price is paid with the first request.
    send_ahead: bool,
    /// Whether the payment may only be sent to this machine.
    is_loopback_only: bool,
    /// The program that would spend.
    spender: Spender,
    /// The host pattern of the rule.
    rule: HostPattern,
}

/// Why a request will not be paid, without formatting the reason.
#[derive(Clone, Debug)]
pub enum Unpaid {
    /// No rule matches the host.
    NoRule,
    /// The client has rules of its own, and none matches the host.
    NoClientRule(Arc<ProxyClient>),
    /// The client was removed since the request, or its tunnel, began.
    ClientRemoved(Arc<ProxyClient>),
    /// A rule denies the host.
    Denied,
    /// A browser sent it, and neither its user nor the rule wants it paid.
    Unasked(browser::Unasked),
    /// It requests a protocol other than HTTP.
    OtherProtocol,
    /// It authenticates its connection, but a payment would use another one.
    BoundConnection,
}

impl Unpaid {
    fn refusal(self, request: &RequestName) -> Refusal {
        match self {
            Self::NoRule => Refusal::NoRule { host: request.host() },
            Self::NoClientRule(client) => {
                Refusal::NoClientRule { client: client.name.clone(), host: request.host() }
            }
            Self::ClientRemoved(client) => Refusal::ClientRemoved { client: client.name.clone() },
            Self::Denied => Refusal::Denied { host: request.host() },
            Self::Unasked(unasked) => unasked.into(),
            Self::BoundConnection => Refusal::BoundConnection,
            Self::OtherProtocol => Refusal::OtherProtocol,
        }
    }
}

impl PayShared {
    fn judge(&self, request: &Request<Body>) -> Judged {
        if request.uri().authority().is_none() || request.method() == Method::CONNECT {
            return Judged::Pass;
        }
        let (host, port) = target::host_and_port(request.uri());
        let host = without_brackets(host);
        let rules = self.settings.rules.get();
        let policy = &rules.policy;
        let shown = request.extensions().get::<RequestClient>();
        let client = match shown.map(|shown| shown.by_now(policy).ok_or(shown)) {
            None => None,
            Some(Ok(client)) => Some(client),
            Some(Err(gone)) => return Judged::Unpaid(Unpaid::ClientRemoved(Arc::clone(&gone.proven.client))),
        };
        let distinguished = client.filter(|_| policy.distinguishes_clients);
        let own = distinguished.and_then(|client| Some((client, client.rules.as_deref()?)));
        let rule = match own {
            Some((_, rules)) => Rule::first(rules, host, port),
            None => policy.rule(host, port),
        };
        match rule.map(|rule| (&rule.allow, &rule.host)) {
            None => Judged::Unpaid(match own {
                Some((client, _)) => Unpaid::NoClientRule(Arc::clone(client)),
                None => Unpaid::NoRule,
            }),
            Some((Allow::Deny, _)) => Judged::Unpaid(Unpaid::Denied),
            Some((Allow::Pay { .. }, _))
                if upgrade::is_requested(request) && !upgrade::is_h2c(request.headers()) =>
            {
                Judged::Unpaid(Unpaid::OtherProtocol)
            }
            Some((
                Allow::Pay {
                    max_price,
                    receivers,
                    preference,
                    send_ahead,
                    allow_plain_http,
                    browsers,
                    hooks,
                    budgets,
                },
                pattern,
            )) => {
                if let Err(unasked) = browser::judge(request, *browsers)
                    && !browser::is_program(shown, client)
                {
                    return Judged::Unpaid(Unpaid::Unasked(unasked));
                }
                if headers::binds_connection(request.headers()) {
                    return Judged::Unpaid(Unpaid::BoundConnection);
                }
                let limit = SpendLimit {
                    host: host_name(host),
                    max_price: max_price.clone(),
                    receivers: receivers.clone(),
                    preference: Arc::clone(preference),
                    hooks: Arc::clone(hooks),
                    budgets: policy.budgets(
                        host,
                        budgets,
                        distinguished.map_or(&[], |client| &client.budgets),
                    ),
                    origin: SpendOrigin {
                        version: policy.version,
                        client: shown.map(|shown| shown.proven.clone()),
                        port,
                    },
                };
                let is_loopback_only = plain_http::is_limited(request.uri(), *allow_plain_http);
                let spender = Spender::of(request.extensions(), rules.local);
                let (send_ahead, rule) = (*send_ahead, pattern.clone());
                Judged::Pay(RequestTerms { limit, send_ahead, is_loopback_only, spender, rule })
            }
        }
    }
}

/// The future of [`Pay`]; requests that no rule pays are not boxed.
#[must_use = "futures do nothing unless polled"]
pub enum PayFuture<F> {
    /// Passes through; a 402 gets the reason why it is not paid.
    Pass {
        /// The forwarded request.
        inner: F,
        /// The request's name, and why a 402 would not be paid.
        unpaid: Option<(RequestName, Unpaid)>,
    },
    /// The body is kept, and a 402 is paid.
    Buy(Pin<Box<dyn Future<Output = Result<Response<Body>, ForwardError>> + Send>>),
}

impl<F> Future for PayFuture<F>
where
    F: Future<Output = Result<Response<Body>, ForwardError>> + Unpin,
{
    type Output = Result<Response<Body>, ForwardError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            Self::Buy(buying) => buying.as_mut().poll(context),
            Self::Pass { inner, unpaid } => {
                let mut answer = ready!(Pin::new(inner).poll(context));
                if let (Ok(answer), Some((request, unpaid))) = (&mut answer, unpaid.take())
                    && answer.status() == StatusCode::PAYMENT_REQUIRED
                {
                    tell_why(answer, &request, &unpaid.refusal(&request));
                }
                Poll::Ready(answer)
            }
        }
    }
}

/// Prepares a request that may be paid. Not part of [`buy`], whose future would hold the request twice.
fn begin<S>(
    shared: Arc<PayShared>,
    inner: S,
    mut request: Request<Body>,
    RequestTerms { limit, send_ahead, is_loopback_only, spender, rule }: RequestTerms,
) -> impl Future<Output = Result<Response<Body>, ForwardError>> + Send
where
    S: RequestService<ForwardError> + Clone + Send + Sync + 'static,
    S::Future: Send,
{
    strip::request(request.headers_mut());
    // A request for HTTP/2 is not forwarded, since the result could be neither read nor paid here.
    request.headers_mut().remove(header::UPGRADE);
    let name = RequestName::of(&request);
    let (mut head, body) = request.into_parts();
    // Extensions belong to the client's connection; resent requests have none, except for their reach.
    let mut extensions = std::mem::take(&mut head.extensions);
    if let Some(interim) = extensions.get_mut::<InterimSender>() {
        interim.set_filter(strip::interim);
    }
    if extensions.get::<RemoteClient>().is_some() {
        head.extensions.insert(RemoteClient);
    }
    if extensions.get::<Confined>().is_some() {
        head.extensions.insert(Confined);
    }
    let (first, kept) = keep(body, &shared.replay);
    let name_for_operator =
        if limit.hooks.may_ask_price() { operator_state::client_name(&extensions) } else { None };
    let client = extensions.get::<RequestClient>().map(|client| Arc::clone(&client.proven.client));
    let connection = extensions.get::<Arrival>().map(|arrival| Arc::clone(&arrival.connection));
    let (parts, limits) = ((head, first, kept), (limit, is_loopback_only, spender));
    let mut exchange = Box::new(Exchange::new(shared, inner, name, parts, limits, (client, rule)));
    exchange.operator.client = name_for_operator;
    exchange.connection = connection;
    exchange.writes_to = ConnectionId::among(&extensions);
    buy(exchange, extensions, send_ahead)
}

/// Sends a request, and pays if the response is a 402, or at once if the price is known. Boxes what the steady state
/// without payments does not need, so that each request allocates little.
async fn buy<S>(
    mut exchange: Box<Exchange<S>>,
    extensions: Extensions,
    send_ahead: bool,
) -> Result<Response<Body>, ForwardError>
where
    S: RequestService<ForwardError> + Clone + Send + Sync + 'static,
    S::Future: Send,
{
    if let Err(refusal) = exchange.may_begin().await {
        let (request, reason) = (&exchange.request, refusal.reason().as_str());
        tracing::info!(%request, reason, details = %refusal, "request stopped by policy");
        REFUSED_REQUESTS.add(request, &refusal);
        let kind = Some("http_request_denied");
        return Ok(exchange.finish(error_response::refusal(StatusCode::FORBIDDEN, kind, &refusal)));
    }
    // A dry run reads the seller's current offer.
    let is_dry_run = exchange.settings().dry_run.is_some();
    let quote = if send_ahead && !is_dry_run { exchange.recall() } else { None };
    if let Some(quote) = quote
        && let Some(leased) = Box::pin(exchange.ahead(quote)).await
    {
        return Ok(match leased {
            Leased::Payment(lease) => exchange.start(lease, None).await,
            Leased::Answer(answer) => exchange.finish(*answer),
        });
    }
    let mut answer = match exchange.unpaid(extensions).await {
        Ok(answer) => answer,
        Err(error) => {
            exchange.tell_of_exit(Some((error_response::status(&error), &HeaderMap::new())));
            return Err(error);
        }
    };
    strip::answer_cookies(answer.headers_mut());
    let mut page = None;
    if schemes::may_ask(answer.status(), answer.headers()) {
        (answer, page) = Box::pin(exchange.ask_for_offers(answer)).await;
    }
    if !schemes::may_ask(answer.status(), answer.headers()) {
        let answer = embedded::watch(&exchange.request, &exchange.head, answer);
        let answer = exchange.let_through(answer, None).await;
        return Ok(exchange.finish(strip::answer(answer)));
    }
    let answer = Box::pin(buy_offer(exchange, answer)).await?;
    Ok(match page {
        Some(page) => page::in_place_of(answer, page),
        None => answer,
    })
}

/// Pays the offer of a 402, after the operator's approval if that is required.
async fn buy_offer<S>(
    mut exchange: Box<Exchange<S>>,
    answer: Response<Body>,
) -> Result<Response<Body>, ForwardError>
where
    S: RequestService<ForwardError> + Clone + Send + Sync + 'static,
    S::Future: Send,
{
    let (mut held, mut offer) = match exchange.look_at_402(answer, None, None).await {
        Ok(read) => read,
        // Boxed: rare.
        Err(unoffered) => match Box::pin(exchange.sign_in_alone(&unoffered)).await {
            Ok(SignedIn::Not) => {
                let answer = unoffered.told(&exchange.request);
                return Ok(exchange.finish(answer));
            }
            Ok(SignedIn::Offered(read)) => *read,
            Ok(SignedIn::Answered(answer)) => return Ok(exchange.finish(answer)),
            Err(error) => {
                exchange.tell_of_exit(Some((error_response::status(&error), &HeaderMap::new())));
                return Err(error);
            }
        },
    };
    loop {
        // Boxed: rare.
        match Box::pin(exchange.sign_in(&offer, &held)).await {
            Ok(SignedIn::Not) => {}
            Ok(SignedIn::Offered(read)) => (held, offer) = *read,
            Ok(SignedIn::Answered(answer)) => return Ok(exchange.finish(answer)),
            Err(error) => {
                exchange.tell_of_exit(Some((error_response::status(&error), &HeaderMap::new())));
                return Err(error);
            }
        }
        let refusal = match exchange.afterwards(offer, &held).await {
            Ok(Leased::Payment(lease)) => return Ok(exchange.start(lease, Some(held)).await),
            Ok(Leased::Answer(answer)) => return Ok(exchange.finish(*answer)),
            Err(refusal) => refusal,
        };
        if let Some(next) = exchange.next_offer(&refusal) {
            offer = next;
            continue;
        }
        // Boxed: rare.
        (held, offer) = match Box::pin(exchange.approved_offer(refusal, held)).await {
            Ok(Ok(read)) => read,
            Ok(Err(unpaid)) => return Ok(exchange.finish(unpaid)),
            Err(error) => {
                exchange.tell_of_exit(Some((error_response::status(&error), &HeaderMap::new())));
                return Err(error);
            }
        };
    }
}
