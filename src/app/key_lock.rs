//! Reserves a key for one process of the user: two that pay with it would not know each other's promises, budgets and
//! transactions.

use std::fs::{File, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::error::StartError;
use super::file_lock::FileLock;
use crate::private;
use crate::protocol::Address;

/// The directory of the lock files, in the user's runtime directory and with the user's other state.
const DIRECTORY: &str = "tollpass";
/// The most that is read of the state directory's path in a lock file, in bytes.
const MAX_PATH: u64 = 4096;

/// A reserved key; another process can use it once this is dropped.
pub(super) struct KeyLock {
    /// One in each directory, since other processes may lack some of them.
    _locks: Vec<FileLock>,
}

impl KeyLock {
    /// Reserves the key of `payer` for the process that uses `state_dir`, in each of the directories that can be used. `None`
    /// if none can: it protects from an oversight, and a machine may lack them.
    ///
    /// # Errors
    /// Another process pays with the key.
    pub(super) fn reserve(
        directories: &[PathBuf],
        payer: Address,
        state_dir: &Path,
    ) -> Result<Option<Self>, StartError> {
        let (mut locks, mut unusable) = (Vec::new(), Vec::new());
        for directory in directories {
            match lock(&directory.join(DIRECTORY), payer, &locks)? {
                Ok(lock) => locks.extend(lock),
                Err(reason) => unusable.push(reason),
            }
        }
        let earlier = locks.iter_mut().filter_map(|lock| read(&mut lock.0)).next();
        warn_of_earlier(earlier, payer, state_dir);
        // Only once the key is this process's in all of them.
        for lock in &mut locks {
            if let Err(error) = name(&mut lock.0, state_dir) {
                tracing::debug!(%error, "cannot write whose lock this is");
            }
        }
        if locks.is_empty() && !unusable.is_empty() {
            tracing::warn!(
                reason = unusable.join("; "),
                "cannot reserve the key: a second tollpass with the same key would not be noticed"
            );
        }
        Ok(if locks.is_empty() { None } else { Some(Self { _locks: locks }) })
    }
}

/// Locks the file of `payer` in `directory`, unless it is one of those `held`. The inner error says why it cannot be used.
fn lock(
    directory: &Path,
    payer: Address,
    held: &[FileLock],
) -> Result<Result<Option<FileLock>, String>, StartError> {
    let path = directory.join(format!("{payer}.lock"));
    let opened = private::create_directory(directory).and_then(|()| private::own(&path));
    let mut file = match opened {
        Ok(file) => file,
        Err(error) => return Ok(Err(error.to_string())),
    };
    // Both directories may be the same one.
    if held.iter().any(|held| is_same(&held.0, &file)) {
        return Ok(Ok(None));
    }
    match file.try_lock() {
        Ok(()) => Ok(Ok(Some(FileLock(file)))),
        Err(TryLockError::WouldBlock) => {
            // Whose lock it is only makes the error clearer.
            let other = read(&mut file).unwrap_or_default();
            Err(StartError::KeyInUse { payer, other, path })
        }
        Err(TryLockError::Error(error)) => Ok(Err(format!("{}: {error}", path.display()))),
    }
}

fn is_same(one: &File, other: &File) -> bool {
    let number = |file: &File| file.metadata().ok().map(|file| (file.dev(), file.ino()));
    number(one).is_some() && number(one) == number(other)
}

/// The state directory that a lock file names.
fn read(file: &mut File) -> Option<PathBuf> {
    let mut named = String::new();
    file.take(MAX_PATH).read_to_string(&mut named).ok()?;
    Some(PathBuf::from(named)).filter(|named| named.is_absolute())
}

/// Writes into a lock file whose it is.
fn name(file: &mut File, state_dir: &Path) -> std::io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    file.write_all(state_dir.as_os_str().as_encoded_bytes())
}

/// Warns if the key has paid from another state directory, which is still there.
fn warn_of_earlier(earlier: Option<PathBuf>, payer: Address, state_dir: &Path) {
    if let Some(earlier) = earlier.filter(|earlier| earlier != state_dir && earlier.is_dir()) {
        tracing::warn!(
            %payer,
            earlier = %earlier.display(),
            "this key has paid with another state directory before: what was signed there is not known here, so budgets and \
             channels are counted again; use that state_dir, or give each a key of its own"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALICE: Address = Address([1; 20]);

    #[test]
    fn a_key_belongs_to_one_process_at_a_time() {
        let runtime = tempfile::tempdir().unwrap();
        let directories = [runtime.path().to_owned()];
        let reserve = |payer, state: &str| KeyLock::reserve(&directories, payer, Path::new(state));
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
    fn a_process_with_one_directory_of_two_in_common_is_noticed() {
        let directories: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
        let [state, runtime, other] = [0, 1, 2].map(|index: usize| directories[index].path().to_owned());
        let reserve = |directories: &[&PathBuf]| {
            let directories: Vec<PathBuf> = directories.iter().copied().cloned().collect();
            KeyLock::reserve(&directories, ALICE, Path::new("/one"))
        };
        let both = reserve(&[&state, &runtime]).unwrap();
        for others in [&[&state][..], &[&runtime], &[&state, &other], &[&other, &runtime]] {
            assert!(reserve(others).is_err(), "{others:?}");
        }
        // What was reserved before the failure is free again.
        assert!(reserve(&[&other]).unwrap().is_some());
        // What cannot be used is no reason to fail.
        drop(both);
        let unusable = PathBuf::from("/proc/none");
        let _runtime = reserve(&[&unusable, &runtime]).unwrap();
        assert!(reserve(&[&state, &runtime]).is_err());
        assert!(reserve(&[&unusable]).unwrap().is_none());
        assert!(reserve(&[&other, &other]).unwrap().is_some(), "it is not in its own way");
    }

    #[test]
    fn a_key_that_has_paid_from_another_directory_is_still_usable() {
        let runtime = tempfile::tempdir().unwrap();
        let directories = [runtime.path().to_owned()];
        let reserve = |state: &Path| KeyLock::reserve(&directories, ALICE, state).unwrap();
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
        for missing in [file, PathBuf::from("/proc/none")] {
            assert!(KeyLock::reserve(&[missing], ALICE, Path::new("/one")).unwrap().is_none());
        }
    }
}
