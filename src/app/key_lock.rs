//! Reserves a key for one process of the user: two that pay with it would not know each other's promises, budgets and
//! transactions.

use std::fs::{File, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};

use super::error::StartError;
use super::file_lock::FileLock;
use crate::private;
use crate::protocol::Address;

/// The directory of the lock files, in the user's runtime directory or, if there is none, with the user's other state.
const DIRECTORY: &str = "tollpass";
/// The most that is read of the state directory's path in a lock file, in bytes.
const MAX_PATH: u64 = 4096;

/// A reserved key; another process can use it once this is dropped.
pub(super) struct KeyLock {
    _lock: FileLock,
}

impl KeyLock {
    /// Reserves the key of `payer` for the process that uses `state_dir`. `None` if `runtime_dir` cannot be used: it
    /// protects from an oversight, and a machine may lack it.
    ///
    /// # Errors
    /// Another process pays with the key.
    pub(super) fn reserve(
        runtime_dir: &Path,
        payer: Address,
        state_dir: &Path,
    ) -> Result<Option<Self>, StartError> {
        let directory = runtime_dir.join(DIRECTORY);
        let path = directory.join(format!("{payer}.lock"));
        let opened = private::create_directory(&directory).and_then(|()| private::own(&path));
        let mut file = match opened {
            Ok(file) => file,
            Err(error) => return Ok(unlocked(&error.to_string())),
        };
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut other = String::new();
                // Whose lock it is only makes the error clearer.
                let _ = file.take(MAX_PATH).read_to_string(&mut other);
                return Err(StartError::KeyInUse { payer, other: PathBuf::from(other), path });
            }
            Err(TryLockError::Error(error)) => return Ok(unlocked(&error.to_string())),
        }
        warn_of_earlier(&mut file, payer, state_dir);
        let mut name = || -> std::io::Result<()> {
            file.set_len(0)?;
            file.rewind()?;
            file.write_all(state_dir.as_os_str().as_encoded_bytes())
        };
        if let Err(error) = name() {
            tracing::debug!(path = %path.display(), %error, "cannot write whose lock this is");
        }
        Ok(Some(Self { _lock: FileLock(file) }))
    }
}

/// Warns if the key has paid from another state directory, which is still there.
fn warn_of_earlier(file: &mut File, payer: Address, state_dir: &Path) {
    let mut earlier = String::new();
    // Without its content, there is nothing to compare with.
    let _ = file.take(MAX_PATH).read_to_string(&mut earlier);
    let earlier = Path::new(&earlier);
    if earlier != state_dir && earlier.is_absolute() && earlier.is_dir() {
        tracing::warn!(
            %payer,
            earlier = %earlier.display(),
            "this key has paid with another state directory before: what was signed there is not known here, so budgets and \
             channels are counted again; use that state_dir, or give each a key of its own"
        );
    }
}

fn unlocked(reason: &str) -> Option<KeyLock> {
    tracing::warn!(
        reason,
        "cannot reserve the key: a second tollpass with the same key would not be noticed"
    );
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALICE: Address = Address([1; 20]);

    #[test]
    fn a_key_belongs_to_one_process_at_a_time() {
        let runtime = tempfile::tempdir().unwrap();
        let reserve = |payer, state: &str| KeyLock::reserve(runtime.path(), payer, Path::new(state));
        let held = reserve(ALICE, "/one").unwrap();
        assert!(held.is_some());
        let refused = reserve(ALICE, "/two").map(drop).unwrap_err().to_string();
        assert!(
            refused.contains("state directory /one") && refused.contains(&ALICE.to_string()),
            "{refused}"
        );
        assert!(reserve(Address([2; 20]), "/two").unwrap().is_some());
        drop(held);
        let held = reserve(ALICE, "/2").unwrap();
        assert!(held.is_some());
        let refused = reserve(ALICE, "/one").map(drop).unwrap_err().to_string();
        assert!(refused.contains("state directory /2;"), "{refused}");
    }

    #[test]
    fn a_key_that_has_paid_from_another_directory_is_still_usable() {
        let runtime = tempfile::tempdir().unwrap();
        let reserve = |state: &Path| KeyLock::reserve(runtime.path(), ALICE, state).unwrap();
        let content = || {
            let path = runtime.path().join(DIRECTORY).join(format!("{ALICE}.lock"));
            std::fs::read_to_string(path).unwrap()
        };
        for state in ["/a/longer/path", "/b"] {
            drop(reserve(Path::new(state)));
            assert_eq!(content(), state);
        }
    }

    #[test]
    fn without_a_usable_directory_nothing_is_reserved() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        std::fs::write(&file, "").unwrap();
        for missing in [file.as_path(), Path::new("/proc/none")] {
            assert!(KeyLock::reserve(missing, ALICE, Path::new("/one")).unwrap().is_none());
        }
    }
}
