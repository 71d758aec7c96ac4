//! Paused hosts, and the prices that can pause them, in the journal.

use rusqlite::params;

use super::error::JournalError;
use super::file::Journal;
use super::load::text;
use crate::payments::paid_prices::PaidPrice;
use crate::payments::pauses::PausedHost;
use crate::protocol::quote::RequestId;
use crate::protocol::refusal::PauseReason;

impl Journal {
    /// The paused hosts, the oldest pause first.
    ///
    /// # Errors
    /// SQLite cannot read them.
    pub fn paused_hosts(&self) -> Result<Vec<PausedHost>, JournalError> {
        let read = || {
            let select = "SELECT host, since, is_price_rise FROM paused_host ORDER BY id";
            let mut select = self.connection.prepare(select)?;
            let rows = select.query_map([], |row| {
                let reason = if row.get(2)? { PauseReason::PriceRise } else { PauseReason::Undelivered };
                Ok(PausedHost { host: row.get(0)?, since: row.get::<_, i64>(1)?.unsigned_abs(), reason })
            })?;
            rows.collect::<rusqlite::Result<_>>()
        };
        read().map_err(|error| JournalError::Sqlite { path: self.path.clone(), error })
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
                "INSERT OR REPLACE INTO paused_host (host, since, is_price_rise) VALUES (?1, ?2, ?3)",
                params![paused.host, paused.since as i64, paused.reason == PauseReason::PriceRise],
            )?;
            transaction.execute(
                "DELETE FROM paused_host WHERE id NOT IN (SELECT id FROM paused_host ORDER BY id DESC LIMIT ?1)",
                [most as i64],
            )?;
            transaction.commit()
        };
        write().map_err(|error| JournalError::Sqlite { path: self.path.clone(), error })
    }

    /// Ends the pause of a host, and forgets what it was paid, so that it may ask for more; false if it is not paused.
    ///
    /// # Errors
    /// SQLite cannot write it.
    pub fn resume_host(&mut self, host: &str) -> Result<bool, JournalError> {
        let mut write = || {
            let transaction = self.connection.transaction()?;
            let removed = transaction.execute("DELETE FROM paused_host WHERE host = ?1", [host])?;
            transaction.execute("DELETE FROM paid_price WHERE host = ?1", [host])?;
            transaction.commit()?;
            Ok(removed > 0)
        };
        write().map_err(|error| JournalError::Sqlite { path: self.path.clone(), error })
    }

    /// The lowest prices that were paid, the oldest first.
    ///
    /// # Errors
    /// SQLite cannot read them, or one is damaged.
    pub(in crate::payments) fn paid_prices(&self) -> Result<Vec<(RequestId, PaidPrice)>, JournalError> {
        let read = || {
            let mut select =
                self.connection.prepare("SELECT request, host, lowest FROM paid_price ORDER BY id")?;
            let rows = select.query_map([], |row| {
                let host: String = row.get(1)?;
                let lowest = text(row, 2)?;
                Ok((RequestId(row.get(0)?), PaidPrice { host: host.into(), lowest }))
            })?;
            rows.collect::<rusqlite::Result<_>>()
        };
        read().map_err(|error| JournalError::Sqlite { path: self.path.clone(), error })
    }

    /// Records the lowest price that was paid for a request, and keeps this many of them.
    ///
    /// # Errors
    /// SQLite cannot write it.
    pub(in crate::payments) fn learn_paid_price(
        &mut self,
        request: &RequestId,
        paid: &PaidPrice,
        most: usize,
    ) -> Result<(), JournalError> {
        let mut write = || {
            let transaction = self.connection.transaction()?;
            transaction.execute(
                "INSERT OR REPLACE INTO paid_price (request, host, lowest) VALUES (?1, ?2, ?3)",
                params![request.0, &*paid.host, paid.lowest.to_string()],
            )?;
            transaction.execute(
                "DELETE FROM paid_price WHERE id NOT IN (SELECT id FROM paid_price ORDER BY id DESC LIMIT ?1)",
                [most as i64],
            )?;
            transaction.commit()
        };
        write().map_err(|error| JournalError::Sqlite { path: self.path.clone(), error })
    }
}
