//! Sellers that answer a browser with a page in place of their offers: they are asked once more, as a program would ask.

use http::{Method, Response, StatusCode, header};
use tokio::time::{Instant, timeout_at};

use super::exchange::Exchange;
use super::strip;
use crate::protocol::schemes;
use crate::proxy::handling::Handling;
use crate::proxy::request_service::RequestService;
use crate::proxy::{Body, ForwardError, error_response};

impl<S> Exchange<S>
where
    S: RequestService<ForwardError> + Clone + Send + Sync + 'static,
    S::Future: Send,
{
    /// If a 402 is a page for people, asks for the offers themselves. Returns the response to read, and the page if that is
    /// another response: the client gets it if nothing is paid.
    pub(super) async fn ask_for_offers(
        &mut self,
        answer: Response<Body>,
    ) -> (Response<Body>, Option<Response<Body>>) {
        if self.head.method != Method::GET
            || !self.accepts_html()
            || !schemes::may_hide_offers(answer.status(), answer.headers())
        {
            return (answer, None);
        }
        self.asks_as_program = true;
        let by = Instant::now() + self.settings().limits.offer_timeout;
        match timeout_at(by, self.unpaid(self.head.extensions.clone())).await {
            Ok(Ok(mut offers)) if schemes::may_ask(offers.status(), offers.headers()) => {
                strip::answer_cookies(offers.headers_mut());
                (offers, Some(answer))
            }
            _ => {
                self.asks_as_program = false;
                (answer, None)
            }
        }
    }

    fn accepts_html(&self) -> bool {
        let accepted = self.head.headers.get_all(header::ACCEPT).into_iter();
        accepted.filter_map(|value| value.to_str().ok()).any(|value| value.contains("text/html"))
    }
}

/// The page for a client that gets a 402 although the offers were read from another response.
pub(super) fn in_place_of(answer: Response<Body>, mut page: Response<Body>) -> Response<Body> {
    let Some(Handling::Unpaid(explanation)) = answer.extensions().get() else { return answer };
    if answer.status() != StatusCode::PAYMENT_REQUIRED {
        return answer;
    }
    error_response::append_proxy_status(page.headers_mut(), explanation.reason, &explanation.details);
    if let Some(wait) = answer.headers().get(header::RETRY_AFTER) {
        page.headers_mut().insert(header::RETRY_AFTER, wait.clone());
    }
    let handling = Handling::Unpaid(explanation.clone());
    page.extensions_mut().insert(handling);
    page
}
