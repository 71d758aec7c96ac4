//! The rules for addresses that other machines can connect to.

use std::net::SocketAddr;

use super::issue::ConfigIssue;

/// What decides whether a proxy may listen beyond loopback.
#[derive(Clone, Copy)]
pub(super) struct Exposure {
    pub allow_remote: bool,
    pub is_paying: bool,
    pub has_clients: bool,
}

impl Exposure {
    /// The issue of a proxy that would pay for any machine that can connect to it.
    pub(super) fn issue(self, listen: SocketAddr) -> Option<ConfigIssue> {
        let Self { allow_remote, is_paying, has_clients } = self;
        if !is_paying || is_local(listen) || (allow_remote && has_clients) {
            return None;
        }
        let remedy = match (allow_remote, has_clients) {
            (true, _) => {
                "allow_remote = true also needs a [[client]] for each program: write [[client]], name = \"laptop\" and \
                 token_file = \"laptop.token\", create the file with `openssl rand -hex 16`, and use \
                 http://laptop:TOKEN@HOST:PORT as the proxy; or listen on 127.0.0.1 or [::1]"
            }
            (false, true) => "write allow_remote = true to allow this, or listen on 127.0.0.1 or [::1]",
            (false, false) => {
                "listen on 127.0.0.1 or [::1]; or write allow_remote = true, and a [[client]] (name, token_file) for \
                 each program that may spend"
            }
        };
        Some(ConfigIssue::new(
            "listen",
            format!("other machines can connect to {listen} and spend your money"),
            remedy,
        ))
    }

    /// The warning about an address where tokens travel over a network.
    pub(super) fn warning(self, listen: SocketAddr) -> Option<String> {
        (self.has_clients && !is_local(listen)).then(|| {
            format!(
                "clients send their tokens to {listen} unencrypted: anyone on the network between can read and use them; \
                 use an encrypted network, such as a VPN or an SSH tunnel"
            )
        })
    }
}

fn is_local(listen: SocketAddr) -> bool {
    listen.ip().to_canonical().is_loopback()
}
