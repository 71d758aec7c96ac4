//! Reading the journal.

use std::collections::BTreeMap;
use std::time::Duration;

use ethers_core::utils::hex;
use rusqlite::{Row, params, types::Type};

use super::error::StoreError;
use super::file::Store;
use crate::payments::clock::unix_time;
use crate::protocol::channel::InDoubt;
use crate::protocol::engine::Host;
use crate::protocol::quote::{Price, RequestId, Trust};
use crate::protocol::{Address, Amount, Channel, ChannelId, Facts, Intent, Phase, Signature};

/// How long it is kept when money was sent into channels, in seconds: longer than any limit looks back.
const DEPOSITS_KEPT: u64 = 31 * 24 * 3600;

/// The part of the journal that belongs to one payer on one contract of one chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BookId(pub(super) i64);

/// Whose part of the journal it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The id of the chain.
    pub chain_id: u64,
    /// The channel contract.
    pub contract: Address,
    /// Who pays.
    pub payer: Address,
}

/// One owner, and the channels it owns, with the hosts that they belong to.
pub type Owned = (Owner, Vec<(ChannelId, Channel, Option<Host>)>);

/// What the journal knows of one payer on one contract.
#[derive(Debug)]
pub struct Contents {
    /// Names it in [`Store::write`].
    pub book: BookId,
    /// Its channels.
    pub channels: Vec<(ChannelId, Channel)>,
    /// Its transactions of unknown fate, in order of their nonce.
    pub intents: Vec<Intent>,
    /// What requests cost last time.
    pub prices: Vec<(RequestId, Price)>,
    /// Which hosts channels belong to.
    pub hosts: Vec<(ChannelId, Host)>,
    /// How long ago money was sent into channels, to whom, and for which host.
    pub deposits: Vec<(Address, Host, Duration)>,
    /// Where hosts say that the REST interfaces of receivers are.
    pub gateways: Vec<((Host, Address), String)>,
    /// Signatures of sellers to close a channel, which were not used yet, and the totals they stand under.
    pub consents: Vec<(ChannelId, (Amount, Signature))>,
    /// Where the next sync with the chain starts; 0 when there was none.
    pub cursor: u64,
}

impl Store {
    /// Compares a chain and a token with those on record for the same payer and contract. `is_chosen` says that the user
    /// named the chain: it may be a new one then.
    pub fn verify(&self, facts: &Facts, is_chosen: bool) -> Result<(), StoreError> {
        let (path, contract, payer, found) = (self.path.clone(), facts.contract, facts.payer, facts.chain_id);
        let known = self.all()?.into_iter().map(|(owner, _)| owner);
        let chains: Vec<u64> = known
            .filter(|owner| (owner.contract, owner.payer) == (contract, payer))
            .map(|owner| owner.chain_id)
            .collect();
        match chains.first() {
            Some(known) if !is_chosen && !chains.contains(&found) => {
                return Err(StoreError::OtherChain { path, payer, contract, found, known: *known });
            }
            _ => {}
        }
        match self.token(facts).map_err(|source| StoreError::Sqlite { path: path.clone(), source })? {
            Some(known) if known != facts.token => {
                Err(StoreError::OtherToken { path, contract, found: facts.token, known })
            }
            _ => Ok(()),
        }
    }

    /// The transactions of unknown fate of this payer on this contract; changes nothing.
    pub fn intents(&self, facts: &Facts) -> Result<Vec<Intent>, StoreError> {
        let read = || -> rusqlite::Result<Vec<Intent>> {
            let sql = "SELECT body FROM intent JOIN book ON book.id = intent.book
                 WHERE chain_id = ?1 AND contract = ?2 AND payer = ?3 ORDER BY nonce, intent.rowid";
            let key = params![facts.chain_id as i64, facts.contract.to_string(), facts.payer.to_string()];
            self.connection.prepare(sql)?.query_map(key, read_intent)?.collect()
        };
        read().map_err(|source| StoreError::Sqlite { path: self.path.clone(), source })
    }

    fn token(&self, facts: &Facts) -> rusqlite::Result<Option<Address>> {
        let sql = "SELECT token FROM token JOIN book ON book.id = token.book
             WHERE chain_id = ?1 AND contract = ?2 AND payer = ?3";
        let key = params![facts.chain_id as i64, facts.contract.to_string(), facts.payer.to_string()];
        self.connection.prepare(sql)?.query_map(key, |row| text(row, 0))?.next().transpose()
    }

    /// What is known of this payer on this contract; makes an empty entry at the first time.
    pub fn load(&mut self, facts: &Facts) -> Result<Contents, StoreError> {
        self.try_load(facts).map_err(|source| StoreError::Sqlite { path: self.path.clone(), source })
    }

    /// Every payer and contract on record, with their channels.
    pub fn all(&self) -> Result<Vec<Owned>, StoreError> {
        self.try_all().map_err(|source| StoreError::Sqlite { path: self.path.clone(), source })
    }

    fn try_load(&mut self, facts: &Facts) -> rusqlite::Result<Contents> {
        let chain_id = facts.chain_id as i64;
        let (contract, payer) = (facts.contract.to_string(), facts.payer.to_string());
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
            params![id, facts.token.to_string()],
        )?;
        let intents = intents.query_map([id], read_intent)?.collect::<rusqlite::Result<_>>()?;
        let (channels, prices, gateways) = (self.channels(id)?, self.prices(id)?, self.gateways(id)?);
        let (consents, cursor) = (self.consents(id)?, cursor as u64);
        let (hosts, deposits) = (self.hosts(id)?, self.deposits(id)?);
        let book = BookId(id);
        Ok(Contents { book, channels, hosts, intents, deposits, prices, gateways, consents, cursor })
    }

    fn try_all(&self) -> rusqlite::Result<Vec<Owned>> {
        let mut books =
            self.connection.prepare("SELECT id, chain_id, contract, payer FROM book ORDER BY id")?;
        let books = books.query_map([], |row| {
            let chain_id = row.get::<_, i64>(1)? as u64;
            let owner = Owner { chain_id, contract: text(row, 2)?, payer: text(row, 3)? };
            Ok((row.get::<_, i64>(0)?, owner))
        })?;
        books
            .map(|book| {
                let (id, owner) = book?;
                let hosts: BTreeMap<ChannelId, Host> = self.hosts(id)?.into_iter().collect();
                let with_host = |(id, channel)| (id, channel, hosts.get(&id).cloned());
                Ok((owner, self.channels(id)?.into_iter().map(with_host).collect()))
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

    fn gateways(&self, book: i64) -> rusqlite::Result<Vec<((Host, Address), String)>> {
        let sql = "SELECT host, receiver, url FROM gateway WHERE book = ?1 ORDER BY host, receiver";
        let mut gateways = self.connection.prepare(sql)?;
        gateways.query_map([book], |row| Ok(((host(row, 0)?, text(row, 1)?), row.get(2)?)))?.collect()
    }

    fn hosts(&self, book: i64) -> rusqlite::Result<Vec<(ChannelId, Host)>> {
        let sql = "SELECT receiver, open_block, host FROM channel_host WHERE book = ?1";
        let mut hosts = self.connection.prepare(sql)?;
        let read = |row: &Row<'_>| {
            Ok((ChannelId { receiver: text(row, 0)?, open_block: row.get(1)? }, host(row, 2)?))
        };
        hosts.query_map([book], read)?.collect()
    }

    fn deposits(&self, book: i64) -> rusqlite::Result<Vec<(Address, Host, Duration)>> {
        let now = unix_time();
        let kept = now.saturating_sub(DEPOSITS_KEPT) as i64;
        self.connection.execute("DELETE FROM deposit WHERE book = ?1 AND at < ?2", params![book, kept])?;
        let mut deposits =
            self.connection.prepare("SELECT receiver, host, at FROM deposit WHERE book = ?1")?;
        let read = |row: &Row<'_>| {
            // A clock that was set back makes a deposit one of just now.
            let ago = now.saturating_sub(row.get::<_, i64>(2)? as u64);
            Ok((text(row, 0)?, host(row, 1)?, Duration::from_secs(ago)))
        };
        deposits.query_map([book], read)?.collect()
    }

    fn consents(&self, book: i64) -> rusqlite::Result<Vec<(ChannelId, (Amount, Signature))>> {
        let sql = "SELECT receiver, open_block, total, signature FROM consent WHERE book = ?1";
        let mut consents = self.connection.prepare(sql)?;
        let read = |row: &Row<'_>| {
            let id = ChannelId { receiver: text(row, 0)?, open_block: row.get(1)? };
            let signature = Signature::parse(&row.get::<_, String>(3)?)
                .ok_or_else(|| rusqlite::Error::InvalidColumnType(3, "signature".into(), Type::Text))?;
            Ok((id, (text(row, 2)?, signature)))
        };
        consents.query_map([book], read)?.collect()
    }

    fn prices(&self, book: i64) -> rusqlite::Result<Vec<(RequestId, Price)>> {
        let sql = "SELECT request, price, receiver, seen FROM price WHERE book = ?1 ORDER BY request";
        let mut prices = self.connection.prepare(sql)?;
        let read = |row: &Row<'_>| {
            let seen = row.get::<_, i64>(3)? as u64;
            let trust = Trust::Blind { left: 1, of: 1 };
            Ok((request_id(row, 0)?, Price { price: text(row, 1)?, receiver: text(row, 2)?, seen, trust }))
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

/// Reads a value that is stored as text.
fn text<T: std::str::FromStr<Err: std::error::Error + Send + Sync + 'static>>(
    row: &Row<'_>,
    column: usize,
) -> rusqlite::Result<T> {
    row.get::<_, String>(column)?.parse().map_err(|error| unreadable(column, error))
}

fn host(row: &Row<'_>, column: usize) -> rusqlite::Result<Host> {
    row.get::<_, String>(column).map(Host::from)
}

fn optional(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Amount>> {
    match row.get::<_, Option<String>>(column)? {
        Some(_) => text(row, column).map(Some),
        None => Ok(None),
    }
}

fn unreadable(column: usize, error: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error))
}
