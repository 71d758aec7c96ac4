//! How much of a body is kept, and why one cannot be sent again.

use std::path::PathBuf;

/// How much of a body is kept, and where.
#[derive(Clone, Debug)]
pub struct ReplayLimits {
    /// Bytes to keep in memory.
    pub memory: usize,
    /// Further bytes to keep in a temporary file.
    pub file: u64,
    /// The directory of that file, which has no name and is private to its owner.
    pub directory: PathBuf,
}

impl ReplayLimits {
    /// The configured limits, with the directory for temporary files.
    #[must_use]
    pub fn new(limits: &crate::limits::Limits, directory: PathBuf) -> Self {
        Self { memory: limits.replay_memory, file: limits.replay_file, directory }
    }

    /// The most bytes to keep.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.file.saturating_add(self.memory as u64)
    }
}

/// Why a body cannot be sent again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotReplayable {
    /// It is larger than the limits allow.
    #[error("the request body is larger than {limit} bytes, the most that is kept for sending it again")]
    TooLarge {
        /// The limit, in bytes.
        limit: u64,
    },
    /// The temporary file failed.
    #[error("cannot keep the request body in a temporary file: {0}")]
    Storage(String),
    /// The client did not send all of it.
    #[error("the client's request body ended early: {0}")]
    Broken(String),
}
