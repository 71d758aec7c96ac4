//! Sellers whose offers cannot be read in their first response, because it is a page for a browser or compressed: they are
//! asked once more, as a program would ask that can only read plain JSON.

use http::{Method, Response, StatusCode, header};
use tokio::time::{Instant, timeout_at};

use super::exchange::Exchange;
use super::strip;
use crate::protocol::{Answer, Refusal, schemes};
use crate::proxy::handling::Handling;
use crate::proxy::message::headers;
use crate::proxy::replay::{Held, hold};
use crate::proxy::request_service::RequestService;
use crate::proxy::{Body, ForwardError, error_response};

impl<S> Exchange<S>
where
    S: RequestService<ForwardError> + Clone + Send + Sync + 'static,
    S::Future: Send,
{
    /// If a 402 is a page for people or its offers may be compressed, asks for the offers themselves. Returns the response to
    /// read, and the first one if that is another: the client gets it if nothing is paid.
    pub(super) async fn ask_for_offers(
        &mut self,
        answer: Response<Body>,
    ) -> (Response<Body>, Option<Response<Body>>) {
        let method = &self.head.method;
        let is_page = method == Method::GET
            && self.accepts_html()
            && schemes::may_hide_offers(answer.status(), answer.headers());
        if !is_page && (method == Method::HEAD || !may_compress_offers(&answer)) {
            return (answer, None);
        }
        let answer = match self.before_repeat(answer).await {
            Ok(answer) => answer,
            Err(answer) => return (answer, None),
        };
        // The offers in place of a page may be compressed, too.
        (self.asks_as_program, self.asks_for_identity) = (is_page, true);
        let by = Instant::now() + self.settings().limits.offer_timeout;
        match timeout_at(by, self.unpaid(self.head.extensions.clone())).await {
            Ok(Ok(mut offers)) if schemes::may_ask(offers.status(), offers.headers()) => {
                strip::answer_cookies(offers.headers_mut());
                (offers, Some(answer))
            }
            // The seller has performed the request.
            Ok(Ok(mut served)) if served.status().is_success() && !self.head.method.is_safe() => {
                strip::answer_cookies(served.headers_mut());
                (served, None)
            }
            _ => {
                (self.asks_as_program, self.asks_for_identity) = (false, false);
                (answer, None)
            }
        }
    }

    /// The same response, if the request can be sent again. Its upload may be under way, and ends with that: what the response
    /// has left would be cut.
    async fn before_repeat(&mut self, answer: Response<Body>) -> Result<Response<Body>, Response<Body>> {
        if self.head.method == Method::GET {
            return Ok(answer);
        }
        self.start_clock();
        let limits = &self.settings().limits;
        let (head, body) = answer.into_parts();
        match hold(body, limits.max_402_body, limits.offer_timeout).await {
            Held::Whole { bytes, trailers } => {
                let answer = Response::from_parts(head, Body::with_trailers(bytes, trailers));
                if self.whole().await.is_ok() { Ok(answer) } else { Err(answer) }
            }
            Held::Past(body, _) => Err(Response::from_parts(head, body)),
        }
    }

    fn accepts_html(&self) -> bool {
        let accepted = self.head.headers.get_all(header::ACCEPT).into_iter();
        accepted.filter_map(|value| value.to_str().ok()).any(|value| value.contains("text/html"))
    }
}

/// Whether a 402 may have its offers only in a body with a content coding.
fn may_compress_offers(answer: &Response<Body>) -> bool {
    let (status, head) = (answer.status(), answer.headers());
    status == StatusCode::PAYMENT_REQUIRED
        && schemes::wants_body(status, head)
        && headers::content_coding(head).is_some()
        && schemes::read(&Answer { status, headers: head, body: None }) == Err(Refusal::UnknownScheme)
}

/// The first response for a client that gets a 402 although the offers were read from another response.
pub(super) fn in_place_of(answer: Response<Body>, mut first: Response<Body>) -> Response<Body> {
    let Some(Handling::Unpaid(explanation)) = answer.extensions().get() else { return answer };
    if answer.status() != StatusCode::PAYMENT_REQUIRED {
        return answer;
    }
    error_response::append_proxy_status(first.headers_mut(), explanation.reason, &explanation.details);
    if let Some(wait) = answer.headers().get(header::RETRY_AFTER) {
        first.headers_mut().insert(header::RETRY_AFTER, wait.clone());
    }
    let handling = Handling::Unpaid(explanation.clone());
    first.extensions_mut().insert(handling);
    first
}
