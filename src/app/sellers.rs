//! Connects channel operations to sellers and to the user's webhook through the proxy's own client.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::{Method, Request, Response};
use tokio::time::Instant;
use tower::{Service, ServiceExt as _};

use crate::channels::{CloseApprovalRequest, CloseApprover};
use crate::protocol::policy::{CloseDenied, Decision, Webhook};
use crate::proxy::pay::webhook::{ApprovalRequest, Approvals, CLOSE_DENIED};
use crate::proxy::{Body, Forward, ForwardError};

/// The proxy's client, for requests with buffered bodies.
pub(super) fn seller_service(
    forward: &Forward,
) -> impl Service<
    Request<Bytes>,
    Response = Response<Body>,
    Error = ForwardError,
    Future = <Forward as Service<Request<Body>>>::Future,
> + Clone
+ Send
+ Sync
+ use<> {
    let with_body = |bytes: Bytes| if bytes.is_empty() { Body::Empty } else { Body::full(bytes) };
    forward.clone().map_request(move |request: Request<Bytes>| request.map(with_body))
}

/// Asks the webhook of `hooks.cooperative_close_denied`.
#[derive(Debug)]
pub(super) struct WebhookCloseApprover(Approvals);

impl Default for WebhookCloseApprover {
    fn default() -> Self {
        Self(Approvals::new(None))
    }
}

impl CloseApprover for WebhookCloseApprover {
    fn approve<'a>(
        &'a self,
        webhook: &'a Webhook,
        CloseApprovalRequest { seller_url, channel, status }: CloseApprovalRequest<'a>,
    ) -> BoxFuture<'a, Result<CloseDenied, String>> {
        // The webhook sees the close as the DELETE request that the seller refused.
        let request = ApprovalRequest {
            hook: CLOSE_DENIED,
            method: Method::DELETE.to_string(),
            url: seller_url.to_owned(),
            price: None,
            receiver: Some(channel.receiver),
            channel: Some(channel),
            attempt: 0,
            status,
            paid: None,
            unclear: None,
            headers: BTreeMap::new(),
        };
        async move {
            // The webhook's own timeout expires first.
            let by = Instant::now() + webhook.within * 2;
            match self.0.ask(Some(webhook), &request, by).await {
                Some(Decision::CloseAlone) => Ok(CloseDenied::CloseAlone),
                Some(Decision::Keep) => Ok(CloseDenied::Keep),
                Some(Decision::Abort { reason }) => Err(reason),
                Some(_) | None => Err("the webhook returned no decision".to_owned()),
            }
        }
        .boxed()
    }
}
