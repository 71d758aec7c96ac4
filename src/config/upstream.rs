//! Reads `[upstream]`: how the way from the proxy to the origins is.

use std::path::PathBuf;

use super::{intercept::patterns, section::Section, values::Places};
use crate::protocol::policy::HostPattern;

/// The keys of `[upstream]`.
pub(super) const UPSTREAM: &[&str] = &["ca_file", "upgrade"];

/// `[upstream]`: the way to the origins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Upstream {
    /// PEM certificates by which origins may prove themselves, besides the system's.
    pub ca_file: Option<PathBuf>,
    /// Hosts that a plain `http` request reaches over `https`.
    pub upgrade: Vec<HostPattern>,
}

/// Reads `[upstream]`.
pub(super) fn upstream(section: &Section<'_>, places: &Places) -> Upstream {
    Upstream {
        ca_file: section.read("ca_file", |value| places.path(value)),
        upgrade: section.read("upgrade", patterns).unwrap_or_default(),
    }
}
