//! Reads the journal.

use std::collections::BTreeMap;
use std::time::Duration;

use ethers_core::types::U256;
use ethers_core::utils::hex;
use rusqlite::{Row, params, types::Type};

use super::error::JournalError;
use super::file::Journal;
use crate::payments::account::AccountKey;
use crate::payments::clock::unix_time;
use crate::payments::closing_signatures::ClosingSignature;
use crate::protocol::budget::Hold;
use crate::protocol::channel::InDoubt;
use crate::protocol::engine::{Authorization, HostName, KnownAuthorization, PurchaseKey};
use crate::protocol::quote::{Quote, RequestId, Trust};
use crate::protocol::schemes::microraiden::ChannelOffer;
use crate::protocol::{Account, Address, Amount, Channel, ChannelId, Draft, Intent, Offer, Phase, Signature};

/// How long deposits are kept, in seconds: longer than any limit's window.
const DEPOSITS_KEPT: u64 = 31 * 24 * 3600;

/// How long the fees of transactions are kept, in seconds: longer than they count.
pub(super) const FEES_KEPT: u64 = 2 * 24 * 3600;

/// The row of an account: one payer on one contract of one chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccountId(pub(super) i64);

/// An account and its channels with their hosts.
#[derive(Clone, Debug)]
pub struct AccountChannels {
    /// The account.
    pub account: AccountKey,
    /// Its channels.
    pub channels: Vec<(ChannelId, Channel, Option<HostName>)>,
}

/// The journal's content for one account.
#[derive(Debug)]
pub struct StoredAccount {
    /// The account's row, for [`Journal::write`].
    pub id: AccountId,
    /// Its channels.
    pub channels: Vec<(ChannelId, Channel)>,
    /// Its transactions with unknown outcome, in the order of their nonces.
    pub intents: Vec<Intent>,
    /// Remembered prices.
    pub prices: Vec<(RequestId, Quote)>,
    /// The hosts that channels belong to.
    pub hosts: Vec<(ChannelId, HostName)>,
    /// Deposits: receiver, host, and age.
    pub deposits: Vec<(Address, HostName, Duration)>,
    /// The most that each transaction that was signed lately can cost, in wei, and its age.
    pub fees: Vec<(Duration, U256)>,
    /// The URLs of receivers' REST interfaces, by host.
    pub seller_urls: Vec<((HostName, Address), String)>,
    /// Unused closing signatures.
    pub closing_signatures: Vec<(ChannelId, ClosingSignature)>,
    /// What budgets know of its channels.
    pub holds: Vec<(ChannelId, Hold)>,
    /// The block at which the next sync with the chain starts; 0 before the first one.
    pub cursor: u64,
}

impl Journal {
    /// Compares the chain and the token of an account with the stored ones of the same payer and contract. `is_chosen`:
    /// the user configured the chain, so it may be a new one.
    ///
    /// # Errors
    /// [`JournalError::OtherChain`] or [`JournalError::OtherToken`] if they differ.
    pub fn verify(&self, account: &Account, is_chosen: bool) -> Result<(), JournalError> {
        let (path, contract, payer, found) =
            (self.path.clone(), account.contract, account.payer, account.chain_id);
        let known = self.accounts()?.into_iter().map(|stored| stored.account);
        let chains: Vec<u64> = known
            .filter(|owner| (owner.contract, owner.payer) == (contract, payer))
            .map(|owner| owner.chain_id)
            .collect();
        match chains.first() {
            Some(known) if !is_chosen && !chains.contains(&found) => {
                return Err(JournalError::OtherChain { path, payer, contract, found, known: *known });
            }
            _ => {}
        }
        match self.token(account).map_err(|error| JournalError::Sqlite { path: path.clone(), error })? {
            Some(known) if known != account.token => {
                Err(JournalError::OtherToken { path, contract, found: account.token, known })
            }
            _ => Ok(()),
        }
    }

    /// Authorizations that a later request may present again, whose purchase is not repeated yet, or which the chain can still
    /// be asked about: those that were valid at the time `now` minus `age`, in seconds.
    ///
    /// # Errors
    /// SQLite cannot read them.
    pub(in crate::payments) fn open_authorizations(
        &self,
        now: u64,
        age: u64,
    ) -> Result<Vec<KnownAuthorization>, JournalError> {
        let read = || -> rusqlite::Result<Vec<_>> {
            let sql =
                "SELECT nonce, scheme, payment, purchase, taken_until, payer, host, counted, at, is_used, is_served
                 FROM authorization
                 WHERE payment IS NOT NULL AND (valid_before + ?2 > ?1 OR taken_until > ?1) ORDER BY rowid";
            let mut select = self.connection.prepare(sql)?;
            let rows = select.query_map(params![now as i64, age as i64], |row| {
                let nonce: String = row.get(0)?;
                let (scheme, payment): (String, String) = (row.get(1)?, row.get(2)?);
                let key: Option<[u8; 32]> = row.get(3)?;
                let taken_until: Option<i64> = row.get(4)?;
                let nonce = hex::decode(&nonce).ok().and_then(|nonce| nonce.try_into().ok());
                let draft = nonce.and_then(|nonce| Draft::from_stored(&scheme, nonce, &payment));
                let Some((nonce, draft)) = nonce.zip(draft) else {
                    return Err(unreadable(2, NotStored));
                };
                let (terms, key, payer) = (draft.terms(), key.map(PurchaseKey), text(row, 5)?);
                let (host, counted): (String, String) = (row.get(6)?, row.get(7)?);
                // What cannot be read stays spent.
                let counted = serde_json::from_str(&counted).unwrap_or_default();
                let host = host.into();
                let authorization = Authorization { nonce, terms, draft, payer, key, host, counted };
                Ok(KnownAuthorization {
                    authorization,
                    since: row.get::<_, i64>(8)?.unsigned_abs(),
                    taken_until: taken_until.map(i64::unsigned_abs),
                    is_used: row.get(9)?,
                    is_served: row.get(10)?,
                })
            })?;
            rows.collect()
        };
        read().map_err(|error| JournalError::Sqlite { path: self.path.clone(), error })
    }

    /// Deletes authorizations that had expired at this time, in seconds since 1970, and whose purchase may have been repeated
    /// since then.
    ///
    /// # Errors
    /// SQLite cannot delete them.
    pub(in crate::payments) fn forget_authorizations(&self, before: u64) -> Result<(), JournalError> {
        let sql = "DELETE FROM authorization WHERE valid_before < ?1 AND coalesce(taken_until, 0) < ?1";
        self.connection
            .execute(sql, [i64::try_from(before).unwrap_or(i64::MAX)])
            .map(drop)
            .map_err(|error| JournalError::Sqlite { path: self.path.clone(), error })
    }

    /// What an external signer signed of the authorizations, by their nonce.
    ///
    /// # Errors
    /// SQLite cannot read them.
    pub(in crate::payments) fn signatures(&self) -> Result<Vec<([u8; 32], Signature)>, JournalError> {
        let read = || -> rusqlite::Result<Vec<_>> {
            let sql = "SELECT nonce, signature FROM authorization WHERE signature IS NOT NULL ORDER BY rowid";
            let mut select = self.connection.prepare(sql)?;
            let rows = select.query_map([], |row| {
                let (nonce, signature): (String, String) = (row.get(0)?, row.get(1)?);
                let nonce = hex::decode(&nonce).ok().and_then(|nonce| nonce.try_into().ok());
                nonce.zip(Signature::parse(&signature)).ok_or_else(|| unreadable(1, NotStored))
            })?;
            rows.collect()
        };
        read().map_err(|error| JournalError::Sqlite { path: self.path.clone(), error })
    }

    /// The transactions with unknown outcome of an account; changes nothing.
    ///
    /// # Errors
    /// SQLite cannot read them.
    pub fn intents(&self, account: &Account) -> Result<Vec<Intent>, JournalError> {
        let read = || -> rusqlite::Result<Vec<Intent>> {
            let sql = "SELECT body FROM intent JOIN book ON book.id = intent.book
                 WHERE chain_id = ?1 AND contract = ?2 AND payer = ?3 ORDER BY nonce, intent.rowid";
            let key =
                params![account.chain_id as i64, account.contract.to_string(), account.payer.to_string()];
            self.connection.prepare(sql)?.query_map(key, read_intent)?.collect()
        };
        read().map_err(|error| JournalError::Sqlite { path: self.path.clone(), error })
    }

    fn token(&self, account: &Account) -> rusqlite::Result<Option<Address>> {
        let sql = "SELECT token FROM token JOIN book ON book.id = token.book
             WHERE chain_id = ?1 AND contract = ?2 AND payer = ?3";
        let key = params![account.chain_id as i64, account.contract.to_string(), account.payer.to_string()];
        self.connection.prepare(sql)?.query_map(key, |row| text(row, 0))?.next().transpose()
    }

    /// Loads an account, which is added if it is new.
    ///
    /// # Errors
    /// SQLite cannot read or add it.
    pub fn load(&mut self, account: &Account) -> Result<StoredAccount, JournalError> {
        self.try_load(account).map_err(|error| JournalError::Sqlite { path: self.path.clone(), error })
    }

    /// All accounts with their channels.
    ///
    /// # Errors
    /// SQLite cannot read them.
    pub fn accounts(&self) -> Result<Vec<AccountChannels>, JournalError> {
        self.try_accounts().map_err(|error| JournalError::Sqlite { path: self.path.clone(), error })
    }

    fn try_load(&mut self, account: &Account) -> rusqlite::Result<StoredAccount> {
        let chain_id = account.chain_id as i64;
        let (contract, payer) = (account.contract.to_string(), account.payer.to_string());
        let key = params![chain_id, contract, payer];
        self.connection.execute(
            "INSERT INTO book (chain_id, contract, payer) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
            key,
        )?;
        let (id, cursor): (i64, i64) = self.connection.query_row(
            "SELECT id, cursor FROM book WHERE chain_id = ?1 AND contract = ?2 AND payer = ?3",
            key,
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
        let mut intents =
            self.connection.prepare("SELECT body FROM intent WHERE book = ?1 ORDER BY nonce, rowid")?;
        self.connection.execute(
            "INSERT INTO token VALUES (?1, ?2) ON CONFLICT DO NOTHING",
            params![id, account.token.to_string()],
        )?;
        let intents = intents.query_map([id], read_intent)?.collect::<rusqlite::Result<_>>()?;
        let (channels, prices, seller_urls) =
            (self.channels(id)?, self.prices(id, account)?, self.seller_urls(id)?);
        let (closing_signatures, cursor) = (self.closing_signatures(id)?, cursor as u64);
        let (hosts, deposits, holds) = (self.hosts(id)?, self.deposits(id)?, self.holds(id)?);
        let fees = self.fees(id, account)?;
        Ok(StoredAccount {
            id: AccountId(id),
            channels,
            hosts,
            intents,
            deposits,
            fees,
            prices,
            seller_urls,
            closing_signatures,
            holds,
            cursor,
        })
    }

    fn try_accounts(&self) -> rusqlite::Result<Vec<AccountChannels>> {
        let mut books =
            self.connection.prepare("SELECT id, chain_id, contract, payer FROM book ORDER BY id")?;
        let books = books.query_map([], |row| {
            let chain_id = row.get::<_, i64>(1)? as u64;
            let account = AccountKey { chain_id, contract: text(row, 2)?, payer: text(row, 3)? };
            Ok((row.get::<_, i64>(0)?, account))
        })?;
        books
            .map(|book| {
                let (id, account) = book?;
                let hosts: BTreeMap<ChannelId, HostName> = self.hosts(id)?.into_iter().collect();
                let with_host = |(id, channel)| (id, channel, hosts.get(&id).cloned());
                let channels = self.channels(id)?.into_iter().map(with_host).collect();
                Ok(AccountChannels { account, channels })
            })
            .collect()
    }

    fn channels(&self, book: i64) -> rusqlite::Result<Vec<(ChannelId, Channel)>> {
        let mut channels = self.connection.prepare(
            "SELECT receiver, open_block, deposit, promised, reserved, acknowledged, unclear_total, unclear_price,
             phase, settle_block, presented, funded, doubt FROM channel WHERE book = ?1 ORDER BY receiver, open_block",
        )?;
        channels.query_map([book], read_channel)?.collect()
    }

    fn seller_urls(&self, book: i64) -> rusqlite::Result<Vec<((HostName, Address), String)>> {
        let sql = "SELECT host, receiver, url FROM gateway WHERE book = ?1 ORDER BY host, receiver";
        let mut urls = self.connection.prepare(sql)?;
        urls.query_map([book], |row| Ok(((host(row, 0)?, text(row, 1)?), row.get(2)?)))?.collect()
    }

    fn hosts(&self, book: i64) -> rusqlite::Result<Vec<(ChannelId, HostName)>> {
        let sql = "SELECT receiver, open_block, host FROM channel_host WHERE book = ?1";
        let mut hosts = self.connection.prepare(sql)?;
        let read = |row: &Row<'_>| {
            Ok((ChannelId { receiver: text(row, 0)?, open_block: row.get(1)? }, host(row, 2)?))
        };
        hosts.query_map([book], read)?.collect()
    }

    fn deposits(&self, book: i64) -> rusqlite::Result<Vec<(Address, HostName, Duration)>> {
        let now = unix_time();
        let kept = now.saturating_sub(DEPOSITS_KEPT) as i64;
        self.connection.execute("DELETE FROM deposit WHERE book = ?1 AND at < ?2", params![book, kept])?;
        let mut deposits =
            self.connection.prepare("SELECT receiver, host, at FROM deposit WHERE book = ?1")?;
        let read = |row: &Row<'_>| {
            // If the clock was set back, a deposit counts as made just now.
            let ago = now.saturating_sub(row.get::<_, i64>(2)? as u64);
            Ok((text(row, 0)?, host(row, 1)?, Duration::from_secs(ago)))
        };
        deposits.query_map([book], read)?.collect()
    }

    /// The fees of the account's transactions, with those of its allowances on the same network.
    fn fees(&self, book: i64, account: &Account) -> rusqlite::Result<Vec<(Duration, U256)>> {
        let now = unix_time();
        let kept = now.saturating_sub(FEES_KEPT) as i64;
        self.connection.execute("DELETE FROM fee WHERE book = ?1 AND at < ?2", params![book, kept])?;
        let mut fees = self.connection.prepare(
            "SELECT at, most FROM fee WHERE book = ?1
             UNION ALL SELECT at, most FROM allowance WHERE chain_id = ?2 AND payer = ?3",
        )?;
        let read = |row: &Row<'_>| {
            // If the clock was set back, it counts as signed just now.
            let age = now.saturating_sub(row.get::<_, i64>(0)? as u64);
            let most = U256::from_dec_str(&row.get::<_, String>(1)?);
            // What is unreadable was changed by hand: it allows nothing for a day.
            Ok((Duration::from_secs(age), most.unwrap_or(U256::MAX)))
        };
        fees.query_map(params![book, account.chain_id as i64, account.payer.to_string()], read)?.collect()
    }

    fn closing_signatures(&self, book: i64) -> rusqlite::Result<Vec<(ChannelId, ClosingSignature)>> {
        let sql = "SELECT receiver, open_block, total, signature FROM consent WHERE book = ?1";
        let mut signatures = self.connection.prepare(sql)?;
        let read = |row: &Row<'_>| {
            let id = ChannelId { receiver: text(row, 0)?, open_block: row.get(1)? };
            let signature = Signature::parse(&row.get::<_, String>(3)?)
                .ok_or_else(|| rusqlite::Error::InvalidColumnType(3, "signature".into(), Type::Text))?;
            Ok((id, ClosingSignature { total: text(row, 2)?, signature }))
        };
        signatures.query_map([book], read)?.collect()
    }

    fn prices(&self, book: i64, account: &Account) -> rusqlite::Result<Vec<(RequestId, Quote)>> {
        let sql = "SELECT request, price, receiver, seen FROM price WHERE book = ?1 ORDER BY request";
        let mut prices = self.connection.prepare(sql)?;
        let read = |row: &Row<'_>| {
            let seen = row.get::<_, i64>(3)? as u64;
            let trust = Trust::Blind { left: 1, of: 1 };
            let offer = ChannelOffer::quoted(text(row, 1)?, text(row, 2)?, account);
            Ok((request_id(row, 0)?, Quote { offer: Offer::MicroRaiden(offer), seen, trust }))
        };
        prices.query_map([book], read)?.collect()
    }
}

fn request_id(row: &Row<'_>, column: usize) -> rusqlite::Result<RequestId> {
    let mut id = [0; 32];
    hex::decode_to_slice(row.get::<_, String>(column)?, &mut id)
        .map_err(|error| unreadable(column, error))?;
    Ok(RequestId(id))
}

fn read_intent(row: &Row<'_>) -> rusqlite::Result<Intent> {
    let body: String = row.get(0)?;
    serde_json::from_str(&body).map_err(|error| unreadable(0, error))
}

fn read_channel(row: &Row<'_>) -> rusqlite::Result<(ChannelId, Channel)> {
    let id = ChannelId { receiver: text(row, 0)?, open_block: row.get(1)? };
    let in_doubt = optional(row, 6)?.zip(optional(row, 7)?).map(|(total, price)| InDoubt { total, price });
    let phase = match row.get::<_, String>(8)?.as_str() {
        "open" => Phase::Open,
        "closing" => Phase::Closing { settle_block: row.get(9)? },
        _ => Phase::Gone,
    };
    let channel = Channel {
        deposit: text(row, 2)?,
        promised: text(row, 3)?,
        durable_limit: text(row, 4)?,
        acknowledged: text(row, 5)?,
        presented: text(row, 10)?,
        funded: text(row, 11)?,
        doubt: optional(row, 12)?,
        must_query: true,
        signed: Amount::ZERO,
        payments: 0,
        in_doubt,
        phase,
    };
    Ok((id, channel))
}

/// Parses a text column.
pub(super) fn text<T: std::str::FromStr<Err: std::error::Error + Send + Sync + 'static>>(
    row: &Row<'_>,
    column: usize,
) -> rusqlite::Result<T> {
    row.get::<_, String>(column)?.parse().map_err(|error| unreadable(column, error))
}

fn host(row: &Row<'_>, column: usize) -> rusqlite::Result<HostName> {
    row.get::<_, String>(column).map(HostName::from)
}

fn optional(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Amount>> {
    match row.get::<_, Option<String>>(column)? {
        Some(_) => text(row, column).map(Some),
        None => Ok(None),
    }
}

/// A payment stored in another version's format.
#[derive(Debug, thiserror::Error)]
#[error("not a payment that can be presented again")]
struct NotStored;

fn unreadable(column: usize, error: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error))
}
