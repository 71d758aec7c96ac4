//! Checks HTTP responses of the node: JSON-RPC passes, whatever its status; anything else becomes an error that
//! describes it.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::{CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, StatusCode};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use jsonrpsee::core::http_helpers::HttpError;
use jsonrpsee::http_client::transport::Error as TransportError;
use jsonrpsee::http_client::{HttpBackend, HttpRequest, HttpResponse};
use jsonrpsee::types::ErrorObjectOwned;
use serde_json::value::RawValue;
use tower::{Layer, Service};

use super::node_name::NodeName;

/// The longest response to read, in bytes; a longer one is an error (of logs: a refusal of the range).
pub(super) const MAX_ANSWER: u32 = 10 * 1024 * 1024;
/// How much of an invalid response to quote, in bytes.
const SHOWN: usize = 80;
/// How much of it to strip of secrets before cutting out the quote: a secret cut in two would not be found.
const CLEANED: usize = 16 * 1024;
/// The magic number of gzip.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// Wraps the connection to the node in [`Answers`].
#[derive(Clone)]
pub(super) struct AnswersLayer(pub(super) NodeName);

/// The connection to the node, with every response either JSON-RPC or an [`Odd`] error.
#[derive(Clone)]
pub(super) struct Answers(HttpBackend, NodeName);

/// A response without a result.
#[derive(Debug, thiserror::Error)]
pub(super) enum Odd {
    /// A JSON-RPC error, with any HTTP status and ID.
    #[error("{0}")]
    Refused(ErrorObjectOwned),
    /// An HTTP error status.
    #[error("HTTP status {status}")]
    Rejected {
        /// The status.
        status: u16,
        /// The `Retry-After` header.
        retry_after: Option<Duration>,
    },
    /// A body that is not JSON-RPC, described.
    #[error("{0}")]
    Foreign(String),
}

impl Layer<HttpBackend> for AnswersLayer {
    type Service = Answers;

    fn layer(&self, backend: HttpBackend) -> Answers {
        Answers(backend, self.0.clone())
    }
}

impl Service<HttpRequest> for Answers {
    type Response = HttpResponse<Full<bytes::Bytes>>;
    type Error = TransportError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, TransportError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: HttpRequest) -> Self::Future {
        let (answer, name) = (self.0.call(request), self.1.clone());
        Box::pin(async move {
            let (head, body) = answer.await?.into_parts();
            let body = Limited::new(body, MAX_ANSWER as usize).collect().await;
            let body = body.map_err(|error| {
                let is_long = error.is::<LengthLimitError>();
                TransportError::Http(if is_long { HttpError::TooLarge } else { HttpError::Stream(error) })
            })?;
            let body = body.to_bytes();
            match examine(head.status, &head.headers, &body, &name) {
                Ok(()) => Ok(HttpResponse::new(Full::new(body))),
                Err(odd) => Err(TransportError::Http(HttpError::Stream(Box::new(odd)))),
            }
        })
    }
}

/// Checks that a response contains a result.
///
/// # Errors
/// A description of any other response.
fn examine(status: StatusCode, headers: &HeaderMap, body: &[u8], name: &NodeName) -> Result<(), Odd> {
    // Their headers contain the delay before a retry, which the body does not.
    let is_busy = matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
    if !is_busy && let Ok(members) = serde_json::from_slice::<BTreeMap<String, &RawValue>>(body) {
        if let Some(error) = members.get("error")
            && let Ok(refusal) = serde_json::from_str::<ErrorObjectOwned>(error.get())
        {
            return Err(Odd::Refused(refusal));
        }
        if members.contains_key("result") && status.is_success() {
            return Ok(());
        }
    }
    if !status.is_success() {
        let seconds = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
        let retry_after = seconds.map(Duration::from_secs);
        return Err(Odd::Rejected { status: status.as_u16(), retry_after });
    }
    Err(Odd::Foreign(describe(headers, body, name)))
}

/// Describes a response that is not JSON-RPC.
fn describe(headers: &HeaderMap, body: &[u8], name: &NodeName) -> String {
    if body.iter().all(u8::is_ascii_whitespace) {
        return "an empty response".to_owned();
    }
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
    if body.starts_with(&GZIP) || header(CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
        let coding = header(CONTENT_ENCODING).unwrap_or("gzip");
        return format!("a compressed response ({coding}), which was not requested");
    }
    let kind = header(CONTENT_TYPE).map(|kind| format!(", Content-Type {kind}")).unwrap_or_default();
    let Ok(text) = std::str::from_utf8(&body[..body.len().min(SHOWN)]).or_else(|error| {
        // A character cut in two at the end does not make the body binary.
        let is_cut = error.error_len().is_none() && body.len() > SHOWN;
        let whole = &body[..error.valid_up_to()];
        if is_cut { std::str::from_utf8(whole) } else { Err(error) }
    }) else {
        return format!("{} bytes of binary data{kind}", body.len());
    };
    let cleaned = name.clean(&String::from_utf8_lossy(&body[..body.len().min(CLEANED)]));
    let shown = &cleaned[..cleaned.floor_char_boundary(SHOWN)];
    let start = text.trim_start().to_ascii_lowercase();
    let what = match start.as_bytes().first() {
        _ if start.starts_with("<!doctype html") || start.starts_with("<html") => "an HTML page",
        Some(b'<') => "markup",
        Some(b'{' | b'[') => "JSON, but not JSON-RPC",
        _ => "text",
    };
    format!("{what}{kind}, starting with {shown:?}")
}

#[cfg(test)]
mod tests {
    use crate::chain::rpc::answers::*;

    fn seen(status: u16, field: Option<(&'static str, &'static str)>, body: &[u8]) -> Result<(), Odd> {
        let mut fields = HeaderMap::new();
        if let Some((name, value)) = field {
            fields.insert(name, value.parse().unwrap());
        }
        let name = NodeName::of("chain.rpc_url", "https://node.example/v3/0123456789abcdef").unwrap();
        examine(StatusCode::from_u16(status).unwrap(), &fields, body, &name)
    }

    #[test]
    fn describes_a_response_that_is_not_json_rpc() {
        for (field, body, expected) in [
            (None, &b""[..], "an empty response"),
            (None, b" \r\n", "an empty response"),
            (
                Some(("content-type", "text/html")),
                b"<!DOCTYPE html><p>Log in",
                "an HTML page, Content-Type text/html",
            ),
            (None, b"<html>", "an HTML page, starting with \"<html>\""),
            (None, b"<?xml version=\"1.0\"?>", "markup, starting with"),
            (None, &[0x1f, 0x8b, 8, 0], "a compressed response (gzip)"),
            (Some(("content-encoding", "br")), b"\x0b\x02", "a compressed response (br)"),
            (None, b"{\"message\": \"no such app\"}", "JSON, but not JSON-RPC, starting with"),
            (None, b"[]", "JSON, but not JSON-RPC"),
            (None, b"Bad Gateway", "text, starting with \"Bad Gateway\""),
            (None, &[0xff, 0xfe, 0], "3 bytes of binary data"),
        ] {
            let Err(Odd::Foreign(text)) = seen(200, field, body) else { panic!("{body:?} passes") };
            assert!(text.contains(expected), "{text}");
        }
        for before in 60..SHOWN {
            let body = format!("{}0123456789abcdef is unknown", "x".repeat(before));
            let Err(Odd::Foreign(text)) = seen(200, None, body.as_bytes()) else { panic!() };
            assert!(!text.contains('0'), "a secret at the cut is not found: {text}");
        }
        let long = "ä".repeat(SHOWN);
        let Err(Odd::Foreign(text)) = seen(200, None, format!("x{long}").as_bytes()) else { panic!() };
        assert!(text.starts_with("text") && text.len() < 2 * SHOWN, "{text}");
    }

    #[test]
    fn json_rpc_counts_whatever_status_it_comes_with() {
        assert!(seen(200, None, br#"{"jsonrpc":"2.0","id":7,"result":null}"#).is_ok());
        for (status, id) in [(200, "7"), (400, "1"), (403, "null"), (500, "\"x\"")] {
            let body = format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":-32601,"message":"none"}}}}"#);
            let Err(Odd::Refused(refusal)) = seen(status, None, body.as_bytes()) else { panic!("{status}") };
            assert_eq!((refusal.code(), refusal.message()), (-32601, "none"));
        }
        for (status, field, expected) in [
            (429, Some(("retry-after", "3")), Some(3)),
            (503, Some(("retry-after", "Fri, 31 Dec 1999 23:59:59 GMT")), None),
            (401, None, None),
        ] {
            let Err(Odd::Rejected { retry_after, .. }) = seen(status, field, b"<html>") else { panic!() };
            assert_eq!(retry_after, expected.map(Duration::from_secs));
        }
    }
}
