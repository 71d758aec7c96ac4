//! Standing approvals in the journal.

use rusqlite::{Row, params};

use super::error::JournalError;
use super::file::Journal;
use super::load::text;
use crate::payments::standing::StandingApproval;

const COLUMNS: &str = "id, host, payee, network, token, max_price, since, until";

impl Journal {
    /// All standing approvals, in the order in which they were given.
    ///
    /// # Errors
    /// SQLite cannot read them.
    pub fn standing_approvals(&self) -> Result<Vec<StandingApproval>, JournalError> {
        let read = || {
            let mut select =
                self.connection.prepare(&format!("SELECT {COLUMNS} FROM approval ORDER BY id"))?;
            select.query_map([], read_approval)?.collect::<rusqlite::Result<_>>()
        };
        read().map_err(|source| self.failed(source))
    }

    /// Records a standing approval in place of those that it replaces, and returns its ID. Removes those that have ended by
    /// `now`, in seconds since 1970.
    ///
    /// # Errors
    /// SQLite cannot write it.
    pub(in crate::payments) fn add_approval(
        &mut self,
        approval: &StandingApproval,
        now: u64,
    ) -> Result<u64, JournalError> {
        let StandingApproval { host, payee, network, token, max_price, since, until, .. } = approval;
        let earlier = self.standing_approvals()?;
        let path = self.path.clone();
        let mut write = || {
            let transaction = self.connection.transaction()?;
            let is_over = |other: &&StandingApproval| other.until <= now || approval.replaces(other);
            for other in earlier.iter().filter(is_over) {
                transaction.execute("DELETE FROM approval WHERE id = ?1", [other.id as i64])?;
            }
            transaction.execute(
                "INSERT INTO approval (host, payee, network, token, max_price, since, until)
                    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                params![
                    host,
                    payee.to_string(),
                    network,
                    token,
                    max_price.to_string(),
                    *since as i64,
                    *until as i64
                ],
            )?;
            let id = transaction.last_insert_rowid();
            transaction.commit()?;
            Ok(id.unsigned_abs())
        };
        write().map_err(|error| JournalError::Sqlite { path, error })
    }

    /// Removes a standing approval; false if there is none with this ID.
    ///
    /// # Errors
    /// SQLite cannot write it.
    pub fn revoke_approval(&mut self, id: u64) -> Result<bool, JournalError> {
        let removed = self.connection.execute("DELETE FROM approval WHERE id = ?1", [id as i64]);
        removed.map(|count| count > 0).map_err(|source| self.failed(source))
    }

    fn failed(&self, error: rusqlite::Error) -> JournalError {
        JournalError::Sqlite { path: self.path.clone(), error }
    }
}

fn read_approval(row: &Row<'_>) -> rusqlite::Result<StandingApproval> {
    let number = |column| row.get::<_, i64>(column).map(i64::unsigned_abs);
    Ok(StandingApproval {
        id: number(0)?,
        host: row.get(1)?,
        payee: text(row, 2)?,
        network: row.get(3)?,
        token: row.get(4)?,
        max_price: text(row, 5)?,
        since: number(6)?,
        until: number(7)?,
    })
}
