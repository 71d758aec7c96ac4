//! Writes the rows, on the journal thread.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ethers_core::utils::hex;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::bounds::LedgerBounds;
use super::counts::{ChannelCounts, Counted};
use super::event::PaymentEvent;
use super::head::{HEAD_FILE, copy_head, head_file, read_head};
use super::parties::LedgerParties;
use super::parties_cache::{LedgerAccount, PartiesCache, bounded};
use super::path::public_path;
use super::queue::{EventBatch, LedgerQueue};
use super::row::{LedgerRow, LedgerState, OnChainUse};
use super::seal::{LedgerKey, RowSeal};
use super::signed_amount::SignedAmount;
use super::sums::{DAY, LedgerSum, PaymentTimes, SumKey, encode, limit};
use super::tables;
use crate::payments::clock::unix_millis;
use crate::protocol::{Account, Address, Amount, ChannelId};

/// How many payments in doubt are remembered, so that a later payment can take their place.
const MAX_DOUBTFUL: usize = 4096;
/// How many of the oldest rows are removed at once, at most.
const MAX_REMOVED: usize = 1024;
/// What a row takes on disk besides its columns, in bytes.
const ROW_OVERHEAD: u64 = 64;

/// Writes the rows of the payer whose wallet is unlocked.
#[derive(Debug)]
pub(in crate::payments) struct LedgerWriter {
    queue: Arc<LedgerQueue>,
    bounds: LedgerBounds,
    /// The file with a copy of the chain's head; its name ends with the payer.
    head_file: PathBuf,
    wallet: Option<(LedgerKey, Address)>,
    account: Option<LedgerAccount>,
    /// Changes that were taken from the queue for a transaction that has not ended.
    taken: Vec<PaymentEvent>,
    /// Channels whose recorded totals are still to be compared with the rows.
    unchecked: Vec<(ChannelId, Amount)>,
    /// What is known of the rows on disk; read again after a write failed.
    opened: Option<OpenedLedger>,
    /// Whether the last write failed, so that a series of failures is logged once.
    has_failed: bool,
    /// Whether the rows of earlier processes were ended, and the chain compared with the copied head.
    is_compared: bool,
    /// Whether the copied head is the one of the last transaction.
    is_head_copied: bool,
}

/// The chain of rows as it is on disk, or about to be.
#[derive(Debug)]
struct OpenedLedger {
    key: LedgerKey,
    payer: Address,
    chain: i64,
    seq: u64,
    seal: RowSeal,
    /// The size of all rows, in bytes.
    size: u64,
    /// When the oldest row was made, at the earliest, in milliseconds since 1970; 0 if that is unknown, the maximum if it was
    /// changed.
    oldest: u64,
    channels: HashMap<ChannelId, ChannelCounts>,
    /// Channels whose counts have changed.
    dirty: BTreeSet<ChannelId>,
    /// Payments that wait for another row.
    open: HashMap<u64, OpenPayment>,
    /// The payments of one-shot authorizations that were not sent yet.
    held: HashMap<[u8; 32], u64>,
    /// Payments in doubt, with what they count.
    doubtful: HashMap<u64, (PaymentEvent, Amount)>,
    parties: PartiesCache,
}

#[derive(Clone, Copy, Debug)]
struct OpenPayment {
    state: LedgerState,
    counts: Amount,
    /// How much of it raised the channel's highest total.
    new: Amount,
}

/// What the next row of an authorization says.
struct NextRow {
    state: LedgerState,
    confirmation: Option<OnChainUse>,
    counts: Amount,
}

/// Whether the seller took the payment.
fn is_taken(state: LedgerState) -> bool {
    matches!(state, LedgerState::Paid | LedgerState::PaidNotDelivered)
}

/// The columns of a row that are known before it has a place in the chain.
fn blank(state: LedgerState, payment: u64) -> LedgerRow {
    LedgerRow {
        seq: 0,
        at: unix_millis(),
        payment,
        state,
        previous: None,
        parties: Arc::default(),
        method: String::new(),
        path: String::new(),
        price: Amount::ZERO,
        counts: Amount::ZERO,
        adjusts: SignedAmount::default(),
        total: None,
        nonce: String::new(),
        receipt: String::new(),
        confirmation: None,
        offer: String::new(),
    }
}

/// When the oldest row that is not too old was made, in milliseconds since 1970.
fn oldest_kept(bounds: LedgerBounds) -> u64 {
    unix_millis().saturating_sub(u64::try_from(bounds.keep.as_millis()).unwrap_or(u64::MAX))
}

impl LedgerWriter {
    /// A writer for the journal at `journal`, which writes nothing before [`LedgerWriter::unlock`].
    pub(in crate::payments) fn new(journal: &Path, queue: Arc<LedgerQueue>, bounds: LedgerBounds) -> Self {
        Self {
            queue,
            bounds,
            head_file: journal.with_file_name(HEAD_FILE),
            wallet: None,
            account: None,
            taken: Vec::new(),
            unchecked: Vec::new(),
            opened: None,
            has_failed: false,
            is_compared: false,
            is_head_copied: true,
        }
    }

    /// Writes rows for this payer from now on.
    pub(in crate::payments) fn unlock(&mut self, key: LedgerKey, payer: Address) {
        self.wallet = Some((key, payer));
    }

    /// Counts payments on the channels of this account, whose row in the journal is `book`. `channels` are those that were
    /// recorded before this start, with the most that their payees may hold.
    pub(in crate::payments) fn set_account(
        &mut self,
        account: &Account,
        book: i64,
        channels: Vec<(ChannelId, Amount)>,
    ) {
        let network = format!("eip155:{}", account.chain_id);
        self.account = Some(LedgerAccount { network, token: account.token.to_string(), book });
        self.unchecked = channels;
    }

    /// Something was committed that a power failure could take back: after a while, the journal is to be synced.
    pub(in crate::payments) fn ask_for_sync(&self) {
        self.queue.ask_for_sync();
    }

    /// Whether the row of a settlement waits.
    pub(in crate::payments) fn has_settled(&self) -> bool {
        self.queue.has_settled()
    }

    /// Writes what waits, in as many transactions as that takes. A failure is logged and loses no sum: the totals of
    /// channels are compared again.
    pub(in crate::payments) fn flush(&mut self, connection: &mut Connection) {
        if self.wallet.is_none() {
            return;
        }
        // Rows that authorizations have added with their own transactions count, too. Once: what is open stays.
        let mut must_shorten = self.opened.as_ref().is_some_and(|ledger| ledger.exceeds(self.bounds));
        loop {
            let batch = self.queue.take();
            let is_written = batch.is_empty() && self.opened.is_some() && self.unchecked.is_empty();
            if is_written && !std::mem::take(&mut must_shorten) {
                return self.copy_new_head();
            }
            match self.write(connection, &batch) {
                Ok(()) => self.committed(),
                Err(error) => {
                    self.queue.put_back(batch);
                    self.failed();
                    if !std::mem::replace(&mut self.has_failed, true) {
                        tracing::error!(%error, "cannot write the ledger; payments on channels continue, and their sums follow");
                    }
                    return;
                }
            }
        }
    }

    fn write(&mut self, connection: &mut Connection, batch: &EventBatch) -> rusqlite::Result<()> {
        // These rows need not survive a power failure: the next durable write includes them.
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        let written = self.write_batch(connection, batch);
        connection.pragma_update(None, "synchronous", "FULL")?;
        written
    }

    fn write_batch(&mut self, connection: &mut Connection, batch: &EventBatch) -> rusqlite::Result<()> {
        let transaction = connection.transaction()?;
        self.open(&transaction)?;
        let (account, unchecked) = (self.account.clone(), self.unchecked.clone());
        let queue = Arc::clone(&self.queue);
        let Some(ledger) = &mut self.opened else { return Ok(()) };
        for (channel, total) in unchecked {
            ledger.recover(&transaction, account.as_ref(), (channel, total), &queue)?;
        }
        for (index, event) in batch.events.iter().enumerate() {
            let is_last = || !batch.events[index + 1..].iter().any(|later| later.payment == event.payment);
            if event.nonce.is_none() || is_last() {
                ledger.apply(&transaction, account.as_ref(), event, &queue)?;
            }
        }
        for (channel, total) in &batch.lost {
            ledger.recover(&transaction, account.as_ref(), (*channel, *total), &queue)?;
        }
        for (channel, total) in &batch.settled {
            ledger.settle(&transaction, account.as_ref(), (*channel, *total), &queue)?;
        }
        ledger.shorten(&transaction, self.bounds)?;
        ledger.finish(&transaction, account.as_ref())?;
        transaction.commit()?;
        self.unchecked.clear();
        Ok(())
    }

    /// Adds the first row of an authorization, within the transaction that records it.
    pub(in crate::payments) fn hold(
        &mut self,
        connection: &Connection,
        nonce: &[u8; 32],
    ) -> rusqlite::Result<()> {
        // A purchase whose client has left is never granted.
        let Some(event) = self.queue.expected(nonce) else { return Ok(()) };
        self.open(connection)?;
        let (account, queue) = (self.account.clone(), Arc::clone(&self.queue));
        let Some(ledger) = &mut self.opened else { return Ok(()) };
        ledger.apply(connection, account.as_ref(), &event, &queue)?;
        ledger.held.insert(*nonce, event.payment);
        ledger.finish(connection, account.as_ref())
    }

    /// An authorization was accepted and its response delivered, or it was never sent, within the transaction that records
    /// that. A crash would lose rows that wait.
    pub(in crate::payments) fn end_held(
        &mut self,
        connection: &Connection,
        nonce: &[u8; 32],
    ) -> rusqlite::Result<()> {
        if self.wallet.is_none() {
            return Ok(());
        }
        self.open(connection)?;
        let was_sent = self.write_changes(connection, nonce)?;
        let (account, queue) = (self.account.clone(), Arc::clone(&self.queue));
        let Some(ledger) = &mut self.opened else { return Ok(()) };
        if let Some(payment) = ledger.held.remove(nonce)
            && !was_sent
            && !queue.is_changing(payment)
        {
            ledger.unsent(connection, payment)?;
        }
        ledger.finish(connection, account.as_ref())
    }

    /// The seller took an authorization and withheld its response, within the transaction that records that.
    pub(in crate::payments) fn take_held(
        &mut self,
        connection: &Connection,
        nonce: &[u8; 32],
    ) -> rusqlite::Result<()> {
        self.append_next(connection, nonce, |last| NextRow {
            state: LedgerState::PaidNotDelivered,
            confirmation: last.confirmation,
            counts: last.price,
        })
    }

    /// The chain has shown whether an authorization was used, within the transaction that records that.
    pub(in crate::payments) fn show_usage(
        &mut self,
        connection: &Connection,
        nonce: &[u8; 32],
        is_used: bool,
    ) -> rusqlite::Result<()> {
        self.append_next(connection, nonce, |last| NextRow {
            state: match last.state {
                _ if !is_used => LedgerState::Expired,
                LedgerState::Paid => LedgerState::Paid,
                _ => LedgerState::PaidNotDelivered,
            },
            confirmation: Some(if is_used { OnChainUse::Used } else { OnChainUse::Unused }),
            counts: if is_used { last.price } else { Amount::ZERO },
        })
    }

    /// Appends what has become of an authorization, after what waits of it: what `next` makes of its last row, unless that says
    /// the same.
    fn append_next(
        &mut self,
        connection: &Connection,
        nonce: &[u8; 32],
        next: impl FnOnce(&LedgerRow) -> NextRow,
    ) -> rusqlite::Result<()> {
        if self.wallet.is_none() {
            return Ok(());
        }
        self.open(connection)?;
        self.write_changes(connection, nonce)?;
        let account = self.account.clone();
        let Some(ledger) = &mut self.opened else { return Ok(()) };
        ledger.held.remove(nonce);
        // After a while its rows are removed.
        if let Some(last) = ledger.last_row(connection, Some(*nonce))? {
            let NextRow { state, confirmation, counts } = next(&last);
            if (last.state, last.confirmation) != (state, confirmation) {
                let (at, previous) = (unix_millis(), Some((last.state, last.counts)));
                let adjusts = SignedAmount::default();
                let row = LedgerRow { at, state, previous, counts, adjusts, confirmation, ..last };
                ledger.append(connection, row)?;
            }
        }
        ledger.finish(connection, account.as_ref())
    }

    /// Writes what waits of an authorization; returns whether that was anything.
    fn write_changes(&mut self, connection: &Connection, nonce: &[u8; 32]) -> rusqlite::Result<bool> {
        let (account, queue) = (self.account.clone(), Arc::clone(&self.queue));
        let Some(ledger) = &mut self.opened else { return Ok(false) };
        let waiting = queue.take_changes(nonce);
        let last = waiting.last().cloned();
        self.taken.extend(waiting);
        let Some(event) = last else { return Ok(false) };
        ledger.apply(connection, account.as_ref(), &event, &queue)?;
        Ok(true)
    }

    /// A transaction with rows was committed.
    pub(in crate::payments) fn committed(&mut self) {
        (self.has_failed, self.is_compared, self.is_head_copied) = (false, true, false);
        self.taken.clear();
    }

    /// Copies the head to its file, unless it has not changed. Not with each transaction: a rename takes longer than that.
    fn copy_new_head(&mut self) {
        let Some(OpenedLedger { payer, seq, seal, .. }) = &self.opened else { return };
        if std::mem::replace(&mut self.is_head_copied, true) {
            return;
        }
        let path = head_file(&self.head_file, *payer);
        // The copy is best effort: without it, `tollpass ledger verify` trusts the head in the journal.
        if let Err(error) = copy_head(&path, *seq, *seal) {
            tracing::debug!(path = %path.display(), %error, "cannot copy the head of the ledger");
        }
    }

    /// A transaction with rows failed.
    pub(in crate::payments) fn failed(&mut self) {
        self.opened = None;
        self.queue.return_changes(std::mem::take(&mut self.taken));
    }

    /// Reads the end of the chain, unless it is known.
    fn open(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        let Some((key, payer)) = &self.wallet else { return Ok(()) };
        if self.opened.is_some() {
            return Ok(());
        }
        let mut ledger = OpenedLedger::read(connection, key.clone(), *payer)?;
        if !self.is_compared {
            ledger.end_earlier(connection)?;
            let copied = read_head(&head_file(&self.head_file, *payer));
            if let Some((copied, _)) = copied.filter(|(copied, _)| *copied > ledger.seq) {
                tracing::warn!(
                    last = ledger.seq,
                    copied,
                    "the ledger ends before the copy of its head: the journal is an old copy, rows were removed, or the \
                     machine lost power"
                );
                ledger.append(connection, blank(LedgerState::Gap, copied))?;
            }
            ledger.finish(connection, None)?;
        }
        self.opened = Some(ledger);
        Ok(())
    }
}

impl OpenedLedger {
    fn read(connection: &Connection, key: LedgerKey, payer: Address) -> rusqlite::Result<Self> {
        let none = RowSeal::default().0;
        connection.execute(
            "INSERT INTO ledger_chain (payer, seq, seal, size, start_seq, start_seal, sums_seal)
             VALUES (?1, 0, ?2, 0, 0, ?2, ?2)
             ON CONFLICT DO NOTHING",
            params![payer.to_string(), none],
        )?;
        let (chain, seq, seal, size) = connection.query_row(
            "SELECT id, seq, seal, size FROM ledger_chain WHERE payer = ?1",
            [payer.to_string()],
            |row| {
                Ok((
                    row.get(0)?,
                    row.get::<_, i64>(1)? as u64,
                    RowSeal(row.get(2)?),
                    row.get::<_, i64>(3)? as u64,
                ))
            },
        )?;
        let mut ledger = Self {
            key,
            payer,
            chain,
            seq,
            seal,
            size,
            oldest: 0,
            channels: HashMap::new(),
            dirty: BTreeSet::new(),
            open: HashMap::new(),
            held: HashMap::new(),
            doubtful: HashMap::new(),
            parties: PartiesCache::default(),
        };
        for row in ledger.open_rows(connection)? {
            let open = OpenPayment { state: row.state, counts: row.counts, new: row.counts };
            ledger.open.insert(row.payment, open);
            let mut nonce = [0; 32];
            if row.state == LedgerState::Held && hex::decode_to_slice(&row.nonce, &mut nonce).is_ok() {
                ledger.held.insert(nonce, row.payment);
            }
        }
        Ok(ledger)
    }

    fn open_rows(&self, connection: &Connection) -> rusqlite::Result<Vec<LedgerRow>> {
        let sql = format!(
            "{} WHERE ledger.chain = ?1 AND ledger.seq IN (SELECT seq FROM ledger_open WHERE chain = ?1) ORDER BY ledger.seq",
            tables::select(tables::CONFIRMATIONS_VERSION)
        );
        let mut rows = connection.prepare(&sql)?;
        rows.query_map([self.chain], |row| tables::read(row).map(|(row, _)| row))?.collect()
    }

    /// The last row of an authorization.
    fn last_row(
        &self,
        connection: &Connection,
        nonce: Option<[u8; 32]>,
    ) -> rusqlite::Result<Option<LedgerRow>> {
        let Some(nonce) = nonce else { return Ok(None) };
        let sql = format!(
            "{} WHERE ledger.chain = ?1 AND ledger.nonce = ?2 ORDER BY ledger.seq DESC LIMIT 1",
            tables::select(tables::CONFIRMATIONS_VERSION)
        );
        let mut rows = connection.prepare_cached(&sql)?;
        let read = |row: &rusqlite::Row<'_>| tables::read(row).map(|(row, _)| row.modernized());
        rows.query_row(params![self.chain, hex::encode(nonce)], read).optional()
    }

    /// Ends the payments of an earlier process, whose outcome is unknown.
    fn end_earlier(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        for row in self.open_rows(connection)? {
            let previous = Some((row.state, row.counts));
            let (at, state, adjusts) = (unix_millis(), LedgerState::InDoubt, SignedAmount::default());
            self.append(connection, LedgerRow { at, state, previous, adjusts, ..row })?;
        }
        self.held.clear();
        Ok(())
    }

    /// Adds a row to the chain.
    fn append(&mut self, connection: &Connection, row: LedgerRow) -> rusqlite::Result<()> {
        // The first row of a payment has its offer.
        let offer = if row.previous.is_some() { String::new() } else { row.offer };
        let row = LedgerRow { seq: self.seq + 1, offer, ..row };
        let amounts = row.amounts();
        let encoded = row.encode_with(&amounts);
        let seal = self.key.seal(self.seal, &encoded);
        let first = self.parties.first_row(&row);
        tables::insert(connection, self.chain, (&row, &amounts), first, seal)?;
        (self.seq, self.seal) = (row.seq, seal);
        self.size = self.size.saturating_add(encoded.len() as u64 + ROW_OVERHEAD);
        if row.state.is_open() {
            connection
                .prepare_cached("INSERT OR REPLACE INTO ledger_open VALUES (?1, ?2, ?3)")?
                .execute(params![self.chain, row.payment as i64, row.seq as i64])?;
        } else if row.previous.is_some_and(|(state, _)| state.is_open()) {
            connection
                .prepare_cached("DELETE FROM ledger_open WHERE chain = ?1 AND payment = ?2")?
                .execute(params![self.chain, row.payment as i64])?;
            self.open.remove(&row.payment);
        }
        Ok(())
    }

    /// Records the head and the counts of channels that have changed.
    fn finish(&mut self, connection: &Connection, account: Option<&LedgerAccount>) -> rusqlite::Result<()> {
        connection
            .prepare_cached("UPDATE ledger_chain SET seq = ?2, seal = ?3, size = ?4 WHERE id = ?1")?
            .execute(params![self.chain, self.seq as i64, self.seal.0, self.size as i64])?;
        let Some(LedgerAccount { book, .. }) = account else { return Ok(()) };
        for id in std::mem::take(&mut self.dirty) {
            let Some(ChannelCounts { high, is_settled, .. }) = self.channels.get(&id) else { continue };
            connection
                .prepare_cached("INSERT OR REPLACE INTO ledger_channel VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?
                .execute(params![
                    self.chain,
                    book,
                    id.receiver.to_string(),
                    id.open_block,
                    high.to_string(),
                    is_settled
                ])?;
        }
        Ok(())
    }

    /// Whether the ledger is too large, or has rows that may be too old.
    fn exceeds(&self, bounds: LedgerBounds) -> bool {
        self.oldest != u64::MAX && (self.size > bounds.max_size || self.oldest < oldest_kept(bounds))
    }

    /// Removes the oldest rows if the ledger is too large or they are too old, and keeps their sums. Payments that wait for
    /// another row stay.
    fn shorten(&mut self, connection: &Connection, bounds: LedgerBounds) -> rusqlite::Result<()> {
        let since = oldest_kept(bounds);
        if !self.exceeds(bounds) {
            return Ok(());
        }
        let (start, start_seal, open) = connection.query_row(
            "SELECT start_seq, start_seal, (SELECT min(seq) FROM ledger_open WHERE chain = id) FROM ledger_chain
             WHERE id = ?1",
            [self.chain],
            |row| Ok((row.get::<_, i64>(0)?, RowSeal(row.get(1)?), row.get::<_, Option<i64>>(2)?)),
        )?;
        // Somewhat less than allowed, so that this is rare.
        let most = bounds.max_size - bounds.max_size / 8;
        let is_large = self.size > bounds.max_size;
        let (mut last, mut last_seal, mut removed) = (start, start_seal, 0_u64);
        let mut sums: Option<BTreeMap<SumKey, LedgerSum>> = None;
        let mut begun = PaymentTimes::default();
        let sql = format!(
            "{} WHERE ledger.chain = ?1 AND ledger.seq < ?2 ORDER BY ledger.seq LIMIT {MAX_REMOVED}",
            tables::select(tables::CONFIRMATIONS_VERSION)
        );
        let mut rows = connection.prepare_cached(&sql)?;
        let mut rows = rows.query(params![self.chain, open.unwrap_or(i64::MAX)])?;
        while let Some(row) = rows.next()? {
            let seq: i64 = row.get(0)?;
            let verified = tables::read(row)
                .ok()
                .filter(|(row, seal)| seq == last + 1 && self.key.seal(last_seal, &row.encode()) == *seal);
            let Some((row, seal)) = verified else {
                // Its key seals the sums, so what was changed by others must stay to be seen.
                tracing::warn!(
                    seq,
                    "the ledger is not shortened, since this row was changed: see `tollpass ledger verify`"
                );
                self.oldest = u64::MAX;
                break;
            };
            self.oldest = row.at;
            let is_superfluous = is_large && self.size.saturating_sub(removed) > most;
            if row.at >= since && !is_superfluous {
                break;
            }
            let sums = match &mut sums {
                Some(sums) => sums,
                None => sums.insert(tables::read_sums(connection, self.chain)?),
            };
            // The first row of a payment may have been removed before: then its day is not known any more.
            let day = begun.of(&row).unwrap_or(row.at) / DAY;
            sums.entry(SumKey { day, ..SumKey::of(&row) }).or_default().add(&row);
            removed = removed.saturating_add(row.encode().len() as u64 + ROW_OVERHEAD);
            (last, last_seal) = (seq, seal);
        }
        let Some(sums) = sums.map(limit) else { return Ok(()) };
        let sums_seal = self.key.seal_start(last_seal, &encode(last as u64, &sums));
        tables::write_sums(connection, self.chain, &sums)?;
        tables::remove(connection, self.chain, last)?;
        connection
            .prepare_cached(
                "UPDATE ledger_chain SET start_seq = ?2, start_seal = ?3, sums_seal = ?4 WHERE id = ?1",
            )?
            .execute(params![self.chain, last, last_seal.0, sums_seal.0])?;
        self.size = self.size.saturating_sub(removed);
        Ok(())
    }

    /// What the rows of a channel add up to; about to change.
    fn channel(
        &mut self,
        connection: &Connection,
        account: &LedgerAccount,
        id: ChannelId,
    ) -> rusqlite::Result<&mut ChannelCounts> {
        self.dirty.insert(id);
        if !self.channels.contains_key(&id) {
            let sql = "SELECT counts, is_settled FROM ledger_channel
                 WHERE chain = ?1 AND book = ?2 AND receiver = ?3 AND open_block = ?4";
            let key = params![self.chain, account.book, id.receiver.to_string(), id.open_block];
            let read = |row: &rusqlite::Row<'_>| Ok((row.get::<_, String>(0)?, row.get::<_, bool>(1)?));
            let known = connection.prepare_cached(sql)?.query_row(key, read).optional()?;
            let counts = match known {
                // An unreadable sum counts as 0, so that the next comparison adds too much rather than too little.
                Some((high, is_settled)) => ChannelCounts::new(high.parse().unwrap_or_default(), is_settled),
                None => ChannelCounts::default(),
            };
            self.channels.insert(id, counts);
        }
        Ok(self.channels.entry(id).or_default())
    }

    /// A row about a channel, for unknown requests of its host.
    fn channel_row(
        &self,
        connection: &Connection,
        account: &LedgerAccount,
        id: ChannelId,
        (state, payment): (LedgerState, u64),
    ) -> rusqlite::Result<LedgerRow> {
        let sql = "SELECT host FROM channel_host WHERE book = ?1 AND receiver = ?2 AND open_block = ?3";
        let host = connection
            .prepare_cached(sql)?
            .query_row(params![account.book, id.receiver.to_string(), id.open_block], |row| row.get(0))
            .optional()?;
        let parties = LedgerParties {
            host: host.unwrap_or_default(),
            payee: id.receiver.to_string(),
            network: account.network.clone(),
            token: account.token.clone(),
            channel: id.to_string(),
            ..LedgerParties::default()
        };
        Ok(LedgerRow { parties: Arc::new(parties), ..blank(state, payment) })
    }

    /// Adds a row if the payee of a channel may hold more than the rows add up to.
    fn recover(
        &mut self,
        connection: &Connection,
        account: Option<&LedgerAccount>,
        (id, total): (ChannelId, Amount),
        queue: &LedgerQueue,
    ) -> rusqlite::Result<()> {
        let Some(account) = account else { return Ok(()) };
        let gap = self.channel(connection, account, id)?.recover(total);
        if gap.is_zero() {
            return Ok(());
        }
        let about = (LedgerState::Recovered, queue.next_payment());
        let row = self.channel_row(connection, account, id, about)?;
        self.append(connection, LedgerRow { adjusts: gap.into(), total: Some(total), ..row })
    }

    /// Adds the row of a settlement, which corrects what the rows add up to.
    fn settle(
        &mut self,
        connection: &Connection,
        account: Option<&LedgerAccount>,
        (id, total): (ChannelId, Amount),
        queue: &LedgerQueue,
    ) -> rusqlite::Result<()> {
        let Some(account) = account else { return Ok(()) };
        let channel = self.channel(connection, account, id)?;
        if channel.is_settled {
            return Ok(());
        }
        let adjusts = channel.settle(total);
        let about = (LedgerState::Settled, queue.next_payment());
        let row = self.channel_row(connection, account, id, about)?;
        self.append(connection, LedgerRow { adjusts, total: Some(total), ..row })
    }

    /// Adds the row of an event, and those of what follows from it.
    fn apply(
        &mut self,
        connection: &Connection,
        account: Option<&LedgerAccount>,
        event: &PaymentEvent,
        queue: &LedgerQueue,
    ) -> rusqlite::Result<()> {
        let has_row =
            event.is_joined || (event.state != LedgerState::Held && !self.open.contains_key(&event.payment));
        let last = if has_row { self.last_row(connection, event.nonce)? } else { None };
        // The seller has stated it, and the journal has recorded that before its request ended.
        let tells_less = match event.state {
            LedgerState::PaidNotDelivered => event.receipt.is_empty(),
            state => matches!(state, LedgerState::Refused | LedgerState::InDoubt | LedgerState::Unsent),
        };
        if tells_less && last.as_ref().is_some_and(|last| last.state == LedgerState::PaidNotDelivered) {
            return Ok(());
        }
        // Its client lost the response: what was paid is presented again, and stays paid whatever comes of that.
        let is_presented_again = event.is_joined
            && !is_taken(event.state)
            && last.as_ref().is_some_and(|last| last.state == LedgerState::Paid);
        if is_presented_again {
            return Ok(());
        }
        let joined = last.as_ref().map(|row| PaymentEvent { payment: row.payment, ..event.clone() });
        let event = joined.as_ref().unwrap_or(event);
        let before = self.open.get(&event.payment).copied().or_else(|| {
            last.map(|LedgerRow { state, counts, .. }| OpenPayment { state, counts, new: counts })
        });
        let price = event.terms.price.amount;
        let is_void = matches!(event.state, LedgerState::Unsent | LedgerState::Expired);
        let is_taken = is_taken(event.state);
        let mut adjusts = SignedAmount::default();
        let (counts, new) = match (event.channel, account) {
            (Some((id, total)), Some(account)) => match before {
                None if is_void => return Ok(()),
                None => {
                    let counted = self.channel(connection, account, id)?.present(total, price, is_taken);
                    adjusts = self.make_room(connection, account, (id, total), &counted, queue)?;
                    (counted.counts, counted.new)
                }
                Some(OpenPayment { counts, new, .. }) if is_void => {
                    adjusts = self.channel(connection, account, id)?.withdraw(counts, new);
                    (Amount::ZERO, Amount::ZERO)
                }
                Some(OpenPayment { counts, new, .. }) => (counts, new),
            },
            _ if is_void => (Amount::ZERO, Amount::ZERO),
            _ => (price, price),
        };
        if before.is_none() && counts.is_zero() && !is_taken {
            // After a restart, the certain total is presented to query the seller, which pays nothing.
            return Ok(());
        }
        let previous = before.map(|before| (before.state, before.counts));
        let row = self.row(event, account);
        self.append(connection, LedgerRow { previous, counts, adjusts, ..row })?;
        match (event.state, event.channel, account) {
            (state, ..) if state.is_open() => {
                self.open.insert(event.payment, OpenPayment { state, counts, new });
                if let Some(nonce) = event.nonce.filter(|_| state == LedgerState::Sent) {
                    self.held.remove(&nonce);
                }
            }
            (LedgerState::InDoubt | LedgerState::Refused, Some((id, total)), Some(account))
                if !counts.is_zero() =>
            {
                if self.doubtful.len() >= MAX_DOUBTFUL {
                    self.doubtful.clear();
                }
                self.channel(connection, account, id)?.doubt(event.payment, total, counts);
                self.doubtful.insert(event.payment, (event.clone(), counts));
            }
            _ => {
                if let Some(nonce) = event.nonce {
                    self.held.remove(&nonce);
                }
            }
        }
        Ok(())
    }

    /// Adds the rows of what a payment finds on its channel: lost rows, and payments in doubt that it takes the place of.
    /// Returns what it corrects itself.
    fn make_room(
        &mut self,
        connection: &Connection,
        account: &LedgerAccount,
        (id, total): (ChannelId, Amount),
        counted: &Counted,
        queue: &LedgerQueue,
    ) -> rusqlite::Result<SignedAmount> {
        if !counted.gap.is_zero() {
            let about = (LedgerState::Recovered, queue.next_payment());
            let lost = self.channel_row(connection, account, id, about)?;
            let total = Some(total.saturating_sub(counted.new));
            self.append(connection, LedgerRow { adjusts: counted.gap.into(), total, ..lost })?;
        }
        let mut taken_over = counted.reclaimed;
        for (payment, taken) in &counted.replaced {
            let Some((event, counts)) = self.doubtful.remove(payment) else {
                taken_over = taken_over.saturating_add(*taken);
                continue;
            };
            let left = counts.saturating_sub(*taken);
            let previous = Some((event.state, counts));
            let event = PaymentEvent { at: unix_millis(), state: LedgerState::Refused, ..event };
            let row = self.row(&event, Some(account));
            self.append(connection, LedgerRow { previous, counts: left, ..row })?;
            if !left.is_zero() {
                self.doubtful.insert(*payment, (event, left));
            }
        }
        Ok(SignedAmount::difference(Amount::ZERO, taken_over))
    }

    /// What an event tells about its payment.
    fn row(&mut self, event: &PaymentEvent, account: Option<&LedgerAccount>) -> LedgerRow {
        let PaymentEvent { request, terms, .. } = event;
        LedgerRow {
            seq: 0,
            at: event.at,
            payment: event.payment,
            state: event.state,
            previous: None,
            parties: self.parties.of(event, account),
            method: bounded(request.method.as_str().to_owned()),
            path: public_path(&request.path),
            price: terms.price.amount,
            counts: Amount::ZERO,
            adjusts: SignedAmount::default(),
            total: event.channel.map(|(_, total)| total),
            nonce: event.nonce.map(hex::encode).unwrap_or_default(),
            receipt: event.receipt.clone().into_owned(),
            confirmation: None,
            offer: event.offer.as_deref().unwrap_or_default().to_owned(),
        }
    }

    /// Ends an authorization that was never sent.
    fn unsent(&mut self, connection: &Connection, payment: u64) -> rusqlite::Result<()> {
        for row in self.open_rows(connection)?.into_iter().filter(|row| row.payment == payment) {
            let previous = Some((row.state, row.counts));
            let (at, state, counts) = (unix_millis(), LedgerState::Unsent, Amount::ZERO);
            self.append(connection, LedgerRow { at, state, previous, counts, ..row })?;
        }
        Ok(())
    }
}
