//! The file of the journal, and the settings with which it is opened.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::Connection;

use super::error::StoreError;
use super::schema::{SCHEMA_VERSION, migrate, sweep};
use crate::payments::request_key::Requests;

/// The name of the file in the state folder.
pub const FILE: &str = "tollpass.db";

/// How long a write waits for another program that holds the file: whoever waits for a payment waits as long.
const BUSY_WITHIN: Duration = Duration::from_millis(500);

/// The journal of a state folder.
#[derive(Debug)]
pub struct Store {
    pub(super) connection: Connection,
    pub(super) requests: Requests,
    pub(super) path: PathBuf,
}

/// The files that SQLite keeps beside the journal.
pub fn beside(folder: &Path) -> [PathBuf; 2] {
    ["-wal", "-shm"].map(|end| folder.join(format!("{FILE}{end}")))
}

impl Store {
    /// Opens the journal in `folder`, or makes it.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        let path = folder.join(FILE);
        let failed = |source| StoreError::Sqlite { path: path.clone(), source };
        let mut connection = Connection::open(&path).map_err(failed)?;
        connection.busy_timeout(BUSY_WITHIN).map_err(failed)?;
        connection.pragma_update(None, "journal_mode", "WAL").map_err(failed)?;
        connection.pragma_update(None, "synchronous", "FULL").map_err(failed)?;
        // What is deleted is overwritten: it may tell what was asked for.
        connection.pragma_update(None, "secure_delete", "ON").map_err(failed)?;
        connection.pragma_update(None, "foreign_keys", "ON").map_err(failed)?;
        let found: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(failed)?;
        if found > SCHEMA_VERSION {
            return Err(StoreError::Newer { path, found });
        }
        if found < SCHEMA_VERSION {
            migrate(&mut connection, found).map_err(failed)?;
        }
        let requests = sweep(&connection).map_err(failed)?;
        Ok(Self { connection, requests, path })
    }

    /// What requests are known by in this journal.
    pub(in crate::payments) fn requests(&self) -> Requests {
        self.requests.clone()
    }
}
