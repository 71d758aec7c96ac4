//! Why a request to a local endpoint is refused, and the status of the response.

use http::{Response, StatusCode};

use crate::protocol::ReasonCode;
use crate::proxy::{Body, error_response};

/// A refusal, as reported to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum FrontendRefusal {
    #[error("a request needs exactly one valid Host header")]
    BadHost,
    #[error(
        "unknown Host header; use the proxy's IP address, localhost or, over TLS, a name in its certificate, or list the name in \
         frontend.names"
    )]
    ForeignHost,
    #[error("the target * is allowed for OPTIONS only")]
    NotOptions,
    #[error("the set-up page is at http://tollpass.local/ only, without TLS and on port 80")]
    NoSuchPlace,
    #[error("this port serves a [[route]] or metrics only; it is not a proxy")]
    NoProxy,
    #[error("no [[route]] of this port has this path")]
    NoRoute,
    #[error("this port has metrics only, at /metrics")]
    OnlyMetrics,
    #[error("https targets without CONNECT are accepted from this machine or over TLS only; use CONNECT")]
    InTheClear,
    #[error(
        "a [[route]] is open at 127.0.0.1, [::1] and localhost only; at any other name or address its path must start with the \
         token of a [[client]], or with the one in the file route-token of state_dir"
    )]
    NoToken,
    #[error(
        "this [[route]] requires authentication: its path must start with the token of a [[client]], or with the one in the \
         file route-token of state_dir"
    )]
    TokenRequired,
    #[error("this [[route]] is for one client: its path must start with the token of that [[client]]")]
    ClientRequired,
    #[error("the path starts with no token that opens this [[route]]")]
    WrongToken,
    #[error("a page of another site may not use a [[route]]")]
    AnotherSite,
    #[error("a [[route]] does not forward paths with a segment . or ..")]
    Climbs,
    #[error("the path is too long for the [[route]]")]
    TooLong,
}

impl FrontendRefusal {
    /// Whether a token at the start of the path is missing or wrong.
    pub(super) fn is_about_token(self) -> bool {
        matches!(self, Self::NoToken | Self::TokenRequired | Self::ClientRequired | Self::WrongToken)
    }

    /// The response to the client.
    pub(super) fn answer(self) -> Response<Body> {
        let bad = |status, reason| (status, "http_request_error", reason);
        let denied = |reason| (StatusCode::FORBIDDEN, "http_request_denied", reason);
        let (status, error, reason) = match self {
            Self::BadHost => bad(StatusCode::BAD_REQUEST, ReasonCode::BadHost),
            Self::NotOptions => bad(StatusCode::BAD_REQUEST, ReasonCode::BadTarget),
            Self::Climbs => bad(StatusCode::BAD_REQUEST, ReasonCode::PathClimbs),
            Self::TooLong => bad(StatusCode::URI_TOO_LONG, ReasonCode::PathTooLong),
            Self::ForeignHost => bad(StatusCode::MISDIRECTED_REQUEST, ReasonCode::OtherHost),
            Self::NoProxy => bad(StatusCode::MISDIRECTED_REQUEST, ReasonCode::NotAProxy),
            Self::NoSuchPlace | Self::OnlyMetrics => {
                (StatusCode::NOT_FOUND, "destination_not_found", ReasonCode::NoSuchPage)
            }
            Self::NoRoute => (StatusCode::NOT_FOUND, "destination_not_found", ReasonCode::NoRoute),
            Self::InTheClear => denied(ReasonCode::HttpsUnencrypted),
            Self::AnotherSite => denied(ReasonCode::AnotherSite),
            Self::NoToken | Self::TokenRequired | Self::ClientRequired | Self::WrongToken => {
                denied(ReasonCode::RouteTokenRequired)
            }
        };
        error_response::problem(status, Some(error), reason, &self.to_string())
    }
}
