//! Paused hosts in the journal.

use rusqlite::params;

use super::error::JournalError;
use super::file::Journal;
use crate::payments::pauses::PausedHost;

impl Journal {
    /// The paused hosts, the oldest pause first.
    ///
    /// # Errors
    /// SQLite cannot read them.
    pub fn paused_hosts(&self) -> Result<Vec<PausedHost>, JournalError> {
        let read = || {
            let select = "SELECT host, since FROM paused_host ORDER BY id";
            let mut select = self.connection.prepare(select)?;
            let rows = select.query_map([], |row| {
                Ok(PausedHost { host: row.get(0)?, since: row.get::<_, i64>(1)?.unsigned_abs() })
            })?;
            rows.collect::<rusqlite::Result<_>>()
        };
        read().map_err(|source| JournalError::Sqlite { path: self.path.clone(), source })
    }

    /// Records a pause, and keeps this many of them.
    ///
    /// # Errors
    /// SQLite cannot write it.
    pub(in crate::payments) fn pause_host(
        &mut self,
        paused: &PausedHost,
        most: usize,
    ) -> Result<(), JournalError> {
        let mut write = || {
            let transaction = self.connection.transaction()?;
            transaction.execute(
                "INSERT OR REPLACE INTO paused_host (host, since) VALUES (?1, ?2)",
                params![paused.host, paused.since as i64],
            )?;
            transaction.execute(
                "DELETE FROM paused_host WHERE id NOT IN (SELECT id FROM paused_host ORDER BY id DESC LIMIT ?1)",
                [most as i64],
            )?;
            transaction.commit()
        };
        write().map_err(|source| JournalError::Sqlite { path: self.path.clone(), source })
    }

    /// Ends the pause of a host; false if it is not paused.
    ///
    /// # Errors
    /// SQLite cannot write it.
    pub fn resume_host(&mut self, host: &str) -> Result<bool, JournalError> {
        let removed = self.connection.execute("DELETE FROM paused_host WHERE host = ?1", [host]);
        let removed = removed.map(|count| count > 0);
        removed.map_err(|source| JournalError::Sqlite { path: self.path.clone(), source })
    }
}
