//! Reads the ledger, also while a proxy writes it.

use std::collections::{BTreeMap, HashSet};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags, OptionalExtension as _, Transaction};

use super::error::JournalError;
use super::file::{BUSY_TIMEOUT, FILE};
use super::schema::{BUDGETS_VERSION, LEDGER_VERSION, SCHEMA_VERSION};
use crate::payments::ledger::{
    HEAD_FILE, LedgerKey, LedgerRow, LedgerSum, RowSeal, SumKey, encode_sums, head_file, limit_sums,
    read_head, read_row, read_sums, select_rows,
};
use crate::protocol::Address;

/// A state directory's ledger, opened for reading.
#[derive(Debug)]
pub struct LedgerReader {
    connection: Connection,
    path: PathBuf,
    /// The version of the journal.
    version: i64,
}

/// The last row of each payer's chain that was seen.
pub type LedgerHeads = BTreeMap<i64, u64>;

/// A row among those of all payers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LedgerPlace {
    /// The payer's chain.
    pub chain: i64,
    /// The row's number.
    pub seq: u64,
}

/// What all rows add up to, whatever their client and rule, as far as they were read. Reading again adds the new ones.
#[derive(Debug, Default)]
pub struct LedgerSums {
    heads: LedgerHeads,
    sums: BTreeMap<SumKey, LedgerSum>,
}

impl LedgerSums {
    /// The sums, without client and rule, so that there are fewer. If there are too many, the oldest have no day or host of
    /// their own.
    #[must_use]
    pub fn all(&self) -> &BTreeMap<SumKey, LedgerSum> {
        &self.sums
    }
}

/// A verified chain of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerifiedLedger {
    /// The first row that is still there.
    pub first: u64,
    /// The last row; one less than `first` if there is none.
    pub last: u64,
    /// Whether the copy of the head was there to compare.
    pub has_copy: bool,
}

/// What is wrong with a ledger.
#[derive(Debug, thiserror::Error)]
pub enum LedgerFlaw {
    /// The journal cannot be read.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A row does not have its code.
    #[error("row {0} was changed or moved, or written with another key")]
    Changed(u64),
    /// Rows are missing between others.
    #[error("the rows from {0} to {1} were removed")]
    Removed(u64, u64),
    /// There are rows after the last one that tollpass wrote.
    #[error("row {0} was added: the last row that tollpass wrote is {1}")]
    Added(u64, u64),
    /// Rows at the end are missing.
    #[error("the rows after {last} were removed: tollpass wrote {written} rows")]
    Truncated {
        /// The last row that is there.
        last: u64,
        /// The last row that was written.
        written: u64,
    },
    /// The copied head is that of another chain.
    #[error("row {0} is not the one that the copy of the head names: the rows were replaced")]
    Replaced(u64),
    /// The sums of removed rows do not have their code.
    #[error("the sums of the oldest rows, up to row {0}, were changed")]
    Sums(u64),
}

impl LedgerReader {
    /// Opens the ledger of a state directory; `None` if it has none.
    ///
    /// # Errors
    /// [`JournalError::Newer`] for a file of a newer version; otherwise if SQLite cannot open the file.
    pub fn open(state_dir: &Path) -> Result<Option<Self>, JournalError> {
        let path = state_dir.join(FILE);
        if !path.exists() {
            return Ok(None);
        }
        let open = || -> rusqlite::Result<(Connection, i64)> {
            let connection = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
            connection.busy_timeout(BUSY_TIMEOUT)?;
            let version = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
            Ok((connection, version))
        };
        let (connection, found) =
            open().map_err(|error| JournalError::Sqlite { path: path.clone(), error })?;
        if found > SCHEMA_VERSION {
            return Err(JournalError::Newer { path, found });
        }
        Ok((found >= LEDGER_VERSION).then_some(Self { connection, path, version: found }))
    }

    /// Calls `each` with every row of every payer, in order.
    ///
    /// # Errors
    /// SQLite cannot read them, or a row was changed to something that is not a row.
    pub fn rows(&self, mut each: impl FnMut(LedgerRow)) -> Result<(), JournalError> {
        let mut read = || -> rusqlite::Result<()> {
            let sql = format!("{} ORDER BY ledger.chain, ledger.seq", select_rows(self.version));
            let mut rows = self.connection.prepare(&sql)?;
            let mut rows = rows.query([])?;
            while let Some(row) = rows.next()? {
                each(read_row(row)?.0.modernized());
            }
            Ok(())
        };
        read().map_err(|source| self.failed(source))
    }

    /// Whether nothing may be signed.
    ///
    /// # Errors
    /// SQLite cannot read it.
    pub fn is_frozen(&self) -> Result<bool, JournalError> {
        if self.version < BUDGETS_VERSION {
            return Ok(false);
        }
        let read = self.connection.query_row("SELECT EXISTS (SELECT 1 FROM frozen)", [], |row| row.get(0));
        read.map_err(|source| self.failed(source))
    }

    /// The last row of each payer.
    ///
    /// # Errors
    /// SQLite cannot read them.
    pub fn heads(&self) -> Result<LedgerHeads, JournalError> {
        let heads = heads(&self.connection).map_err(|source| self.failed(source))?;
        Ok(heads.into_iter().map(|(chain, seq, _)| (chain, seq)).collect())
    }

    /// The rows after `seen`, the oldest first, and of more than `most` rows of a payer the newest; `seen` then has them.
    ///
    /// # Errors
    /// As for [`LedgerReader::rows`].
    pub fn rows_after(&self, seen: &mut LedgerHeads, most: u32) -> Result<Vec<LedgerRow>, JournalError> {
        let mut read = || -> rusqlite::Result<Vec<LedgerRow>> {
            let mut found = Vec::new();
            for (chain, head, _) in heads(&self.connection)? {
                let known = seen.get(&chain).copied().unwrap_or_default();
                if head <= known {
                    continue;
                }
                let sql = format!(
                    "{} WHERE ledger.chain = ?1 AND ledger.seq > ?2 ORDER BY ledger.seq DESC LIMIT ?3",
                    select_rows(self.version)
                );
                let mut rows = self.connection.prepare_cached(&sql)?;
                let read = |row: &rusqlite::Row<'_>| Ok(read_row(row)?.0.modernized());
                let newest = rows.query_map((chain, known as i64, most), read)?;
                let newest = newest.collect::<rusqlite::Result<Vec<_>>>()?;
                seen.insert(chain, newest.first().map_or(head, |row| row.seq));
                found.extend(newest.into_iter().rev());
            }
            Ok(found)
        };
        read().map_err(|source| self.failed(source))
    }

    /// Calls `each` with the last row of every payment, the newest first, until it breaks; with a place, only with those
    /// before it.
    ///
    /// # Errors
    /// As for [`LedgerReader::rows`].
    pub fn newest_first(
        &self,
        before: Option<LedgerPlace>,
        mut each: impl FnMut(LedgerPlace, LedgerRow) -> ControlFlow<()>,
    ) -> Result<(), JournalError> {
        let mut read = || -> rusqlite::Result<()> {
            // All in one transaction: a payment that changes meanwhile would be missing.
            let transaction = self.connection.unchecked_transaction()?;
            let mut changed = match before {
                Some(place) => changed_from(&transaction, place)?,
                None => HashSet::new(),
            };
            for (chain, ..) in heads(&transaction)?.into_iter().rev() {
                let end = match before {
                    Some(place) if place.chain < chain => continue,
                    Some(place) if place.chain == chain => place.seq,
                    _ => i64::MAX as u64,
                };
                let sql = format!(
                    "{} WHERE ledger.chain = ?1 AND ledger.seq < ?2 ORDER BY ledger.seq DESC",
                    select_rows(self.version)
                );
                let mut rows = transaction.prepare_cached(&sql)?;
                let mut rows = rows.query((chain, end as i64))?;
                while let Some(row) = rows.next()? {
                    let row = read_row(row)?.0.modernized();
                    let is_last = !changed.contains(&row.payment);
                    if row.previous.is_some() {
                        changed.insert(row.payment);
                    }
                    if is_last && each(LedgerPlace { chain, seq: row.seq }, row).is_break() {
                        return Ok(());
                    }
                }
            }
            Ok(())
        };
        read().map_err(|source| self.failed(source))
    }

    /// Adds up the rows that `sums` does not have yet.
    ///
    /// # Errors
    /// As for [`LedgerReader::rows`].
    pub fn add_up(&mut self, known: &mut LedgerSums) -> Result<(), JournalError> {
        let (path, version) = (self.path.clone(), self.version);
        let mut read = || -> rusqlite::Result<()> {
            // All in one transaction: a running proxy may move rows to the sums of removed ones.
            let transaction = self.connection.transaction()?;
            let chains = heads(&transaction)?;
            let seen = |chain: &i64| known.heads.get(chain).copied();
            if chains.iter().any(|(chain, _, start)| seen(chain).is_some_and(|seen| seen < *start)) {
                // Rows were removed before they were read.
                *known = LedgerSums::default();
            }
            let LedgerSums { heads, sums } = known;
            for (chain, ..) in chains {
                if !heads.contains_key(&chain) {
                    for (key, sum) in read_sums(&transaction, chain)? {
                        sums.entry(key.of_everyone()).or_default().merge(&sum);
                    }
                }
                let head = heads.entry(chain).or_default();
                let sql = format!(
                    "{} WHERE ledger.chain = ?1 AND ledger.seq > ?2 ORDER BY ledger.seq",
                    select_rows(version)
                );
                let mut rows = transaction.prepare_cached(&sql)?;
                let mut rows = rows.query((chain, *head as i64))?;
                while let Some(row) = rows.next()? {
                    let row = read_row(row)?.0.modernized();
                    *head = row.seq;
                    sums.entry(SumKey::of(&row).of_everyone()).or_default().add(&row);
                }
            }
            *sums = limit_sums(std::mem::take(sums));
            Ok(())
        };
        read().map_err(|error| JournalError::Sqlite { path, error })
    }

    /// The sums of rows that were removed to limit the ledger's size.
    ///
    /// # Errors
    /// SQLite cannot read them.
    pub fn removed(&self) -> Result<BTreeMap<SumKey, LedgerSum>, JournalError> {
        let read = || {
            let mut all: BTreeMap<SumKey, LedgerSum> = BTreeMap::new();
            let mut chains = self.connection.prepare("SELECT id FROM ledger_chain")?;
            let chains: Vec<i64> =
                chains.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
            for chain in chains {
                for (key, sum) in read_sums(&self.connection, chain)? {
                    all.entry(key).or_default().merge(&sum);
                }
            }
            Ok(all)
        };
        read().map_err(|source| self.failed(source))
    }

    /// Verifies every row of a payer with the key that is derived from its wallet.
    ///
    /// # Errors
    /// The first flaw.
    pub fn verify(&mut self, key: &LedgerKey, payer: Address) -> Result<VerifiedLedger, LedgerFlaw> {
        // Before the rows, which a running proxy writes first.
        let copied = read_head(&head_file(&self.path.with_file_name(HEAD_FILE), payer));
        let path = self.path.clone();
        let failed = |error| JournalError::Sqlite { path: path.clone(), error };
        // All in one transaction, since a running proxy may add rows.
        let transaction = self.connection.transaction().map_err(failed)?;
        let chain = chain(&transaction, payer).map_err(failed)?;
        let Some(chain) = chain else {
            return match copied {
                Some((written, _)) => Err(LedgerFlaw::Truncated { last: 0, written }),
                None => Ok(VerifiedLedger { first: 1, last: 0, has_copy: false }),
            };
        };
        let sums = read_sums(&transaction, chain.id).map_err(failed)?;
        let is_whole = chain.start == 0 && sums.is_empty();
        if !is_whole && key.seal_start(chain.start_seal, &encode_sums(chain.start, &sums)) != chain.sums_seal
        {
            return Err(LedgerFlaw::Sums(chain.start));
        }
        let (mut last, mut seal) = (chain.start, chain.start_seal);
        let mut named = copied.is_none_or(|(seq, code)| seq < chain.start || (seq, code) == (last, seal));
        let sql = format!("{} WHERE ledger.chain = ?1 ORDER BY ledger.seq", select_rows(self.version));
        let mut rows = transaction.prepare(&sql).map_err(failed)?;
        let mut rows = rows.query([chain.id]).map_err(failed)?;
        while let Some(row) = rows.next().map_err(failed)? {
            let seq = row.get::<_, i64>(0).map_err(failed)? as u64;
            if seq > chain.seq {
                return Err(LedgerFlaw::Added(seq, chain.seq));
            }
            if seq != last + 1 {
                return Err(LedgerFlaw::Removed(last + 1, seq.saturating_sub(1)));
            }
            let Ok((row, code)) = read_row(row) else { return Err(LedgerFlaw::Changed(seq)) };
            seal = key.seal(seal, &row.encode());
            if seal != code {
                return Err(LedgerFlaw::Changed(seq));
            }
            last = seq;
            if let Some((copied, code)) = copied.filter(|(copied, _)| *copied == seq) {
                if code != seal {
                    return Err(LedgerFlaw::Replaced(copied));
                }
                named = true;
            }
        }
        let written = copied.map_or(chain.seq, |(copied, _)| copied.max(chain.seq));
        if last < written {
            return Err(LedgerFlaw::Truncated { last, written });
        }
        if seal != chain.seal {
            return Err(LedgerFlaw::Changed(last));
        }
        if !named {
            return Err(LedgerFlaw::Replaced(last));
        }
        Ok(VerifiedLedger { first: chain.start + 1, last, has_copy: copied.is_some() })
    }

    fn failed(&self, error: rusqlite::Error) -> JournalError {
        JournalError::Sqlite { path: self.path.clone(), error }
    }
}

/// Each payer's chain, with the numbers of its last row and of the last one that was removed from its start.
fn heads(connection: &Connection) -> rusqlite::Result<Vec<(i64, u64, u64)>> {
    let sql = "SELECT id, seq, start_seq FROM ledger_chain ORDER BY id";
    let read = |row: &rusqlite::Row<'_>| {
        Ok((row.get(0)?, row.get::<_, i64>(1)? as u64, row.get::<_, i64>(2)? as u64))
    };
    connection.prepare_cached(sql)?.query_map([], read)?.collect()
}

/// The payments that have changed by a row at a place or after it, so that no row before it is their last one.
fn changed_from(connection: &Connection, place: LedgerPlace) -> rusqlite::Result<HashSet<u64>> {
    // The first row of a payment has no state before, and there are few others.
    let sql = "SELECT payment FROM ledger WHERE (chain, seq) >= (?1, ?2) AND previous <> ''";
    let read = |row: &rusqlite::Row<'_>| Ok(row.get::<_, i64>(0)? as u64);
    connection.prepare_cached(sql)?.query_map((place.chain, place.seq as i64), read)?.collect()
}

/// The recorded ends of a payer's chain.
struct ChainEnds {
    id: i64,
    seq: u64,
    seal: RowSeal,
    start: u64,
    start_seal: RowSeal,
    sums_seal: RowSeal,
}

fn chain(transaction: &Transaction<'_>, payer: Address) -> rusqlite::Result<Option<ChainEnds>> {
    let sql = "SELECT id, seq, seal, start_seq, start_seal, sums_seal FROM ledger_chain WHERE payer = ?1";
    let read = |row: &rusqlite::Row<'_>| {
        Ok(ChainEnds {
            id: row.get(0)?,
            seq: row.get::<_, i64>(1)? as u64,
            seal: RowSeal(row.get(2)?),
            start: row.get::<_, i64>(3)? as u64,
            start_seal: RowSeal(row.get(4)?),
            sums_seal: RowSeal(row.get(5)?),
        })
    };
    transaction.query_row(sql, [payer.to_string()], read).optional()
}
