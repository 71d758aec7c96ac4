//! A 402 that is held back while its request is paid.

use bytes::Bytes;
use http::{HeaderMap, Response};

use super::refused::REFUSED_REQUESTS;
use super::settings::PaySettings;
use crate::limits::Limits;
use crate::protocol::answer::Answer;
use crate::protocol::{Offer, Refusal, schemes};
use crate::proxy::handling::{Explanation, Handling, RequestName};
use crate::proxy::replay::{Held, Past, hold};
use crate::proxy::{Body, error_response};

/// Above this, the body of a 402 is parsed on a thread for work that blocks; it takes under a millisecond below.
const LARGE_BODY: usize = 64 * 1024;

/// A buffered 402, which the client gets if nothing is paid.
#[derive(Debug)]
pub(super) struct HeldAnswer {
    pub(super) request: RequestName,
    pub(super) head: http::response::Parts,
    pub(super) body: Bytes,
    pub(super) trailers: Option<HeaderMap>,
}

impl HeldAnswer {
    pub(super) fn give_back(&self, refusal: &Refusal) -> Response<Body> {
        let body = Body::with_trailers(self.body.clone(), self.trailers.clone());
        let mut answer = Response::from_parts(self.head.clone(), body);
        tell_why(&mut answer, &self.request, refusal);
        answer
    }
}

/// Buffers a 402 with its body, within the limits. `Err` is the response to pass on.
pub(super) async fn hold_answer(
    settings: &PaySettings,
    request: &RequestName,
    head: http::response::Parts,
    body: Body,
) -> Result<HeldAnswer, Response<Body>> {
    match hold(body, settings.limits.max_402_body, settings.limits.offer_timeout).await {
        Held::Whole { bytes, trailers } => {
            Ok(HeldAnswer { request: request.clone(), head, body: bytes, trailers })
        }
        Held::Past(body, why) => {
            let mut answer = Response::from_parts(head, body);
            tell_why(&mut answer, request, &not_held(why, &settings.limits));
            Err(answer)
        }
    }
}

/// A 402 without an offer to pay.
pub(super) struct Unoffered {
    pub(super) answer: Response<Body>,
    /// Why; `None` if the client has been told.
    pub(super) refusal: Option<Refusal>,
}

impl Unoffered {
    /// Whether nothing is for sale: the seller has well-formed offers, but none at all.
    pub(super) fn is_empty(&self) -> bool {
        matches!(&self.refusal, Some(Refusal::UnsupportedOffers { offers }) if offers.is_empty())
    }

    /// The answer, which tells the client why it is not paid.
    pub(super) fn told(self, request: &RequestName) -> Response<Body> {
        let Self { mut answer, refusal } = self;
        if let Some(refusal) = refusal {
            tell_why(&mut answer, request, &refusal);
        }
        answer
    }
}

impl From<Response<Body>> for Unoffered {
    fn from(answer: Response<Body>) -> Self {
        Self { answer, refusal: None }
    }
}

/// Reads the offers of a 402 with its body. A large one takes so long that other clients of the worker would wait.
pub(super) async fn read_offers(head: &http::response::Parts, body: &Bytes) -> Result<Vec<Offer>, Refusal> {
    let status = head.status;
    if body.len() <= LARGE_BODY {
        return schemes::read(&Answer { status, headers: &head.headers, body: Some(body) });
    }
    let (headers, body) = (head.headers.clone(), body.clone());
    let reading = tokio::task::spawn_blocking(move || {
        schemes::read(&Answer { status, headers: &headers, body: Some(&body) })
    });
    // It has panicked, or the process ends.
    reading.await.unwrap_or(Err(Refusal::UnknownScheme))
}

/// Why a 402 whose body could not be held is not paid.
pub(super) fn not_held(why: Past, limits: &Limits) -> Refusal {
    match why {
        Past::Size => Refusal::OfferTooLarge { limit: limits.max_402_body as u64 },
        Past::Time => Refusal::OfferTooSlow,
        Past::Broken => Refusal::OfferBroken,
    }
}

/// Adds the reason why a 402 is not paid.
pub(super) fn tell_why(answer: &mut Response<Body>, request: &RequestName, refusal: &Refusal) {
    let explanation = Explanation::from(refusal);
    let Explanation { reason, details } = &explanation;
    tracing::info!(%request, reason = reason.as_str(), details, "not paid");
    REFUSED_REQUESTS.add(request, refusal);
    error_response::append_proxy_status(answer.headers_mut(), *reason, details);
    error_response::set_retry_after(answer.headers_mut(), refusal);
    answer.extensions_mut().insert(Handling::Unpaid(explanation));
}
