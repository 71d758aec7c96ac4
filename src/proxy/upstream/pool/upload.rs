//! How much of a connection's upload window its request bodies may take.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts the length of a request body until the last clone is dropped.
#[derive(Clone, Debug)]
pub(crate) struct UploadShare {
    _last: Arc<UploadLength>,
}

#[derive(Debug)]
struct UploadLength {
    uploading: Arc<AtomicUsize>,
    length: usize,
}

impl UploadShare {
    /// The caller holds the pool's lock.
    pub(super) fn begin(uploading: &Arc<AtomicUsize>, length: usize) -> Self {
        uploading.fetch_add(length, Ordering::Relaxed);
        Self { _last: Arc::new(UploadLength { uploading: Arc::clone(uploading), length }) }
    }
}

impl Drop for UploadLength {
    fn drop(&mut self) {
        self.uploading.fetch_sub(self.length, Ordering::Relaxed);
    }
}
