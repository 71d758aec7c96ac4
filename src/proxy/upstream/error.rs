//! Why an origin could not be reached.

use std::net::IpAddr;
use std::time::Duration;

use http::StatusCode;

use crate::hosts::address_rules::ProhibitedAddress;

/// Why an origin was not reached. Nothing has been sent to it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum DialError {
    /// The name has no address.
    #[error("the name {host} cannot be resolved: {reason}")]
    Resolve {
        /// The name.
        host: String,
        /// The resolver's error.
        reason: String,
    },
    /// Resolving and connecting took too long.
    #[error("{host} port {port} was not reached within {} ms", within.as_millis())]
    Timeout {
        /// The name or address.
        host: String,
        /// The port.
        port: u16,
        /// The timeout.
        within: Duration,
    },
    /// The configuration prohibits every address of the host.
    #[error("tollpass does not connect to {host} port {port}: {reason}")]
    Prohibited {
        /// The name or address.
        host: String,
        /// The port.
        port: u16,
        /// The first of its addresses, and why it is prohibited.
        reason: Box<ProhibitedAddress>,
    },
    /// The request carries a payment, which may not leave this machine unencrypted.
    #[error(
        "{host} port {port} is on another machine{}, and plain http does not encrypt the payment, which was not sent: set \
         allow_plain_http = true in its [[pay]] entry to pay anyway", at(*address)
    )]
    PlainPayment {
        /// The name or address.
        host: String,
        /// The port.
        port: u16,
        /// The first of its addresses; unknown behind an outbound proxy.
        address: Option<IpAddr>,
    },
    /// The port is closed.
    #[error("{host} port {port} refused the connection")]
    Refused {
        /// The name or address.
        host: String,
        /// The port.
        port: u16,
    },
    /// The outbound proxy was not reached, or did not answer in time.
    #[error("through the outbound proxy {proxy}: {reason}")]
    Outbound {
        /// The proxy.
        proxy: String,
        /// The error of the proxy itself, or of the host behind it.
        reason: Box<DialError>,
    },
    /// The outbound proxy refused to open a tunnel.
    #[error("the outbound proxy {proxy} answered CONNECT {target} with {status}{}", hint(*status))]
    Denied {
        /// The proxy.
        proxy: String,
        /// The host and port of the tunnel.
        target: String,
        /// The status of its response.
        status: StatusCode,
    },
    /// The outbound proxy did not respond like a proxy.
    #[error("the outbound proxy {proxy} gave no valid response to CONNECT: {reason}")]
    BadProxy {
        /// The proxy.
        proxy: String,
        /// What is wrong with its response.
        reason: String,
    },
    /// The system could not connect.
    #[error("{host} port {port} cannot be reached: {reason}")]
    Unreachable {
        /// The name or address.
        host: String,
        /// The port.
        port: u16,
        /// The system's error.
        reason: String,
    },
    /// The certificate is not valid for the host, or not trusted.
    #[error("the certificate of {host} is not trusted: {reason}")]
    Certificate {
        /// The name or address.
        host: String,
        /// What is wrong with the certificate.
        reason: String,
    },
    /// The TLS handshake failed.
    #[error("TLS with {host} failed: {reason}")]
    Tls {
        /// The name or address.
        host: String,
        /// What went wrong.
        reason: String,
    },
    /// The trusted roots could not be loaded.
    #[error("certificates cannot be checked: {0}")]
    Roots(String),
}

fn at(address: Option<IpAddr>) -> String {
    address.map_or_else(|| " or behind a proxy".to_owned(), |address| format!(" ({address})"))
}

/// The remedy for an error status of the outbound proxy.
pub(crate) fn hint(status: StatusCode) -> &'static str {
    if status == StatusCode::PROXY_AUTHENTICATION_REQUIRED {
        "; put its user:password into the file named by upstream.proxy_auth_file"
    } else {
        ""
    }
}
