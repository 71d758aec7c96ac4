//! Asking somebody else before anything is done about a hook: a webhook, or an [`Advisor`] of the program that uses
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

use crate::protocol::microraiden::headers as rdn;
use crate::protocol::policy::Webhook;
use crate::protocol::{Address, Amount, ChannelId};
use crate::shutdown::Shutdown;

/// The largest answer of a webhook, in bytes.
const LARGEST_ANSWER: usize = 16 * 1024;
/// How much of a reason is kept, in characters.
const LONGEST_REASON: usize = 200;
/// How much of a field's value is told, in bytes.
const LONGEST_VALUE: usize = 1024;
/// The hook that is not about a purchase.
pub(in crate::proxy) const CLOSE_DENIED: &str = "cooperative_close_denied";
/// How many notices may be under way at once; further ones are dropped.
const NOTICES: usize = 64;

/// Somebody who is asked at the turns of a purchase, such as the program that uses this library.
///
/// It is asked by hooks that name no webhook: by those whose policy says to ask, and at each complaint of a seller that
/// the policy would go on after. Of a paid request it is told only, and what it then answers is dropped. A webhook is
/// one, too.
pub trait Advisor: fmt::Debug + Send + Sync {
    /// Answers a question. It is dropped when the client request has no more time (`limits.pay_within`), or when the
    /// client leaves.
    fn advise<'a>(&'a self, question: &'a Question) -> BoxFuture<'a, Advice>;
}

/// What is asked: at which turn of which purchase.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Question {
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
    /// Fields of the origin's answer, of those that can hold no secret.
    pub headers: BTreeMap<String, String>,
}

/// What the one who was asked says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Advice {
    /// Pay; or go on as the policy says.
    Pay,
    /// Go on as the policy says. Where nothing was presented yet there is nothing to go on with: it aborts.
    Retry,
    /// Stop.
    Abort {
        /// Why, for the client and the log.
        reason: String,
    },
}

/// Where questions are put.
#[derive(Debug)]
pub(in crate::proxy) struct Desk {
    client: Client<HttpConnector, Full<Bytes>>,
    advisor: Option<Arc<dyn Advisor>>,
    notices: Arc<Semaphore>,
}

/// One webhook, about to be asked.
#[derive(Debug)]
struct Call {
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
    pub(in crate::proxy) fn new(advisor: Option<Arc<dyn Advisor>>) -> Self {
        // A connection for each question: one that is reused may be lost in a way that looks like a refusal.
        let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build_http();
        Self { client, advisor, notices: Arc::new(Semaphore::new(NOTICES)) }
    }

    /// Puts a question to a webhook, else to the advisor. `None` when there is neither.
    pub(in crate::proxy) async fn ask(
        &self,
        webhook: Option<&Webhook>,
        question: &Question,
        by: Instant,
    ) -> Option<Advice> {
        let advisor = self.whom(webhook)?;
        let late = || Advice::Abort { reason: "no answer within limits.pay_within".to_owned() };
        let advice = timeout_at(by, advisor.advise(question)).await.unwrap_or_else(|_| late());
        tracing::debug!(hook = question.hook, url = question.url, ?advice, "asked");
        Some(advice)
    }

    /// Tells of something without waiting for an answer.
    pub(super) fn tell(
        &self,
        webhook: Option<&Webhook>,
        question: Question,
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
            if let Ok(Advice::Abort { reason }) = timeout_at(by, advisor.advise(&question)).await {
                tracing::warn!(hook = question.hook, reason, "a notice did not arrive, or was not liked");
            }
            drop(place);
        });
    }

    fn whom(&self, webhook: Option<&Webhook>) -> Option<Arc<dyn Advisor>> {
        match webhook {
            Some(webhook) => Some(Arc::new(Call { client: self.client.clone(), webhook: webhook.clone() })),
            None => self.advisor.clone(),
        }
    }
}

impl Advisor for Call {
    fn advise<'a>(&'a self, question: &'a Question) -> BoxFuture<'a, Advice> {
        Box::pin(async move {
            let within = self.webhook.within;
            let said = match timeout(within, self.post(question)).await {
                Ok(said) => said,
                Err(_) => Err(format!(
                    "did not answer within {} (webhook_within)",
                    humantime::format_duration(within)
                )),
            };
            said.unwrap_or_else(|wrong| Advice::Abort {
                reason: format!("the webhook {} {wrong}", self.webhook),
            })
        })
    }
}

impl Call {
    /// Posts the question and reads the answer. `Err` says what is wrong with the webhook.
    async fn post(&self, question: &Question) -> Result<Advice, String> {
        let unreachable = |error: String| format!("cannot be asked: {error}");
        let json = serde_json::to_vec(question).map_err(|error| unreachable(error.to_string()))?;
        let request = Request::builder()
            .method(Method::POST)
            .uri(self.webhook.url.clone())
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::from(json))
            .map_err(|error| unreachable(error.to_string()))?;
        let answer = self.client.request(request).await.map_err(|error| unreachable(error.to_string()))?;
        if answer.status() != StatusCode::OK {
            return Err(format!("answered {}", answer.status()));
        }
        let body = Limited::new(answer.into_body(), LARGEST_ANSWER).collect().await;
        let body = body.map_err(|error| format!("gave an answer that cannot be read: {error}"))?;
        understand(question.hook, &body.to_bytes())
    }
}

impl Question {
    /// The fields of an answer that may be told.
    pub(super) fn fields(fields: &HeaderMap) -> BTreeMap<String, String> {
        harmless()
            .into_iter()
            .filter_map(|name| {
                let value = fields.get(&name)?.to_str().ok().filter(|value| value.len() <= LONGEST_VALUE)?;
                Some((name.to_string(), value.to_owned()))
            })
            .collect()
    }
}

/// The fields that can hold no secret: no signature, no cookie, nothing that a seller makes up for one client.
fn harmless() -> [HeaderName; 16] {
    [
        header::CONTENT_LENGTH,
        header::CONTENT_TYPE,
        header::DATE,
        header::RETRY_AFTER,
        header::SERVER,
        rdn::CONTRACT_ADDRESS.clone(),
        rdn::COST.clone(),
        rdn::GATEWAY_PATH.clone(),
        rdn::INSUFFICIENT_CONFIRMATIONS.clone(),
        rdn::INVALID_AMOUNT.clone(),
        rdn::INVALID_BALANCE_PROOF.clone(),
        rdn::NONEXISTING_CHANNEL.clone(),
        rdn::PRICE.clone(),
        rdn::RECEIVER_ADDRESS.clone(),
        rdn::SENDER_BALANCE.clone(),
        rdn::TOKEN_ADDRESS.clone(),
    ]
}

/// Reads an answer. Where a purchase is in question `pay` and `retry` let it go on, where a close is `close_alone`.
fn understand(hook: &str, body: &[u8]) -> Result<Advice, String> {
    let is_close = hook == CLOSE_DENIED;
    let words = if is_close { "close_alone or abort" } else { "pay, retry or abort" };
    let said: Said = serde_json::from_slice(body)
        .map_err(|_| format!("gave an answer that is not {{\"do\": …}} with {words}"))?;
    match said.r#do.as_str() {
        "pay" if !is_close => Ok(Advice::Pay),
        "retry" if !is_close => Ok(Advice::Retry),
        "close_alone" if is_close => Ok(Advice::Retry),
        "abort" => {
            let reason = said.reason.filter(|reason| !reason.trim().is_empty());
            let reason = reason.unwrap_or_else(|| "no reason given".to_owned());
            Ok(Advice::Abort { reason: reason.chars().take(LONGEST_REASON).collect() })
        }
        _ => Err(format!("answered with an unknown word: it must be {words}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn only_the_words_count() {
        let abort = |reason: &str| Some(Advice::Abort { reason: reason.into() });
        for (body, expected) in [
            (r#"{"do": "pay"}"#, Some(Advice::Pay)),
            (r#"{"do": "retry", "reason": null, "more": [1]}"#, Some(Advice::Retry)),
            (r#"{"do": "abort", "reason": "no"}"#, abort("no")),
            (r#"{"do": "abort", "reason": " "}"#, abort("no reason given")),
            (r#"{"do": "abort"}"#, abort("no reason given")),
            (r#"{"do": "PAY"}"#, None),
            (r#"{"do": ""}"#, None),
            (r#"{"do": true}"#, None),
            (r#"{"do": "pay"} x"#, None),
            (r#"{"do": "pay", "do": "abort"}"#, None),
            (r#"{"reason": "pay"}"#, None),
            (r#"["pay"]"#, None),
            (r#""pay""#, None),
            ("pay", None),
            ("", None),
        ] {
            assert_eq!(understand("success", body.as_bytes()).ok(), expected, "{body}");
        }
        for (body, expected) in [
            (r#"{"do": "close_alone"}"#, Some(Advice::Retry)),
            (r#"{"do": "abort", "reason": "no"}"#, abort("no")),
            (r#"{"do": "pay"}"#, None),
            (r#"{"do": "retry"}"#, None),
        ] {
            assert_eq!(understand(CLOSE_DENIED, body.as_bytes()).ok(), expected, "{body}");
        }
        assert_eq!(understand("success", br#"{"do": "close_alone"}"#).ok(), None);
        let long = format!(r#"{{"do": "abort", "reason": "{}"}}"#, "é".repeat(1000));
        assert_eq!(understand("success", long.as_bytes()).ok(), abort(&"é".repeat(200)));
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
        let told = Question::fields(&fields);
        assert_eq!(
            told.into_iter().collect::<Vec<_>>(),
            [("content-type".into(), "text/plain".into()), ("rdn-price".into(), "5".into())]
        );
    }
}
