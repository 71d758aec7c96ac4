//! Why a request to a port of ours is refused, and the status that says so.

use http::{Response, StatusCode};

use crate::proxy::{Body, rescue};

/// A refusal; its text is for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    #[error("a request needs one Host field, with a host and perhaps a port")]
    BadHost,
    #[error("unknown Host header; use the proxy's IP address or localhost")]
    ForeignHost,
    #[error("* is a target for OPTIONS only")]
    NotOptions,
    #[error("the set-up page is at http://tollpass.local/, without TLS and on no other port")]
    NoSuchPlace,
    #[error("this port serves a [[route]] only; it is not a proxy")]
    NoProxy,
    #[error("no [[route]] of this port has this path")]
    NoRoute,
    #[error("an https target is taken in the clear from this machine only; use CONNECT")]
    InTheClear,
    #[error(
        "a [[route]] answers at 127.0.0.1, [::1] and localhost; by another name or address its path begins with the token in \
         the file route-token of state_dir"
    )]
    NoToken,
    #[error("a page of another site may not use a [[route]]")]
    AnotherSite,
    #[error("a path with the segment . or .. is not passed through a [[route]]")]
    Climbs,
    #[error("the path is too long for the [[route]]")]
    TooLong,
}

impl Refused {
    /// What the client is told.
    pub(super) fn answer(self) -> Response<Body> {
        let (status, error) = match self {
            Self::BadHost | Self::NotOptions | Self::Climbs => {
                (StatusCode::BAD_REQUEST, "http_request_error")
            }
            Self::TooLong => (StatusCode::URI_TOO_LONG, "http_request_error"),
            Self::ForeignHost | Self::NoProxy => (StatusCode::MISDIRECTED_REQUEST, "http_request_error"),
            Self::NoSuchPlace | Self::NoRoute => (StatusCode::NOT_FOUND, "destination_not_found"),
            Self::InTheClear | Self::AnotherSite | Self::NoToken => {
                (StatusCode::FORBIDDEN, "http_request_denied")
            }
        };
        rescue::problem(status, Some(error), &self.to_string())
    }
}
