//! What a client is told when something went wrong: status, reason and log level of every error, in one place.
//! Bodies are RFC 9457, the field `Proxy-Status` is RFC 9209.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Request, Response, StatusCode};
use tower::Service;
use tracing::{info, warn};

use super::message::expect;
use super::message::expect::Offered;
use super::message::headers::PSEUDONYM;
use super::message::validate;
use super::{Body, DialError, ForwardError, RequestService};

/// The field of RFC 9209.
pub const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");

/// What is wrong is the request.
const BAD_REQUEST: &str = "http_request_error";
/// More of a reason is cut off.
const LONGEST_DETAILS: usize = 512;

/// What to tell a client about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Verdict {
    status: StatusCode,
    /// The error type of RFC 9209 section 2.3.
    error: &'static str,
    /// Whether the operator should know without looking for it.
    warns: bool,
}

fn verdict(error: &ForwardError) -> Verdict {
    let quiet = |status, error| Verdict { status, error, warns: false };
    let loud = |status, error| Verdict { status, error, warns: true };
    match error {
        ForwardError::BadTarget(_) | ForwardError::Malformed(_) => {
            quiet(StatusCode::BAD_REQUEST, BAD_REQUEST)
        }
        ForwardError::Expectation => quiet(StatusCode::EXPECTATION_FAILED, BAD_REQUEST),
        ForwardError::UnsupportedScheme(_) | ForwardError::UnsupportedCoding => {
            quiet(StatusCode::NOT_IMPLEMENTED, BAD_REQUEST)
        }
        ForwardError::Loop => loud(StatusCode::LOOP_DETECTED, "proxy_loop_detected"),
        ForwardError::Dial(DialError::Resolve { .. }) => quiet(StatusCode::BAD_GATEWAY, "dns_error"),
        ForwardError::Dial(DialError::Timeout { .. }) => {
            quiet(StatusCode::GATEWAY_TIMEOUT, "connection_timeout")
        }
        ForwardError::Dial(DialError::Refused { .. }) => quiet(StatusCode::BAD_GATEWAY, "connection_refused"),
        ForwardError::Dial(DialError::Unreachable { .. }) => {
            quiet(StatusCode::BAD_GATEWAY, "destination_ip_unroutable")
        }
        ForwardError::Dial(DialError::Certificate { .. }) => {
            loud(StatusCode::BAD_GATEWAY, "tls_certificate_error")
        }
        ForwardError::Dial(DialError::Tls { .. }) => loud(StatusCode::BAD_GATEWAY, "tls_protocol_error"),
        ForwardError::Dial(DialError::Roots(_)) => {
            loud(StatusCode::INTERNAL_SERVER_ERROR, "proxy_configuration_error")
        }
        ForwardError::Dial(DialError::Outbound { reason, .. }) => {
            verdict(&ForwardError::Dial(*reason.clone()))
        }
        ForwardError::Dial(DialError::Denied { status: StatusCode::GATEWAY_TIMEOUT, .. }) => {
            quiet(StatusCode::GATEWAY_TIMEOUT, "destination_unavailable")
        }
        ForwardError::Dial(DialError::Denied { status, .. }) | ForwardError::Denied { status, .. }
            if *status == StatusCode::PROXY_AUTHENTICATION_REQUIRED =>
        {
            loud(StatusCode::BAD_GATEWAY, "proxy_configuration_error")
        }
        ForwardError::Dial(DialError::Denied { .. }) | ForwardError::Denied { .. } => {
            quiet(StatusCode::BAD_GATEWAY, "destination_unavailable")
        }
        ForwardError::Dial(DialError::BadProxy { .. }) => {
            loud(StatusCode::BAD_GATEWAY, "http_protocol_error")
        }
        ForwardError::Unwritten(_) => quiet(StatusCode::BAD_GATEWAY, "connection_terminated"),
        ForwardError::NotProcessed { .. } => loud(StatusCode::BAD_GATEWAY, "connection_terminated"),
        ForwardError::Lost(_) => loud(StatusCode::BAD_GATEWAY, "http_response_incomplete"),
        ForwardError::RequestBody(_) => quiet(StatusCode::BAD_REQUEST, BAD_REQUEST),
        ForwardError::HeadTooLarge => loud(StatusCode::BAD_GATEWAY, "http_response_header_section_size"),
        ForwardError::BadAnswer(_) => loud(StatusCode::BAD_GATEWAY, "http_protocol_error"),
    }
}

/// The status of the answer that tells the client of an error.
pub(super) fn status(error: &ForwardError) -> StatusCode {
    verdict(error).status
}

/// Logs an error and makes the answer that tells the client of it.
#[must_use]
pub fn answer(error: &ForwardError) -> Response<Body> {
    let Verdict { status, error: kind, warns } = verdict(error);
    let details = error.to_string();
    if warns {
        warn!(status = status.as_u16(), kind, details, "a request failed");
    } else {
        info!(status = status.as_u16(), kind, details, "a request failed");
    }
    let mut answer = problem(status, Some(kind), &details);
    if kind == BAD_REQUEST {
        // What comes after a request that was not understood may not be what it looks like.
        answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    answer
}

/// An answer of our own: a problem in JSON and the same in `Proxy-Status`.
///
/// `error` is an error type of RFC 9209 section 2.3.
#[must_use]
pub fn problem(status: StatusCode, error: Option<&'static str>, details: &str) -> Response<Body> {
    let body = serde_json::json!({
        "title": status.canonical_reason().unwrap_or("Error"),
        "status": status.as_u16(),
        "detail": details,
    });
    let mut response = Response::new(Body::full(body.to_string()));
    *response.status_mut() = status;
    let fields = response.headers_mut();
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    append_proxy_status(fields, error, details);
    response
}

/// Adds our member to the list in `Proxy-Status`, after those of the proxies before us.
pub fn append_proxy_status(fields: &mut HeaderMap, error: Option<&'static str>, details: &str) {
    fields.append(PROXY_STATUS, proxy_status(error, details));
}

/// Our member of `Proxy-Status`: an error type, where it is an error, and a reason in words.
///
/// The reason may be any text: what a string of RFC 8941 cannot hold is replaced, and its length is bounded.
#[must_use]
pub fn proxy_status(error: Option<&'static str>, details: &str) -> HeaderValue {
    let mut text = PSEUDONYM.to_owned();
    if let Some(error) = error {
        debug_assert!(
            error.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'),
            "not a token: {error}"
        );
        text.push_str("; error=");
        text.push_str(error);
    }
    if !details.is_empty() {
        text.push_str("; details=\"");
        for character in details.chars().take(LONGEST_DETAILS) {
            match character {
                '"' | '\\' => text.extend(['\\', character]),
                ' '..='~' => text.push(character),
                character if character.is_control() => text.push(' '),
                _ => text.push('?'),
            }
        }
        text.push('"');
    }
    // Only printable ASCII is left.
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(PSEUDONYM))
}

/// A service that refuses what nobody should understand, and answers where its inner one fails.
#[derive(Clone, Debug)]
pub struct Rescue<S> {
    inner: S,
}

impl<S> Rescue<S> {
    /// Answers for `inner`.
    pub fn new(inner: S) -> Self {
        Self { inner }
    }
}

impl<S> Service<Request<Body>> for Rescue<S>
where
    S: RequestService<ForwardError>,
    S::Future: Unpin,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Rescuing<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // A service that is not ready says so again when it is called, and is answered for then.
        self.inner.poll_ready(cx).map(|_| Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        if let Err(error) = validate::check(&request) {
            return Rescuing::Refused(Some(Box::new(answer(&error))));
        }
        if !expect::is_asked(&request) {
            return Rescuing::Asked(self.inner.call(request));
        }
        let (offered, is_begun) = Offered::new(std::mem::take(request.body_mut()));
        *request.body_mut() = Body::Offered(Box::new(offered));
        Rescuing::Offering { inner: self.inner.call(request), is_begun }
    }
}

/// The future of [`Rescue`].
#[must_use = "futures do nothing unless polled"]
pub enum Rescuing<F> {
    /// The answer is there already.
    Refused(Option<Box<Response<Body>>>),
    /// It is the inner service's turn.
    Asked(F),
    /// The same, and the client waits to be asked for its body.
    Offering {
        /// What the inner service does.
        inner: F,
        /// Whether the body has been asked for.
        is_begun: Arc<AtomicBool>,
    },
}

impl<F> Future for Rescuing<F>
where
    F: Future<Output = Result<Response<Body>, ForwardError>> + Unpin,
{
    type Output = Result<Response<Body>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let (inner, is_begun) = match &mut *self {
            Self::Refused(answer) => {
                return answer.take().map_or(Poll::Pending, |answer| Poll::Ready(Ok(*answer)));
            }
            Self::Asked(inner) => (inner, None),
            Self::Offering { inner, is_begun } => (inner, Some(is_begun)),
        };
        let outcome = ready!(Pin::new(inner).poll(cx));
        let mut answer = outcome.unwrap_or_else(|error| answer(&error));
        if is_begun.is_some_and(|is_begun| !is_begun.load(Ordering::Relaxed)) {
            // The client sends its body or does not: nobody could tell what the next bytes are.
            answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        Poll::Ready(Ok(answer))
    }
}

#[cfg(test)]
mod tests {
    use crate::proxy::rescue::*;
    use http_body_util::BodyExt;
    use std::time::Duration;

    #[test]
    fn details_are_quoted_whatever_they_are() {
        let long = "x".repeat(1000);
        for (details, expected) in [
            ("", "tollpass; error=dns_error".to_owned()),
            ("plain, with; signs=", "tollpass; error=dns_error; details=\"plain, with; signs=\"".to_owned()),
            ("a\"b\\c", "tollpass; error=dns_error; details=\"a\\\"b\\\\c\"".to_owned()),
            (
                "line\r\nX-Evil: 1\0\u{7f}\t",
                "tollpass; error=dns_error; details=\"line  X-Evil: 1   \"".to_owned(),
            ),
            ("µRaiden €", "tollpass; error=dns_error; details=\"?Raiden ?\"".to_owned()),
            (&long, format!("tollpass; error=dns_error; details=\"{}\"", "x".repeat(512))),
        ] {
            assert_eq!(proxy_status(Some("dns_error"), details), expected, "{details:?}");
        }
        assert_eq!(proxy_status(None, "why"), "tollpass; details=\"why\"");
    }

    #[test]
    fn ours_comes_after_those_before_us() {
        let mut fields = HeaderMap::new();
        fields.insert(PROXY_STATUS, HeaderValue::from_static("edge; error=dns_timeout"));
        append_proxy_status(&mut fields, None, "not paid");
        let lines: Vec<_> = fields.get_all(PROXY_STATUS).iter().collect();
        assert_eq!(lines, ["edge; error=dns_timeout", "tollpass; details=\"not paid\""]);
    }

    #[test]
    fn each_error_has_its_status() {
        let host = || "a".to_owned();
        let denied = |status| DialError::Denied { proxy: host(), target: host(), status };
        for (error, status, kind, unsent) in [
            (ForwardError::BadTarget("x"), 400, "http_request_error", true),
            (ForwardError::Malformed("x"), 400, "http_request_error", true),
            (ForwardError::Expectation, 417, "http_request_error", true),
            (ForwardError::UnsupportedScheme(host()), 501, "http_request_error", true),
            (ForwardError::UnsupportedCoding, 501, "http_request_error", true),
            (ForwardError::Loop, 508, "proxy_loop_detected", true),
            (DialError::Resolve { host: host(), reason: host() }.into(), 502, "dns_error", true),
            (
                DialError::Timeout { host: host(), port: 1, within: Duration::ZERO }.into(),
                504,
                "connection_timeout",
                true,
            ),
            (DialError::Refused { host: host(), port: 1 }.into(), 502, "connection_refused", true),
            (
                DialError::Unreachable { host: host(), port: 1, reason: host() }.into(),
                502,
                "destination_ip_unroutable",
                true,
            ),
            (
                DialError::Certificate { host: host(), reason: host() }.into(),
                502,
                "tls_certificate_error",
                true,
            ),
            (DialError::Tls { host: host(), reason: host() }.into(), 502, "tls_protocol_error", true),
            (DialError::Roots(host()).into(), 500, "proxy_configuration_error", true),
            (
                DialError::Outbound {
                    proxy: host(),
                    reason: Box::new(DialError::Timeout { host: host(), port: 1, within: Duration::ZERO }),
                }
                .into(),
                504,
                "connection_timeout",
                true,
            ),
            (denied(StatusCode::FORBIDDEN).into(), 502, "destination_unavailable", true),
            (denied(StatusCode::GATEWAY_TIMEOUT).into(), 504, "destination_unavailable", true),
            (
                denied(StatusCode::PROXY_AUTHENTICATION_REQUIRED).into(),
                502,
                "proxy_configuration_error",
                true,
            ),
            (DialError::BadProxy { proxy: host(), reason: host() }.into(), 502, "http_protocol_error", true),
            (
                ForwardError::Denied { proxy: host(), status: StatusCode::PROXY_AUTHENTICATION_REQUIRED },
                502,
                "proxy_configuration_error",
                false,
            ),
            (ForwardError::Unwritten(host()), 502, "connection_terminated", true),
            (
                ForwardError::NotProcessed { why: host(), is_repeated: true },
                502,
                "connection_terminated",
                false,
            ),
            (ForwardError::Lost(host()), 502, "http_response_incomplete", false),
            (ForwardError::RequestBody(host()), 400, "http_request_error", false),
            (ForwardError::HeadTooLarge, 502, "http_response_header_section_size", false),
            (ForwardError::BadAnswer(host()), 502, "http_protocol_error", false),
        ] {
            assert_eq!(error.is_unsent(), unsent, "{error}");
            let response = answer(&error);
            assert_eq!(response.status(), status, "{error}");
            let field = response.headers()[PROXY_STATUS].to_str().unwrap();
            assert!(field.starts_with(&format!("tollpass; error={kind}; details=\"")), "{field}");
        }
    }

    #[tokio::test]
    async fn a_problem_says_in_json_what_the_field_says() {
        let response = answer(&ForwardError::Loop);
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let json: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(json["status"], 508);
        assert_eq!(json["title"], "Loop Detected");
        assert_eq!(json["detail"], ForwardError::Loop.to_string());
    }
}
