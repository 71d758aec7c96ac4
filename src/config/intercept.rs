//! Reads `[intercept]`: into which tunnels tollpass looks, and by which CA. Opens no certificate.

use std::path::PathBuf;

use ::config::{Value, ValueKind};

use super::section::{Section, Wrong, quoted};
use super::values;
use super::values::Places;
use crate::protocol::policy::{HostPattern, Hosts, Rule};

/// The keys of `[intercept]`.
pub(super) const KEYS: &[&str] = &["hosts", "ca_cert", "ca_key", "name_constraints"];

const MAX_HOSTS: usize = 10_000;

/// `[intercept]`: into which tunnels tollpass looks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Intercept {
    /// Tunnels to these, and no others.
    pub hosts: Hosts,
    /// Who signs the certificates that clients see there.
    pub authority: Authority,
}

/// Who signs certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Authority {
    /// A CA in `state_dir`, made on first use.
    Made {
        /// The names for which it may sign, those below them included; any name where this is empty.
        permitted: Vec<String>,
    },
    /// The user's own CA.
    Given {
        /// The file of its certificate, PEM.
        certificate: PathBuf,
        /// The file of its key, PEM.
        key: PathBuf,
    },
}

impl Intercept {
    /// True when tollpass looks into a tunnel to `host` (without brackets, in any case) on `port`.
    pub fn covers(&self, host: &str, port: u16) -> bool {
        self.hosts.covers(host, port)
    }
}

/// Reads `[intercept]`. Where no hosts are written, they are those for which `paying` rules pay; `None` when it is wrong,
/// which is then reported.
pub(super) fn read(section: &Section<'_>, places: &Places, paying: &[Rule]) -> Option<Intercept> {
    let hosts = match section.has("hosts") {
        true => Hosts::listed(section.read("hosts", patterns)?),
        false => Hosts::paid(paying),
    };
    let path = |key| section.read(key, |value| places.path(value));
    let is_bound = section.read("name_constraints", values::boolean).unwrap_or(false);
    let authority = match (section.has("ca_cert"), section.has("ca_key")) {
        (false, false) => {
            Authority::Made { permitted: if is_bound { permitted(section, &hosts)? } else { Vec::new() } }
        }
        (true, true) => {
            if is_bound {
                let wrong = "means nothing with ca_cert: a CA of your own is as it is";
                section.fault("name_constraints", wrong, "remove it");
            }
            let (certificate, key) = (path("ca_cert"), path("ca_key"));
            Authority::Given { certificate: certificate?, key: key? }
        }
        (has_certificate, _) => {
            let (has, lacks) = if has_certificate { ("ca_cert", "ca_key") } else { ("ca_key", "ca_cert") };
            let wrong = format!("missing, but {has} is there: a CA needs both");
            section.fault(lacks, wrong, "write both; or remove both for a CA that tollpass makes");
            return None;
        }
    };
    Some(Intercept { hosts, authority })
}

/// Rules for every host, by which every tunnel is looked into without its being said.
pub(super) fn warnings(section: &Section<'_>, intercept: Option<&Intercept>) -> Option<String> {
    let is_every = intercept?.hosts.patterns().any(|pattern| *pattern == HostPattern::Any);
    (is_every && !section.has("hosts")).then(|| {
        "a [[pay]] rule for every host means that every https connection is looked into: say where with \
         intercept.hosts"
            .to_owned()
    })
}

/// Patterns: a list, an empty one too, or a text with commas between (a variable has nothing else).
pub(super) fn patterns(value: &Value) -> Result<Vec<HostPattern>, Wrong> {
    match &value.kind {
        ValueKind::Array(items) if items.is_empty() => Ok(Vec::new()),
        _ => values::list(value, MAX_HOSTS, |value| {
            let text = values::text(value)?;
            text.parse().map_err(|error| {
                Wrong::new(format!("{} is {error}", quoted(text)), "write such as [\"api.example.com\"]")
            })
        }),
    }
}

/// The names that constraints permit. A pattern for the names below one permits that one too: constraints know no other
/// way.
fn permitted(section: &Section<'_>, hosts: &Hosts) -> Option<Vec<String>> {
    let names = hosts.patterns().map(|pattern| match pattern {
        HostPattern::Any => None,
        HostPattern::Below(suffix) => Some(suffix.trim_start_matches('.').to_owned()),
        HostPattern::Exactly(host) => Some(host.clone()),
    });
    let names: Option<Vec<_>> = names.collect();
    if names.as_ref().is_some_and(Vec::is_empty) {
        let wrong = "there are no hosts to bind a CA to";
        section.fault("name_constraints", wrong, "name some with intercept.hosts, or remove it");
        return None;
    }
    if names.is_none() {
        let wrong = "a CA cannot be limited to \"*\"";
        section.fault("name_constraints", wrong, "name the hosts with intercept.hosts, or remove it");
    }
    names
}
