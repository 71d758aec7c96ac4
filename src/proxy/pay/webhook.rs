//! Asking somebody else before anything is done about a hook: a webhook, or an [`Approver`] of the program that uses
//! this library. Only a clear answer that comes in time lets a purchase go on. No secret is ever in a question.

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

use crate::protocol::policy::Webhook;
use crate::protocol::schemes;
use crate::protocol::{Address, Amount, ChannelId};
use crate::shutdown::Shutdown;

/// The largest answer of a webhook, in bytes.
const LARGEST_ANSWER: usize = 16 * 1024;
/// How much of a reason is kept, in characters.
const LONGEST_REASON: usize = 200;
/// How much of a field's value is told, in bytes.
const LONGEST_VALUE: usize = 1024;
/// The hook that is not about a purchase.
pub(crate) const CLOSE_DENIED: &str = "cooperative_close_denied";
/// How many notices may be under way at once; further ones are dropped.
const NOTICES: usize = 64;

/// Somebody who is asked at the turns of a purchase, such as the program that uses this library.
///
/// It is asked by hooks that name no webhook: by those whose policy says to ask, and at each complaint of a seller that
/// the policy would go on after. Of a paid request, and of the end of any request, it is told only, and what it then
/// answers is dropped. An answer that the hook has no use for stops the request. A webhook is one, too.
pub trait Approver: fmt::Debug + Send + Sync {
    /// Answers a question. It is dropped when the client request has no more time (`limits.pay_timeout`), or when the
    /// client leaves.
    fn advise<'a>(&'a self, question: &'a ApprovalRequest) -> BoxFuture<'a, Decision>;
}

/// What is asked: at which turn of which purchase.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ApprovalRequest {
    /// The key below `[hooks]`.
    pub hook: &'static str,
    /// The method of the client's request.
    pub method: String,
    /// The URL of the client's request, without a user name.
    pub url: String,
    /// The price, in base units, where one is asked for.
    pub price: Option<Amount>,
    /// Who is to be paid.
    pub receiver: Option<Address>,
    /// The channel of the payment in question, once there is one.
    pub channel: Option<ChannelId>,
    /// How many payments were presented for this client request so far.
    pub attempt: u32,
    /// The status of the origin's answer, where there is one.
    pub status: Option<u16>,
    /// What was paid for the request, where it is told of a paid request or of the end of one.
    pub paid: Option<Amount>,
    /// What may have been paid, where it is told of the end of a request.
    pub unclear: Option<Amount>,
    /// Fields of the origin's answer, of those that can hold no secret.
    pub headers: BTreeMap<String, String>,
}

/// What the one who was asked says. Each hook has words of its own; any other one stops the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// `payment_requested`: pay. At the complaints of a seller, and at answers: go on as the policy says.
    Pay,
    /// At the complaints of a seller: go on, from the same channel. At answers: pass them on.
    Retry,
    /// `nonexisting_channel`: retry, and pay from another channel, once, if the chain does not know this one either.
    Reopen,
    /// `invalid_amount`: go on from the seller's total, where that is harmless or proven.
    Adopt,
    /// `init`: send the request. `http_response` and `http_error`: pass the answer on.
    Pass,
    /// `cooperative_close_denied`: leave the channel open and go on with others.
    Keep,
    /// `cooperative_close_denied`: close the channel without its seller.
    CloseAlone,
    /// Stop.
    Abort {
        /// Why, for the client and the log.
        reason: String,
    },
}

/// Where questions are put.
#[derive(Debug)]
pub(crate) struct Desk {
    client: Client<HttpConnector, Full<Bytes>>,
    advisor: Option<Arc<dyn Approver>>,
    notices: Arc<Semaphore>,
}

/// One webhook, about to be asked.
#[derive(Debug)]
struct WebhookCall {
    client: Client<HttpConnector, Full<Bytes>>,
    webhook: Webhook,
}

/// What a webhook answers.
#[derive(Deserialize)]
struct Said {
    r#do: String,
    reason: Option<String>,
}

impl Desk {
    pub(crate) fn new(advisor: Option<Arc<dyn Approver>>) -> Self {
        // A connection for each question: one that is reused may be lost in a way that looks like a refusal.
        let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build_http();
        Self { client, advisor, notices: Arc::new(Semaphore::new(NOTICES)) }
    }

    /// Puts a question to a webhook, else to the advisor. `None` when there is neither.
    pub(crate) async fn ask(
        &self,
        webhook: Option<&Webhook>,
        question: &ApprovalRequest,
        by: Instant,
    ) -> Option<Decision> {
        let advisor = self.whom(webhook)?;
        let late = || Decision::Abort { reason: "no answer within limits.pay_timeout".to_owned() };
        let advice = timeout_at(by, advisor.advise(question)).await.unwrap_or_else(|_| late());
        let advice = advice.checked(question.hook);
        tracing::debug!(hook = question.hook, url = question.url, ?advice, "asked");
        Some(advice)
    }

    /// Tells of something without waiting for an answer.
    pub(super) fn tell(
        &self,
        webhook: Option<&Webhook>,
        question: ApprovalRequest,
        by: Instant,
        shutdown: &Shutdown,
    ) {
        let Some(advisor) = self.whom(webhook) else { return };
        let Ok(place) = Arc::clone(&self.notices).try_acquire_owned() else {
            tracing::warn!(
                hook = question.hook,
                url = question.url,
                "too many notices under way: one is dropped"
            );
            return;
        };
        shutdown.spawn(async move {
            if let Ok(Decision::Abort { reason }) = timeout_at(by, advisor.advise(&question)).await {
                tracing::warn!(hook = question.hook, reason, "webhook notification failed or was rejected");
            }
            drop(place);
        });
    }

    fn whom(&self, webhook: Option<&Webhook>) -> Option<Arc<dyn Approver>> {
        match webhook {
            Some(webhook) => {
                Some(Arc::new(WebhookCall { client: self.client.clone(), webhook: webhook.clone() }))
            }
            None => self.advisor.clone(),
        }
    }
}

impl Approver for WebhookCall {
    fn advise<'a>(&'a self, question: &'a ApprovalRequest) -> BoxFuture<'a, Decision> {
        Box::pin(async move {
            let within = self.webhook.within;
            let said = match timeout(within, self.post(question)).await {
                Ok(said) => said,
                Err(_) => Err(format!(
                    "did not answer within {} (webhook_timeout)",
                    humantime::format_duration(within)
                )),
            };
            said.unwrap_or_else(|wrong| Decision::Abort {
                reason: format!("the webhook {} {wrong}", self.webhook),
            })
        })
    }
}

impl WebhookCall {
    /// Posts the question and reads the answer. `Err` says what is wrong with the webhook.
    async fn post(&self, question: &ApprovalRequest) -> Result<Decision, String> {
        let unreachable = |error: String| format!("cannot be asked: {error}");
        let json = serde_json::to_vec(question).map_err(|error| unreachable(error.to_string()))?;
        let request = Request::builder()
            .method(Method::POST)
            .uri(self.webhook.url.clone())
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::from(json))
            .map_err(|error| unreachable(error.to_string()))?;
        let answer = self.client.request(request).await.map_err(|error| unreachable(error.to_string()))?;
        if words(question.hook).is_empty() && answer.status().is_success() {
            // It was told, not asked.
            return Ok(Decision::Pass);
        }
        if answer.status() != StatusCode::OK {
            return Err(format!("answered {}", answer.status()));
        }
        let body = Limited::new(answer.into_body(), LARGEST_ANSWER).collect().await;
        let body = body.map_err(|error| format!("gave an answer that cannot be read: {error}"))?;
        understand(question.hook, &body.to_bytes())
    }
}

impl ApprovalRequest {
    /// The fields of an answer that may be told.
    pub(super) fn fields(fields: &HeaderMap) -> BTreeMap<String, String> {
        harmless()
            .filter_map(|name| {
                let value = fields.get(&name)?.to_str().ok().filter(|value| value.len() <= LONGEST_VALUE)?;
                Some((name.to_string(), value.to_owned()))
            })
            .collect()
    }
}

/// The fields that can hold no secret: no signature, no cookie, nothing that a seller makes up for one client.
fn harmless() -> impl Iterator<Item = HeaderName> {
    let ours =
        [header::CONTENT_LENGTH, header::CONTENT_TYPE, header::DATE, header::RETRY_AFTER, header::SERVER];
    ours.into_iter().chain(schemes::public_headers().cloned())
}

/// The words that a hook's answer may hold; none where it is told only.
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

/// The words of a hook as they are told to people.
fn listed(hook: &str) -> String {
    match words(hook) {
        [others @ .., last] if !others.is_empty() => format!("{} or {last}", others.join(", ")),
        words => words.concat(),
    }
}

impl Decision {
    /// Its word.
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

    /// Whether a hook has a use for it. Earlier versions took "pay" and "retry" at each turn of a purchase.
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

    /// The same, or an abort where the hook has no use for it.
    fn checked(self, hook: &str) -> Self {
        if self.is_for(hook) {
            return self;
        }
        Self::Abort { reason: format!("the answer was {}, where it is {}", self.word(), listed(hook)) }
    }
}

/// Reads an answer to the question of a hook.
fn understand(hook: &str, body: &[u8]) -> Result<Decision, String> {
    let said: Said = serde_json::from_slice(body)
        .map_err(|_| format!("gave an answer that is not {{\"do\": …}} with {}", listed(hook)))?;
    let advice = match said.r#do.as_str() {
        "pay" => Decision::Pay,
        "retry" => Decision::Retry,
        "reopen" => Decision::Reopen,
        "adopt" => Decision::Adopt,
        "pass" => Decision::Pass,
        "keep" => Decision::Keep,
        "close_alone" => Decision::CloseAlone,
        "abort" => {
            let reason = said.reason.filter(|reason| !reason.trim().is_empty());
            let reason = reason.unwrap_or_else(|| "no reason given".to_owned());
            Decision::Abort { reason: reason.chars().take(LONGEST_REASON).collect() }
        }
        _ => return Err(format!("answered with an unknown word, where it is {}", listed(hook))),
    };
    if advice.is_for(hook) {
        return Ok(advice);
    }
    Err(format!("answered with {}, an unknown word, where it is {}", advice.word(), listed(hook)))
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
                let said = understand(hook, format!("{{\"do\": \"{word}\"}}").as_bytes());
                match said {
                    Ok(advice) => {
                        assert_eq!(advice.word(), word);
                        assert!(takes.contains(&word), "{hook} takes {word}");
                        assert_eq!(advice.clone().checked(hook), advice);
                    }
                    Err(wrong) => {
                        assert!(!takes.contains(&word), "{hook} does not take {word}");
                        assert!(wrong.ends_with(&format!("an unknown word, where it is {named}")), "{wrong}");
                    }
                }
            }
            let listed = understand(hook, b"yes").unwrap_err();
            assert!(listed.ends_with(&format!("with {named}")), "{listed}");
        }
        // An advisor of the library can say what the hook has no use for.
        let Decision::Abort { reason } = Decision::Reopen.checked("init") else { panic!("it goes on") };
        assert_eq!(reason, "the answer was reopen, where it is pass or abort");
    }

    #[test]
    fn only_the_words_count() {
        let abort = |reason: &str| Some(Decision::Abort { reason: reason.into() });
        let understand = |body: &[u8]| understand("invalid_amount", body).ok();
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
            assert_eq!(understand(body.as_bytes()), expected, "{body}");
        }
        let long = format!(r#"{{"do": "abort", "reason": "{}"}}"#, "é".repeat(1000));
        assert_eq!(understand(long.as_bytes()), abort(&"é".repeat(200)));
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
