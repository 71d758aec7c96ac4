//! A paid exchange: the request sent again with a payment, until the seller takes it or the policy says stop.
//!
//! It runs in a task of its own, so that a client that leaves does not tear a payment apart.

use std::sync::Arc;

use http::{Request, Response, StatusCode, request};
use tokio::sync::oneshot;
use tower::{Service, ServiceExt as _};

use super::{Offer, Settings, Shared, read_offer, strip};
use crate::fault;
use crate::manager::Lease;
use crate::protocol::{Challenge, Refusal};
use crate::proxy::replay::Kept;
use crate::proxy::{Body, ForwardError, Paying, rescue};

/// A request that is going to be sent with payments.
pub(super) struct Exchange<S> {
    pub shared: Arc<Shared>,
    pub inner: S,
    pub head: request::Parts,
    pub kept: Kept,
}

/// What one sending came to.
enum Sent {
    /// This is the answer for the client.
    Done(Response<Body>),
    /// The seller answered with another 402.
    Again(Box<(Lease, Offer, Challenge)>),
}

impl<S> Exchange<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = ForwardError> + Clone + Send + 'static,
    S::Future: Send,
{
    /// Runs the exchange to its end, whether or not anybody waits for the answer.
    pub(super) async fn start(self, lease: Lease, offer: Offer) -> Response<Body> {
        let (mut client, answer) = oneshot::channel();
        let shutdown = self.shared.settings.shutdown.clone();
        shutdown.spawn(async move {
            let answer = self.run(lease, offer, &mut client).await;
            // A client that has left gets nothing; what was paid is on record.
            let _ = client.send(answer);
        });
        answer.await.unwrap_or_else(|_| {
            let details = "stopped in the middle of a payment; it is cleared up at the next start";
            rescue::problem(StatusCode::SERVICE_UNAVAILABLE, Some("proxy_internal_error"), details)
        })
    }

    async fn run(
        mut self,
        mut lease: Lease,
        mut offer: Offer,
        client: &mut oneshot::Sender<Response<Body>>,
    ) -> Response<Body> {
        loop {
            let challenge = match self.send(lease, &offer).await {
                Sent::Done(answer) => return answer,
                Sent::Again(again) => {
                    let challenge;
                    (lease, offer, challenge) = *again;
                    challenge
                }
            };
            let next = tokio::select! {
                next = lease.reject(challenge) => next,
                // Nothing more is signed for a client that has left.
                () = client.closed() => Err(Refusal::ClientLeft),
            };
            lease = match next {
                Ok(lease) => lease,
                Err(refusal) => return refuse(&offer, &refusal),
            };
        }
    }

    /// Presents a payment once.
    async fn send(&mut self, mut lease: Lease, offer: &Offer) -> Sent {
        let body = match self.kept.replay().await {
            Ok(body) => body,
            Err(error) => {
                lease.unsent();
                return Sent::Done(offer.give_back(&Refusal::NotReplayable(error.to_string())));
            }
        };
        let mut request = Request::from_parts(self.head.clone(), body);
        for (name, value) in lease.headers() {
            request.headers_mut().insert(name, value.clone());
        }
        request.extensions_mut().insert(Paying);
        lease.begin();
        fault::point("payment about to be sent");
        let answer = tokio::time::timeout(self.shared.settings.answer_within, async {
            self.inner.ready().await?.call(request).await
        });
        let answer = answer.await;
        fault::point("payment answered");
        match answer {
            Ok(Ok(answer)) => judge(&self.shared.settings, &self.head, lease, answer).await,
            Ok(Err(error)) if error.is_unsent() => {
                lease.unsent();
                Sent::Done(rescue::answer(&error))
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, draft = ?lease.draft(), "a payment was sent and its answer is lost");
                let details = format!("a payment was sent and its answer is lost: {error}");
                Sent::Done(rescue::problem(
                    StatusCode::BAD_GATEWAY,
                    Some("http_response_incomplete"),
                    &details,
                ))
            }
            Err(_) => {
                tracing::warn!(draft = ?lease.draft(), "a payment was sent and no answer came in time");
                let details = "a payment was sent and no answer came within limits.answer_within";
                Sent::Done(rescue::problem(
                    StatusCode::GATEWAY_TIMEOUT,
                    Some("http_response_timeout"),
                    details,
                ))
            }
        }
    }
}

/// What the head of the answer says of the payment.
async fn judge(settings: &Settings, head: &request::Parts, lease: Lease, mut answer: Response<Body>) -> Sent {
    strip::answer_cookies(answer.headers_mut());
    match answer.status() {
        StatusCode::PAYMENT_REQUIRED => match read_offer(settings, answer).await {
            Ok((offer, challenge)) => Sent::Again(Box::new((lease, offer, challenge))),
            // In no scheme, malformed or endless: nobody can tell what became of the payment.
            Err(unreadable) => Sent::Done(unreadable),
        },
        status if status == StatusCode::CONFLICT || status.is_server_error() => {
            // The seller takes the money before the resource runs, but this may be the seller itself failing.
            strip::answer(answer.headers_mut());
            Sent::Done(answer)
        }
        status => {
            tell(head, &lease, status);
            lease.accept();
            strip::answer(answer.headers_mut());
            Sent::Done(answer)
        }
    }
}

fn tell(head: &request::Parts, lease: &Lease, status: StatusCode) {
    let draft = lease.draft();
    tracing::info!(
        target: "tollpass::paid",
        price = %draft.price,
        total = %draft.total,
        channel = %draft.channel,
        status = status.as_u16(),
        "paid {} for {} {}",
        draft.price,
        head.method,
        head.uri,
    );
}

/// What the client gets when the policy says stop after a payment was presented.
fn refuse(offer: &Offer, refusal: &Refusal) -> Response<Body> {
    if let Refusal::PaidAnswerLost { .. } = refusal {
        tracing::error!(reason = %refusal, "the seller took a payment and withholds the answer");
        return rescue::problem(StatusCode::BAD_GATEWAY, Some("http_protocol_error"), &refusal.to_string());
    }
    offer.give_back(refusal)
}
