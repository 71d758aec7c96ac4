//! Reads `[[upstream.tls]]`: how some origins prove themselves over TLS, and what we show them. Opens no certificate.

use std::path::PathBuf;

use ::config::Value;

use super::policy::{covers, host, port};
use super::section::{Faults, Section, entries};
use super::values::Places;
use crate::protocol::policy::HostPattern;

/// The keys of one `[[upstream.tls]]` entry.
pub(super) const TLS: &[&str] = &["host", "port", "ca_file", "certificate", "client_cert", "client_key"];

/// The name of the list.
pub(super) const NAME: &str = "upstream.tls";
const MAX_ENTRIES: usize = 1000;

/// `[[upstream.tls]]`: TLS with some origins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginTls {
    /// The place in the list, for messages.
    pub index: usize,
    /// Which hosts.
    pub host: HostPattern,
    /// On which port; any when absent.
    pub port: Option<u16>,
    /// How they prove themselves.
    pub proof: Proof,
    /// The files of the certificate that we show, and of its key.
    pub client: Option<(PathBuf, PathBuf)>,
}

/// How an origin proves itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// As all others do.
    Usual,
    /// By the roots of this file, PEM, and no others.
    Roots(PathBuf),
    /// By showing exactly the certificate of this file, PEM.
    Exactly(PathBuf),
}

/// Reads all entries, in order.
pub(super) fn origins(
    value: Option<Value>,
    places: &Places,
    faults: &Faults,
    warnings: &mut Vec<String>,
) -> Vec<OriginTls> {
    let entries = entries(NAME, value, MAX_ENTRIES, faults).into_iter().enumerate();
    let origins: Vec<OriginTls> = entries
        .filter_map(|(index, entry)| {
            origin(index, &Section::new(format!("{NAME}[{index}]"), Some(entry), TLS, faults), places)
        })
        .collect();
    for (at, later) in origins.iter().enumerate() {
        let hides = |earlier: &&OriginTls| covers((&earlier.host, earlier.port), (&later.host, later.port));
        if let Some(earlier) = origins[..at].iter().find(hides) {
            warnings.push(format!(
                "{NAME}[{}] ({}) never matches: {NAME}[{}] above it matches first",
                later.index, later.host, earlier.index
            ));
        }
    }
    origins
}

fn origin(index: usize, section: &Section<'_>, places: &Places) -> Option<OriginTls> {
    let (host, port) = (host(section), port(section));
    let path = |key| section.read(key, |value| places.path(value));
    let proof = match (section.has("ca_file"), section.has("certificate")) {
        (false, false) => Some(Proof::Usual),
        (true, false) => path("ca_file").map(Proof::Roots),
        (false, true) => path("certificate").map(Proof::Exactly),
        (true, true) => {
            section.fault("certificate", "means nothing beside ca_file", "write one of the two");
            None
        }
    };
    let client = match (section.has("client_cert"), section.has("client_key")) {
        (false, false) => {
            if !section.has("ca_file") && !section.has("certificate") {
                section.fault(
                    "",
                    "says nothing about TLS",
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
            let wrong = format!("missing, but {has} is there: one is of no use without the other");
            section.fault(lacks, wrong, "write both; where one file holds both, name it twice");
            None
        }
    };
    // A port that is wrong must not turn into any port.
    if section.has("port") && port.is_none() {
        return None;
    }
    Some(OriginTls { index, host: host?, port, proof: proof?, client: client? })
}
