//! The rules for addresses that other machines can connect to, and TLS on them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::issue::ConfigIssue;
use super::section::Section;
use super::values::BasePaths;

/// The files of the certificate that the proxy's own ports present.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, followed by its intermediates, PEM.
    pub certificate: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
    /// How often to look whether they have changed.
    pub check_every: Duration,
}

/// How often to look whether the files of the certificate have changed, as `proxy.toml` says.
const CHECK_EVERY: Duration = Duration::from_secs(5);

/// Reads `tls_cert` and `tls_key`.
pub(super) fn tls(top: &Section<'_>, base: &BasePaths) -> Option<TlsFiles> {
    let path = |key| top.read(key, |value| base.path(value));
    let (certificate, key) = (path("tls_cert"), path("tls_key"));
    let (has, lacks) = match (top.has("tls_cert"), top.has("tls_key")) {
        (true, false) => ("tls_cert", "tls_key"),
        (false, true) => ("tls_key", "tls_cert"),
        (true, true) | (false, false) => {
            return certificate.zip(key).map(|(certificate, key)| TlsFiles {
                certificate,
                key,
                check_every: CHECK_EVERY,
            });
        }
    };
    let problem = format!("missing, but {has} is set: each needs the other");
    top.issue(lacks, problem, "write both; if one file contains both, name it twice");
    None
}

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
                 http://laptop:TOKEN@HOST:PORT as the proxy (https:// with tls_cert and tls_key); or listen on 127.0.0.1 or [::1]"
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

    /// The warning about an address where tokens travel over a network without TLS.
    pub(super) fn warning(self, listen: SocketAddr, is_tls: bool) -> Option<String> {
        (self.has_clients && !is_local(listen) && !is_tls).then(|| {
            format!(
                "clients send their tokens to {listen} unencrypted: anyone on the network between can read and use them; \
                 set tls_cert and tls_key, or use an encrypted network, such as a VPN or an SSH tunnel"
            )
        })
    }
}

/// The warning about metrics that other machines may get.
pub(super) fn metrics_warning(listen: SocketAddr) -> Option<String> {
    (!is_local(listen)).then(|| {
        format!(
            "anyone who can connect to {listen} (metrics_listen) sees which hosts are paid, and how much: let only the scraper \
             reach it"
        )
    })
}

fn is_local(listen: SocketAddr) -> bool {
    listen.ip().to_canonical().is_loopback()
}
