//! Tells webhooks when much of a budget is spent.

use bytes::Bytes;
use http::{Method, Request, header};
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::protocol::budget::BudgetNotice;
use crate::protocol::policy::Webhook;
use crate::shutdown::Shutdown;

/// What the webhook gets.
#[derive(Serialize)]
struct BudgetSpent<'a> {
    hook: &'static str,
    budget: &'a str,
    host: Option<&'a str>,
    limit: &'static str,
    amount: &'a str,
    percent: u64,
}

/// Tells the webhook of each notice, one after the other, until the shutdown begins and no notice waits.
pub(crate) async fn tell_webhooks(mut notices: mpsc::Receiver<BudgetNotice>, shutdown: Shutdown) {
    let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build_http();
    loop {
        let notice = tokio::select! {
            biased;
            notice = notices.recv() => notice,
            () = shutdown.stopping() => notices.try_recv().ok(),
        };
        let Some(notice) = notice else { return };
        let Some(webhook) = &notice.webhook else { continue };
        let told = timeout(webhook.within, post(&client, webhook, &notice)).await;
        let told = told.unwrap_or_else(|_| Err("it did not respond within webhook_timeout".to_owned()));
        if let Err(reason) = told {
            tracing::warn!(budget = %notice.name, %webhook, reason, "cannot tell the webhook of a budget");
        }
    }
}

async fn post(
    client: &Client<HttpConnector, Full<Bytes>>,
    webhook: &Webhook,
    notice: &BudgetNotice,
) -> Result<(), String> {
    let BudgetNotice { name, host, key, limit, percent, .. } = notice;
    let spent = BudgetSpent {
        hook: "budget_spent",
        budget: name,
        host: host.as_deref(),
        limit: key,
        amount: limit,
        percent: *percent,
    };
    let json = serde_json::to_vec(&spent).map_err(|error| error.to_string())?;
    let post = Request::builder()
        .method(Method::POST)
        .uri(webhook.url.clone())
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::from(json))
        .map_err(|error| error.to_string())?;
    let answer = client.request(post).await.map_err(|error| error.to_string())?;
    match answer.status() {
        status if status.is_success() => Ok(()),
        status => Err(format!("it responded with {status}")),
    }
}
