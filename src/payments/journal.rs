//! The journal: what was promised and what is under way, in an SQLite file that outlives a crash.
//!
//! One file, `tollpass.db`, readable with any SQLite tool. Amounts are decimal text, addresses and hashes are
//! hexadecimal text. Every write is one durable transaction (write-ahead log, synchronous = FULL).

pub(crate) mod writer;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ethers_core::rand::{RngCore as _, rngs::OsRng};
use ethers_core::utils::hex;
use rusqlite::{Connection, Row, params, types::Type};

use super::request_key::{KEY, Requests};
use super::unix_time;
use crate::protocol::channel::Unclear;
use crate::protocol::engine::{Host, Record};
use crate::protocol::quote::{Price, RequestId, Trust};
use crate::protocol::{Address, Amount, Channel, ChannelId, Facts, Intent, Phase, Signature};

/// The name of the file in the state folder.
pub const FILE: &str = "tollpass.db";

/// How long a write waits for another program that holds the file: whoever waits for a payment waits as long.
const BUSY_WITHIN: Duration = Duration::from_millis(500);
/// What each version of the schema adds to the one before it, from version 1 on.
const MIGRATIONS: &[&str] = &[SCHEMA, CONSENTS, PRESENTED, TOKENS, REQUEST_KEY];
const SCHEMA_VERSION: i64 = MIGRATIONS.len() as i64;
const SCHEMA: &str = "
    CREATE TABLE book (
        id INTEGER PRIMARY KEY,
        chain_id INTEGER NOT NULL,
        contract TEXT NOT NULL,
        payer TEXT NOT NULL,
        cursor INTEGER NOT NULL DEFAULT 0,
        UNIQUE (chain_id, contract, payer)
    );
    CREATE TABLE channel (
        book INTEGER NOT NULL REFERENCES book (id),
        receiver TEXT NOT NULL,
        open_block INTEGER NOT NULL,
        deposit TEXT NOT NULL,
        promised TEXT NOT NULL,
        reserved TEXT NOT NULL,
        acknowledged TEXT NOT NULL,
        unclear_total TEXT,
        unclear_price TEXT,
        phase TEXT NOT NULL CHECK (phase IN ('open', 'closing', 'gone')),
        settle_block INTEGER,
        PRIMARY KEY (book, receiver, open_block)
    );
    CREATE TABLE price (
        book INTEGER NOT NULL REFERENCES book (id),
        request TEXT NOT NULL,
        price TEXT NOT NULL,
        receiver TEXT NOT NULL,
        seen INTEGER NOT NULL,
        PRIMARY KEY (book, request)
    );
    CREATE TABLE seller (
        book INTEGER NOT NULL REFERENCES book (id),
        receiver TEXT NOT NULL,
        gateway TEXT NOT NULL,
        PRIMARY KEY (book, receiver)
    );
    CREATE TABLE intent (
        book INTEGER NOT NULL REFERENCES book (id),
        receiver TEXT NOT NULL,
        nonce INTEGER NOT NULL,
        hash TEXT NOT NULL,
        body TEXT NOT NULL,
        PRIMARY KEY (book, hash)
    );";
/// What came with version 2: signatures of sellers to close a channel.
const CONSENTS: &str = "
    CREATE TABLE consent (
        book INTEGER NOT NULL REFERENCES book (id),
        receiver TEXT NOT NULL,
        open_block INTEGER NOT NULL,
        total TEXT NOT NULL,
        signature TEXT NOT NULL,
        PRIMARY KEY (book, receiver, open_block)
    );";

/// What came with version 3: which total each seller was certainly shown, what was sent into channels, for which host, and
/// when. Before, what was acknowledged is the least that a seller was shown; a channel that nothing is known of may have been
/// found on the chain, so that its history is unknown; and a channel belongs to the host that told where its seller is.
const PRESENTED: &str = "
    ALTER TABLE channel ADD COLUMN presented TEXT NOT NULL DEFAULT '0';
    ALTER TABLE channel ADD COLUMN funded TEXT NOT NULL DEFAULT '0';
    ALTER TABLE channel ADD COLUMN doubt TEXT;
    UPDATE channel SET presented = acknowledged, funded = deposit;
    UPDATE channel SET doubt = unclear_total, unclear_total = NULL WHERE unclear_price IS NULL;
    CREATE TABLE channel_host (
        book INTEGER NOT NULL REFERENCES book (id),
        receiver TEXT NOT NULL,
        open_block INTEGER NOT NULL,
        host TEXT NOT NULL,
        PRIMARY KEY (book, receiver, open_block)
    );
    CREATE TABLE deposit (
        book INTEGER NOT NULL REFERENCES book (id),
        receiver TEXT NOT NULL,
        host TEXT NOT NULL,
        at INTEGER NOT NULL
    );
    CREATE TABLE gateway (
        book INTEGER NOT NULL REFERENCES book (id),
        host TEXT NOT NULL,
        receiver TEXT NOT NULL,
        url TEXT NOT NULL,
        PRIMARY KEY (book, host, receiver)
    );
    INSERT INTO gateway
        SELECT book, lower(CASE WHEN authority LIKE '[%'
            THEN substr(authority, 2, instr(authority, ']') - 2)
            ELSE substr(authority, 1, instr(authority || ':', ':') - 1) END), receiver, gateway
        FROM (SELECT *, substr(rest, 1, instr(rest || '/', '/') - 1) AS authority
            FROM (SELECT *, substr(gateway, instr(gateway, '://') + 3) AS rest FROM seller));
    DROP TABLE seller;
    UPDATE channel SET doubt = deposit
        WHERE promised = '0' AND acknowledged = '0' AND doubt IS NULL AND phase = 'open';
    INSERT INTO channel_host
        SELECT channel.book, channel.receiver, channel.open_block, gateway.host
        FROM channel JOIN gateway USING (book, receiver);";
/// How long it is kept when money was sent into channels, in seconds: longer than any limit looks back.
const DEPOSITS_KEPT: u64 = 31 * 24 * 3600;
/// What came with version 4: which token each contract named at first. It never changes.
const TOKENS: &str = "
    CREATE TABLE token (
        book INTEGER PRIMARY KEY REFERENCES book (id),
        token TEXT NOT NULL
    );";

/// What came with version 5: the key of the hashes by which requests are known in `price`. Before, their URLs stood there;
/// `is_swept` says that the file holds none of them any more.
const REQUEST_KEY: &str = "
    CREATE TABLE request_key (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        key BLOB NOT NULL,
        is_swept INTEGER NOT NULL DEFAULT 0
    );";
/// The first version in which requests are hashed.
const HASHED: i64 = 5;

/// The journal cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// SQLite reports an error.
    #[error("{}: {source}", path.display())]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        source: rusqlite::Error,
    },
    /// The same payer and contract are on record on another chain.
    #[error(
        "the node answers the chain id {found}, but {} remembers {payer} and the contract {contract} on chain {known}: check \
         chain.rpc_url, or set chain.chain_id = {found} if you mean that chain", path.display()
    )]
    OtherChain {
        /// The file.
        path: PathBuf,
        /// Who pays.
        payer: Address,
        /// The channel contract.
        contract: Address,
        /// What the node answers.
        found: u64,
        /// What is on record.
        known: u64,
    },
    /// The contract named another token before.
    #[error(
        "the contract {contract} names the token {found}, but {} remembers {known}, and it never changes: the node does not \
         tell the truth. Use another one (chain.rpc_url)", path.display()
    )]
    OtherToken {
        /// The file.
        path: PathBuf,
        /// The channel contract.
        contract: Address,
        /// What it names now.
        found: Address,
        /// What is on record.
        known: Address,
    },
    /// A write died half way; what it was to record was not acted on.
    #[error("the journal is closed after an internal error: restart tollpass")]
    Gone,
    /// The file was written by a newer version.
    #[error("{}: written by a newer version of tollpass (schema {found}, this one knows {SCHEMA_VERSION}): update", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: i64,
    },
}

/// The journal of a state folder.
#[derive(Debug)]
pub struct Store {
    connection: Connection,
    requests: Requests,
    path: PathBuf,
}

/// The part of the journal that belongs to one payer on one contract of one chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BookId(i64);

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

/// The files that SQLite keeps beside the journal.
pub fn beside(folder: &Path) -> [PathBuf; 2] {
    ["-wal", "-shm"].map(|end| folder.join(format!("{FILE}{end}")))
}

impl Store {
    /// Opens the journal in `folder`, or makes it.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        let path = folder.join(FILE);
        let failed = |source| StoreError::Sqlite { path: path.clone(), source };
        let mut connection = Connection::open(&path).map_err(failed)?;
        connection.busy_timeout(BUSY_WITHIN).map_err(failed)?;
        connection.pragma_update(None, "journal_mode", "WAL").map_err(failed)?;
        connection.pragma_update(None, "synchronous", "FULL").map_err(failed)?;
        // What is deleted is overwritten: it may tell what was asked for.
        connection.pragma_update(None, "secure_delete", "ON").map_err(failed)?;
        connection.pragma_update(None, "foreign_keys", "ON").map_err(failed)?;
        let found: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(failed)?;
        if found > SCHEMA_VERSION {
            return Err(StoreError::Newer { path, found });
        }
        if found < SCHEMA_VERSION {
            migrate(&mut connection, found).map_err(failed)?;
        }
        let requests = sweep(&connection).map_err(failed)?;
        Ok(Self { connection, requests, path })
    }

    /// What requests are known by in this journal.
    pub(super) fn requests(&self) -> Requests {
        self.requests.clone()
    }

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

    /// Makes records durable, all or none. When this returns `Ok` they survive a crash.
    pub fn write(&mut self, book: BookId, records: &[Record]) -> Result<(), StoreError> {
        self.try_write(book, records).map_err(|source| StoreError::Sqlite { path: self.path.clone(), source })
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

    fn try_write(&mut self, book: BookId, records: &[Record]) -> rusqlite::Result<()> {
        let transaction = self.connection.transaction()?;
        for record in records {
            match record {
                Record::Channel(id, channel) => write_channel(&transaction, book, id, channel)?,
                Record::Intent(intent) => write_intent(&transaction, book, intent)?,
                Record::IntentsSettled(receiver) => {
                    transaction
                        .prepare_cached("DELETE FROM intent WHERE book = ?1 AND receiver = ?2")?
                        .execute(params![book.0, receiver.to_string()])?;
                }
                Record::Gateway(host, receiver, url) => {
                    transaction
                        .prepare_cached("INSERT OR REPLACE INTO gateway VALUES (?1, ?2, ?3, ?4)")?
                        .execute(params![book.0, &**host, receiver.to_string(), url])?;
                }
                Record::Host(ChannelId { receiver, open_block }, host) => {
                    transaction
                        .prepare_cached("INSERT OR REPLACE INTO channel_host VALUES (?1, ?2, ?3, ?4)")?
                        .execute(params![book.0, receiver.to_string(), open_block, &**host])?;
                }
                Record::Deposit(receiver, host) => {
                    transaction
                        .prepare_cached("INSERT INTO deposit VALUES (?1, ?2, ?3, ?4)")?
                        .execute(params![book.0, receiver.to_string(), &**host, unix_time() as i64])?;
                }
                Record::Consent(id, total, signature) => {
                    transaction
                        .prepare_cached("INSERT OR REPLACE INTO consent VALUES (?1, ?2, ?3, ?4, ?5)")?
                        .execute(params![
                            book.0,
                            id.receiver.to_string(),
                            id.open_block,
                            total.to_string(),
                            signature.to_hex()
                        ])?;
                }
                Record::Price(request, price) => write_price(&transaction, book, request, price.as_ref())?,
                Record::Cursor(cursor) => {
                    transaction
                        .prepare_cached("UPDATE book SET cursor = ?2 WHERE id = ?1")?
                        .execute(params![book.0, *cursor as i64])?;
                }
            }
        }
        transaction.commit()
    }
}

fn write_channel(
    connection: &Connection,
    book: BookId,
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
            book.0,
            id.receiver.to_string(),
            id.open_block,
            channel.deposit.to_string(),
            channel.promised.to_string(),
            channel.reserved.to_string(),
            channel.acknowledged.to_string(),
            channel.unclear.map(|unclear| unclear.total.to_string()),
            channel.unclear.map(|unclear| unclear.price.to_string()),
            channel.phase.name(),
            settle_block,
            channel.presented.to_string(),
            channel.funded.to_string(),
            channel.doubt.map(|doubt| doubt.to_string()),
        ])?;
    if channel.phase == Phase::Gone {
        connection
            .prepare_cached("DELETE FROM consent WHERE book = ?1 AND receiver = ?2 AND open_block = ?3")?
            .execute(params![book.0, id.receiver.to_string(), id.open_block])?;
    }
    Ok(())
}

fn write_price(
    connection: &Connection,
    book: BookId,
    RequestId(request): &RequestId,
    price: Option<&Price>,
) -> rusqlite::Result<()> {
    let request = hex::encode(request);
    match price {
        Some(Price { price, receiver, seen, .. }) => connection
            .prepare_cached("INSERT OR REPLACE INTO price VALUES (?1, ?2, ?3, ?4, ?5)")?
            .execute(params![book.0, request, price.to_string(), receiver.to_string(), *seen as i64])?,
        None => connection
            .prepare_cached("DELETE FROM price WHERE book = ?1 AND request = ?2")?
            .execute(params![book.0, request])?,
    };
    Ok(())
}

/// Brings a file of an older version up to date, all or none of it.
fn migrate(connection: &mut Connection, found: i64) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    let missing = MIGRATIONS.iter().skip(usize::try_from(found).unwrap_or_default());
    let steps: String = missing.copied().collect();
    transaction.execute_batch(&steps)?;
    if found < HASHED {
        let mut key = [0; KEY];
        OsRng.fill_bytes(&mut key);
        transaction.execute("INSERT INTO request_key (id, key) VALUES (1, ?1)", [key])?;
        let requests = Requests::new(&key);
        let mut written = transaction.prepare("SELECT rowid, request FROM price")?;
        let read = |row: &Row<'_>| Ok((row.get::<_, i64>(0)?, requests.id(&row.get::<_, String>(1)?)));
        let known: Vec<_> = written.query_map([], read)?.collect::<rusqlite::Result<_>>()?;
        for (row, RequestId(id)) in known {
            let hashed = "UPDATE price SET request = ?2 WHERE rowid = ?1";
            transaction.prepare_cached(hashed)?.execute(params![row, hex::encode(id)])?;
        }
    }
    transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    transaction.commit()
}

/// Reads the key of requests. The first time, all that is free in the file and its log goes: older versions left URLs
/// there. A crash in between lets the next start do it.
fn sweep(connection: &Connection) -> rusqlite::Result<Requests> {
    let read = |row: &Row<'_>| Ok((row.get::<_, [u8; KEY]>(0)?, row.get::<_, bool>(1)?));
    let (key, is_swept) = connection.query_row("SELECT key, is_swept FROM request_key", [], read)?;
    if !is_swept {
        connection.execute_batch("VACUUM;")?;
        let is_busy: bool = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
        // Another program that reads keeps the log; it goes at a later start then.
        if !is_busy {
            connection.execute("UPDATE request_key SET is_swept = 1", [])?;
        }
    }
    Ok(Requests::new(&key))
}

fn request_id(row: &Row<'_>, column: usize) -> rusqlite::Result<RequestId> {
    let mut id = [0; 32];
    hex::decode_to_slice(row.get::<_, String>(column)?, &mut id)
        .map_err(|error| unreadable(column, error))?;
    Ok(RequestId(id))
}

fn write_intent(connection: &Connection, book: BookId, intent: &Intent) -> rusqlite::Result<()> {
    let body = serde_json::to_string(intent)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
    let hash = hex::encode_prefixed(intent.hash);
    connection
        .prepare_cached("INSERT OR REPLACE INTO intent VALUES (?1, ?2, ?3, ?4, ?5)")?
        .execute(params![book.0, intent.order.receiver().to_string(), intent.nonce as i64, hash, body])?;
    Ok(())
}

fn read_intent(row: &Row<'_>) -> rusqlite::Result<Intent> {
    let body: String = row.get(0)?;
    serde_json::from_str(&body).map_err(|error| unreadable(0, error))
}

fn read_channel(row: &Row<'_>) -> rusqlite::Result<(ChannelId, Channel)> {
    let id = ChannelId { receiver: text(row, 0)?, open_block: row.get(1)? };
    let unclear = optional(row, 6)?.zip(optional(row, 7)?).map(|(total, price)| Unclear { total, price });
    let phase = match row.get::<_, String>(8)?.as_str() {
        "open" => Phase::Open,
        "closing" => Phase::Closing { settle_block: row.get(9)? },
        _ => Phase::Gone,
    };
    let channel = Channel {
        deposit: text(row, 2)?,
        promised: text(row, 3)?,
        reserved: text(row, 4)?,
        acknowledged: text(row, 5)?,
        presented: text(row, 10)?,
        funded: text(row, 11)?,
        doubt: optional(row, 12)?,
        asks: true,
        signed: Amount::ZERO,
        payments: 0,
        unclear,
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

#[cfg(test)]
mod tests {
    use crate::payments::journal::*;
    use crate::protocol::Order;

    fn facts(payer: u8) -> Facts {
        let address = |byte| Address([byte; 20]);
        Facts { chain_id: 1337, contract: address(0xcc), token: address(0x70), payer: address(payer) }
    }

    fn channel(phase: Phase) -> Channel {
        Channel {
            deposit: Amount::MAX,
            promised: 30.into(),
            reserved: 90.into(),
            acknowledged: 20.into(),
            presented: 25.into(),
            funded: Amount::MAX,
            doubt: Some(95.into()),
            asks: true,
            signed: Amount::ZERO,
            payments: 0,
            unclear: Some(Unclear { total: 30.into(), price: 10.into() }),
            phase,
        }
    }

    #[test]
    fn what_was_written_is_there_after_reopening_and_belongs_to_its_payer() {
        let folder = tempfile::tempdir().unwrap();
        let id = |open_block| ChannelId { receiver: Address([0xbb; 20]), open_block };
        let order = Order::Open { receiver: Address([0xbb; 20]), deposit: 100.into() };
        let intent = |nonce| Intent {
            order,
            moves: true,
            nonce,
            hash: [nonce as u8; 32],
            raw: vec![1, 2, 3],
            host: None,
        };
        let channels = vec![
            (id(1), channel(Phase::Open)),
            (id(2), channel(Phase::Closing { settle_block: u32::MAX })),
            (id(3), Channel { unclear: None, ..channel(Phase::Gone) }),
        ];

        let mut store = Store::open(folder.path()).unwrap();
        let book = store.load(&facts(0xaa)).unwrap().book;
        let mut records: Vec<Record> =
            channels.iter().map(|(id, channel)| Record::Channel(*id, *channel)).collect();
        records.extend([Record::Intent(intent(11)), Record::Intent(intent(9)), Record::Cursor(77)]);
        store.write(book, &records).unwrap();
        drop(store);

        let mut store = Store::open(folder.path()).unwrap();
        let contents = store.load(&facts(0xaa)).unwrap();
        assert_eq!(contents.channels, channels);
        assert_eq!(contents.intents, [intent(9), intent(11)]);
        assert_eq!(contents.cursor, 77);
        assert!(store.load(&facts(0xab)).unwrap().channels.is_empty());
        let consent = (Amount::from(30), Signature([7; 65]));
        for id in [id(1), id(2)] {
            store.write(book, &[Record::Consent(id, consent.0, consent.1)]).unwrap();
        }
        // Once the channel is gone nobody needs it any more.
        store.write(book, &[Record::Channel(id(2), channel(Phase::Gone))]).unwrap();
        assert_eq!(store.load(&facts(0xaa)).unwrap().consents, [(id(1), consent)]);
        store.write(book, &[Record::Channel(id(2), channels[1].1)]).unwrap();
        store.write(book, &[Record::IntentsSettled(Address([0xbb; 20]))]).unwrap();
        assert!(store.load(&facts(0xaa)).unwrap().intents.is_empty());
        let all = store.all().unwrap();
        assert_eq!(all.len(), 2);
        let without_host = |(id, channel)| (id, channel, None);
        assert_eq!(all[0].1, channels.into_iter().map(without_host).collect::<Vec<_>>());
    }

    #[test]
    fn another_chain_or_token_than_on_record_is_refused_unless_the_chain_is_chosen() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::open(folder.path()).unwrap();
        let known = facts(0xaa);
        store.verify(&known, false).unwrap();
        store.load(&known).unwrap();
        store.verify(&known, false).unwrap();
        store.verify(&facts(0xab), false).unwrap();
        let elsewhere = Facts { chain_id: 1, ..known };
        let error = store.verify(&elsewhere, false).unwrap_err();
        assert!(matches!(error, StoreError::OtherChain { found: 1, known: 1337, .. }), "{error}");
        assert!(error.to_string().contains("set chain.chain_id = 1 if"), "{error}");
        store.verify(&elsewhere, true).unwrap();
        store.load(&elsewhere).unwrap();
        store.verify(&elsewhere, false).unwrap();
        store.verify(&known, false).unwrap();
        let token = Address([0x71; 20]);
        for is_chosen in [false, true] {
            let error = store.verify(&Facts { token, ..known }, is_chosen).unwrap_err();
            assert!(matches!(error, StoreError::OtherToken { found, .. } if found == token), "{error}");
        }
        store.verify(&Facts { token, ..elsewhere }, true).unwrap_err();
    }

    #[test]
    fn a_file_of_the_first_version_is_brought_up_to_date() {
        let folder = tempfile::tempdir().unwrap();
        let old = Connection::open(folder.path().join(FILE)).unwrap();
        old.execute_batch(&format!("{SCHEMA} PRAGMA user_version = 1;")).unwrap();
        drop(old);
        let mut store = Store::open(folder.path()).unwrap();
        let book = store.load(&facts(0xaa)).unwrap().book;
        let id = ChannelId { receiver: Address([0xbb; 20]), open_block: 1 };
        store.write(book, &[Record::Consent(id, 5.into(), Signature([7; 65]))]).unwrap();
        drop(store);
        assert_eq!(Store::open(folder.path()).unwrap().load(&facts(0xaa)).unwrap().consents.len(), 1);
    }

    /// What all files of a folder hold.
    fn bytes_of(folder: &Path) -> Vec<u8> {
        let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
        files.flat_map(|path| std::fs::read(path).unwrap()).collect()
    }

    fn holds(folder: &Path, text: &str) -> bool {
        bytes_of(folder).windows(text.len()).any(|part| part == text.as_bytes())
    }

    #[test]
    fn urls_of_an_older_file_are_hashed_and_leave_no_trace() {
        for version in 1..HASHED {
            let folder = tempfile::tempdir().unwrap();
            let request =
                |number: usize, size| format!("GET https://a.example/x?hunter2={number}{}", "y".repeat(size));
            let old = Connection::open(folder.path().join(FILE)).unwrap();
            old.pragma_update(None, "journal_mode", "WAL").unwrap();
            let steps: String = MIGRATIONS[..version as usize].concat();
            old.execute_batch(&format!("{steps} PRAGMA user_version = {version};")).unwrap();
            let Facts { chain_id, contract, payer, .. } = facts(0xaa);
            old.execute(
                "INSERT INTO book (id, chain_id, contract, payer) VALUES (1, ?1, ?2, ?3)",
                params![chain_id as i64, contract.to_string(), payer.to_string()],
            )
            .unwrap();
            for (number, size) in [0, 10, 60_000, 5_000].into_iter().enumerate() {
                let row = params![request(number, size), Address([0xbb; 20]).to_string(), unix_time() as i64];
                old.execute("INSERT INTO price VALUES (1, ?1, '5', ?2, ?3)", row).unwrap();
            }
            // What was forgotten before is still in pages that are free.
            old.execute("DELETE FROM price WHERE request = ?1", [request(3, 5_000)]).unwrap();
            assert!(holds(folder.path(), "hunter2=3"));
            drop(old);

            let mut store = Store::open(folder.path()).unwrap();
            assert!(!holds(folder.path(), "hunter2"), "version {version}, while it is open");
            let mut prices = store.load(&facts(0xaa)).unwrap().prices;
            let mut expected: Vec<RequestId> = [(0, 0), (1, 10), (2, 60_000)]
                .map(|(number, size)| store.requests().id(&request(number, size)))
                .into();
            expected.sort_unstable();
            prices.sort_unstable_by_key(|(id, _)| *id);
            assert_eq!(prices.iter().map(|(id, _)| *id).collect::<Vec<_>>(), expected);
            assert_eq!(prices[0].1.price, 5.into());
            drop(store);
            assert!(!holds(folder.path(), "hunter2"), "version {version}");
            let store = Store::open(folder.path()).unwrap();
            assert!(expected.contains(&store.requests().id(&request(1, 10))), "the key stays the same");
            assert!(!format!("{store:?}").contains("Hmac"));
        }
    }

    #[test]
    fn a_sweep_that_was_cut_off_is_done_at_the_next_start() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        store.connection.pragma_update(None, "secure_delete", "OFF").unwrap();
        store
            .connection
            .execute_batch(
                "UPDATE request_key SET is_swept = 0; CREATE TABLE t (x); INSERT INTO t VALUES ('hunter2'); DROP TABLE t;",
            )
            .unwrap();
        drop(store);
        assert!(holds(folder.path(), "hunter2"));
        let store = Store::open(folder.path()).unwrap();
        assert!(!holds(folder.path(), "hunter2"));
        let swept =
            store.connection.query_row("SELECT is_swept FROM request_key", [], |row| row.get::<_, bool>(0));
        assert!(swept.unwrap());
    }

    #[test]
    fn another_journal_knows_the_same_request_by_another_hash() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let id = |folder: &Path| Store::open(folder).unwrap().requests().id("GET http://a.example/");
        assert_eq!(id(one.path()), id(one.path()));
        assert_ne!(id(one.path()), id(other.path()));
    }

    #[test]
    fn a_file_of_a_newer_version_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        Store::open(folder.path()).unwrap().connection.pragma_update(None, "user_version", 99).unwrap();
        assert!(matches!(Store::open(folder.path()), Err(StoreError::Newer { found: 99, .. })));
    }
}
