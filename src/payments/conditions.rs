//! What is known of the node and the disk, without asking them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use crate::chain::Chain;

/// What is known of the node and the disk, without asking them.
#[derive(Debug, Default)]
pub(super) struct Conditions {
    /// The chain, once it has been read.
    pub(super) chain: OnceLock<Chain>,
    /// The last write to the journal failed.
    pub(super) is_unwritable: AtomicBool,
    /// A check of the disk has begun and not ended.
    is_checking: AtomicBool,
}

/// A check of the disk, which ends with this, however it ends.
pub(super) struct DiskCheck(Arc<Conditions>);

impl DiskCheck {
    /// Begins a check, unless one has begun and not ended.
    pub(super) fn begin(conditions: &Arc<Conditions>) -> Option<Self> {
        let is_first = !conditions.is_checking.swap(true, Ordering::Relaxed);
        is_first.then(|| Self(Arc::clone(conditions)))
    }
}

impl Drop for DiskCheck {
    fn drop(&mut self) {
        self.0.is_checking.store(false, Ordering::Relaxed);
    }
}
