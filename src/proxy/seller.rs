//! Asking sellers over HTTP: the state of a channel, and a closing signature. The manager's questions, over the
//! proxy's own client; nothing in here pays.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::Instant;
use tower::{Service as _, ServiceExt as _};

use super::pay::webhook::{Advice, CLOSE_DENIED, Desk, Question};
use super::{Body, Forward};
use crate::payments::seller::{Denied, Seller, SellerError, SellerState};
use crate::protocol::policy::{CloseDenied, Webhook};
use crate::protocol::{Address, Amount, Signature};

/// Asks sellers through [`Forward`].
#[derive(Debug)]
pub struct SellerClient {
    forward: Forward,
    webhooks: Desk,
    /// How long an answer may take, its body included.
    within: Duration,
}

/// The largest answer that is read, in bytes.
const MAX_ANSWER: usize = 64 << 10;
/// How much of a refusal's text is repeated, in characters.
const LONGEST_TEXT: usize = 200;

impl SellerClient {
    /// Asks through `forward`; an answer may take `within`.
    #[must_use]
    pub fn new(forward: Forward, within: Duration) -> Self {
        Self { forward, webhooks: Desk::new(None), within }
    }

    async fn ask(&self, method: Method, url: String, form: String) -> Result<Bytes, SellerError> {
        let request = Request::builder()
            .method(method)
            .uri(url)
            .header(header::ACCEPT, "application/json")
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(if form.is_empty() { Body::Empty } else { Body::full(form) })
            .map_err(|error| SellerError::Unreachable(error.to_string()))?;
        let unreachable = |error: &dyn std::fmt::Display| SellerError::Unreachable(error.to_string());
        let asking = async {
            let mut forward = self.forward.clone();
            let ready = forward.ready().await.map_err(|error| unreachable(&error))?;
            let answer = ready.call(request).await.map_err(|error| unreachable(&error))?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
            Ok((status, body.map_err(|error| unreachable(&error))?.to_bytes()))
        };
        let (status, body) = tokio::time::timeout(self.within, asking)
            .await
            .unwrap_or_else(|_| Err(unreachable(&format!("no answer within {:?}", self.within))))?;
        if status == StatusCode::OK {
            return Ok(body);
        }
        let text = String::from_utf8_lossy(&body);
        let text = text.chars().filter(|c| !c.is_control()).take(LONGEST_TEXT).collect();
        Err(SellerError::Refused { status: status.as_u16(), text })
    }
}

impl Seller for SellerClient {
    fn state<'a>(
        &'a self,
        gateway: &'a str,
        payer: Address,
        open_block: u32,
    ) -> BoxFuture<'a, Result<SellerState, SellerError>> {
        async move {
            let body = self.ask(Method::GET, channel_url(gateway, payer, open_block), String::new()).await?;
            read_state(&body)
        }
        .boxed()
    }

    fn closing_signature<'a>(
        &'a self,
        gateway: &'a str,
        payer: Address,
        open_block: u32,
        total: Amount,
    ) -> BoxFuture<'a, Result<Signature, SellerError>> {
        async move {
            let url = channel_url(gateway, payer, open_block);
            let body = self.ask(Method::DELETE, url, format!("balance={total}")).await?;
            read_closing_signature(&body)
        }
        .boxed()
    }

    fn may_close_alone<'a>(
        &'a self,
        webhook: &'a Webhook,
        Denied { gateway, channel, status }: Denied<'a>,
    ) -> BoxFuture<'a, Result<CloseDenied, String>> {
        let question = Question {
            hook: CLOSE_DENIED,
            method: Method::DELETE.to_string(),
            url: gateway.to_owned(),
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
            // It has a limit of its own, which comes first.
            let by = Instant::now() + webhook.within * 2;
            match self.webhooks.ask(Some(webhook), &question, by).await {
                Some(Advice::CloseAlone) => Ok(CloseDenied::CloseAlone),
                Some(Advice::Keep) => Ok(CloseDenied::Keep),
                Some(Advice::Abort { reason }) => Err(reason),
                Some(_) | None => Err("the webhook gave no answer".to_owned()),
            }
        }
        .boxed()
    }
}

fn channel_url(gateway: &str, payer: Address, open_block: u32) -> String {
    format!("{}/channels/{payer}/{open_block}", gateway.trim_end_matches('/'))
}

fn read_state(body: &[u8]) -> Result<SellerState, SellerError> {
    #[derive(Deserialize)]
    struct Said<'a> {
        /// A number of any length, bare or as a text.
        #[serde(borrow)]
        balance: &'a RawValue,
        last_signature: Option<String>,
    }
    let said: Said<'_> = serde_json::from_slice(body).map_err(|error| not_understood(&error))?;
    let total = said.balance.get().trim_matches('"').parse().map_err(|error| not_understood(&error))?;
    let signature = match said.last_signature.as_deref() {
        None | Some("") => None,
        Some(text) => Some(Signature::parse(text).ok_or_else(|| not_understood(&"last_signature is none"))?),
    };
    Ok(SellerState { total, signature })
}

fn read_closing_signature(body: &[u8]) -> Result<Signature, SellerError> {
    #[derive(Deserialize)]
    struct Said {
        close_signature: String,
    }
    let said: Said = serde_json::from_slice(body).map_err(|error| not_understood(&error))?;
    Signature::parse(&said.close_signature).ok_or_else(|| not_understood(&"close_signature is none"))
}

fn not_understood(error: &dyn std::fmt::Display) -> SellerError {
    SellerError::NotUnderstood(error.to_string())
}

#[cfg(test)]
mod tests {
    use crate::proxy::seller::*;

    #[test]
    fn states_of_any_size_are_read_and_others_are_refused() {
        let digits = "11".repeat(65);
        let signature = Some(Signature([0x11; 65]));
        for (text, expected) in [
            (r#"{"balance": 7, "last_signature": null, "deposit": 1}"#.to_owned(), (7.into(), None)),
            (format!(r#"{{"balance": "7", "last_signature": "0x{digits}"}}"#), (7.into(), signature)),
            (format!(r#"{{"balance": {}, "last_signature": ""}}"#, Amount::MAX), (Amount::MAX, None)),
        ] {
            let (total, signature) = expected;
            assert_eq!(read_state(text.as_bytes()), Ok(SellerState { total, signature }), "{text}");
        }
        for text in [
            "",
            "7",
            "{}",
            r#"{"balance": -1}"#,
            r#"{"balance": 1e3}"#,
            r#"{"balance": 1, "last_signature": "0x"}"#,
        ] {
            assert!(matches!(read_state(text.as_bytes()), Err(SellerError::NotUnderstood(_))), "{text}");
        }
        assert!(read_closing_signature(br#"{"close_signature": "0x12"}"#).is_err());
    }
}
