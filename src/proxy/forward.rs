//! Passing a request on to its origin and the answer back. It never answers for an origin: what goes wrong is a typed
//! error. It sends again only what the origin says it has not processed, and, on a stale connection, what the method
//! says does no harm.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use tower::Service;
use tracing::warn;

use super::descriptors::Resting;
use super::downstream::client_io::{Before, Client};
use super::message::expect;
use super::message::expect::{Gate, Instead};
use super::message::headers;
use super::message::{max_forwards, target};
use super::tunnel::upgrade;
use super::upstream::dial::{DialError, Dialer, hint};
use super::upstream::egress::{Peer, Reach};
use super::upstream::parked::Lobby;
use super::upstream::pool;
use super::upstream::pool::{Answering, Asked, Failed, Fault, Pool, Ticket};
use super::upstream::stream::History;
use super::upstream::tls::{Offer, Secure};
use super::{Body, Paying, Settings, tunnel};

/// Why a request got no answer from its origin.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    /// The request's target cannot be used.
    #[error("the request target is not usable: {0}")]
    BadTarget(&'static str),
    /// The request's head can be understood in more than one way.
    #[error("the request is malformed: {0}")]
    Malformed(&'static str),
    /// The client expects something that is not known.
    #[error("the expectation is not known; 100-continue is the only one")]
    Expectation,
    /// The target's scheme is neither `http` nor `https`.
    #[error("a target with the scheme {0} is not forwarded; only http and https are")]
    UnsupportedScheme(String),
    /// The request body has a transfer coding besides `chunked`.
    #[error("a request body with a transfer coding other than chunked is not forwarded")]
    UnsupportedCoding,
    /// The request has passed through this proxy before.
    #[error("the request has come back to this proxy; is the proxy's own address the target?")]
    Loop,
    /// The origin was not reached.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The outbound proxy wants to know who we are.
    #[error("the outbound proxy {proxy} answered {status}{}", hint(*status))]
    Denied {
        /// The proxy.
        proxy: String,
        /// Its answer.
        status: StatusCode,
    },
    /// The connection was lost before a byte of the request was written.
    #[error("the connection to the origin was lost before the request was sent: {0}")]
    Unwritten(String),
    /// The connection was lost after writing had begun and before an answer: whether the origin acted is unknown.
    #[error("the origin closed the connection without an answer: {0}")]
    Lost(String),
    /// The origin says that it did nothing about the request: it ended the connection first, or had too much to do.
    #[error("the origin did not process the request{}: {why}", if *.is_repeated { ", and not the second time either" } else { "" })]
    NotProcessed {
        /// What it said.
        why: String,
        /// Whether it was asked twice.
        is_repeated: bool,
    },
    /// The client's request body broke off while it was sent.
    #[error("the request body could not be read to its end: {0}")]
    RequestBody(String),
    /// The answer's head is larger than the limits allow.
    #[error("the head of the origin's answer is too large; see limits.head_bytes and limits.head_fields")]
    HeadTooLarge,
    /// The answer is not HTTP as it should be.
    #[error("the origin's answer is malformed: {0}")]
    BadAnswer(String),
}

impl ForwardError {
    /// Whether the same request will fail in the same way: its answer cannot be read.
    #[must_use]
    pub fn will_repeat(&self) -> bool {
        matches!(self, Self::HeadTooLarge | Self::BadAnswer(_))
    }

    /// Whether it is proven that not a byte of the request reached an origin.
    ///
    /// `false` means that it may have, not that it did.
    #[must_use]
    pub fn is_unsent(&self) -> bool {
        match self {
            Self::BadTarget(_)
            | Self::Malformed(_)
            | Self::Expectation
            | Self::UnsupportedScheme(_)
            | Self::UnsupportedCoding
            | Self::Loop
            | Self::Dial(_)
            | Self::Unwritten(_) => true,
            // That it was not passed on is the proxy's word alone.
            Self::Denied { .. }
            | Self::Lost(_)
            | Self::NotProcessed { .. }
            | Self::RequestBody(_)
            | Self::HeadTooLarge
            | Self::BadAnswer(_) => false,
        }
    }
}

/// The tower service that forwards requests and opens tunnels.
#[derive(Clone, Debug)]
pub struct Forward {
    shared: Arc<Shared>,
}

#[derive(Debug)]
pub(super) struct Shared {
    /// May take up a request again that it has provably not written.
    plain: Pool,
    /// Sends nothing twice but what the origin says it has not processed. A pool of its own, since this is a property
    /// of the pool.
    paying: Pool,
    /// For what cannot be asked over HTTP/2.
    upgrading: Pool,
    pub(super) reach: Reach,
    secure: Secure,
    pub(super) lobby: Lobby,
    pub(super) settings: Settings,
}

impl Forward {
    /// A forwarder with pools of its own.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        let (secure, lobby) = (Secure::new(settings.ca_file.clone(), settings.tls.clone()), Lobby::default());
        let reach = Reach::new(settings);
        let pool = |pays, offer| {
            let (reach, secure, lobby) = (reach.clone(), secure.clone(), lobby.clone());
            let within = settings.limits.connect_timeout;
            let dialer = Dialer { reach, within, acknowledges_at_once: pays, secure, lobby };
            Pool::new(settings, dialer, offer, pays)
        };
        Self {
            shared: Arc::new(Shared {
                plain: pool(false, Offer::Either),
                paying: pool(true, Offer::Either),
                upgrading: pool(false, Offer::Http1),
                reach: reach.clone(),
                secure: secure.clone(),
                lobby: lobby.clone(),
                settings: settings.clone(),
            }),
        }
    }
}

impl Forward {
    /// Reads the roots by which origins over TLS are verified, which the first of them would wait for.
    pub async fn prepare(&self) {
        // The first origin over TLS meets the same fault, and its client is told.
        if let Err(error) = self.shared.secure.prepare().await {
            warn!(%error, "origins over https cannot be verified, and will not be reached");
        }
    }

    /// Its connections, which make room where there is none.
    #[must_use]
    pub fn resting(&self) -> Resting {
        self.shared.reach.resting().clone()
    }

    /// What tunnels need of it.
    pub(super) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }
}

impl Service<Request<Body>> for Forward {
    type Response = Response<Body>;
    type Error = ForwardError;
    type Future = Forwarding;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ForwardError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Forwarding {
        if headers::has_passed(request.headers(), request.uri()) {
            return Forwarding::failed(ForwardError::Loop);
        }
        match max_forwards::spend(&mut request) {
            Ok(None) => {}
            Ok(Some(answer)) => return Forwarding(State::Done(Some(Ok(answer)))),
            Err(error) => return Forwarding::failed(error),
        }
        if request.method() == Method::CONNECT {
            return Forwarding::other(tunnel::open(request, Arc::clone(&self.shared)));
        }
        if upgrade::is_asked(&request) {
            return Forwarding::other(upgrade::pass(request, Arc::clone(&self.shared)));
        }
        match self.shared.send(request, None) {
            Ok(asking) => Forwarding(State::Asking(asking)),
            Err(error) => Forwarding::failed(error),
        }
    }
}

impl Shared {
    /// Sends a request on its way; `upgrade` is the protocol to ask for, where one is.
    pub(super) fn send(
        self: &Arc<Self>,
        mut request: Request<Body>,
        upgrade: Option<HeaderValue>,
    ) -> Result<Asking, ForwardError> {
        let is_held = upgrade.is_none() && expect::is_asked(&request);
        self.prepare(&mut request, upgrade, is_held)?;
        let peer = request.extensions().get::<Peer>().copied();
        if let Some(target) = peer.and_then(|peer| self.reach.pin(request.uri(), peer)) {
            *request.uri_mut() = target;
        }
        let client = Client::of(&request);
        let pays = request.extensions().get::<Paying>().is_some();
        if is_held {
            let lane = if pays { Lane::Paying } else { Lane::Plain };
            return Ok(self.send_held(Asked { request, client, is_fresh: false }, lane));
        }
        self.listen(&mut request, None);
        let is_upgrade = request.headers().contains_key(header::UPGRADE);
        let again = (!pays && headers::is_idempotent(request.method()) && request.body().is_end_stream())
            .then(|| Box::new(copy(&request)));
        let lane = match (pays, is_upgrade) {
            (true, _) => Lane::Paying,
            (false, true) => Lane::Upgrading,
            (false, false) => Lane::Plain,
        };
        Ok(self.ask(Asked { request, client, is_fresh: false }, lane, again, None))
    }

    fn ask(
        self: &Arc<Self>,
        asked: Asked,
        lane: Lane,
        again: Option<Box<Request<Body>>>,
        gate: Option<Gate>,
    ) -> Asking {
        let client = asked.client.clone();
        let answering = self.pool(lane).request(asked);
        Asking { answering, lane, client, again, gate, ticket: None, shared: Arc::clone(self) }
    }

    fn pool(&self, lane: Lane) -> &Pool {
        match lane {
            Lane::Plain => &self.plain,
            Lane::Paying => &self.paying,
            Lane::Upgrading => &self.upgrading,
        }
    }

    /// Sends a head whose body waits until the origin asks for it.
    fn send_held(self: &Arc<Self>, asked: Asked, lane: Lane) -> Asking {
        let Asked { request, client, is_fresh } = asked;
        // Of the body not a byte is sent before the origin says something: nothing was done for this request by who
        // closes a connection without a word, whatever the method.
        let again = (lane != Lane::Paying).then(|| Box::new(copy(&request)));
        let (head, body) = request.into_parts();
        let (gate, gated) = Gate::new(body, self.settings.limits.expect_continue_timeout);
        let mut request = Request::from_parts(head, Body::Gated(Box::new(gated)));
        self.listen(&mut request, Some(gate.clone()));
        self.ask(Asked { request, client, is_fresh }, lane, again, Some(gate))
    }

    /// Has interim answers opened the gate, if they ask for the body, or handed on to the client.
    fn listen(self: &Arc<Self>, request: &mut Request<Body>, gate: Option<Gate>) {
        let before = request.extensions_mut().remove::<Before>();
        if gate.is_none() && before.is_none() {
            return;
        }
        let shared = Arc::clone(self);
        hyper::ext::on_informational(request, move |interim| match (interim.status(), &gate, &before) {
            (StatusCode::CONTINUE, Some(gate), _) => gate.open(),
            // Nobody asked for this one, and the server's side says it by itself.
            (StatusCode::CONTINUE, None, _) | (_, _, None) => {}
            (status, _, Some(before)) => {
                let bytes = shared.interim(status, interim.version(), interim.headers().clone());
                before.tell(&bytes, shared.settings.limits.head_bytes);
            }
        });
    }

    /// An interim answer as it goes on to the client.
    fn interim(&self, status: StatusCode, version: Version, mut fields: HeaderMap) -> Vec<u8> {
        headers::strip(&mut fields);
        fields.remove(header::CONTENT_LENGTH);
        headers::add_via(&mut fields, version);
        let reason = status.canonical_reason().unwrap_or_default();
        let mut bytes = format!("HTTP/1.1 {} {reason}\r\n", status.as_u16()).into_bytes();
        for (name, value) in &fields {
            for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
                bytes.extend_from_slice(part);
            }
        }
        bytes.extend_from_slice(b"\r\n");
        bytes
    }

    /// Turns a received request into the one to send, but for what depends on the version that its connection speaks.
    /// RFC 9112 section 3.2, RFC 9110 section 7.6.
    pub(super) fn prepare(
        &self,
        request: &mut Request<Body>,
        upgrade: Option<HeaderValue>,
        is_held: bool,
    ) -> Result<(), ForwardError> {
        target::check(request)?;
        if !headers::is_plainly_framed(request.headers()) {
            return Err(ForwardError::UnsupportedCoding);
        }
        let received = std::mem::replace(request.version_mut(), Version::HTTP_11);
        let takes_trailers = headers::takes_trailers(request.headers());

        target::set_host(request);
        let fields = request.headers_mut();
        headers::tidy_framing(fields);
        headers::strip(fields);
        if received == Version::HTTP_2 {
            headers::join_cookies(fields);
        }
        if !is_held {
            fields.remove(header::EXPECT);
        }
        if takes_trailers {
            fields.insert(header::TE, HeaderValue::from_static("trailers"));
        }
        if let Some(protocol) = upgrade {
            fields.insert(header::UPGRADE, protocol);
        }
        let entry = headers::via(request.uri(), received);
        request.headers_mut().append(header::VIA, entry);
        if let Some(proxy) = self.reach.proxy_of(request.uri())
            && let Some(authorization) = proxy.authorization.clone()
        {
            request.headers_mut().insert(header::PROXY_AUTHORIZATION, authorization);
        }
        Ok(())
    }

    /// An answer, unless it is the outbound proxy's about itself.
    fn told_by_origin(&self, response: Response<Incoming>) -> Result<Response<Incoming>, ForwardError> {
        let status = response.status();
        let is_proxied = response.extensions().get::<History>().is_some_and(History::is_proxied);
        if status != StatusCode::PROXY_AUTHENTICATION_REQUIRED || !is_proxied {
            return Ok(response);
        }
        Err(ForwardError::Denied { proxy: self.reach.proxy_name(), status })
    }

    /// Turns a received answer into the one to hand back.
    pub(super) fn answer(&self, mut response: Response<Body>) -> Response<Body> {
        let received = std::mem::replace(response.version_mut(), Version::HTTP_11);
        // What the pool left about its connection is of no use to the client's side, but who asks for money is.
        let past = std::mem::take(response.extensions_mut());
        if response.status() == StatusCode::PAYMENT_REQUIRED {
            past.get::<History>().and_then(History::peer).map(|peer| response.extensions_mut().insert(peer));
        }
        let is_bound = headers::is_bound_by(&response);
        let fields = response.headers_mut();
        headers::tidy_framing(fields);
        headers::strip(fields);
        headers::add_via(fields, received);
        if is_bound {
            fields.insert(headers::PROXY_SUPPORT, headers::SESSION_BASED);
        }
        response
    }
}

/// A copy of a request that has no body.
fn copy(request: &Request<Body>) -> Request<Body> {
    let mut copy = Request::new(Body::Empty);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    copy
}

/// Which pool a request goes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lane {
    Plain,
    Paying,
    Upgrading,
}

/// A request that waits for the head of its answer.
pub(super) struct Asking {
    answering: Answering,
    lane: Lane,
    client: Option<Client>,
    /// What to send once more if the connection had gone stale.
    again: Option<Box<Request<Body>>>,
    /// Holds the request's body back.
    gate: Option<Gate>,
    /// The place of the answer on a connection that others use, too.
    ticket: Option<Ticket>,
    shared: Arc<Shared>,
}

impl Asking {
    /// The answer as it was received.
    pub(super) fn poll_received(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Response<Incoming>, ForwardError>> {
        loop {
            let Failed { error, fault } = match ready!(self.answering.as_mut().poll(cx)) {
                Ok(answered) if headers::is_plainly_framed(answered.response.headers()) => {
                    self.ticket = answered.ticket;
                    return Poll::Ready(self.shared.told_by_origin(answered.response));
                }
                // No other coding was asked for.
                Ok(_) => {
                    let error = ForwardError::BadAnswer("its transfer coding is not chunked".to_owned());
                    return Poll::Ready(Err(error));
                }
                Err(failed) => failed,
            };
            let again = self.again.take().filter(|request| match fault {
                Fault::Stale => true,
                Fault::Crowded => headers::is_idempotent(request.method()),
                Fault::Own => false,
            });
            if !again.is_some_and(|request| self.send_again(*request)) {
                return Poll::Ready(Err(error));
            }
        }
    }

    /// On a connection of its own: where one went stale the others in the pool may have, too, or be as crowded.
    fn send_again(&mut self, mut request: Request<Body>) -> bool {
        let client = self.client.take();
        let Some(gate) = self.gate.take() else {
            let asked = Asked { request, client, is_fresh: true };
            self.answering = self.shared.pool(self.lane).request(asked);
            return true;
        };
        let Some(body) = gate.take_back() else { return false };
        *request.body_mut() = body;
        let mut next = self.shared.send_held(Asked { request, client, is_fresh: true }, self.lane);
        next.again = None;
        *self = next;
        true
    }

    /// Turns the answer into the one to hand back.
    pub(super) fn answer(&mut self, received: Response<Incoming>) -> Response<Body> {
        let received = match self.ticket.take() {
            Some(ticket) => {
                received.map(|incoming| Body::Shared(Box::new(pool::Shared::new(incoming, ticket))))
            }
            None => received.map(Body::from),
        };
        let answer = self.shared.answer(received);
        match self.gate.take().and_then(|gate| gate.answer()) {
            Some(closing) => answer.map(|body| Body::Instead(Box::new(Instead::new(body, closing)))),
            None => answer,
        }
    }
}

/// The future of [`Forward`]: the usual case is not boxed.
#[must_use = "futures do nothing unless polled"]
pub struct Forwarding(State);

enum State {
    Asking(Asking),
    Other(Pin<Box<dyn Future<Output = Result<Response<Body>, ForwardError>> + Send>>),
    Done(Option<Result<Response<Body>, ForwardError>>),
}

impl Forwarding {
    fn failed(error: ForwardError) -> Self {
        Self(State::Done(Some(Err(error))))
    }

    fn other(future: impl Future<Output = Result<Response<Body>, ForwardError>> + Send + 'static) -> Self {
        Self(State::Other(Box::pin(future)))
    }
}

impl Future for Forwarding {
    type Output = Result<Response<Body>, ForwardError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            State::Asking(asking) => {
                let received = ready!(asking.poll_received(cx));
                Poll::Ready(received.and_then(|response| {
                    // Nobody asked for another protocol here.
                    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                        return Err(ForwardError::BadAnswer(
                            "101 without a request to switch protocols".to_owned(),
                        ));
                    }
                    Ok(asking.answer(response))
                }))
            }
            State::Other(future) => future.as_mut().poll(cx),
            State::Done(result) => match result.take() {
                Some(result) => Poll::Ready(result),
                None => Poll::Pending,
            },
        }
    }
}
