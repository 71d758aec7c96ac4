//! Reads `[log]`: what is logged, and where. Opens no file.

use std::path::PathBuf;

use super::key::{Shape, Table, keys};
use super::section::Section;
use super::values;
use super::values::BasePaths;
use crate::limits::{GIB, KIB, MIB, Quantity, bytes, count};

const FILE_SIZE: Quantity = bytes(10 * MIB, 64 * KIB..=GIB);
const KEPT_FILES: Quantity = count(5, 0..=1000);
const QUEUE: Quantity = bytes(4 * MIB, 64 * KIB..=GIB);

/// The keys of `[log]`.
pub(super) static LOG: Table = Table::new(
    "log",
    "The log of `tollpass serve`.",
    keys! {
        /// Log a line for each request once it has ended: client, the name of its [[client]], method, origin, status,
        /// bytes, time, and how tollpass handled it.
        "access": Shape::Boolean(false),
        /// What to log, such as "warn" or "info,tollpass::chain=debug"; if absent, "info". TOLLPASS_LOG overrides it.
        "filter": Shape::Text(r"\S"),
        /// Log to this file instead of standard error. Other users cannot read it.
        "file": Shape::Path,
        /// When the file reaches this size, rename it to FILE.1, FILE.1 to FILE.2 and so on, and start a new one.
        "file_size": Shape::Quantity(FILE_SIZE),
        /// How many renamed files to keep.
        "kept_files": Shape::Quantity(KEPT_FILES),
        /// How much of the log may wait to be written. Further lines are dropped and counted: logging never delays a
        /// request.
        "queue": Shape::Quantity(QUEUE),
    },
);

/// `[log]`: what is logged, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// Whether each request gets a line in the log.
    pub access: bool,
    /// What is logged; not checked here.
    pub filter: Option<String>,
    /// The file to log to instead of standard error.
    pub file: Option<PathBuf>,
    /// The size at which the file is renamed, in bytes.
    pub file_size: u64,
    /// How many renamed files are kept.
    pub kept_files: u32,
    /// The most bytes that wait to be written.
    pub queue: usize,
}

impl LogConfig {
    /// The queue of commands that log without reading a configuration, in bytes.
    pub const DEFAULT_QUEUE: usize = QUEUE.default as usize;
}

/// Reads `[log]`.
pub(super) fn read(section: &Section<'_>, base: &BasePaths) -> LogConfig {
    LogConfig {
        access: section.read("access", values::boolean).unwrap_or(false),
        filter: section.read("filter", |value| Ok(values::text(value)?.to_owned())),
        file: section.read("file", |value| base.path(value)),
        file_size: section.quantity("file_size", FILE_SIZE),
        kept_files: section.count("kept_files", KEPT_FILES),
        queue: usize::try_from(section.quantity("queue", QUEUE)).unwrap_or(usize::MAX),
    }
}
