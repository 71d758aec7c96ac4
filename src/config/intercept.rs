//! Reads `[intercept]`: which tunnels to decrypt, and with which CA. Opens no file.

use std::path::PathBuf;

use ::config::{Value, ValueKind};
use serde_json::json;

use super::key::{HOST_PATTERN, Shape, Table, keys};
use super::rules::{both_or_neither, is_set};

use super::raw_value::InvalidValue;
use super::section::Section;
use super::values;
use super::values::BasePaths;
use crate::protocol::policy::{HostPattern, Hosts, Rule};

/// The keys of `[intercept]`.
pub(super) static INTERCEPT: Table = Table::new(
    "intercept",
    "Which https connections tollpass decrypts, so that it can pay inside them.",
    keys! {
        /// Patterns as in [[pay]].
        "hosts": PATTERNS,
        /// Your own CA (PEM files: ECDSA, RSA or Ed25519, the key without a password and chmod 600).
        "ca_cert": Shape::Path,
        /// Your own CA (PEM files: ECDSA, RSA or Ed25519, the key without a password and chmod 600).
        "ca_key": Shape::Path,
        /// true: the CA that tollpass creates can sign only for the hosts above and names below them.
        "name_constraints": Shape::Boolean(false),
    },
)
.with_rules(|| {
    let is_bound =
        json!({"required": ["name_constraints"], "properties": {"name_constraints": {"const": true}}});
    vec![both_or_neither("ca_cert", "ca_key"), json!({"not": {"allOf": [is_bound, is_set("ca_cert")]}})]
});

/// A list of patterns for hosts.
pub(super) const PATTERNS: Shape = Shape::List(&HOST_PATTERN, 0, MAX_HOSTS);
const MAX_HOSTS: usize = 10_000;

/// `[intercept]`: which tunnels to decrypt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterceptConfig {
    /// Tunnels to these hosts, and no others.
    pub hosts: Hosts,
    /// The CA that signs their certificates.
    pub authority: CaSource,
}

/// The CA that signs certificates for intercepted hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CaSource {
    /// A CA in `state_dir`, created on first use.
    Generated {
        /// The names for which it may sign, including names below them; any name if empty.
        permitted: Vec<String>,
    },
    /// The user's own CA.
    Files {
        /// The file of its certificate, PEM.
        certificate: PathBuf,
        /// The file of its key, PEM.
        key: PathBuf,
    },
}

impl InterceptConfig {
    /// True if tollpass decrypts tunnels to `host` (without brackets, in any case) on `port`.
    pub fn covers(&self, host: &str, port: u16) -> bool {
        self.hosts.covers(host, port)
    }
}

/// Reads `[intercept]`; `None` if it is invalid, which is then reported. The default hosts are those that the rules
/// `paying` pay.
pub(super) fn read(section: &Section<'_>, base: &BasePaths, paying: &[&[Rule]]) -> Option<InterceptConfig> {
    let hosts = match section.has("hosts") {
        true => Hosts::listed(section.read("hosts", patterns)?),
        false => Hosts::paid(paying.iter().copied()),
    };
    let path = |key| section.read(key, |value| base.path(value));
    let is_bound = section.read("name_constraints", values::boolean).unwrap_or(false);
    let authority = match (section.has("ca_cert"), section.has("ca_key")) {
        (false, false) => {
            CaSource::Generated { permitted: if is_bound { permitted(section, &hosts)? } else { Vec::new() } }
        }
        (true, true) => {
            if is_bound {
                let problem = "has no effect with ca_cert: tollpass does not change your own CA";
                section.issue("name_constraints", problem, "remove it");
            }
            let (certificate, key) = (path("ca_cert"), path("ca_key"));
            CaSource::Files { certificate: certificate?, key: key? }
        }
        (has_certificate, _) => {
            let (has, lacks) = if has_certificate { ("ca_cert", "ca_key") } else { ("ca_key", "ca_cert") };
            let problem = format!("missing, but {has} is set: a CA needs both");
            section.issue(lacks, problem, "write both, or remove both for a CA that tollpass creates");
            return None;
        }
    };
    Some(InterceptConfig { hosts, authority })
}

/// A warning if rules for every host cause every tunnel to be decrypted, and `hosts` is not set.
pub(super) fn warnings(section: &Section<'_>, intercept: Option<&InterceptConfig>) -> Option<String> {
    let is_every = intercept?.hosts.patterns().any(|pattern| *pattern == HostPattern::Any);
    (is_every && !section.has("hosts")).then(|| {
        "a [[pay]] entry for every host makes tollpass decrypt every https connection: set intercept.hosts to \
         limit this"
            .to_owned()
    })
}

/// Host patterns: a list, possibly empty, or a string with commas (all that a variable can hold).
pub(super) fn patterns(value: &Value) -> Result<Vec<HostPattern>, InvalidValue> {
    match &value.kind {
        ValueKind::Array(items) if items.is_empty() => Ok(Vec::new()),
        _ => values::list(value, MAX_HOSTS, |value| {
            values::host_pattern(value, |_| "write one such as [\"api.example.com\"]".to_owned())
        }),
    }
}

/// The names that the CA's name constraints permit. A pattern for names below another also permits that one: constraints
/// cannot exclude it.
fn permitted(section: &Section<'_>, hosts: &Hosts) -> Option<Vec<String>> {
    let names = hosts.patterns().map(|pattern| match pattern {
        HostPattern::Any => None,
        HostPattern::Below(suffix) => Some(suffix.trim_start_matches('.').to_owned()),
        HostPattern::Exactly(host) => Some(host.to_string()),
    });
    let names: Option<Vec<_>> = names.collect();
    if names.as_ref().is_some_and(Vec::is_empty) {
        let problem = "there are no hosts to limit the CA to";
        section.issue("name_constraints", problem, "list some in intercept.hosts, or remove it");
        return None;
    }
    if names.is_none() {
        let problem = "a CA cannot be limited to \"*\"";
        section.issue("name_constraints", problem, "list the hosts in intercept.hosts, or remove it");
    }
    names
}
