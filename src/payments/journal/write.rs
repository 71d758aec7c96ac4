//! Writes the journal.

use ethers_core::types::U256;
use ethers_core::utils::hex;
use rusqlite::{Connection, params};

use super::budgets::{delete_budget, write_budget, write_hold};
use super::error::JournalError;
use super::file::Journal;
use super::load::AccountId;
use crate::chain::most_it_costs;
use crate::payments::clock::unix_time;
use crate::protocol::engine::{Authorization, Record};
use crate::protocol::quote::{Quote, RequestId};
use crate::protocol::{Channel, ChannelId, Intent, Phase, SchemeName, Signature, Terms};

impl Journal {
    /// Commits records atomically: after `Ok` they survive a crash, and a power failure unless all of them only say what became
    /// of authorizations (see [`Self::sync`]). Authorizations and prices outside channels belong to no account.
    ///
    /// # Errors
    /// [`JournalError::NoAccount`]: a record belongs to an account and there is none. [`JournalError::Sqlite`]: SQLite cannot
    /// write them. Then none is written.
    pub fn write(&mut self, account: Option<AccountId>, records: &[Record]) -> Result<(), JournalError> {
        if account.is_none() && records.iter().any(needs_account) {
            return Err(JournalError::NoAccount);
        }
        let written = self.try_write(account.unwrap_or(AccountId(0)), records);
        if let Some(ledger) = self.ledger.as_mut().filter(|_| records.iter().any(is_one_shot)) {
            if written.is_ok() { ledger.committed() } else { ledger.failed() }
        }
        written.map_err(|error| JournalError::Sqlite { path: self.path.clone(), error })
    }

    /// Writes a durable transaction that changes nothing.
    ///
    /// # Errors
    /// SQLite cannot write it.
    pub(in crate::payments) fn check_writable(&mut self) -> Result<(), JournalError> {
        self.try_to_change_nothing().map_err(|error| JournalError::Sqlite { path: self.path.clone(), error })
    }

    /// Makes durable what was committed without that, if anything was.
    pub(in crate::payments) fn sync(&mut self) {
        if !self.has_unsynced {
            return;
        }
        match self.try_to_change_nothing() {
            Ok(()) => self.has_unsynced = false,
            // The next durable write includes it.
            Err(error) => tracing::debug!(%error, "cannot sync the journal"),
        }
    }

    fn try_to_change_nothing(&mut self) -> rusqlite::Result<()> {
        self.set_durable(true)?;
        let transaction = self.connection.transaction()?;
        // SQLite does not write a row that stays the same.
        for _ in 0..2 {
            transaction.execute("UPDATE request_key SET is_swept = NOT is_swept", [])?;
        }
        transaction.commit()
    }

    fn try_write(&mut self, account: AccountId, records: &[Record]) -> rusqlite::Result<()> {
        if !records.iter().all(can_be_late) {
            self.set_durable(true)?;
            self.commit(account, records)?;
            self.has_unsynced = false;
            return Ok(());
        }
        // Transactions become durable in order: the next durable one includes this one.
        self.set_durable(false)?;
        let committed = self.commit(account, records);
        self.set_durable(true)?;
        committed?;
        self.has_unsynced = true;
        if let Some(ledger) = &self.ledger {
            ledger.ask_for_sync();
        }
        Ok(())
    }

    /// Whether transactions are durable from now on. Does nothing if that is how it is: SQLite compiles the statement each time.
    pub(super) fn set_durable(&mut self, is_durable: bool) -> rusqlite::Result<()> {
        if self.is_durable != is_durable {
            // If it fails, either may be true.
            self.is_durable = false;
            self.connection.pragma_update(None, "synchronous", if is_durable { "FULL" } else { "NORMAL" })?;
            self.is_durable = is_durable;
        }
        Ok(())
    }

    fn commit(&mut self, account: AccountId, records: &[Record]) -> rusqlite::Result<()> {
        let transaction = self.connection.transaction()?;
        for record in records {
            match record {
                Record::Channel(id, channel) => write_channel(&transaction, account, id, channel)?,
                Record::Intent(intent) => write_intent(&transaction, account, intent)?,
                Record::IntentsResolved(receiver) => {
                    transaction
                        .prepare_cached("DELETE FROM intent WHERE book = ?1 AND receiver = ?2")?
                        .execute(params![account.0, receiver.to_string()])?;
                }
                Record::Gateway(host, receiver, url) => {
                    transaction
                        .prepare_cached("INSERT OR REPLACE INTO gateway VALUES (?1, ?2, ?3, ?4)")?
                        .execute(params![account.0, &**host, receiver.to_string(), url])?;
                }
                Record::Host(ChannelId { receiver, open_block }, host) => {
                    transaction
                        .prepare_cached("INSERT OR REPLACE INTO channel_host VALUES (?1, ?2, ?3, ?4)")?
                        .execute(params![account.0, receiver.to_string(), open_block, &**host])?;
                }
                Record::Deposit(receiver, host) => {
                    transaction
                        .prepare_cached("INSERT INTO deposit VALUES (?1, ?2, ?3, ?4)")?
                        .execute(params![account.0, receiver.to_string(), &**host, unix_time() as i64])?;
                }
                Record::Consent(id, total, signature) => {
                    transaction
                        .prepare_cached("INSERT OR REPLACE INTO consent VALUES (?1, ?2, ?3, ?4, ?5)")?
                        .execute(params![
                            account.0,
                            id.receiver.to_string(),
                            id.open_block,
                            total.to_string(),
                            signature.to_hex()
                        ])?;
                }
                Record::Authorization(authorization) => {
                    write_authorization(&transaction, authorization)?;
                    if let Some(ledger) = &mut self.ledger {
                        ledger.hold(&transaction, &authorization.nonce)?;
                    }
                }
                Record::AuthorizationEnded(nonce) => {
                    delete_authorization(&transaction, nonce)?;
                    if let Some(ledger) = &mut self.ledger {
                        ledger.end_held(&transaction, nonce)?;
                    }
                }
                Record::AuthorizationTaken(nonce, until) => {
                    transaction
                        .prepare_cached("UPDATE authorization SET taken_until = ?2 WHERE nonce = ?1")?
                        .execute(params![hex::encode_prefixed(nonce), *until as i64])?;
                    if let Some(ledger) = &mut self.ledger {
                        ledger.take_held(&transaction, nonce)?;
                    }
                }
                Record::AuthorizationUnneeded(nonce) => {
                    transaction
                        .prepare_cached("UPDATE authorization SET purchase = NULL WHERE nonce = ?1")?
                        .execute([hex::encode_prefixed(nonce)])?;
                }
                Record::AuthorizationUsed(nonce, until) => {
                    transaction
                        .prepare_cached(
                            "UPDATE authorization SET taken_until = ?2, is_used = 1 WHERE nonce = ?1",
                        )?
                        .execute(params![hex::encode_prefixed(nonce), *until as i64])?;
                    if let Some(ledger) = &mut self.ledger {
                        ledger.show_usage(&transaction, nonce, true)?;
                    }
                }
                Record::AuthorizationServed(nonce) => {
                    transaction
                        .prepare_cached(
                            "UPDATE authorization SET is_served = 1, purchase = NULL, signature = NULL WHERE nonce = ?1",
                        )?
                        .execute([hex::encode_prefixed(nonce)])?;
                    if let Some(ledger) = &mut self.ledger {
                        ledger.end_held(&transaction, nonce)?;
                    }
                }
                Record::AuthorizationConfirmed(nonce) => {
                    delete_authorization(&transaction, nonce)?;
                    if let Some(ledger) = &mut self.ledger {
                        ledger.show_usage(&transaction, nonce, true)?;
                    }
                }
                Record::AuthorizationUnused(nonce) => {
                    delete_authorization(&transaction, nonce)?;
                    if let Some(ledger) = &mut self.ledger {
                        ledger.show_usage(&transaction, nonce, false)?;
                    }
                }
                Record::Hold(id, hold) => write_hold(&transaction, account, id, hold)?,
                Record::Budget(row) => write_budget(&transaction, row)?,
                Record::BudgetEnded(key) => delete_budget(&transaction, key)?,
                Record::Frozen(is_frozen) => {
                    let sql = if *is_frozen {
                        "INSERT OR REPLACE INTO frozen VALUES (1)"
                    } else {
                        "DELETE FROM frozen"
                    };
                    transaction.execute(sql, [])?;
                }
                Record::Price(request, price) => write_price(&transaction, account, request, price.as_ref())?,
                Record::Cursor(cursor) => {
                    transaction
                        .prepare_cached("UPDATE book SET cursor = ?2 WHERE id = ?1")?
                        .execute(params![account.0, *cursor as i64])?;
                }
            }
        }
        transaction.commit()
    }
}

/// True if a record only says what became of an authorization. If a power failure takes it back, the authorization counts as
/// before, and the seller or the chain says again what became of it. What is signed later is in a durable write, which includes
/// this record.
pub(super) fn can_be_late(record: &Record) -> bool {
    matches!(
        record,
        Record::AuthorizationEnded(_)
            | Record::AuthorizationTaken(..)
            | Record::AuthorizationUnneeded(_)
            | Record::AuthorizationServed(_)
    )
}

/// True if a record is about a one-shot authorization, which has rows in the ledger.
fn is_one_shot(record: &Record) -> bool {
    matches!(
        record,
        Record::Authorization(_)
            | Record::AuthorizationEnded(_)
            | Record::AuthorizationTaken(..)
            | Record::AuthorizationUsed(..)
            | Record::AuthorizationServed(_)
            | Record::AuthorizationConfirmed(_)
            | Record::AuthorizationUnused(_)
    )
}

/// True if a record is stored with its account's row.
fn needs_account(record: &Record) -> bool {
    match record {
        Record::Authorization(_)
        | Record::AuthorizationEnded(_)
        | Record::AuthorizationTaken(..)
        | Record::AuthorizationUnneeded(_)
        | Record::AuthorizationUsed(..)
        | Record::AuthorizationServed(_)
        | Record::AuthorizationConfirmed(_)
        | Record::AuthorizationUnused(_)
        | Record::Budget(_)
        | Record::BudgetEnded(_)
        | Record::Frozen(_) => false,
        // A forgotten price without an account was never recorded.
        Record::Price(_, quote) => quote.as_ref().is_some_and(is_stored),
        _ => true,
    }
}

/// True if a quote is recorded: those of other schemes are kept in memory only.
fn is_stored(quote: &Quote) -> bool {
    quote.offer.terms().scheme == SchemeName::MicroRaiden
}

fn write_channel(
    connection: &Connection,
    account: AccountId,
    id: &ChannelId,
    channel: &Channel,
) -> rusqlite::Result<()> {
    let settle_block = match channel.phase {
        Phase::Closing { settle_block } => Some(settle_block),
        Phase::Open | Phase::Gone => None,
    };
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO channel VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
        )?
        .execute(params![
            account.0,
            id.receiver.to_string(),
            id.open_block,
            channel.deposit.to_string(),
            channel.promised.to_string(),
            channel.durable_limit.to_string(),
            channel.acknowledged.to_string(),
            channel.in_doubt.map(|in_doubt| in_doubt.total.to_string()),
            channel.in_doubt.map(|in_doubt| in_doubt.price.to_string()),
            channel.phase.name(),
            settle_block,
            channel.presented.to_string(),
            channel.funded.to_string(),
            channel.doubt.map(|doubt| doubt.to_string()),
        ])?;
    if channel.phase == Phase::Gone {
        connection
            .prepare_cached("DELETE FROM consent WHERE book = ?1 AND receiver = ?2 AND open_block = ?3")?
            .execute(params![account.0, id.receiver.to_string(), id.open_block])?;
    }
    Ok(())
}

impl Journal {
    /// Stores what an external signer signed of an authorization, as long as that is open.
    ///
    /// # Errors
    /// SQLite cannot write it.
    pub(in crate::payments) fn keep_signature(
        &mut self,
        nonce: &[u8; 32],
        signature: &Signature,
    ) -> Result<(), JournalError> {
        self.connection
            .prepare_cached("UPDATE authorization SET signature = ?2 WHERE nonce = ?1")
            .and_then(|mut update| update.execute(params![hex::encode_prefixed(nonce), signature.to_hex()]))
            .map(drop)
            .map_err(|error| JournalError::Sqlite { path: self.path.clone(), error })
    }
}

fn delete_authorization(connection: &Connection, nonce: &[u8; 32]) -> rusqlite::Result<()> {
    connection
        .prepare_cached("DELETE FROM authorization WHERE nonce = ?1")?
        .execute([hex::encode_prefixed(nonce)])?;
    Ok(())
}

fn write_authorization(connection: &Connection, authorization: &Authorization) -> rusqlite::Result<()> {
    let Authorization { nonce, terms, draft, payer, key, host, counted } = authorization;
    let Terms { price, payee, scheme } = terms;
    let counted = serde_json::to_string(counted)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO authorization
                 (nonce, scheme, amount, asset, payee, at, purchase, payment, valid_before, payer, host, counted)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
        )?
        .execute(params![
            hex::encode_prefixed(nonce),
            scheme.name(),
            price.amount.to_string(),
            price.asset.to_string(),
            payee.to_string(),
            unix_time() as i64,
            key.map(|key| key.0),
            draft.to_stored(),
            draft.valid_before().map(|time| time as i64),
            payer.to_string(),
            &**host,
            counted,
        ])?;
    Ok(())
}

fn write_price(
    connection: &Connection,
    account: AccountId,
    RequestId(request): &RequestId,
    quote: Option<&Quote>,
) -> rusqlite::Result<()> {
    // Prices of other schemes are kept in memory only.
    if quote.is_some_and(|quote| !is_stored(quote)) {
        return Ok(());
    }
    let request = hex::encode(request);
    match quote {
        Some(Quote { offer, seen, .. }) => {
            let Terms { price, payee, .. } = offer.terms();
            connection.prepare_cached("INSERT OR REPLACE INTO price VALUES (?1, ?2, ?3, ?4, ?5)")?.execute(
                params![account.0, request, price.amount.to_string(), payee.to_string(), *seen as i64],
            )?
        }
        None => connection
            .prepare_cached("DELETE FROM price WHERE book = ?1 AND request = ?2")?
            .execute(params![account.0, request])?,
    };
    Ok(())
}

fn write_intent(connection: &Connection, account: AccountId, intent: &Intent) -> rusqlite::Result<()> {
    let body = serde_json::to_string(intent)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
    let hash = hex::encode_prefixed(intent.hash);
    connection
        .prepare_cached("INSERT OR REPLACE INTO intent VALUES (?1, ?2, ?3, ?4, ?5)")?
        .execute(params![account.0, intent.op.receiver().to_string(), intent.nonce as i64, hash, body])?;
    // An external signer is asked for it, and then it is recorded again: it costs only once.
    let (key, most) = most_it_costs(&intent.raw)
        .map_or_else(|| (hash, U256::zero()), |(key, most)| (hex::encode_prefixed(key), most));
    connection
        .prepare_cached("INSERT INTO fee VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING")?
        .execute(params![account.0, key, unix_time() as i64, most.to_string()])?;
    Ok(())
}
