//! The tables of the ledger, and their rows.

use std::collections::BTreeMap;
use std::sync::Arc;

use rusqlite::types::Type;
use rusqlite::{Connection, Row, params};

use super::parties::LedgerParties;
use super::row::{AmountTexts, LedgerRow, LedgerState, OnChainUse};
use super::seal::RowSeal;
use super::sums::{LedgerSum, SumKey};
use crate::protocol::Amount;

/// The tables of version 8. `ledger_chain` has the head of each payer's chain of rows, their size, and the end of what was removed from their start;
/// `ledger_open` the payments that wait for another row; `ledger_channel` what the rows of a channel add up to; `ledger_sum`
/// the sums of removed rows.
pub(in crate::payments) const LEDGER: &str = "
    CREATE TABLE ledger_chain (
        id INTEGER PRIMARY KEY,
        payer TEXT NOT NULL UNIQUE,
        seq INTEGER NOT NULL,
        seal BLOB NOT NULL,
        size INTEGER NOT NULL,
        start_seq INTEGER NOT NULL,
        start_seal BLOB NOT NULL,
        sums_seal BLOB NOT NULL
    );
    CREATE TABLE ledger (
        chain INTEGER NOT NULL,
        seq INTEGER NOT NULL,
        at INTEGER NOT NULL,
        payment INTEGER NOT NULL,
        state TEXT NOT NULL,
        previous TEXT NOT NULL,
        counted TEXT NOT NULL,
        method TEXT NOT NULL,
        host TEXT NOT NULL,
        path TEXT NOT NULL,
        client TEXT NOT NULL,
        rule TEXT NOT NULL,
        budgets TEXT NOT NULL,
        scheme TEXT NOT NULL,
        payee TEXT NOT NULL,
        network TEXT NOT NULL,
        token TEXT NOT NULL,
        price TEXT NOT NULL,
        counts TEXT NOT NULL,
        adjusts TEXT NOT NULL,
        channel TEXT NOT NULL,
        total TEXT NOT NULL,
        nonce TEXT NOT NULL,
        receipt TEXT NOT NULL,
        seal BLOB NOT NULL,
        PRIMARY KEY (chain, seq)
    ) WITHOUT ROWID;
    CREATE TABLE ledger_open (
        chain INTEGER NOT NULL,
        payment INTEGER NOT NULL,
        seq INTEGER NOT NULL,
        PRIMARY KEY (chain, payment)
    ) WITHOUT ROWID;
    CREATE TABLE ledger_channel (
        chain INTEGER NOT NULL,
        book INTEGER NOT NULL,
        receiver TEXT NOT NULL,
        open_block INTEGER NOT NULL,
        counts TEXT NOT NULL,
        is_settled INTEGER NOT NULL,
        PRIMARY KEY (chain, book, receiver, open_block)
    ) WITHOUT ROWID;
    CREATE TABLE ledger_sum (
        chain INTEGER NOT NULL,
        day INTEGER NOT NULL,
        network TEXT NOT NULL,
        token TEXT NOT NULL,
        host TEXT NOT NULL,
        client TEXT NOT NULL,
        rule TEXT NOT NULL,
        payments INTEGER NOT NULL,
        paid TEXT NOT NULL,
        in_flight TEXT NOT NULL,
        in_doubt TEXT NOT NULL,
        unknown TEXT NOT NULL,
        PRIMARY KEY (chain, day, network, token, host, client, rule)
    ) WITHOUT ROWID;";

/// The tables of version 11. The columns that many rows share have a table of their own, which saves half of a row's size and of
/// the time to write it. `parties` is the number of the first row with them; both rows are in the same era.
pub(in crate::payments) const PARTIES: &str = "
    CREATE TABLE ledger_parties (
        chain INTEGER NOT NULL,
        seq INTEGER NOT NULL,
        host TEXT NOT NULL,
        client TEXT NOT NULL,
        rule TEXT NOT NULL,
        budgets TEXT NOT NULL,
        scheme TEXT NOT NULL,
        payee TEXT NOT NULL,
        network TEXT NOT NULL,
        token TEXT NOT NULL,
        channel TEXT NOT NULL,
        PRIMARY KEY (chain, seq)
    ) WITHOUT ROWID;
    INSERT INTO ledger_parties
        SELECT chain, seq, host, client, rule, budgets, scheme, payee, network, token, channel FROM ledger;
    ALTER TABLE ledger RENAME TO whole_ledger;
    CREATE TABLE ledger (
        chain INTEGER NOT NULL,
        seq INTEGER NOT NULL,
        parties INTEGER NOT NULL,
        at INTEGER NOT NULL,
        payment INTEGER NOT NULL,
        state TEXT NOT NULL,
        previous TEXT NOT NULL,
        counted TEXT NOT NULL,
        method TEXT NOT NULL,
        path TEXT NOT NULL,
        price TEXT NOT NULL,
        counts TEXT NOT NULL,
        adjusts TEXT NOT NULL,
        total TEXT NOT NULL,
        nonce TEXT NOT NULL,
        receipt TEXT NOT NULL,
        seal BLOB NOT NULL,
        PRIMARY KEY (chain, seq)
    ) WITHOUT ROWID;
    INSERT INTO ledger
        SELECT chain, seq, seq, at, payment, state, previous, counted, method, path, price, counts, adjusts, total, nonce,
            receipt, seal
        FROM whole_ledger;
    DROP TABLE whole_ledger;";
/// The first version with [`PARTIES`].
pub(super) const PARTIES_VERSION: i64 = 11;

/// Version 19: what the chain has shown about a payment, apart from what the seller states, and the offer that the seller has
/// signed.
pub(in crate::payments) const CONFIRMATIONS: &str = "
    ALTER TABLE ledger ADD COLUMN confirmation TEXT NOT NULL DEFAULT '';
    ALTER TABLE ledger ADD COLUMN offer TEXT NOT NULL DEFAULT '';";
/// The first version with [`CONFIRMATIONS`].
pub(super) const CONFIRMATIONS_VERSION: i64 = 19;

/// How many rows in a row may share columns. Rows are removed oldest first, and with the last one of an era its parties.
const ERA: u64 = 4096;

/// Whether the row `seq` may refer to the parties that the row `first` introduced.
pub(super) fn share_an_era(seq: u64, first: u64) -> bool {
    seq / ERA == first / ERA
}

/// Selects rows with all their columns, in the order of [`read`], from a journal of this version.
pub(in crate::payments) fn select(version: i64) -> String {
    let from = match version {
        ..PARTIES_VERSION => "ledger",
        // A row without its parties is seen, and cannot be read.
        _ => {
            "ledger LEFT JOIN ledger_parties AS shared ON shared.chain = ledger.chain AND shared.seq = ledger.parties"
        }
    };
    let later = if version < CONFIRMATIONS_VERSION { "'', ''" } else { "confirmation, offer" };
    format!(
        "SELECT ledger.seq AS seq, at, payment, state, previous, counted, method, host, path, client, rule, budgets, scheme,
            payee, network, token, price, counts, adjusts, channel, total, nonce, receipt, seal, {later}
         FROM {from}"
    )
}

/// Adds a row, whose parties were introduced by the row `first`.
pub(super) fn insert(
    connection: &Connection,
    chain: i64,
    (row, amounts): (&LedgerRow, &AmountTexts),
    first: u64,
    seal: RowSeal,
) -> rusqlite::Result<()> {
    if first == row.seq {
        insert_parties(connection, chain, row)?;
    }
    let sql = "INSERT INTO ledger VALUES
        (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19)";
    connection.prepare_cached(sql)?.execute(params![
        chain,
        row.seq as i64,
        first as i64,
        row.at as i64,
        row.payment as i64,
        row.state.name(),
        row.previous.map_or("", |(state, _)| state.name()),
        amounts.counted,
        row.method,
        row.path,
        amounts.price,
        amounts.counts,
        amounts.adjusts,
        amounts.total,
        row.nonce,
        row.receipt,
        seal.0,
        row.confirmation.map(OnChainUse::name).unwrap_or_default(),
        row.offer,
    ])?;
    Ok(())
}

fn insert_parties(connection: &Connection, chain: i64, row: &LedgerRow) -> rusqlite::Result<()> {
    let LedgerParties { host, client, rule, budgets, scheme, payee, network, token, channel } = &*row.parties;
    let budgets = match budgets.is_empty() {
        true => String::new(),
        false => serde_json::to_string(budgets)
            .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?,
    };
    let sql = "INSERT INTO ledger_parties VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)";
    let seq = row.seq as i64;
    connection
        .prepare_cached(sql)?
        .execute(params![chain, seq, host, client, rule, budgets, scheme, payee, network, token, channel])?;
    Ok(())
}

/// Removes the rows up to `last`, and the parties of eras without rows.
pub(super) fn remove(connection: &Connection, chain: i64, last: i64) -> rusqlite::Result<()> {
    connection.prepare_cached("DELETE FROM ledger WHERE chain = ?1 AND seq <= ?2")?.execute([chain, last])?;
    let era = (last as u64).saturating_add(1) / ERA * ERA;
    connection
        .prepare_cached("DELETE FROM ledger_parties WHERE chain = ?1 AND seq < ?2")?
        .execute([chain, era as i64])?;
    Ok(())
}

/// Reads a row and its code.
///
/// # Errors
/// A column does not have its form.
pub(in crate::payments) fn read(row: &Row<'_>) -> rusqlite::Result<(LedgerRow, RowSeal)> {
    let state = |column: usize| -> rusqlite::Result<Option<LedgerState>> {
        let name: String = row.get(column)?;
        match LedgerState::parse(&name) {
            None if !name.is_empty() => Err(invalid(column, "not a state")),
            state => Ok(state),
        }
    };
    let amount = |column: usize| -> rusqlite::Result<Option<Amount>> {
        let digits: String = row.get(column)?;
        match digits.as_str() {
            "" => Ok(None),
            digits => digits.parse().map(Some).map_err(|error| invalid(column, error)),
        }
    };
    let required = |column: usize| amount(column)?.ok_or_else(|| invalid(column, "no amount"));
    let number = |column: usize| row.get::<_, i64>(column).map(|number| number as u64);
    let budgets: String = row.get(11)?;
    let budgets = match budgets.as_str() {
        "" => Vec::new(),
        names => serde_json::from_str(names).map_err(|error| invalid(11, error))?,
    };
    let adjusts: String = row.get(18)?;
    let parties = LedgerParties {
        host: row.get(7)?,
        client: row.get(9)?,
        rule: row.get(10)?,
        budgets,
        scheme: row.get(12)?,
        payee: row.get(13)?,
        network: row.get(14)?,
        token: row.get(15)?,
        channel: row.get(19)?,
    };
    let confirmation: String = row.get(24)?;
    let confirmation = match confirmation.as_str() {
        "" => None,
        name => Some(OnChainUse::parse(name).ok_or_else(|| invalid(24, "not what a chain shows"))?),
    };
    let read = LedgerRow {
        seq: number(0)?,
        at: number(1)?,
        payment: number(2)?,
        state: state(3)?.ok_or_else(|| invalid(3, "not a state"))?,
        previous: state(4)?.zip(amount(5)?),
        parties: Arc::new(parties),
        method: row.get(6)?,
        path: row.get(8)?,
        price: required(16)?,
        counts: required(17)?,
        adjusts: adjusts.parse().map_err(|error| invalid(18, error))?,
        total: amount(20)?,
        nonce: row.get(21)?,
        receipt: row.get(22)?,
        confirmation,
        offer: row.get(25)?,
    };
    Ok((read, RowSeal(row.get(23)?)))
}

/// Reads the sums of the rows that were removed from a chain.
pub(in crate::payments) fn read_sums(
    connection: &Connection,
    chain: i64,
) -> rusqlite::Result<BTreeMap<SumKey, LedgerSum>> {
    let sql = "SELECT day, network, token, host, client, rule, payments, paid, in_flight, in_doubt, unknown FROM ledger_sum
         WHERE chain = ?1";
    let mut sums = connection.prepare_cached(sql)?;
    let read = |row: &Row<'_>| {
        let signed = |column: usize| {
            let digits: String = row.get(column)?;
            digits.parse().map_err(|error| invalid(column, error))
        };
        let key = SumKey {
            day: row.get::<_, i64>(0)? as u64,
            network: row.get(1)?,
            token: row.get(2)?,
            host: row.get(3)?,
            client: row.get(4)?,
            rule: row.get(5)?,
        };
        let payments = row.get::<_, i64>(6)? as u64;
        let (paid, in_flight, in_doubt, unknown) = (signed(7)?, signed(8)?, signed(9)?, signed(10)?);
        Ok((key, LedgerSum { payments, paid, in_flight, in_doubt, unknown }))
    };
    sums.query_map([chain], read)?.collect()
}

/// Replaces the sums of the rows that were removed from a chain.
pub(super) fn write_sums(
    connection: &Connection,
    chain: i64,
    sums: &BTreeMap<SumKey, LedgerSum>,
) -> rusqlite::Result<()> {
    connection.prepare_cached("DELETE FROM ledger_sum WHERE chain = ?1")?.execute([chain])?;
    let sql = "INSERT INTO ledger_sum VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)";
    let mut insert = connection.prepare_cached(sql)?;
    for (SumKey { day, network, token, host, client, rule }, sum) in sums {
        insert.execute(params![
            chain,
            *day as i64,
            network,
            token,
            host,
            client,
            rule,
            sum.payments as i64,
            sum.paid.to_string(),
            sum.in_flight.to_string(),
            sum.in_doubt.to_string(),
            sum.unknown.to_string(),
        ])?;
    }
    Ok(())
}

fn invalid(
    column: usize,
    error: impl Into<Box<dyn std::error::Error + Send + Sync + 'static>>,
) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, error.into())
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::option;
    use proptest::prelude::*;

    use crate::payments::ledger::seal::LedgerKey;
    use crate::payments::ledger::signed_amount::SignedAmount;
    use crate::payments::ledger::tables::*;

    prop_compose! {
        fn any_row()(
            (seq, at, payment) in (1..100_u64, 0..u64::MAX >> 4, 0..u64::MAX >> 4),
            (state, before) in (0..11_usize, option::of((0..11_usize, 0..9_u64))),
            texts in vec("[a-z\0é]{0,3}", 13),
            budgets in vec("[a-z\"]{0,3}", 0..3),
            amounts in vec(0..u64::MAX, 4),
            total in option::of(0..9_u64),
            confirmation in option::of(prop_oneof![Just(OnChainUse::Used), Just(OnChainUse::Unused)]),
        ) -> LedgerRow {
            let names = ["held", "sent", "paid", "paid-not-delivered", "refused", "in-doubt", "expired", "unsent",
                "recovered", "settled", "gap"];
            let state_of = |index: usize| LedgerState::parse(names[index]).unwrap();
            let text = |index: usize| texts[index].clone();
            let parties = LedgerParties {
                host: text(1),
                client: text(3),
                rule: text(4),
                budgets,
                scheme: text(5),
                payee: text(6),
                network: text(7),
                token: text(8),
                channel: text(9),
            };
            LedgerRow {
                seq,
                at,
                payment,
                state: state_of(state),
                previous: before.map(|(state, counted)| (state_of(state), counted.into())),
                parties: Arc::new(parties),
                method: text(0),
                path: text(2),
                price: amounts[0].into(),
                counts: amounts[1].into(),
                adjusts: SignedAmount::difference(amounts[2].into(), amounts[3].into()),
                total: total.map(Amount::from),
                nonce: text(10),
                receipt: text(11),
                confirmation,
                offer: text(12),
            }
        }
    }

    proptest! {
        #[test]
        fn a_row_survives_the_journal_and_has_an_encoding_of_its_own(one in any_row(), other in any_row()) {
            let connection = Connection::open_in_memory().unwrap();
            connection.execute_batch(&[LEDGER, PARTIES, CONFIRMATIONS].concat()).unwrap();
            let key = LedgerKey::new(&[7; 32]);
            let seal = key.seal(RowSeal::default(), &one.encode());
            insert(&connection, 1, (&one, &one.amounts()), one.seq, seal).unwrap();
            let (read, code) = connection.query_row(&select(CONFIRMATIONS_VERSION), [], read).unwrap();
            prop_assert_eq!(&read, &one);
            prop_assert_eq!(code, key.seal(RowSeal::default(), &read.encode()));
            prop_assert_eq!(one.encode() == other.encode(), one == other);
            // Strings of neighbouring columns run into each other in no encoding.
            let host = format!("{}{}", one.parties.host, one.path);
            let parties = Arc::new(LedgerParties { host, ..LedgerParties::clone(&one.parties) });
            let moved = LedgerRow { parties, path: String::new(), ..one.clone() };
            prop_assert_eq!(one.encode() == moved.encode(), one == moved);
            prop_assert_ne!(key.seal(RowSeal([1; 32]), &one.encode()), code, "the row before counts");
        }
    }
}
