//! The HTTP client towards origins. It retries only requests that the origin reports as not processed and, on a stale
//! connection, idempotent ones.

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::header::{self, HeaderMap, HeaderValue};
use http::{Request, Response, StatusCode, Version};
use http_body::Body as _;
use tracing::warn;

use super::connector::Connector;
use super::egress::{Egress, PinnedAddr, Reach};
use super::kept_head::KeptHead;
use super::parked::ParkedConnections;
use super::pool::{FailureCause, Pool, PoolError, PoolRequest, ResponseFuture};
use super::stream::Reuse;
use super::tls::{AlpnOffer, UpstreamTls};
use crate::proxy::downstream::client_io::{ConnectionId, InterimSender};
use crate::proxy::error::ForwardError;
use crate::proxy::extensions::CarriesPayment;
use crate::proxy::message::body::Body;
use crate::proxy::message::expect::{ContinueGate, EarlyResponse};
use crate::proxy::message::headers::Present;
use crate::proxy::message::{expect, headers, proxy_status, target, via};
use crate::proxy::settings::ProxySettings;

/// The HTTP client towards origins: prepares requests, chooses a pool, and turns responses into those for the client.
#[derive(Debug)]
pub(crate) struct UpstreamClient {
    /// May retry a request that it has provably not written.
    plain: Pool,
    /// Retries only what the origin states that it did not process.
    paying: Pool,
    /// For requests that HTTP/2 cannot express.
    upgrading: Pool,
    pub(crate) egress: Egress,
    tls: UpstreamTls,
    pub(crate) parked: ParkedConnections,
    pub(crate) settings: ProxySettings,
}

impl UpstreamClient {
    /// A client with pools of its own.
    pub(crate) fn new(settings: &ProxySettings) -> Self {
        let tls = UpstreamTls::new(settings.ca_file.clone(), settings.tls.clone());
        let (egress, parked) = (Egress::new(settings), ParkedConnections::default());
        let pool = |pays, offer| {
            let (egress, tls, parked) = (egress.clone(), tls.clone(), parked.clone());
            let timeout = settings.limits.connect_timeout;
            let connector = Connector { egress, timeout, acknowledges_at_once: pays, tls, parked };
            Pool::new(&settings.limits, connector, offer, pays)
        };
        Self {
            plain: pool(false, AlpnOffer::Either),
            paying: pool(true, AlpnOffer::Either),
            upgrading: pool(false, AlpnOffer::Http1),
            egress: egress.clone(),
            tls: tls.clone(),
            parked: parked.clone(),
            settings: settings.clone(),
        }
    }

    /// The client of one of `count` workers, with pools of its own. Together, those of all workers keep as many idle
    /// connections as one client does.
    pub(crate) fn for_worker(&self, index: usize, count: usize) -> Self {
        let idle = share(self.settings.limits.pool_idle_per_host, index, count);
        let parked = self.parked.for_worker();
        Self {
            plain: self.plain.for_worker(idle, &parked),
            paying: self.paying.for_worker(idle, &parked),
            upgrading: self.upgrading.for_worker(idle, &parked),
            egress: self.egress.clone(),
            tls: self.tls.clone(),
            parked,
            settings: self.settings.clone(),
        }
    }

    /// Loads the roots that verify origins, so that the first request over TLS need not wait for them.
    pub(crate) async fn prepare_tls(&self) {
        // The first request over TLS meets the same error and reports it to its client.
        if let Err(error) = self.tls.prepare().await {
            warn!(%error, "cannot verify origins over https; requests to them will fail");
        }
    }

    /// Prepares and sends a request with the headers `present`; `upgrade` is the protocol to request, if any.
    pub(crate) fn send(
        self: &Arc<Self>,
        mut request: Request<Body>,
        present: Present,
        upgrade: Option<HeaderValue>,
    ) -> Result<PendingResponse, ForwardError> {
        let is_deferred = upgrade.is_none() && expect::is_expected(&request);
        let is_upgrade = upgrade.is_some();
        self.prepare(&mut request, present, upgrade, is_deferred)?;
        let pinned = request.extensions().get::<PinnedAddr>().copied();
        if let Some(target) = pinned.and_then(|pinned| self.egress.pin(request.uri(), pinned)) {
            *request.uri_mut() = target;
        }
        let (client, reach) = (ConnectionId::of(&request), Reach::of(&request));
        let pays = request.extensions().get::<CarriesPayment>().is_some();
        if is_deferred {
            let choice = if pays { PoolChoice::WithPayment } else { PoolChoice::Plain };
            let request = Box::new(request);
            return Ok(self.send_deferred(PoolRequest { request, client, reach, is_fresh: false }, choice));
        }
        self.handle_interim(&mut request, None);
        let retry = (!pays && headers::is_idempotent(request.method()) && request.body().is_end_stream())
            .then(|| KeptHead::of(&request));
        let choice = match (pays, is_upgrade) {
            (true, _) => PoolChoice::WithPayment,
            (false, true) => PoolChoice::Upgrade,
            (false, false) => PoolChoice::Plain,
        };
        let request = Box::new(request);
        Ok(self.request(PoolRequest { request, client, reach, is_fresh: false }, choice, retry, None))
    }

    fn request(
        self: &Arc<Self>,
        request: PoolRequest,
        choice: PoolChoice,
        retry: Option<KeptHead>,
        gate: Option<ContinueGate<Body>>,
    ) -> PendingResponse {
        let (client, reach) = (request.client.clone(), request.reach);
        let answering = self.pool(choice).request(request);
        PendingResponse { answering, choice, client, reach, retry, gate, upstream: Arc::clone(self) }
    }

    fn pool(&self, choice: PoolChoice) -> &Pool {
        match choice {
            PoolChoice::Plain => &self.plain,
            PoolChoice::WithPayment => &self.paying,
            PoolChoice::Upgrade => &self.upgrading,
        }
    }

    /// Sends a request whose body waits for `100 Continue`.
    fn send_deferred(self: &Arc<Self>, request: PoolRequest, choice: PoolChoice) -> PendingResponse {
        let PoolRequest { request, client, reach, is_fresh } = request;
        // No byte of the body is sent before the origin responds, so an origin that just closes the connection has not
        // processed the request, whatever its method.
        let retry = (choice != PoolChoice::WithPayment).then(|| KeptHead::of(&request));
        let (head, body) = (*request).into_parts();
        let (gate, deferred) = ContinueGate::new(body, self.settings.limits.expect_continue_timeout);
        let mut request = Request::from_parts(head, Body::Deferred(Box::new(deferred)));
        self.handle_interim(&mut request, Some(gate.clone()));
        let request = Box::new(request);
        self.request(PoolRequest { request, client, reach, is_fresh }, choice, retry, Some(gate))
    }

    /// Handles interim responses: 100 opens the body gate, others go to the client.
    fn handle_interim(self: &Arc<Self>, request: &mut Request<Body>, gate: Option<ContinueGate<Body>>) {
        let sender = request.extensions_mut().remove::<InterimSender>();
        if gate.is_none() && sender.is_none() {
            return;
        }
        let limit = self.settings.limits.head_bytes;
        hyper::ext::on_informational(request, move |interim| match (interim.status(), &gate, &sender) {
            (StatusCode::CONTINUE, Some(gate), _) => gate.open(),
            // hyper's server sends its own 100 when the body is first read.
            (StatusCode::CONTINUE, None, _) | (_, _, None) => {}
            (status, _, Some(sender)) => {
                let mut headers = interim.headers().clone();
                sender.filter(&mut headers);
                sender.send(&interim_head(status, interim.version(), headers), limit);
            }
        });
    }

    /// Turns a received request into the one to send, except for what depends on the HTTP version of its connection.
    /// RFC 9112 section 3.2, RFC 9110 section 7.6.
    pub(crate) fn prepare(
        &self,
        request: &mut Request<Body>,
        present: Present,
        upgrade: Option<HeaderValue>,
        is_deferred: bool,
    ) -> Result<(), ForwardError> {
        target::check(request)?;
        if present.has(Present::TRANSFER_ENCODING) && !headers::has_supported_framing(request.headers()) {
            return Err(ForwardError::UnsupportedCoding);
        }
        let received = std::mem::replace(request.version_mut(), Version::HTTP_11);
        let takes_trailers = present.has(Present::TE) && headers::takes_trailers(request.headers());

        target::set_host(request);
        let headers = request.headers_mut();
        headers::normalise_framing(headers, present);
        headers::remove_hop_by_hop(headers, present);
        if received == Version::HTTP_2 && present.has(Present::COOKIE) {
            headers::join_cookies(headers);
        }
        if !is_deferred && present.has(Present::EXPECT) {
            headers.remove(header::EXPECT);
        }
        if takes_trailers {
            headers.insert(header::TE, HeaderValue::from_static("trailers"));
        }
        if let Some(protocol) = upgrade {
            headers.insert(header::UPGRADE, protocol);
        }
        let entry = via::via(request.uri(), received);
        request.headers_mut().append(header::VIA, entry);
        if let Some(proxy) = self.egress.proxy_of(request.uri())
            && let Some(authorization) = proxy.authorization.clone()
        {
            request.headers_mut().insert(header::PROXY_AUTHORIZATION, authorization);
        }
        Ok(())
    }

    /// Turns a 407 of the outbound proxy into an error.
    fn reject_proxy_authentication(&self, response: Response<Body>) -> Result<Response<Body>, ForwardError> {
        let status = response.status();
        let is_proxied = response.extensions().get::<Reuse>().is_some_and(Reuse::is_proxied);
        if status != StatusCode::PROXY_AUTHENTICATION_REQUIRED || !is_proxied {
            return Ok(response);
        }
        Err(ForwardError::Denied { proxy: self.egress.proxy_name(), status })
    }

    /// Turns a received response into the one for the client.
    pub(crate) fn answer(&self, mut response: Response<Body>) -> Response<Body> {
        let received = std::mem::replace(response.version_mut(), Version::HTTP_11);
        // The client's side needs none of the pool's extensions, except the address that asks for a payment.
        let extensions = std::mem::take(response.extensions_mut());
        if response.status() == StatusCode::PAYMENT_REQUIRED {
            extensions
                .get::<Reuse>()
                .and_then(Reuse::peer)
                .map(|pinned| response.extensions_mut().insert(pinned));
        }
        let present = Present::among(response.headers());
        let is_bound = headers::binds_response(response.headers(), present);
        let headers = response.headers_mut();
        headers::normalise_framing(headers, present);
        headers::remove_hop_by_hop(headers, present);
        if present.has(Present::PROXY_STATUS) {
            proxy_status::remove_ours(headers);
        }
        via::add_via(headers, received);
        if is_bound {
            headers.insert(headers::PROXY_SUPPORT, headers::SESSION_BASED);
        }
        response
    }
}

/// The part of `limit` that the worker with this index gets. Those of all workers make up the limit.
fn share(limit: usize, index: usize, count: usize) -> usize {
    let count = count.max(1);
    limit / count + usize::from(index < limit % count)
}

/// The head of an interim response to the client.
fn interim_head(status: StatusCode, version: Version, mut headers: HeaderMap) -> Vec<u8> {
    let present = Present::among(&headers);
    headers::remove_hop_by_hop(&mut headers, present);
    headers.remove(header::CONTENT_LENGTH);
    proxy_status::remove_ours(&mut headers);
    via::add_via(&mut headers, version);
    let reason = status.canonical_reason().unwrap_or_default();
    let mut bytes = format!("HTTP/1.1 {} {reason}\r\n", status.as_u16()).into_bytes();
    for (name, value) in &headers {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            bytes.extend_from_slice(part);
        }
    }
    bytes.extend_from_slice(b"\r\n");
    bytes
}

/// The pool that a request uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PoolChoice {
    Plain,
    WithPayment,
    Upgrade,
}

/// A request that waits for the head of its response.
pub(crate) struct PendingResponse {
    answering: ResponseFuture,
    choice: PoolChoice,
    client: Option<ConnectionId>,
    reach: Reach,
    /// The request to send once more if the connection was stale.
    retry: Option<KeptHead>,
    /// Defers the body of the request.
    gate: Option<ContinueGate<Body>>,
    upstream: Arc<UpstreamClient>,
}

impl PendingResponse {
    /// The response as it was received.
    pub(crate) fn poll_received(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Response<Body>, ForwardError>> {
        loop {
            let PoolError { error, cause } = match ready!(self.answering.as_mut().poll(cx)) {
                Ok(response) if headers::has_supported_framing(response.headers()) => {
                    return Poll::Ready(self.upstream.reject_proxy_authentication(response));
                }
                // The request accepted no other coding.
                Ok(_) => {
                    let error = ForwardError::BadAnswer("its transfer coding is not chunked".to_owned());
                    return Poll::Ready(Err(error));
                }
                Err(failed) => failed,
            };
            let retry = self.retry.take().and_then(KeptHead::into_request).filter(|request| match cause {
                FailureCause::StaleConnection => true,
                FailureCause::Overload => headers::is_idempotent(request.method()),
                FailureCause::Request => false,
            });
            if !retry.is_some_and(|request| self.send_again(Box::new(request))) {
                return Poll::Ready(Err(error));
            }
        }
    }

    /// Sends on a new connection, because the others in the pool may be stale or overloaded, too.
    fn send_again(&mut self, mut request: Box<Request<Body>>) -> bool {
        let (client, reach) = (self.client.take(), self.reach);
        let Some(gate) = self.gate.take() else {
            let request = PoolRequest { request, client, reach, is_fresh: true };
            self.answering = self.upstream.pool(self.choice).request(request);
            return true;
        };
        let Some(body) = gate.take_back() else { return false };
        *request.body_mut() = body;
        let mut next =
            self.upstream.send_deferred(PoolRequest { request, client, reach, is_fresh: true }, self.choice);
        next.retry = None;
        *self = next;
        true
    }

    /// Turns the received response into the one for the client.
    pub(crate) fn answer(&mut self, received: Response<Body>) -> Response<Body> {
        let answer = self.upstream.answer(received);
        match self.gate.take().and_then(|gate| gate.answer()) {
            Some(closing) => answer.map(|body| Body::Early(Box::new(EarlyResponse::new(body, closing)))),
            None => answer,
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::proxy::upstream::client::*;

    #[test]
    fn the_workers_share_a_limit_exactly() {
        for (limit, count) in [(128, 1), (128, 3), (2, 4), (7, 7)] {
            let shares: Vec<usize> = (0..count).map(|index| share(limit, index, count)).collect();
            assert_eq!(shares.iter().sum::<usize>(), limit, "{shares:?}");
            assert!(shares.is_sorted_by(|first, next| first >= next && first - next <= 1), "{shares:?}");
        }
    }
}
