//! Loads the certificates of `[[upstream.tls]]`.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use crate::config::{Config, ConfigError, ConfigIssue, OriginTlsConfig, OriginTrust};
use crate::proxy;
use crate::tls::{ClientIdentity, PinnedCertificate, ServerTrust, TlsFileError, date, only};

/// A loaded entry.
pub struct OpenedOriginTls {
    /// The settings for the proxy.
    tls: proxy::OriginTlsSettings,
    /// A description for the user.
    pub description: String,
    /// Warnings about certificates that are expired or not yet valid.
    pub untimely: Vec<String>,
}

/// Loads all entries for the proxy and reports all issues at once. Blocks on the disk.
pub(super) fn load(config: &Config) -> Result<Vec<proxy::OriginTlsSettings>, ConfigError> {
    let (mut origins, mut issues) = (Vec::new(), Vec::new());
    for entry in &config.upstream.tls {
        match open(entry) {
            Ok(opened) => {
                opened.untimely.iter().for_each(|warning| tracing::warn!("{warning}"));
                origins.push(opened.tls);
            }
            Err(found) => issues.extend(found),
        }
    }
    if issues.is_empty() { Ok(origins) } else { Err(ConfigError { file: None, issues }) }
}

/// Loads the files of one entry. Blocks on the disk.
pub fn open(entry: &OriginTlsConfig) -> Result<OpenedOriginTls, Vec<ConfigIssue>> {
    let OriginTlsConfig { index, host, port, trust: source, client } = entry;
    let mut issues = Vec::new();
    let mut report = |key: &str, error: TlsFileError| {
        let remedy = match key {
            "client_key" => {
                "name the file of the private key of client_cert, PEM, chmod 600, without a password"
            }
            "certificate" => "name a file with the origin's own certificate, PEM",
            _ => "name a file with certificates, PEM",
        };
        issues.push(ConfigIssue::new(format!("upstream.tls[{index}].{key}"), error.to_string(), remedy));
    };
    let mut untimely = Vec::new();
    let mut timed = |path: &Path, validity: std::ops::Range<SystemTime>| {
        let (now, path) = (SystemTime::now(), path.display());
        if now > validity.end {
            untimely.push(format!("{path} expired on {}", date(validity.end)));
        } else if now < validity.start {
            untimely.push(format!("{path} is valid only from {}", date(validity.start)));
        }
    };
    let mut description = host.to_string() + &port.map(|port| format!(":{port}")).unwrap_or_default();
    let mut trust = None;
    match source {
        OriginTrust::System => {}
        OriginTrust::Roots(path) => match only(path) {
            Ok(store) => {
                description += &format!(", verified with the CAs in {}", path.display());
                trust = Some(ServerTrust::Roots(store));
            }
            Err(error) => report("ca_file", error.into()),
        },
        OriginTrust::Pinned(path) => match PinnedCertificate::load(path) {
            Ok(pinned) => {
                timed(path, pinned.validity());
                description +=
                    &format!(", pinned to {}, valid until {}", path.display(), date(pinned.validity().end));
                trust = Some(ServerTrust::Exactly(Arc::new(pinned)));
            }
            Err(error) => report("certificate", error),
        },
    }
    let mut identity = None;
    if let Some((path, key)) = client {
        match ClientIdentity::load(path, key) {
            Ok(loaded) => {
                timed(path, loaded.validity());
                description += &format!(
                    ", client certificate {}, valid until {}",
                    path.display(),
                    date(loaded.validity().end)
                );
                identity = Some(loaded);
            }
            Err(error) => report(if error.is_of_the_key() { "client_key" } else { "client_cert" }, error),
        }
    }
    if !issues.is_empty() {
        return Err(issues);
    }
    let tls = proxy::OriginTlsSettings { host: host.clone(), port: *port, trust, identity };
    Ok(OpenedOriginTls { tls, description, untimely })
}
