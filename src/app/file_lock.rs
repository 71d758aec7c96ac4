//! A locked file.

use std::fs::File;

/// Reserves what a file stands for, until dropped.
#[derive(Debug)]
pub(super) struct FileLock(pub(super) File);

impl Drop for FileLock {
    fn drop(&mut self) {
        // Closing the file is not enough: between fork and exec, a child process holds a copy of it, and thus the lock.
        // If unlocking fails, the lock remains until then.
        let _ = self.0.unlock();
    }
}
