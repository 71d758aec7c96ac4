//! Transactions that set allowances, in the journal: what they can cost counts for a day.

use std::time::Duration;

use ethers_core::types::U256;
use ethers_core::utils::hex;
use rusqlite::{Row, params};

use super::error::JournalError;
use super::file::Journal;
use super::load::FEES_KEPT;
use crate::chain::{AllowanceTransaction, most_it_costs};
use crate::payments::clock::unix_time;
use crate::protocol::Address;

impl Journal {
    /// Records a transaction; after `Ok` it survives a crash. What was asked for and what was signed then are one.
    ///
    /// # Errors
    /// SQLite cannot write it.
    pub(in crate::payments) fn record_allowance(
        &mut self,
        transaction: &AllowanceTransaction,
    ) -> Result<(), JournalError> {
        let AllowanceTransaction { chain_id, payer, nonce, raw } = transaction;
        // What is no transaction costs nothing.
        let (hash, most) = most_it_costs(raw).unwrap_or_default();
        let mut write = || {
            self.set_durable(true)?;
            let now = unix_time();
            let written = self.connection.transaction()?;
            let kept = now.saturating_sub(FEES_KEPT) as i64;
            written.execute("DELETE FROM allowance WHERE at < ?1", [kept])?;
            written.execute(
                "INSERT OR REPLACE INTO allowance (chain_id, payer, hash, nonce, body, at, most)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                params![
                    *chain_id as i64,
                    payer.to_string(),
                    hex::encode_prefixed(hash),
                    *nonce as i64,
                    hex::encode_prefixed(raw),
                    now as i64,
                    most.to_string(),
                ],
            )?;
            written.commit()
        };
        write().map_err(|error| JournalError::Sqlite { path: self.path.clone(), error })
    }

    /// The most that each transaction of a payer on a network that was signed lately can cost, in wei, and its age.
    ///
    /// # Errors
    /// SQLite cannot read them.
    pub(in crate::payments) fn allowance_fees(
        &self,
        chain_id: u64,
        payer: Address,
    ) -> Result<Vec<(Duration, U256)>, JournalError> {
        let read = || {
            let now = unix_time();
            let mut fees = self
                .connection
                .prepare("SELECT at, most FROM allowance WHERE chain_id = ?1 AND payer = ?2")?;
            let row = |row: &Row<'_>| {
                // If the clock was set back, it counts as signed just now.
                let age = now.saturating_sub(row.get::<_, i64>(0)? as u64);
                let most = U256::from_dec_str(&row.get::<_, String>(1)?);
                // What is unreadable was changed by hand: it allows nothing for a day.
                Ok((Duration::from_secs(age), most.unwrap_or(U256::MAX)))
            };
            fees.query_map(params![chain_id as i64, payer.to_string()], row)?.collect::<rusqlite::Result<_>>()
        };
        read().map_err(|error| JournalError::Sqlite { path: self.path.clone(), error })
    }
}
