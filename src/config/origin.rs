//! Reads `[[upstream.tls]]`: how to verify particular origins, and which client certificates to present. Opens no file.

use std::path::PathBuf;

use ::config::Value;
use serde_json::json;

use super::key::{HOST_PATTERN, Shape, Table, keys};
use super::policy::{PORT, covers, host, port};
use super::rules::{both_or_neither, is_set};
use super::section::{Issues, Section, entries};
use super::values::BasePaths;
use crate::protocol::policy::HostPattern;

/// The keys of one `[[upstream.tls]]` entry.
pub(super) static TLS: Table = Table::new(
    "tls",
    "TLS settings for particular origins.",
    keys! {
        /// Which origins: a pattern as in [[pay]], and optionally one port.
        "host": HOST_PATTERN; required(),
        /// Which origins: a pattern as in [[pay]], and optionally one port.
        "port": PORT,
        /// Root certificates for these origins (PEM), replacing the system's.
        "ca_file": Shape::Path,
        /// Or exactly one certificate (PEM), such as `openssl req -x509` creates: it is accepted for any name until it
        /// expires.
        "certificate": Shape::Path,
        /// The client certificate to present if the origin requests one in the handshake, followed by its
        /// intermediates, and its key without a password (PEM; the key chmod 600).
        "client_cert": Shape::Path,
        /// The client certificate to present if the origin requests one in the handshake, followed by its
        /// intermediates, and its key without a password (PEM; the key chmod 600).
        "client_key": Shape::Path,
    },
)
.with_rules(|| {
    vec![
        json!({"anyOf": [is_set("ca_file"), is_set("certificate"), is_set("client_cert")]}),
        json!({"not": {"allOf": [is_set("ca_file"), is_set("certificate")]}}),
        both_or_neither("client_cert", "client_key"),
    ]
});

/// The name of the list.
pub(super) const NAME: &str = "upstream.tls";
pub(super) const MAX_ENTRIES: usize = 1000;

/// `[[upstream.tls]]`: TLS settings for particular origins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginTlsConfig {
    /// The position in the list, for messages.
    pub index: usize,
    /// Which hosts.
    pub host: HostPattern,
    /// Which port; every port if absent.
    pub port: Option<u16>,
    /// How to verify them.
    pub trust: OriginTrust,
    /// The files of the client certificate and its key.
    pub client: Option<(PathBuf, PathBuf)>,
}

/// How to verify an origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OriginTrust {
    /// With the system's roots.
    System,
    /// With the roots in this PEM file, and no others.
    Roots(PathBuf),
    /// By comparison with the certificate in this PEM file.
    Pinned(PathBuf),
}

/// Reads all entries, in order.
pub(super) fn origins(
    value: Option<Value>,
    base: &BasePaths,
    issues: &Issues,
    warnings: &mut Vec<String>,
) -> Vec<OriginTlsConfig> {
    let entries = entries(NAME, value, MAX_ENTRIES, issues).into_iter().enumerate();
    let origins: Vec<OriginTlsConfig> = entries
        .filter_map(|(index, entry)| {
            origin(index, &Section::new(format!("{NAME}[{index}]"), Some(entry), &TLS, issues), base)
        })
        .collect();
    for (at, later) in origins.iter().enumerate() {
        let hides =
            |earlier: &&OriginTlsConfig| covers((&earlier.host, earlier.port), (&later.host, later.port));
        if let Some(earlier) = origins[..at].iter().find(hides) {
            warnings.push(format!(
                "{NAME}[{}] ({}) never matches: {NAME}[{}] above it matches first",
                later.index, later.host, earlier.index
            ));
        }
    }
    origins
}

fn origin(index: usize, section: &Section<'_>, base: &BasePaths) -> Option<OriginTlsConfig> {
    let (host, port) = (host(section), port(section));
    let path = |key| section.read(key, |value| base.path(value));
    let trust = match (section.has("ca_file"), section.has("certificate")) {
        (false, false) => Some(OriginTrust::System),
        (true, false) => path("ca_file").map(OriginTrust::Roots),
        (false, true) => path("certificate").map(OriginTrust::Pinned),
        (true, true) => {
            section.issue("certificate", "cannot be combined with ca_file", "write one of the two");
            None
        }
    };
    let client = match (section.has("client_cert"), section.has("client_key")) {
        (false, false) => {
            if !section.has("ca_file") && !section.has("certificate") {
                section.issue(
                    "",
                    "has no TLS settings",
                    "write ca_file, certificate, or client_cert and client_key",
                );
            }
            Some(None)
        }
        (true, true) => {
            let (certificate, key) = (path("client_cert"), path("client_key"));
            certificate.zip(key).map(Some)
        }
        (has_certificate, _) => {
            let (has, lacks) =
                if has_certificate { ("client_cert", "client_key") } else { ("client_key", "client_cert") };
            let problem = format!("missing, but {has} is set: each needs the other");
            section.issue(lacks, problem, "write both; if one file contains both, name it twice");
            None
        }
    };
    // An invalid port must not turn into every port.
    if section.has("port") && port.is_none() {
        return None;
    }
    Some(OriginTlsConfig { index, host: host?, port, trust: trust?, client: client? })
}
