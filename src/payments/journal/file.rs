//! The file of the journal and how it is opened.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::Connection;

use super::error::JournalError;
use super::schema::{SCHEMA_VERSION, migrate, sweep};
use crate::payments::ledger::LedgerWriter;
use crate::payments::request_hasher::RequestHasher;

/// The name of the file in the state directory.
pub const FILE: &str = "tollpass.db";

/// How long a write waits for another program that locks the file. Clients that wait for this write wait equally long.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_millis(500);

/// The journal of a state directory.
#[derive(Debug)]
pub struct Journal {
    pub(super) connection: Connection,
    pub(super) hasher: RequestHasher,
    pub(super) path: PathBuf,
    /// Without one, payments get no rows.
    pub(super) ledger: Option<LedgerWriter>,
    /// Whether transactions are durable when they end; false if that is not known.
    pub(super) is_durable: bool,
    /// Whether a power failure could take back what was committed last.
    pub(super) has_unsynced: bool,
}

/// SQLite's additional files for the journal of a state directory.
pub fn sidecar_files(state_dir: &Path) -> [PathBuf; 2] {
    ["-wal", "-shm"].map(|end| state_dir.join(format!("{FILE}{end}")))
}

impl Journal {
    /// Opens the journal of a state directory, or creates it, and migrates an older one.
    ///
    /// # Errors
    /// [`JournalError::Newer`] for a file of a newer version; otherwise if SQLite cannot open or migrate the file.
    pub fn open(state_dir: &Path) -> Result<Self, JournalError> {
        let path = state_dir.join(FILE);
        let failed = |error| JournalError::Sqlite { path: path.clone(), error };
        let mut connection = Connection::open(&path).map_err(failed)?;
        connection.busy_timeout(BUSY_TIMEOUT).map_err(failed)?;
        connection.pragma_update(None, "journal_mode", "WAL").map_err(failed)?;
        connection.pragma_update(None, "synchronous", "FULL").map_err(failed)?;
        // Overwrites deleted rows, which may contain requests.
        connection.pragma_update(None, "secure_delete", "ON").map_err(failed)?;
        connection.pragma_update(None, "foreign_keys", "ON").map_err(failed)?;
        let found: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(failed)?;
        if found > SCHEMA_VERSION {
            return Err(JournalError::Newer { path, found });
        }
        if found < SCHEMA_VERSION {
            migrate(&mut connection, found).map_err(failed)?;
        }
        let hasher = sweep(&connection).map_err(failed)?;
        Ok(Self { connection, hasher, path, ledger: None, is_durable: true, has_unsynced: false })
    }

    /// The hasher for the keys of this journal's prices.
    pub(in crate::payments) fn request_hasher(&self) -> RequestHasher {
        self.hasher.clone()
    }
}
