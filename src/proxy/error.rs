//! Why a request failed, and the answer that each failure becomes.

use http::StatusCode;

use super::upstream::error::{DialError, hint};
use crate::protocol::ReasonCode;

/// The error type of RFC 9209 for a request that is itself at fault.
pub(crate) const BAD_REQUEST: &str = "http_request_error";

/// Why a request got no response from its origin.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    /// The target of the request is not valid.
    #[error("the request target is not usable: {0}")]
    BadTarget(&'static str),
    /// The tunnel may not lead to this port.
    #[error("CONNECT to port {0} is not allowed: add it to connect_ports")]
    PortNotAllowed(u16),
    /// The request is ambiguous.
    #[error("the request is malformed: {0}")]
    Malformed(&'static str),
    /// The client has an unknown expectation.
    #[error("unknown expectation; only 100-continue is supported")]
    Expectation,
    /// The target's scheme is neither `http` nor `https`.
    #[error("a target with the scheme {0} is not forwarded; only http and https are")]
    UnsupportedScheme(String),
    /// The request body has a transfer coding besides `chunked`.
    #[error("a request body with a transfer coding other than chunked is not forwarded")]
    UnsupportedCoding,
    /// The request has passed through this proxy before.
    #[error("the request has come back to this proxy; is the proxy's own address the target?")]
    Loop,
    /// The origin was not reached.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The outbound proxy requires authentication.
    #[error("the outbound proxy {proxy} answered {status}{}", hint(*status))]
    Denied {
        /// The proxy.
        proxy: String,
        /// The status of its response.
        status: StatusCode,
    },
    /// The connection failed before a byte of the request was written.
    #[error("the connection to the origin was lost before the request was sent: {0}")]
    Unwritten(String),
    /// The connection failed after writing had begun and before a response: whether the origin acted is unknown.
    #[error("the origin closed the connection without an answer: {0}")]
    Lost(String),
    /// The origin states that it did not process the request.
    #[error("the origin did not process the request{}: {why}", if *.is_repeated { ", and not the second time either" } else { "" })]
    NotProcessed {
        /// The origin's reason.
        why: String,
        /// Whether the request was sent twice.
        is_repeated: bool,
    },
    /// The client's request body ended early.
    #[error("the request body could not be read to its end: {0}")]
    RequestBody(String),
    /// The head of the response exceeds the limits.
    #[error("the head of the origin's answer is too large; see limits.head_bytes and limits.head_fields")]
    HeadTooLarge,
    /// The response is malformed.
    #[error("the origin's answer is malformed: {0}")]
    BadAnswer(String),
}

impl ForwardError {
    /// Whether the same request will fail again, because its response cannot be parsed.
    #[must_use]
    pub fn will_repeat(&self) -> bool {
        matches!(self, Self::HeadTooLarge | Self::BadAnswer(_))
    }

    /// Whether provably no byte of the request reached an origin.
    ///
    /// `false` means that it may have.
    #[must_use]
    pub fn is_unsent(&self) -> bool {
        match self {
            Self::BadTarget(_)
            | Self::PortNotAllowed(_)
            | Self::Malformed(_)
            | Self::Expectation
            | Self::UnsupportedScheme(_)
            | Self::UnsupportedCoding
            | Self::Loop
            | Self::Dial(_)
            | Self::Unwritten(_) => true,
            // The outbound proxy may have forwarded the request.
            Self::Denied { .. }
            | Self::Lost(_)
            | Self::NotProcessed { .. }
            | Self::RequestBody(_)
            | Self::HeadTooLarge
            | Self::BadAnswer(_) => false,
        }
    }
}

/// How a client is answered when its request fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ErrorAnswer {
    pub(crate) status: StatusCode,
    /// The error type of RFC 9209 section 2.3.
    pub(crate) kind: &'static str,
    pub(crate) reason: ReasonCode,
    /// Whether to log it as a warning, because the operator may have to act.
    pub(crate) warns: bool,
}

impl From<&ForwardError> for ErrorAnswer {
    fn from(error: &ForwardError) -> Self {
        let quiet = |status, kind, reason| Self { status, kind, reason, warns: false };
        let loud = |status, kind, reason| Self { status, kind, reason, warns: true };
        let bad = |reason| quiet(StatusCode::BAD_REQUEST, BAD_REQUEST, reason);
        match error {
            ForwardError::BadTarget(_) => bad(ReasonCode::BadTarget),
            ForwardError::Malformed(_) => bad(ReasonCode::MalformedRequest),
            ForwardError::RequestBody(_) => bad(ReasonCode::RequestIncomplete),
            ForwardError::PortNotAllowed(_) => {
                quiet(StatusCode::FORBIDDEN, "http_request_denied", ReasonCode::PortNotAllowed)
            }
            ForwardError::Expectation => {
                quiet(StatusCode::EXPECTATION_FAILED, BAD_REQUEST, ReasonCode::UnknownExpectation)
            }
            ForwardError::UnsupportedScheme(_) => {
                quiet(StatusCode::NOT_IMPLEMENTED, BAD_REQUEST, ReasonCode::UnsupportedScheme)
            }
            ForwardError::UnsupportedCoding => {
                quiet(StatusCode::NOT_IMPLEMENTED, BAD_REQUEST, ReasonCode::UnsupportedCoding)
            }
            ForwardError::Loop => {
                loud(StatusCode::LOOP_DETECTED, "proxy_loop_detected", ReasonCode::RequestLoop)
            }
            ForwardError::Dial(error) => Self::from(error),
            ForwardError::Denied { status, .. } => Self::refused_by_outbound_proxy(*status),
            ForwardError::Unwritten(_) => {
                quiet(StatusCode::BAD_GATEWAY, "connection_terminated", ReasonCode::ConnectionLost)
            }
            ForwardError::NotProcessed { .. } => {
                loud(StatusCode::BAD_GATEWAY, "connection_terminated", ReasonCode::NotProcessed)
            }
            ForwardError::Lost(_) => {
                loud(StatusCode::BAD_GATEWAY, "http_response_incomplete", ReasonCode::NoAnswer)
            }
            ForwardError::HeadTooLarge => {
                let kind = "http_response_header_section_size";
                loud(StatusCode::BAD_GATEWAY, kind, ReasonCode::AnswerTooLarge)
            }
            ForwardError::BadAnswer(_) => {
                loud(StatusCode::BAD_GATEWAY, "http_protocol_error", ReasonCode::AnswerMalformed)
            }
        }
    }
}

impl From<&DialError> for ErrorAnswer {
    fn from(error: &DialError) -> Self {
        let with = |status, kind, reason, warns| Self { status, kind, reason, warns };
        let quiet = |kind, reason| with(StatusCode::BAD_GATEWAY, kind, reason, false);
        let loud = |kind, reason| with(StatusCode::BAD_GATEWAY, kind, reason, true);
        let prohibited = |reason| with(StatusCode::FORBIDDEN, "destination_ip_prohibited", reason, false);
        match error {
            DialError::Resolve { .. } => quiet("dns_error", ReasonCode::NameNotFound),
            DialError::Timeout { .. } => {
                with(StatusCode::GATEWAY_TIMEOUT, "connection_timeout", ReasonCode::ConnectTimeout, false)
            }
            DialError::Prohibited { .. } => prohibited(ReasonCode::AddressNotAllowed),
            DialError::PlainPayment { .. } => prohibited(ReasonCode::PlainHttp),
            DialError::Refused { .. } => quiet("connection_refused", ReasonCode::ConnectionRefused),
            DialError::Unreachable { .. } => quiet("destination_ip_unroutable", ReasonCode::Unreachable),
            DialError::Certificate { .. } => loud("tls_certificate_error", ReasonCode::BadCertificate),
            DialError::Tls { .. } => loud("tls_protocol_error", ReasonCode::TlsFailed),
            DialError::Roots(_) => {
                let status = StatusCode::INTERNAL_SERVER_ERROR;
                with(status, "proxy_configuration_error", ReasonCode::RootsUnreadable, true)
            }
            DialError::Outbound { reason, .. } => Self::from(&**reason),
            DialError::Denied { status: StatusCode::GATEWAY_TIMEOUT, .. } => {
                let (status, kind) = (StatusCode::GATEWAY_TIMEOUT, "destination_unavailable");
                with(status, kind, ReasonCode::OutboundProxyRefused, false)
            }
            DialError::Denied { status, .. } => Self::refused_by_outbound_proxy(*status),
            DialError::BadProxy { .. } => loud("http_protocol_error", ReasonCode::OutboundProxyInvalid),
        }
    }
}

impl ErrorAnswer {
    /// The answer after the outbound proxy responded with `status`.
    fn refused_by_outbound_proxy(status: StatusCode) -> Self {
        let is_unauthenticated = status == StatusCode::PROXY_AUTHENTICATION_REQUIRED;
        Self {
            status: StatusCode::BAD_GATEWAY,
            kind: if is_unauthenticated { "proxy_configuration_error" } else { "destination_unavailable" },
            reason: ReasonCode::OutboundProxyRefused,
            warns: is_unauthenticated,
        }
    }
}
