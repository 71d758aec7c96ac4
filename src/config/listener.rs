//! The rule for addresses that a proxy with a wallet may listen on.

use std::net::SocketAddr;

use super::issue::ConfigIssue;

/// The issue of a proxy that would pay for any machine that can connect to it.
pub(super) fn exposed(listen: SocketAddr, allow_remote: bool, is_paying: bool) -> Option<ConfigIssue> {
    if !is_paying || allow_remote || listen.ip().to_canonical().is_loopback() {
        return None;
    }
    Some(ConfigIssue::new(
        "listen",
        format!("other machines can connect to {listen} and spend your money"),
        "listen on 127.0.0.1 or [::1], or write allow_remote = true to allow this",
    ))
}
