//! An exchange and its client: if the client disconnects, the exchange finishes in a detached task.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::Response;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tracing::Instrument as _;

use super::sending::SendResult;
use super::{Exchange, HeldAnswer};
use crate::payments::Lease;
use crate::proxy::pay::orphans::{OrphanKey, OrphanPlace, Orphans};
use crate::proxy::request_service::RequestService;
use crate::proxy::{Body, ForwardError};
use crate::shutdown::Shutdown;

/// An exchange with a waiting client, in the client's own task: a task for each would cost more than the signature.
pub(in crate::proxy::pay) struct Attended {
    exchange: Option<Pin<Box<dyn Future<Output = Response<Body>> + Send>>>,
    /// Dropped when the client disconnects, which the exchange notices.
    client: Option<oneshot::Sender<Infallible>>,
    /// If its payment expires, what it buys.
    bought: Option<(Arc<Orphans>, OrphanKey)>,
    shutdown: Shutdown,
}

impl<S> Exchange<S>
where
    S: RequestService<ForwardError> + Clone + Send + Sync + 'static,
    S::Future: Send,
{
    /// Starts the exchange, which runs to its end even if the client disconnects.
    pub(in crate::proxy::pay) fn start(
        mut self: Box<Self>,
        lease: Box<Lease>,
        held: Option<HeldAnswer>,
    ) -> Attended {
        let (client, mut has_left) = oneshot::channel();
        let shutdown = self.settings().shutdown.clone();
        let bought = self.bought.map(|bought| (Arc::clone(&self.shared.orphans), bought));
        // The span also covers the detached task.
        let span = tracing::debug_span!("payment", request = %self.request, price = %lease.draft().price());
        let exchange = async move {
            let answer = match self.send((lease, false), held.as_ref(), &mut has_left).await {
                SendResult::Done(answer) => answer,
                // Boxed: there is no second 402 in steady state, and a large future would cost each payment a copy.
                sent => Box::pin(self.pay_again(sent, held, has_left)).await,
            };
            self.finish(answer)
        };
        let exchange = Box::pin(exchange.instrument(span));
        Attended { exchange: Some(exchange), client: Some(client), bought, shutdown }
    }
}

impl Future for Attended {
    type Output = Response<Body>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Response<Body>> {
        let Some(exchange) = &mut self.exchange else { return Poll::Pending };
        let answer = ready!(exchange.as_mut().poll(context));
        self.exchange = None;
        Poll::Ready(answer)
    }
}

impl Drop for Attended {
    fn drop(&mut self) {
        drop(self.client.take());
        // Outside the runtime, the program is exiting: the next start recovers the payment.
        if let (Some(exchange), Ok(_)) = (self.exchange.take(), Handle::try_current()) {
            // The client has disconnected; payments are recorded anyway.
            // At once, so that a request that comes next finds it.
            match self.bought.take() {
                Some((orphans, bought)) => {
                    self.shutdown.spawn(OrphanPlace::of(orphans, bought).keep(exchange))
                }
                None => self.shutdown.spawn(async move { drop(exchange.await) }),
            };
        }
    }
}
