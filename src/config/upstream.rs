//! Reads `[upstream]`: how the way from the proxy to the origins is.

use std::path::PathBuf;

use super::{section::Section, values::Places};

/// The keys of `[upstream]`.
pub(super) const UPSTREAM: &[&str] = &["ca_file"];

/// `[upstream]`: the way to the origins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Upstream {
    /// PEM certificates by which origins may prove themselves, besides the system's.
    pub ca_file: Option<PathBuf>,
}

/// Reads `[upstream]`.
pub(super) fn upstream(section: &Section<'_>, places: &Places) -> Upstream {
    Upstream { ca_file: section.read("ca_file", |value| places.path(value)) }
}
