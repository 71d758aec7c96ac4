//! A client of sellers' REST interfaces on top of any HTTP client.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use serde::Deserialize;
use serde_json::value::RawValue;
use tower::{Service, ServiceExt as _};

use super::seller::{SellerEndpoint, SellerError, SellerState};
use crate::protocol::{Address, Amount, Signature};

/// Sends requests to sellers through `S`, an HTTP client with buffered bodies.
pub struct SellerClient<S> {
    service: S,
    timeout: Duration,
}

/// The largest response to read, in bytes.
const MAX_ANSWER: usize = 64 << 10;
/// How much of an error response to quote, in characters.
const MAX_TEXT: usize = 200;

impl<S> SellerClient<S> {
    /// Sends requests through `service`; a response, including its body, may take `timeout`.
    #[must_use]
    pub fn new(service: S, timeout: Duration) -> Self {
        Self { service, timeout }
    }
}

impl<S> fmt::Debug for SellerClient<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SellerClient").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

impl<S, B> SellerClient<S>
where
    S: Service<Request<Bytes>, Response = Response<B>> + Clone,
    S::Error: fmt::Display,
    B: http_body::Body<Error: Into<Box<dyn std::error::Error + Send + Sync>>>,
{
    async fn ask(&self, method: Method, url: String, form: String) -> Result<Bytes, SellerError> {
        let request = Request::builder()
            .method(method)
            .uri(url)
            .header(header::ACCEPT, "application/json")
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Bytes::from(form))
            .map_err(|error| unreachable(&error))?;
        let asking = async {
            let answer = self.service.clone().oneshot(request).await.map_err(|error| unreachable(&error))?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
            Ok((status, body.map_err(|error| unreachable(&error))?.to_bytes()))
        };
        let (status, body) = tokio::time::timeout(self.timeout, asking).await.unwrap_or_else(|_| {
            Err(unreachable(&format_args!("no response within limits.seller_timeout ({:?})", self.timeout)))
        })?;
        if status == StatusCode::OK {
            return Ok(body);
        }
        let text = String::from_utf8_lossy(&body);
        let text = text.chars().filter(|c| !c.is_control()).take(MAX_TEXT).collect();
        Err(SellerError::Refused { status: status.as_u16(), text })
    }
}

impl<S, B> SellerEndpoint for SellerClient<S>
where
    S: Service<Request<Bytes>, Response = Response<B>, Error: fmt::Display, Future: Send>
        + Clone
        + Send
        + Sync,
    B: http_body::Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send,
{
    fn state<'a>(
        &'a self,
        url: &'a str,
        payer: Address,
        open_block: u32,
    ) -> BoxFuture<'a, Result<SellerState, SellerError>> {
        async move {
            let body = self.ask(Method::GET, channel_url(url, payer, open_block), String::new()).await?;
            read_state(&body)
        }
        .boxed()
    }

    fn closing_signature<'a>(
        &'a self,
        url: &'a str,
        payer: Address,
        open_block: u32,
        total: Amount,
    ) -> BoxFuture<'a, Result<Signature, SellerError>> {
        async move {
            let url = channel_url(url, payer, open_block);
            let body = self.ask(Method::DELETE, url, format!("balance={total}")).await?;
            read_closing_signature(&body)
        }
        .boxed()
    }
}

fn channel_url(base: &str, payer: Address, open_block: u32) -> String {
    format!("{}/channels/{payer}/{open_block}", base.trim_end_matches('/'))
}

fn read_state(body: &[u8]) -> Result<SellerState, SellerError> {
    #[derive(Deserialize)]
    struct StateAnswer<'a> {
        /// A number of any length, as a JSON number or a string.
        #[serde(borrow)]
        balance: &'a RawValue,
        last_signature: Option<String>,
    }
    let answer: StateAnswer<'_> = serde_json::from_slice(body).map_err(|error| not_understood(&error))?;
    let total = answer.balance.get().trim_matches('"').parse().map_err(|error| not_understood(&error))?;
    let signature = match answer.last_signature.as_deref() {
        None | Some("") => None,
        Some(text) => {
            Some(Signature::parse(text).ok_or_else(|| not_understood(&"last_signature is not a signature"))?)
        }
    };
    Ok(SellerState { total, signature })
}

fn read_closing_signature(body: &[u8]) -> Result<Signature, SellerError> {
    #[derive(Deserialize)]
    struct ClosingAnswer {
        close_signature: String,
    }
    let answer: ClosingAnswer = serde_json::from_slice(body).map_err(|error| not_understood(&error))?;
    Signature::parse(&answer.close_signature)
        .ok_or_else(|| not_understood(&"close_signature is not a signature"))
}

fn unreachable(error: &dyn fmt::Display) -> SellerError {
    SellerError::Unreachable(error.to_string())
}

fn not_understood(error: &dyn std::fmt::Display) -> SellerError {
    SellerError::NotUnderstood(error.to_string())
}

#[cfg(test)]
mod tests {
    use crate::channels::seller_client::*;

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
