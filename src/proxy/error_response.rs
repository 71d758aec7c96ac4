//! Responses to failed requests: problem details (RFC 9457) and `Proxy-Status` (RFC 9209).

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::header::{self, HeaderMap, HeaderValue};
use http::{Request, Response, StatusCode};
use tower::{Layer, Service};
use tracing::{info, warn};

use super::error::{BAD_REQUEST, ErrorAnswer, ForwardError};
use super::handling::{Explanation, Handling, RequestName};
use super::message::body::Body;
use super::message::expect::TrackedBody;
use super::message::proxy_status::{PROXY_STATUS, remove_ours};
use super::message::via::PSEUDONYM;
use super::message::{expect, validate};
use crate::protocol::{ReasonCode, Refusal};
use crate::proxy::request_service::RequestService;

/// Longest details in `Proxy-Status`, in characters.
const LONGEST_DETAILS: usize = 512;

/// The status of the response to an error.
pub(super) fn status(error: &ForwardError) -> StatusCode {
    ErrorAnswer::from(error).status
}

/// Logs why `request` failed, and makes the response that reports it to the client.
#[must_use]
pub(crate) fn report(error: &ForwardError, request: &RequestName) -> Response<Body> {
    let ErrorAnswer { status, kind, reason, warns } = error.into();
    let (status, reason, details) = (status.as_u16(), reason.as_str(), error.to_string());
    if warns {
        warn!(%request, status, kind, reason, details, "request failed");
    } else {
        info!(%request, status, kind, reason, details, "request failed");
    }
    response(error)
}

/// The response that reports an error to the client.
#[must_use]
pub fn response(error: &ForwardError) -> Response<Body> {
    let ErrorAnswer { status, kind, reason, warns: _ } = error.into();
    let mut response = problem(status, Some(kind), reason, &error.to_string());
    if kind == BAD_REQUEST {
        // The bytes after a malformed request may not be a request.
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// A response of our own, with the problem in JSON and in `Proxy-Status`.
///
/// `error` is an error type of RFC 9209 section 2.3.
#[must_use]
pub fn problem(
    status: StatusCode,
    error: Option<&'static str>,
    reason: ReasonCode,
    details: &str,
) -> Response<Body> {
    let body = serde_json::json!({
        "title": status.canonical_reason().unwrap_or("Error"),
        "status": status.as_u16(),
        "reason": reason,
        "detail": details,
    });
    let mut response = Response::new(Body::full(body.to_string()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    headers.append(PROXY_STATUS, proxy_status(error, reason, details));
    let explanation = Explanation { reason, details: details.to_owned() };
    response.extensions_mut().insert(Handling::Refused(explanation));
    response
}

/// The same for a refusal.
pub(super) fn refusal(status: StatusCode, error: Option<&'static str>, refusal: &Refusal) -> Response<Body> {
    let mut response = problem(status, error, refusal.reason(), &refusal.to_string());
    set_retry_after(response.headers_mut(), refusal);
    response
}

/// Tells a client when the same request may be paid, if time alone helps. The origin's own `Retry-After` stays.
pub(super) fn set_retry_after(headers: &mut HeaderMap, refusal: &Refusal) {
    if let Some(wait) = refusal.retry_after() {
        headers.entry(header::RETRY_AFTER).or_insert_with(|| seconds(wait).into());
    }
}

/// Whole seconds, rounded up, because a request that comes too early is refused again.
pub(super) fn seconds(wait: Duration) -> u64 {
    wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0)).max(1)
}

/// Appends our entry to the `Proxy-Status` of an origin's response, after those of other proxies. Entries in our name are
/// removed: an origin could advise the user to raise a limit with them.
pub fn append_proxy_status(headers: &mut HeaderMap, reason: ReasonCode, details: &str) {
    remove_ours(headers);
    headers.append(PROXY_STATUS, proxy_status(None, reason, details));
}

/// Our entry in `Proxy-Status`: the error type, if it is an error, the reason for programs, and details for people.
///
/// The details can be any string: characters that RFC 8941 does not allow are replaced, and its length is limited.
#[must_use]
pub fn proxy_status(error: Option<&'static str>, reason: ReasonCode, details: &str) -> HeaderValue {
    let mut text = PSEUDONYM.to_owned();
    if let Some(error) = error {
        debug_assert!(
            error.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'),
            "not a token: {error}"
        );
        text.push_str("; error=");
        text.push_str(error);
    }
    // RFC 9209 section 2.2 allows parameters of our own.
    text.push_str("; reason=");
    text.push_str(reason.as_str());
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

/// Rejects malformed requests and turns the errors of the inner service into responses.
#[derive(Clone, Debug)]
pub struct ErrorResponder<S> {
    inner: S,
}

impl<S> ErrorResponder<S> {
    /// Turns the errors of `inner` into responses.
    pub fn new(inner: S) -> Self {
        Self { inner }
    }
}

/// The layer of [`ErrorResponder`].
#[derive(Clone, Copy, Debug)]
pub struct ErrorLayer;

impl<S> Layer<S> for ErrorLayer {
    type Service = ErrorResponder<S>;

    fn layer(&self, inner: S) -> ErrorResponder<S> {
        ErrorResponder::new(inner)
    }
}

impl<S> Service<Request<Body>> for ErrorResponder<S>
where
    S: RequestService<ForwardError>,
    S::Future: Unpin,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = ErrorResponderFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // An error recurs when the service is called, and becomes a response then.
        self.inner.poll_ready(cx).map(|_| Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        if let Err(error) = validate::check(&request) {
            return ErrorResponderFuture::Refused(Some(Box::new(report(&error, &RequestName::of(&request)))));
        }
        if !expect::is_expected(&request) {
            let name = RequestName::of(&request);
            return ErrorResponderFuture::Inner { inner: self.inner.call(request), name };
        }
        let name = RequestName::of(&request);
        let (tracked, is_begun) = TrackedBody::new(std::mem::take(request.body_mut()));
        *request.body_mut() = Body::Tracked(Box::new(tracked));
        ErrorResponderFuture::Tracking { inner: self.inner.call(request), name, is_begun }
    }
}

/// The future of [`ErrorResponder`].
#[must_use = "futures do nothing unless polled"]
pub enum ErrorResponderFuture<F> {
    /// The request is malformed.
    Refused(Option<Box<Response<Body>>>),
    /// The inner service handles the request.
    Inner {
        /// The future of the inner service.
        inner: F,
        /// The request's name in the log.
        name: RequestName,
    },
    /// The same, for a client that waits for `100 Continue`.
    Tracking {
        /// The future of the inner service.
        inner: F,
        /// The request's name in the log.
        name: RequestName,
        /// Whether reading the body has begun.
        is_begun: Arc<AtomicBool>,
    },
}

impl<F> Future for ErrorResponderFuture<F>
where
    F: Future<Output = Result<Response<Body>, ForwardError>> + Unpin,
{
    type Output = Result<Response<Body>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let (inner, name, is_begun) = match &mut *self {
            Self::Refused(answer) => {
                return answer.take().map_or(Poll::Pending, |answer| Poll::Ready(Ok(*answer)));
            }
            Self::Inner { inner, name } => (inner, name, None),
            Self::Tracking { inner, name, is_begun } => (inner, name, Some(is_begun)),
        };
        let outcome = ready!(Pin::new(inner).poll(cx));
        let mut answer = outcome.unwrap_or_else(|error| report(&error, name));
        if is_begun.is_some_and(|is_begun| !is_begun.load(Ordering::Relaxed)) {
            // The client may or may not send its body, so the next bytes are ambiguous.
            answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        Poll::Ready(Ok(answer))
    }
}

#[cfg(test)]
mod tests {
    use crate::proxy::DialError;
    use crate::proxy::error_response::*;
    use http_body_util::BodyExt;
    use std::time::Duration;

    #[test]
    fn details_are_quoted_whatever_they_are() {
        let long = "x".repeat(1000);
        for (details, expected) in [
            ("", "tollpass; error=dns_error; reason=name-not-found".to_owned()),
            (
                "plain, with; signs=",
                "tollpass; error=dns_error; reason=name-not-found; details=\"plain, with; signs=\""
                    .to_owned(),
            ),
            (
                "a\"b\\c",
                "tollpass; error=dns_error; reason=name-not-found; details=\"a\\\"b\\\\c\"".to_owned(),
            ),
            (
                "line\r\nX-Evil: 1\0\u{7f}\t",
                "tollpass; error=dns_error; reason=name-not-found; details=\"line  X-Evil: 1   \"".to_owned(),
            ),
            (
                "µRaiden €",
                "tollpass; error=dns_error; reason=name-not-found; details=\"?Raiden ?\"".to_owned(),
            ),
            (
                &long,
                format!("tollpass; error=dns_error; reason=name-not-found; details=\"{}\"", "x".repeat(512)),
            ),
        ] {
            let told = proxy_status(Some("dns_error"), ReasonCode::NameNotFound, details);
            assert_eq!(told, expected, "{details:?}");
        }
        assert_eq!(
            proxy_status(None, ReasonCode::NoRule, "why"),
            "tollpass; reason=no-rule; details=\"why\""
        );
    }

    #[test]
    fn our_entry_follows_those_of_other_proxies_and_is_the_only_one_in_our_name() {
        let ours = "tollpass; reason=no-rule; details=\"not paid\"";
        for (received, kept) in [
            (&[][..], &[][..]),
            (&["edge; error=dns_timeout"], &["edge; error=dns_timeout"]),
            (
                &["edge, b; details=\"a, tollpass\\\", tollpass\""],
                &["edge, b; details=\"a, tollpass\\\", tollpass\""],
            ),
            (&["tollpass; reason=over-budget; details=\"raise, it\""], &[]),
            (&["edge, tollpass; reason=x, last", "Tollpass", "\"tollpass\";a"], &["edge, last"]),
            (&["edge", "tollpass , b"], &["edge", "b"]),
            (
                &["tollpass2; a, not-tollpass, tollpass.example"],
                &["tollpass2; a, not-tollpass, tollpass.example"],
            ),
            (&["a", "b; details=\"unclosed, tollpass"], &["a"]),
        ] {
            let mut headers = HeaderMap::new();
            for line in received {
                headers.append(PROXY_STATUS, HeaderValue::from_static(line));
            }
            append_proxy_status(&mut headers, ReasonCode::NoRule, "not paid");
            let lines: Vec<_> = headers.get_all(PROXY_STATUS).iter().collect();
            assert_eq!(lines, [kept, &[ours]].concat(), "{received:?}");
        }
    }

    #[test]
    fn a_client_that_waits_is_not_too_early() {
        for (wait, expected) in [(0, 1), (1, 1), (1000, 1), (1001, 2), (2999, 3), (3000, 3)] {
            assert_eq!(seconds(Duration::from_millis(wait)), expected, "{wait}");
        }
    }

    #[test]
    fn each_error_has_its_status() {
        let host = || "a".to_owned();
        let denied = |status| DialError::Denied { proxy: host(), target: host(), status };
        for (error, status, kind, unsent) in [
            (ForwardError::BadTarget("x"), 400, "http_request_error", true),
            (ForwardError::PortNotAllowed(25), 403, "http_request_denied", true),
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
            let response = response(&error);
            assert_eq!(response.status(), status, "{error}");
            let header = response.headers()[PROXY_STATUS].to_str().unwrap();
            assert!(header.starts_with(&format!("tollpass; error={kind}; reason=")), "{header}");
        }
    }

    #[tokio::test]
    async fn a_problem_has_the_same_reason_in_json_and_in_the_header() {
        let response = response(&ForwardError::Loop);
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let json: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(json["status"], 508);
        assert_eq!(json["title"], "Loop Detected");
        assert_eq!(
            (&json["reason"], &json["detail"]),
            (&"request-loop".into(), &ForwardError::Loop.to_string().into())
        );
    }
}
