//! Errors of the journal.

use std::path::PathBuf;

use rusqlite::{ErrorCode, ffi};

use super::schema::SCHEMA_VERSION;
use crate::protocol::Address;

/// The journal cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// SQLite failed.
    #[error("cannot use the journal {}: {error}{}", path.display(), remedy(error))]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// SQLite's error. Not a source, which would say the same in other words.
        error: rusqlite::Error,
    },
    /// The journal has the same payer and contract on another chain.
    #[error(
        "the node is on chain {found}, but {} recorded {payer} and the contract {contract} on chain {known}: check \
         chain.rpc_url, or set chain.chain_id = {found} if you mean that chain", path.display()
    )]
    OtherChain {
        /// The file.
        path: PathBuf,
        /// The payer.
        payer: Address,
        /// The channel contract.
        contract: Address,
        /// The chain ID of the node.
        found: u64,
        /// The chain ID of the journal.
        known: u64,
    },
    /// The contract reported another token before.
    #[error(
        "the contract {contract} reports the token {found}, but {} recorded {known}, which cannot change: the node \
         returns false data. Use another node (chain.rpc_url)", path.display()
    )]
    OtherToken {
        /// The file.
        path: PathBuf,
        /// The channel contract.
        contract: Address,
        /// The token that it reports now.
        found: Address,
        /// The token in the journal.
        known: Address,
    },
    /// A record belongs to an account, and the chain has not been read yet.
    #[error("the journal cannot record a channel before the chain has been read")]
    NoAccount,
    /// The writer thread panicked; nothing was done that depends on its unwritten records.
    #[error("the journal is closed after an internal error: restart tollpass")]
    Gone,
    /// The file was written by a newer version.
    #[error("{}: written by a newer version of tollpass (schema {found}, this version supports {SCHEMA_VERSION}): update", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: i64,
    },
}

/// Errors of writes for which there may be no space.
const FAILED_WRITES: [i32; 3] =
    [ffi::SQLITE_IOERR_WRITE, ffi::SQLITE_IOERR_SHMSIZE, ffi::SQLITE_IOERR_TRUNCATE];

/// What to do about an error of SQLite, if that is known.
fn remedy(error: &rusqlite::Error) -> &'static str {
    // On a full disk, SQLite calls what it cannot write besides the file itself an I/O error.
    let extended = error.sqlite_error().map(|error| error.extended_code);
    match error.sqlite_error_code() {
        Some(ErrorCode::SystemIoFailure) if extended.is_some_and(|code| FAILED_WRITES.contains(&code)) => {
            "; the disk may be full: free some space, or raise the limit on the size of files (`ulimit -f`)"
        }
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
            "; restore a copy of it, or move it away with its -wal and -shm files: tollpass then begins a new one, which \
             does not know what budgets have spent"
        }
        Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => {
            "; let this user read and write it and its directory"
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            "; close the program that uses it, and try again"
        }
        Some(ErrorCode::DiskFull) => "; free some space",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use crate::payments::journal::error::*;

    #[test]
    fn what_cannot_be_written_says_to_free_some_space() {
        for (code, expected) in [
            (ffi::SQLITE_FULL, true),
            (ffi::SQLITE_IOERR_SHMSIZE, true),
            (ffi::SQLITE_IOERR_WRITE, true),
            (ffi::SQLITE_IOERR_READ, false),
        ] {
            let error = rusqlite::Error::SqliteFailure(ffi::Error::new(code), None);
            assert_eq!(remedy(&error).contains("free some space"), expected, "{code}");
        }
    }
}
