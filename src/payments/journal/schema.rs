//! The tables of the journal, and the migration of older files.

use ethers_core::rand::{RngCore as _, rngs::OsRng};
use ethers_core::utils::hex;
use rusqlite::{Connection, Row, params};

use crate::payments::ledger::{CONFIRMATIONS, LEDGER, PARTIES};
use crate::payments::request_hasher::{KEY, RequestHasher};
use crate::protocol::quote::RequestId;

/// The migrations to each version of the schema, from version 1 on.
pub(super) const MIGRATIONS: &[&str] = &[
    SCHEMA,
    CONSENTS,
    PRESENTED,
    TOKENS,
    REQUEST_KEY,
    AUTHORIZATIONS,
    APPROVALS,
    LEDGER,
    BUDGETS,
    PAUSES,
    PARTIES,
    FEES,
    PAID_PRICES,
    PURCHASES,
    SIGNATURES,
    ALLOWANCES,
    USAGE,
    SERVED,
    CONFIRMATIONS,
    QUARTERS,
];
pub(super) const SCHEMA_VERSION: i64 = MIGRATIONS.len() as i64;
/// The first version with a ledger.
pub const LEDGER_VERSION: i64 = 8;
/// The first version with budgets.
pub(super) const BUDGETS_VERSION: i64 = 9;
pub(super) const SCHEMA: &str = "
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
/// Version 2: closing signatures of sellers.
const CONSENTS: &str = "
    CREATE TABLE consent (
        book INTEGER NOT NULL REFERENCES book (id),
        receiver TEXT NOT NULL,
        open_block INTEGER NOT NULL,
        total TEXT NOT NULL,
        signature TEXT NOT NULL,
        PRIMARY KEY (book, receiver, open_block)
    );";

/// Version 3: the total that each seller was certainly presented, and deposits with their host and time. For older rows,
/// `acknowledged` is the least that a seller was presented; a channel without any total may have been found on the chain, so
/// that its history is unknown; and a channel belongs to the host that named its seller's URL.
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
/// Version 4: the token that each contract first reported. It never changes.
const TOKENS: &str = "
    CREATE TABLE token (
        book INTEGER PRIMARY KEY REFERENCES book (id),
        token TEXT NOT NULL
    );";

/// Version 5: `price` contains hashes of requests instead of their URLs, keyed with this key; `is_swept` once the file
/// contains no more URLs.
const REQUEST_KEY: &str = "
    CREATE TABLE request_key (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        key BLOB NOT NULL,
        is_swept INTEGER NOT NULL DEFAULT 0
    );";
/// Version 6: signed authorizations of one-shot schemes that a payee may still redeem, whatever the outcome of their
/// requests.
const AUTHORIZATIONS: &str = "
    CREATE TABLE authorization (
        nonce TEXT PRIMARY KEY,
        scheme TEXT NOT NULL,
        amount TEXT NOT NULL,
        asset TEXT NOT NULL,
        payee TEXT NOT NULL,
        at INTEGER NOT NULL
    );";
/// Version 7: payments that the operator has approved in advance.
const APPROVALS: &str = "
    CREATE TABLE approval (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        host TEXT NOT NULL,
        payee TEXT NOT NULL,
        network TEXT NOT NULL,
        token TEXT NOT NULL,
        max_price TEXT NOT NULL,
        since INTEGER NOT NULL,
        until INTEGER NOT NULL
    );";

/// Version 9: what budgets have spent, by the first minute (since 1970) of each bucket of a window; and the totals of
/// channels that may be signed without another record, with their budgets. `frozen` has a row while nothing may be signed.
const BUDGETS: &str = "
    CREATE TABLE budget (
        name TEXT NOT NULL,
        unit TEXT NOT NULL,
        host TEXT NOT NULL,
        period TEXT NOT NULL,
        start INTEGER NOT NULL,
        spent TEXT NOT NULL,
        payments INTEGER NOT NULL,
        PRIMARY KEY (name, unit, host, period, start)
    );
    CREATE TABLE hold (
        book INTEGER NOT NULL REFERENCES book (id),
        receiver TEXT NOT NULL,
        open_block INTEGER NOT NULL,
        body TEXT NOT NULL,
        PRIMARY KEY (book, receiver, open_block)
    );
    CREATE TABLE frozen (id INTEGER PRIMARY KEY CHECK (id = 1));";
/// Version 10: hosts that are not paid until the operator resumes them.
const PAUSES: &str = "
    CREATE TABLE paused_host (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        host TEXT NOT NULL UNIQUE,
        since INTEGER NOT NULL
    );";
/// Version 12: the most that each transaction of the last day can cost, in wei, and when it was signed.
const FEES: &str = "
    CREATE TABLE fee (
        book INTEGER NOT NULL REFERENCES book (id),
        hash TEXT NOT NULL,
        at INTEGER NOT NULL,
        most TEXT NOT NULL,
        PRIMARY KEY (book, hash)
    );";
/// Version 13: the lowest price that was paid for each method, path and asset, by a hash of these.
const PAID_PRICES: &str = "
    CREATE TABLE paid_price (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        request BLOB NOT NULL UNIQUE,
        host TEXT NOT NULL,
        lowest TEXT NOT NULL
    );
    ALTER TABLE paused_host ADD COLUMN is_price_rise INTEGER NOT NULL DEFAULT 0;";
/// Version 14: authorizations that expire, with what presents them again, a hash of their purchase, and until when one that was
/// taken and not delivered is not repeated.
const PURCHASES: &str = "
    ALTER TABLE authorization ADD COLUMN purchase BLOB;
    ALTER TABLE authorization ADD COLUMN payer TEXT;
    ALTER TABLE authorization ADD COLUMN payment TEXT;
    ALTER TABLE authorization ADD COLUMN valid_before INTEGER;
    ALTER TABLE authorization ADD COLUMN taken_until INTEGER;";
/// Version 15: an external signer's signature of an authorization.
const SIGNATURES: &str = "
    ALTER TABLE authorization ADD COLUMN signature TEXT;";
/// Version 16: transactions of the last day that set allowances, by the hash that was signed, and the most that each can cost,
/// in wei. `body` is what was signed or, until an external signer has answered, what it is asked for.
const ALLOWANCES: &str = "
    CREATE TABLE allowance (
        chain_id INTEGER NOT NULL,
        payer TEXT NOT NULL,
        hash TEXT NOT NULL,
        nonce INTEGER NOT NULL,
        body TEXT NOT NULL,
        at INTEGER NOT NULL,
        most TEXT NOT NULL,
        PRIMARY KEY (chain_id, payer, hash)
    );";
/// Version 17: the host of an authorization, what it counts for in its budgets, and whether the chain has shown that it was used.
const USAGE: &str = "
    ALTER TABLE authorization ADD COLUMN host TEXT NOT NULL DEFAULT '';
    ALTER TABLE authorization ADD COLUMN counted TEXT NOT NULL DEFAULT '[]';
    ALTER TABLE authorization ADD COLUMN is_used INTEGER NOT NULL DEFAULT 0;";
/// Version 18: whether the payment of an authorization was served, so that the chain only confirms it.
const SERVED: &str = "
    ALTER TABLE authorization ADD COLUMN is_served INTEGER NOT NULL DEFAULT 0;";
/// Version 20: the buckets of calendar weeks and months are quarters of an hour, instead of whole hours. What was spent within
/// an hour may have been spent in its last quarter.
const QUARTERS: &str = "
    UPDATE budget SET start = start + 45 WHERE period IN ('per_calendar_week', 'per_calendar_month');";
/// The first version in which requests are hashed.
pub(super) const HASHED: i64 = 5;

/// Migrates a file of version `found` in one transaction.
pub(super) fn migrate(connection: &mut Connection, found: i64) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    let missing = MIGRATIONS.iter().skip(usize::try_from(found).unwrap_or_default());
    let steps: String = missing.copied().collect();
    transaction.execute_batch(&steps)?;
    if found < HASHED {
        let mut key = [0; KEY];
        OsRng.fill_bytes(&mut key);
        transaction.execute("INSERT INTO request_key (id, key) VALUES (1, ?1)", [key])?;
        let hasher = RequestHasher::new(&key);
        let mut written = transaction.prepare("SELECT rowid, request FROM price")?;
        let read = |row: &Row<'_>| Ok((row.get::<_, i64>(0)?, hasher.id(&row.get::<_, String>(1)?)));
        let known: Vec<_> = written.query_map([], read)?.collect::<rusqlite::Result<_>>()?;
        for (row, RequestId(id)) in known {
            let hashed = "UPDATE price SET request = ?2 WHERE rowid = ?1";
            transaction.prepare_cached(hashed)?.execute(params![row, hex::encode(id)])?;
        }
    }
    transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    transaction.commit()
}

/// Reads the key of request hashes. The first time, clears free pages and the write-ahead log, where older versions
/// left URLs; if a crash interrupts that, the next start repeats it.
pub(super) fn sweep(connection: &Connection) -> rusqlite::Result<RequestHasher> {
    let read = |row: &Row<'_>| Ok((row.get::<_, [u8; KEY]>(0)?, row.get::<_, bool>(1)?));
    let (key, is_swept) = connection.query_row("SELECT key, is_swept FROM request_key", [], read)?;
    if !is_swept {
        connection.execute_batch("VACUUM;")?;
        let is_busy: bool = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
        // If another reader keeps the log, a later start clears it.
        if !is_busy {
            connection.execute("UPDATE request_key SET is_swept = 1", [])?;
        }
    }
    Ok(RequestHasher::new(&key))
}
