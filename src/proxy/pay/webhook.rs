//! Approval of payments by a webhook, or by an [`Approver`] of the program that uses this library. A payment continues only
//! after a valid decision in time. Approval requests never contain a secret.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::header::{self, HeaderMap, HeaderName};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout, timeout_at};

use crate::protocol::policy::{Decision, Webhook};
use crate::protocol::schemes;
use crate::protocol::{Address, Amount, ChannelId};
use crate::shutdown::Shutdown;

/// The largest response of a webhook, in bytes.
const LARGEST_ANSWER: usize = 16 * 1024;
/// Longer reasons are cut, in characters.
const LONGEST_REASON: usize = 200;
/// Headers with longer values are left out, in bytes.
const LONGEST_VALUE: usize = 1024;
/// The hook for a channel close that the seller does not sign.
pub(crate) const CLOSE_DENIED: &str = "cooperative_close_denied";
/// The largest number of concurrent notifications; further ones are dropped.
const NOTICES: usize = 64;

/// Decides whether a payment goes on: a webhook, or the program that uses this library.
///
/// Hooks without a webhook call it: those whose action is `ask`, and each complaint of a seller after which the policy
/// would continue. The hooks `success` and `exit` only notify it and ignore its decision. A decision that the hook does
/// not accept stops the request.
pub trait Approver: fmt::Debug + Send + Sync {
    /// Decides one request. The future is dropped after `limits.pay_timeout`, or when the client disconnects.
    fn decide<'a>(&'a self, request: &'a ApprovalRequest) -> BoxFuture<'a, Decision>;
}

/// One request for approval: the hook, the client's request and the payment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ApprovalRequest {
    /// The key below `[hooks]`.
    pub hook: &'static str,
    /// The method of the client's request.
    pub method: String,
    /// The URL of the client's request, without a user name.
    pub url: String,
    /// The price in base units, if the seller named one.
    pub price: Option<Amount>,
    /// The payee.
    pub receiver: Option<Address>,
    /// The channel of the payment, once it has one.
    pub channel: Option<ChannelId>,
    /// The number of payments presented for this client request so far.
    pub attempt: u32,
    /// The status of the origin's answer, if there is one.
    pub status: Option<u16>,
    /// The amount paid, in base units; for `success` and `exit`.
    pub paid: Option<Amount>,
    /// The amount that may have been paid, in base units; for `exit`.
    pub unclear: Option<Amount>,
    /// The headers of the origin's answer that cannot contain a secret.
    pub headers: BTreeMap<String, String>,
}

/// Sends approval requests and notifications to webhooks and to the library's approver.
#[derive(Debug)]
pub(crate) struct Approvals {
    client: Client<HttpConnector, Full<Bytes>>,
    approver: Option<Arc<dyn Approver>>,
    notices: Arc<Semaphore>,
}

/// An approver that calls one webhook.
#[derive(Debug)]
struct WebhookCall {
    client: Client<HttpConnector, Full<Bytes>>,
    webhook: Webhook,
}

/// The response body of a webhook.
#[derive(Deserialize)]
struct WebhookReply {
    r#do: String,
    reason: Option<String>,
}

impl Approvals {
    pub(crate) fn new(approver: Option<Arc<dyn Approver>>) -> Self {
        // One connection per request: losing a reused one would look like a refusal.
        let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build_http();
        Self { client, approver, notices: Arc::new(Semaphore::new(NOTICES)) }
    }

    /// Asks the webhook, else the approver; `None` if there is neither.
    pub(crate) async fn ask(
        &self,
        webhook: Option<&Webhook>,
        request: &ApprovalRequest,
        by: Instant,
    ) -> Option<Decision> {
        let approver = self.approver_for(webhook)?;
        let late = || Decision::Abort { reason: "no response within limits.pay_timeout".to_owned() };
        let decision = timeout_at(by, approver.decide(request)).await.unwrap_or_else(|_| late());
        let decision = decision.checked(request.hook);
        tracing::debug!(hook = request.hook, url = request.url_in_log(), ?decision, "asked");
        Some(decision)
    }

    /// Notifies the webhook, else the approver, without waiting for an answer.
    pub(super) fn tell(
        &self,
        webhook: Option<&Webhook>,
        request: ApprovalRequest,
        by: Instant,
        shutdown: &Shutdown,
    ) {
        let Some(approver) = self.approver_for(webhook) else { return };
        let Ok(place) = Arc::clone(&self.notices).try_acquire_owned() else {
            tracing::warn!(
                hook = request.hook,
                url = request.url_in_log(),
                "too many notifications in flight; dropping one"
            );
            return;
        };
        shutdown.spawn(async move {
            if let Ok(Decision::Abort { reason }) = timeout_at(by, approver.decide(&request)).await {
                tracing::warn!(
                    hook = request.hook,
                    url = request.url_in_log(),
                    reason,
                    "webhook notification failed or was rejected"
                );
            }
            drop(place);
        });
    }

    fn approver_for(&self, webhook: Option<&Webhook>) -> Option<Arc<dyn Approver>> {
        match webhook {
            Some(webhook) => {
                Some(Arc::new(WebhookCall { client: self.client.clone(), webhook: webhook.clone() }))
            }
            None => self.approver.clone(),
        }
    }
}

impl Approver for WebhookCall {
    fn decide<'a>(&'a self, request: &'a ApprovalRequest) -> BoxFuture<'a, Decision> {
        Box::pin(async move {
            let within = self.webhook.within;
            let decision = match timeout(within, self.post(request)).await {
                Ok(decision) => decision,
                Err(_) => Err(format!(
                    "did not respond within {} (webhook_timeout)",
                    humantime::format_duration(within)
                )),
            };
            decision.unwrap_or_else(|wrong| Decision::Abort {
                reason: format!("the webhook {} {wrong}", self.webhook),
            })
        })
    }
}

impl WebhookCall {
    /// Posts the request and parses the response. `Err` describes the problem with the webhook.
    async fn post(&self, request: &ApprovalRequest) -> Result<Decision, String> {
        let unreachable = |error: String| format!("cannot be reached: {error}");
        let json = serde_json::to_vec(request).map_err(|error| unreachable(error.to_string()))?;
        let post = Request::builder()
            .method(Method::POST)
            .uri(self.webhook.url.clone())
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::from(json))
            .map_err(|error| unreachable(error.to_string()))?;
        let answer = self.client.request(post).await.map_err(|error| unreachable(error.to_string()))?;
        if words(request.hook).is_empty() && answer.status().is_success() {
            // A notification: its body is ignored.
            return Ok(Decision::Pass);
        }
        if answer.status() != StatusCode::OK {
            return Err(format!("responded with {}", answer.status()));
        }
        let body = Limited::new(answer.into_body(), LARGEST_ANSWER).collect().await;
        let body = body.map_err(|error| format!("sent an unreadable response: {error}"))?;
        parse_reply(request.hook, &body.to_bytes())
    }
}

impl ApprovalRequest {
    /// The URL without its query, which may contain secrets.
    fn url_in_log(&self) -> &str {
        self.url.split_once('?').map_or(&self.url, |(url, _)| url)
    }

    /// The headers of a response that cannot contain a secret.
    pub(super) fn fields(fields: &HeaderMap) -> BTreeMap<String, String> {
        harmless()
            .filter_map(|name| {
                let value = fields.get(&name)?.to_str().ok().filter(|value| value.len() <= LONGEST_VALUE)?;
                Some((name.to_string(), value.to_owned()))
            })
            .collect()
    }
}

/// Headers that cannot contain a secret: no signature, no cookie, nothing that identifies one client.
fn harmless() -> impl Iterator<Item = HeaderName> {
    let ours =
        [header::CONTENT_LENGTH, header::CONTENT_TYPE, header::DATE, header::RETRY_AFTER, header::SERVER];
    ours.into_iter().chain(schemes::public_headers().cloned())
}

/// The decisions that a hook accepts; none if it only notifies.
fn words(hook: &str) -> &'static [&'static str] {
    match hook {
        "payment_requested" => &["pay", "abort"],
        "insufficient_confirmations" | "invalid_balance_proof" => &["retry", "abort"],
        "nonexisting_channel" => &["retry", "reopen", "abort"],
        "invalid_amount" => &["adopt", "retry", "abort"],
        "init" | "http_error" | "http_response" => &["pass", "abort"],
        CLOSE_DENIED => &["keep", "close_alone", "abort"],
        _ => &[],
    }
}

/// The decisions that a hook accepts, for messages.
fn listed(hook: &str) -> String {
    match words(hook) {
        [others @ .., last] if !others.is_empty() => format!("{} or {last}", others.join(", ")),
        words => words.concat(),
    }
}

impl Decision {
    fn word(&self) -> &'static str {
        match self {
            Self::Pay => "pay",
            Self::Retry => "retry",
            Self::Reopen => "reopen",
            Self::Adopt => "adopt",
            Self::Pass => "pass",
            Self::Keep => "keep",
            Self::CloseAlone => "close_alone",
            Self::Abort { .. } => "abort",
        }
    }

    /// True if a hook accepts it. Earlier versions accepted "pay" and "retry" from every hook of a payment.
    fn is_for(&self, hook: &str) -> bool {
        let is_early = matches!(
            hook,
            "insufficient_confirmations"
                | "invalid_balance_proof"
                | "nonexisting_channel"
                | "invalid_amount"
                | "http_error"
                | "http_response"
        );
        words(hook).contains(&self.word()) || is_early && matches!(self, Self::Pay | Self::Retry)
    }

    /// The same, or an abort if the hook does not accept it.
    fn checked(self, hook: &str) -> Self {
        if self.is_for(hook) {
            return self;
        }
        Self::Abort { reason: format!("the decision was {}, but must be {}", self.word(), listed(hook)) }
    }
}

/// Reads a webhook's response body.
fn parse_reply(hook: &str, body: &[u8]) -> Result<Decision, String> {
    let reply: WebhookReply = serde_json::from_slice(body)
        .map_err(|_| format!("sent a response that is not {{\"do\": …}} with {}", listed(hook)))?;
    let decision = match reply.r#do.as_str() {
        "pay" => Decision::Pay,
        "retry" => Decision::Retry,
        "reopen" => Decision::Reopen,
        "adopt" => Decision::Adopt,
        "pass" => Decision::Pass,
        "keep" => Decision::Keep,
        "close_alone" => Decision::CloseAlone,
        "abort" => {
            let reason = reply.reason.filter(|reason| !reason.trim().is_empty());
            let reason = reason.unwrap_or_else(|| "no reason given".to_owned());
            Decision::Abort { reason: reason.chars().take(LONGEST_REASON).collect() }
        }
        _ => return Err(format!("sent an unknown decision; it must be {}", listed(hook))),
    };
    if decision.is_for(hook) {
        return Ok(decision);
    }
    Err(format!("sent {}, an unknown decision; it must be {}", decision.word(), listed(hook)))
}

#[cfg(test)]
mod tests {
    use crate::proxy::pay::webhook::*;
    use http::HeaderValue;

    #[test]
    fn each_hook_takes_its_own_words_and_names_them_where_another_comes() {
        let all = ["pay", "retry", "reopen", "adopt", "pass", "keep", "close_alone", "abort", "go", ""];
        for (hook, takes, named) in [
            ("payment_requested", &["pay", "abort"][..], "pay or abort"),
            ("insufficient_confirmations", &["retry", "abort", "pay"], "retry or abort"),
            ("invalid_balance_proof", &["retry", "abort", "pay"], "retry or abort"),
            ("nonexisting_channel", &["retry", "reopen", "abort", "pay"], "retry, reopen or abort"),
            ("invalid_amount", &["adopt", "retry", "abort", "pay"], "adopt, retry or abort"),
            ("http_error", &["pass", "abort", "pay", "retry"], "pass or abort"),
            ("http_response", &["pass", "abort", "pay", "retry"], "pass or abort"),
            ("init", &["pass", "abort"], "pass or abort"),
            (CLOSE_DENIED, &["keep", "close_alone", "abort"], "keep, close_alone or abort"),
        ] {
            for word in all {
                let said = parse_reply(hook, format!("{{\"do\": \"{word}\"}}").as_bytes());
                match said {
                    Ok(decision) => {
                        assert_eq!(decision.word(), word);
                        assert!(takes.contains(&word), "{hook} takes {word}");
                        assert_eq!(decision.clone().checked(hook), decision);
                    }
                    Err(wrong) => {
                        assert!(!takes.contains(&word), "{hook} does not take {word}");
                        assert!(
                            wrong.ends_with(&format!("an unknown decision; it must be {named}")),
                            "{wrong}"
                        );
                    }
                }
            }
            let listed = parse_reply(hook, b"yes").unwrap_err();
            assert!(listed.ends_with(&format!("with {named}")), "{listed}");
        }
        // An approver of the library can say what the hook has no use for.
        let Decision::Abort { reason } = Decision::Reopen.checked("init") else { panic!("it goes on") };
        assert_eq!(reason, "the decision was reopen, but must be pass or abort");
    }

    #[test]
    fn only_the_words_count() {
        let abort = |reason: &str| Some(Decision::Abort { reason: reason.into() });
        let parse_reply = |body: &[u8]| parse_reply("invalid_amount", body).ok();
        for (body, expected) in [
            (r#"{"do": "adopt"}"#, Some(Decision::Adopt)),
            (r#"{"do": "retry", "reason": null, "more": [1]}"#, Some(Decision::Retry)),
            (r#"{"do": "abort", "reason": "no"}"#, abort("no")),
            (r#"{"do": "abort", "reason": " "}"#, abort("no reason given")),
            (r#"{"do": "abort"}"#, abort("no reason given")),
            (r#"{"do": "ADOPT"}"#, None),
            (r#"{"do": ""}"#, None),
            (r#"{"do": true}"#, None),
            (r#"{"do": "adopt"} x"#, None),
            (r#"{"do": "adopt", "do": "abort"}"#, None),
            (r#"{"reason": "adopt"}"#, None),
            (r#"["adopt"]"#, None),
            (r#""adopt""#, None),
            ("adopt", None),
            ("", None),
        ] {
            assert_eq!(parse_reply(body.as_bytes()), expected, "{body}");
        }
        let long = format!(r#"{{"do": "abort", "reason": "{}"}}"#, "é".repeat(1000));
        assert_eq!(parse_reply(long.as_bytes()), abort(&"é".repeat(200)));
    }

    #[test]
    fn no_secret_is_told() {
        let mut fields = HeaderMap::new();
        for (name, value) in [
            ("rdn-price", "5"),
            ("rdn-balance-signature", "0x00"),
            ("set-cookie", "a=1"),
            ("www-authenticate", "Basic"),
            ("location", "http://a/?token=1"),
            ("x-api-key", "1"),
            ("content-type", "text/plain"),
        ] {
            fields.insert(name, HeaderValue::from_static(value));
        }
        fields.insert("server", HeaderValue::try_from("x".repeat(1025)).unwrap());
        let told = ApprovalRequest::fields(&fields);
        assert_eq!(
            told.into_iter().collect::<Vec<_>>(),
            [("content-type".into(), "text/plain".into()), ("rdn-price".into(), "5".into())]
        );
    }
}
