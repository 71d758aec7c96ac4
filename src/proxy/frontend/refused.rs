//! Why a request to a local endpoint is refused, and the status of the response.

use http::{Response, StatusCode};

use crate::proxy::{Body, error_response};

/// A refusal, as reported to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum FrontendRefusal {
    #[error("a request needs exactly one valid Host header")]
    BadHost,
    #[error("unknown Host header; use the proxy's IP address or localhost")]
    ForeignHost,
    #[error("the target * is allowed for OPTIONS only")]
    NotOptions,
    #[error("the set-up page is at http://tollpass.local/ only, without TLS and on port 80")]
    NoSuchPlace,
    #[error("this port serves a [[route]] only; it is not a proxy")]
    NoProxy,
    #[error("no [[route]] of this port has this path")]
    NoRoute,
    #[error("https targets without CONNECT are accepted from this machine only; use CONNECT")]
    InTheClear,
    #[error(
        "a [[route]] is open at 127.0.0.1, [::1] and localhost only; at any other name or address its path must start with the \
         token in the file route-token of state_dir"
    )]
    NoToken,
    #[error(
        "this [[route]] requires authentication: its path must start with the token in the file route-token of state_dir"
    )]
    TokenRequired,
    #[error("a page of another site may not use a [[route]]")]
    AnotherSite,
    #[error("a [[route]] does not forward paths with a segment . or ..")]
    Climbs,
    #[error("the path is too long for the [[route]]")]
    TooLong,
}

impl FrontendRefusal {
    /// The response to the client.
    pub(super) fn answer(self) -> Response<Body> {
        let (status, error) = match self {
            Self::BadHost | Self::NotOptions | Self::Climbs => {
                (StatusCode::BAD_REQUEST, "http_request_error")
            }
            Self::TooLong => (StatusCode::URI_TOO_LONG, "http_request_error"),
            Self::ForeignHost | Self::NoProxy => (StatusCode::MISDIRECTED_REQUEST, "http_request_error"),
            Self::NoSuchPlace | Self::NoRoute => (StatusCode::NOT_FOUND, "destination_not_found"),
            Self::InTheClear | Self::AnotherSite | Self::NoToken | Self::TokenRequired => {
                (StatusCode::FORBIDDEN, "http_request_denied")
            }
        };
        error_response::problem(status, Some(error), &self.to_string())
    }
}
