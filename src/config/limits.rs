//! Reads `[limits]`.

use super::key::{KeySpec, Shape, Table};
use super::section::Section;
use crate::limits::{LIMITS, Limits};

const KEYS: [KeySpec; LIMITS.len()] = {
    let mut keys = [KeySpec::new("", Shape::Path, &[]); LIMITS.len()];
    let mut index = 0;
    while index < keys.len() {
        keys[index] = KeySpec::limit(&LIMITS[index]);
        index += 1;
    }
    keys
};

/// The keys of `[limits]`.
pub(super) static TABLE: Table =
    Table::new("limits", "Limits on everything that could otherwise grow or last.", &KEYS);

/// Reads `[limits]`.
pub(super) fn read(section: &Section<'_>) -> Limits {
    Limits::read(|limit| Some(section.quantity(limit.key, limit.quantity)))
}
