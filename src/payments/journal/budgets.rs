//! Budgets in the journal.

use std::time::Duration;

use rusqlite::{Connection, Row, params, types::Type};

use super::error::JournalError;
use super::file::Journal;
use super::load::{AccountId, text};
use crate::protocol::ChannelId;
use crate::protocol::budget::{BudgetAmount, BudgetKey, BudgetRow, Budgets, Hold, Window};

/// In minutes.
const A_DAY: u64 = 24 * 60;

impl Journal {
    /// What budgets have spent at this time, in minutes since 1970. What a crash left unknown counts as spent now.
    ///
    /// # Errors
    /// SQLite cannot read it, or cannot record what counts now.
    pub fn restore_budgets(&mut self, now: u64) -> Result<Budgets, JournalError> {
        self.try_restore_budgets(now).map_err(|error| JournalError::Sqlite { path: self.path.clone(), error })
    }

    fn try_restore_budgets(&mut self, now: u64) -> rusqlite::Result<Budgets> {
        let (rows, stored) = (self.budget_rows()?, self.all_holds()?);
        let mut holds: Vec<Hold> = stored.iter().map(|(_, (_, hold))| hold.clone()).collect();
        // The clock may be far ahead: what the latest payment still counted with is there again once it is right.
        let newest = rows.iter().filter(|row| row.window == Window::Hour).map(|row| row.start).max();
        let seen = now.min(newest.unwrap_or_default());
        let is_stale = |row: &BudgetRow| {
            row.key.is_of_run() || row.window.oldest(seen).is_some_and(|oldest| row.start < oldest)
        };
        let stale = rows.iter().any(is_stale);
        let (mut budgets, changed) = Budgets::restore(rows, &mut holds, now);
        if stale && let Err(error) = self.remove_old_sums(seen) {
            tracing::debug!(%error, "cannot remove old sums of budgets");
        }
        if budgets.now() > now + A_DAY {
            tracing::warn!(
                ahead_by = %humantime::format_duration(Duration::from_secs(60 * (budgets.now() - now))),
                "the clock shows a time long before the last payment, so budgets free nothing until it has caught up: set the \
                 clock right; if it was wrong at that payment, run `tollpass budget reset-clock`"
            );
        }
        let changed_holds: Vec<(AccountId, ChannelId, &Hold)> = stored
            .iter()
            .zip(&holds)
            .filter(|((_, (_, before)), hold)| before != *hold)
            .map(|((account, (id, before)), hold)| {
                let unknown = before.upto.saturating_sub(before.above);
                if !unknown.is_zero() {
                    tracing::warn!(
                        channel = %id,
                        amount = %unknown,
                        "what may have been signed before a crash counts as spent in its budgets"
                    );
                }
                (*account, *id, hold)
            })
            .collect();
        if let Err(error) = self.record_restored(&changed_holds, &changed) {
            // Nothing is signed while the journal cannot be written, but requests are forwarded.
            tracing::error!(%error, "cannot record what counts as spent in budgets; trying again with the next payment");
            budgets.not_recorded(&changed);
        }
        Ok(budgets)
    }

    /// Records what a crash left unknown.
    fn record_restored(
        &mut self,
        holds: &[(AccountId, ChannelId, &Hold)],
        rows: &[BudgetRow],
    ) -> rusqlite::Result<()> {
        if holds.is_empty() && rows.is_empty() {
            return Ok(());
        }
        let transaction = self.connection.transaction()?;
        for (account, id, hold) in holds {
            write_hold(&transaction, *account, id, hold)?;
        }
        for row in rows {
            write_budget(&transaction, row)?;
        }
        transaction.commit()
    }

    fn remove_old_sums(&self, now: u64) -> rusqlite::Result<()> {
        for key in self.budget_rows()?.into_iter().map(|row| row.key).filter(BudgetKey::is_of_run) {
            delete_budget(&self.connection, &key)?;
        }
        for window in Window::ALL {
            if let Some(oldest) = window.oldest(now) {
                let sql = "DELETE FROM budget WHERE period = ?1 AND start < ?2";
                self.connection.execute(sql, params![window.key(), oldest as i64])?;
            }
        }
        Ok(())
    }

    /// Whether nothing may be signed.
    ///
    /// # Errors
    /// SQLite cannot read it.
    pub fn is_frozen(&self) -> Result<bool, JournalError> {
        let read = self.connection.query_row("SELECT EXISTS (SELECT 1 FROM frozen)", [], |row| row.get(0));
        read.map_err(|error| JournalError::Sqlite { path: self.path.clone(), error })
    }

    /// What budgets have spent by this time, as the journal has it; changes nothing.
    ///
    /// # Errors
    /// SQLite cannot read it.
    pub fn budgets(&self, now: u64) -> Result<Budgets, JournalError> {
        let read = || {
            let mut holds: Vec<Hold> = self.all_holds()?.into_iter().map(|(_, (_, hold))| hold).collect();
            Ok(Budgets::restore(self.budget_rows()?, &mut holds, now).0)
        };
        read().map_err(|error| JournalError::Sqlite { path: self.path.clone(), error })
    }

    /// Moves what was counted in the future to this time, in minutes since 1970: a clock was wrong.
    ///
    /// # Errors
    /// SQLite cannot write it.
    pub fn reset_budget_clock(&mut self, now: u64) -> Result<(), JournalError> {
        self.try_reset_clock(now).map_err(|error| JournalError::Sqlite { path: self.path.clone(), error })
    }

    fn try_reset_clock(&mut self, now: u64) -> rusqlite::Result<()> {
        let (mut rows, mut holds) = (self.budget_rows()?, self.all_holds()?);
        for row in &mut rows {
            row.start = row.start.min(row.window.start(now));
        }
        let transaction = self.connection.transaction()?;
        transaction.execute("DELETE FROM budget", [])?;
        for row in BudgetRow::merged(rows) {
            write_budget(&transaction, &row)?;
        }
        for (account, (id, hold)) in &mut holds {
            for covered in &mut hold.covered {
                covered.coverage.count_by(now);
            }
            write_hold(&transaction, *account, id, hold)?;
        }
        let sql = "SELECT nonce, counted FROM authorization";
        let read = |row: &Row<'_>| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?));
        let all: Vec<(String, String)> =
            transaction.prepare(sql)?.query_map([], read)?.collect::<rusqlite::Result<_>>()?;
        for (nonce, counted) in all {
            let mut counted: Vec<(BudgetKey, BudgetAmount, u64)> =
                serde_json::from_str(&counted).unwrap_or_default();
            counted.iter_mut().for_each(|(_, _, at)| *at = (*at).min(now));
            let counted = serde_json::to_string(&counted)
                .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
            let update = "UPDATE authorization SET counted = ?2 WHERE nonce = ?1";
            transaction.execute(update, params![nonce, counted])?;
        }
        transaction.commit()
    }

    fn budget_rows(&self) -> rusqlite::Result<Vec<BudgetRow>> {
        let sql = "SELECT name, unit, host, period, start, spent, payments FROM budget";
        self.connection.prepare(sql)?.query_map([], read_budget)?.collect()
    }

    fn all_holds(&self) -> rusqlite::Result<Vec<(AccountId, (ChannelId, Hold))>> {
        let sql = "SELECT book, receiver, open_block, body FROM hold";
        let read = |row: &Row<'_>| Ok((AccountId(row.get(0)?), read_hold(row, 1)?));
        self.connection.prepare(sql)?.query_map([], read)?.collect()
    }

    /// The budgets of an account's channels.
    pub(super) fn holds(&self, book: i64) -> rusqlite::Result<Vec<(ChannelId, Hold)>> {
        let mut holds =
            self.connection.prepare("SELECT receiver, open_block, body FROM hold WHERE book = ?1")?;
        holds.query_map([book], |row| read_hold(row, 0))?.collect()
    }
}

pub(super) fn write_hold(
    connection: &Connection,
    account: AccountId,
    id: &ChannelId,
    hold: &Hold,
) -> rusqlite::Result<()> {
    let body = serde_json::to_string(hold)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
    connection.prepare_cached("INSERT OR REPLACE INTO hold VALUES (?1, ?2, ?3, ?4)")?.execute(params![
        account.0,
        id.receiver.to_string(),
        id.open_block,
        body
    ])?;
    Ok(())
}

pub(super) fn write_budget(connection: &Connection, row: &BudgetRow) -> rusqlite::Result<()> {
    let BudgetRow { key: BudgetKey { name, unit, host }, window, start, spent, payments } = row;
    connection.prepare_cached("INSERT OR REPLACE INTO budget VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?.execute(
        params![
            &**name,
            &**unit,
            host.as_deref().unwrap_or_default(),
            window.key(),
            *start as i64,
            spent.to_string(),
            *payments as i64
        ],
    )?;
    Ok(())
}

/// Removes a budget of a run that is over.
pub(super) fn delete_budget(connection: &Connection, key: &BudgetKey) -> rusqlite::Result<()> {
    let BudgetKey { name, unit, host } = key;
    let sql = "DELETE FROM budget WHERE name = ?1 AND unit = ?2 AND host = ?3";
    let key = params![&**name, &**unit, host.as_deref().unwrap_or_default()];
    connection.prepare_cached(sql)?.execute(key)?;
    Ok(())
}

fn read_budget(row: &Row<'_>) -> rusqlite::Result<BudgetRow> {
    let text_of = |column: usize| row.get::<_, String>(column);
    let host = Some(text_of(2)?).filter(|host| !host.is_empty()).map(Into::into);
    let window = Window::from_key(&text_of(3)?)
        .ok_or_else(|| rusqlite::Error::InvalidColumnType(3, "period".into(), Type::Text))?;
    Ok(BudgetRow {
        key: BudgetKey { name: text_of(0)?.into(), unit: text_of(1)?.into(), host },
        window,
        start: row.get::<_, i64>(4)? as u64,
        spent: text(row, 5)?,
        payments: row.get::<_, i64>(6)? as u64,
    })
}

fn read_hold(row: &Row<'_>, first: usize) -> rusqlite::Result<(ChannelId, Hold)> {
    let id = ChannelId { receiver: text(row, first)?, open_block: row.get(first + 1)? };
    let body: String = row.get(first + 2)?;
    let hold = serde_json::from_str(&body)
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(first + 2, Type::Text, Box::new(error)))?;
    Ok((id, hold))
}
