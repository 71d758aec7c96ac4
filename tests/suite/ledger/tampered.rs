//! Verification finds every change to the rows, and says which row it is.

use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;
use tempfile::TempDir;
use tollpass::chain::signer::Signer;
use tollpass::payments::LedgerKey;
use tollpass::payments::journal::{FILE, LedgerReader, VerifiedLedger};

use super::*;
use crate::support::payer::KEY;

/// How many payments there are.
const ROWS: u64 = 6;

/// A ledger of several payments.
async fn paid(more: &str, count: u64) -> (Fair, Alice) {
    let fair = Fair::open().await;
    let alice = Alice::with(&fair.market, &format!("{QUICK}{more}")).await;
    let proxy = alice.start().await;
    let mut client = Wire::connect(proxy.address).await;
    for _ in 0..count {
        let request = Request::get(format!("{}/paid", fair.origin.url())).body(empty()).unwrap();
        assert_eq!(client.ask(request).await.unwrap().status, StatusCode::OK);
    }
    proxy.stop().await;
    (fair, alice)
}

fn verify_with(key: &[u8; 32], state_dir: &Path) -> Result<VerifiedLedger, String> {
    let signer = Signer::new(&KEY).unwrap();
    let key = LedgerKey::of(&Signer::new(key).unwrap().into());
    let mut reader = LedgerReader::open(state_dir).unwrap().expect("a ledger");
    reader.verify(&key, signer.address()).map_err(|flaw| flaw.to_string())
}

fn verify(state_dir: &Path) -> Result<VerifiedLedger, String> {
    verify_with(&KEY, state_dir)
}

/// Verifies a copy of the state directory after these changes.
fn changed(alice: &Alice, change: impl FnOnce(&Connection, &Path)) -> Result<VerifiedLedger, String> {
    let copy = TempDir::new().unwrap();
    for entry in std::fs::read_dir(alice.state_dir()).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
        }
    }
    let connection = Connection::open(copy.path().join(FILE)).unwrap();
    change(&connection, copy.path());
    drop(connection);
    verify(copy.path())
}

fn flaw(alice: &Alice, sql: &str) -> String {
    changed(alice, |connection, _| connection.execute_batch(sql).unwrap()).expect_err(sql)
}

/// The copy of the head.
fn copied_head(state_dir: &Path) -> std::path::PathBuf {
    let files = std::fs::read_dir(state_dir).unwrap().map(|entry| entry.unwrap().path());
    let mut heads = files.filter(|path| path.to_str().unwrap().contains("ledger-head"));
    heads.next().expect("a copy of the head")
}

#[tokio::test]
async fn a_changed_removed_moved_or_added_row_is_named() {
    let (_fair, alice) = paid("", ROWS).await;
    let good = Ok(VerifiedLedger { first: 1, last: ROWS, has_copy: true });
    assert_eq!(changed(&alice, |_, _| {}), good);
    assert!(verify_with(&[7; 32], &alice.state_dir()).unwrap_err().starts_with("row 1 was changed"));

    // Every column of a row, and of what rows share.
    let connection = Connection::open(alice.state_dir().join(FILE)).unwrap();
    for (table, row, count) in [("ledger", 3, 19), ("ledger_parties", 1, 11)] {
        let sql = format!("SELECT name, type FROM pragma_table_info('{table}')");
        let mut columns = connection.prepare(&sql).unwrap();
        let columns: Vec<(String, String)> = columns
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
            .unwrap()
            .map(Result::unwrap)
            .collect();
        assert_eq!(columns.len(), count, "{columns:?}");
        for (name, kind) in columns.iter().filter(|(name, _)| name != "chain" && name != "seq") {
            let value = match (name.as_str(), kind.as_str()) {
                ("state" | "previous", _) => "'in-doubt'",
                ("budgets", _) => "'[\"x\"]'",
                ("seal", _) => "zeroblob(32)",
                (_, "INTEGER") => "77",
                _ => "'77'",
            };
            // A state before needs what counted then.
            let also = if name == "previous" { ", counted = '5'" } else { "" };
            let also = if name == "counted" { ", previous = 'sent'" } else { also };
            let sql = format!("UPDATE {table} SET {name} = {value}{also} WHERE seq = {row}");
            assert!(flaw(&alice, &sql).starts_with(&format!("row {row} was changed")), "{sql}");
        }
    }
    assert!(flaw(&alice, "DELETE FROM ledger_parties").starts_with("row 1 was changed"));
    for (sql, expected) in [
        ("DELETE FROM ledger WHERE seq = 3", "the rows from 3 to 3 were removed"),
        ("DELETE FROM ledger WHERE seq = 1", "the rows from 1 to 1 were removed"),
        (
            "DELETE FROM ledger WHERE seq = 3; UPDATE ledger SET seq = seq - 1 WHERE seq > 3",
            "row 3 was changed",
        ),
        (
            "UPDATE ledger SET seq = 99 WHERE seq = 2; UPDATE ledger SET seq = 2 WHERE seq = 3;
             UPDATE ledger SET seq = 3 WHERE seq = 99",
            "row 2 was changed or moved",
        ),
        (
            "UPDATE ledger SET seq = 7 WHERE seq = 6; UPDATE ledger_chain SET seq = 7",
            "the rows from 6 to 6 were removed",
        ),
        (
            "CREATE TEMP TABLE one AS SELECT * FROM ledger WHERE seq = 6; UPDATE one SET seq = 7;
             INSERT INTO ledger SELECT * FROM one",
            "row 7 was added: the last row that tollpass wrote is 6",
        ),
        (
            "CREATE TEMP TABLE one AS SELECT * FROM ledger WHERE seq = 6; UPDATE one SET seq = 7;
             INSERT INTO ledger SELECT * FROM one; UPDATE ledger_chain SET seq = 7",
            "row 7 was changed",
        ),
    ] {
        let found = flaw(&alice, sql);
        assert!(found.starts_with(expected), "{found}: {sql}");
    }
}

#[tokio::test]
async fn a_truncated_ledger_is_found_by_its_head_and_by_the_copy() {
    let (_fair, alice) = paid("", ROWS).await;
    let cut = "DELETE FROM ledger WHERE seq > 4";
    let expected = "the rows after 4 were removed: tollpass wrote 6 rows";
    assert_eq!(flaw(&alice, cut), expected);
    let with_head = "DELETE FROM ledger WHERE seq > 4;
        UPDATE ledger_chain SET seq = 4, seal = (SELECT seal FROM ledger WHERE seq = 4)";
    assert_eq!(flaw(&alice, with_head), expected);
    assert_eq!(flaw(&alice, "DELETE FROM ledger; DELETE FROM ledger_chain"), expected.replace('4', "0"));
    // Without the copy too, nothing shows that there were more; that is said.
    let unseen = changed(&alice, |connection, directory| {
        connection.execute_batch(with_head).unwrap();
        std::fs::remove_file(copied_head(directory)).unwrap();
    });
    assert_eq!(unseen, Ok(VerifiedLedger { first: 1, last: 4, has_copy: false }));
    let other = changed(&alice, |_, directory| {
        std::fs::write(copied_head(directory), format!("6 {}\n", "00".repeat(32))).unwrap();
    });
    assert!(other.unwrap_err().starts_with("row 6 is not the one that the copy"));

    // The next start does not cover it up.
    let connection = Connection::open(alice.state_dir().join(FILE)).unwrap();
    connection.execute_batch(with_head).unwrap();
    drop(connection);
    let proxy = alice.start().await;
    proxy.ready().await;
    proxy.stop().await;
    let seen = rows(&alice);
    let gap = seen.iter().find(|row| row.state == LedgerState::Gap).expect("a row about the gap");
    assert_eq!((gap.seq, gap.payment), (5, 6));
}

#[tokio::test]
async fn a_ledger_limits_its_own_size_and_keeps_its_sums_and_its_chain() {
    let count = 200;
    let (fair, alice) = paid("[ledger]\nmax_size = \"64KiB\"\n", count).await;
    let left = rows(&alice);
    assert!((50..150).contains(&left.len()), "{} rows", left.len());
    let mut all = sum(&left);
    let reader = LedgerReader::open(&alice.state_dir()).unwrap().unwrap();
    let removed = reader.removed().unwrap();
    let [(key, old)] = &removed.iter().collect::<Vec<_>>()[..] else { panic!("{removed:?}") };
    assert_eq!((key.host.as_str(), key.rule.as_str()), (&*fair.origin.address().to_string(), "127.0.0.1"));
    all.merge(old);
    assert_eq!((all.payments, all.paid), (count, Amount::from(count * PRICE).into()));
    let verified = verify(&alice.state_dir()).unwrap();
    assert_eq!((verified.first, verified.last), (left[0].seq, count));
    for sql in [
        "UPDATE ledger_sum SET paid = '1'",
        "DELETE FROM ledger_sum",
        "UPDATE ledger_sum SET host = 'other.example'",
        "UPDATE ledger_chain SET start_seq = start_seq + 1",
    ] {
        assert!(flaw(&alice, sql).starts_with("the sums of the oldest rows"), "{sql}");
    }
    let first = left[0].seq;
    let found = flaw(&alice, &format!("DELETE FROM ledger WHERE seq = {first}"));
    assert_eq!(found, format!("the rows from {first} to {first} were removed"));

    // By age, too; but a row that was changed stays to be seen.
    let connection = Connection::open(alice.state_dir().join(FILE)).unwrap();
    connection.execute("UPDATE ledger SET price = '1' WHERE seq = ?1", [count as i64 - 1]).unwrap();
    drop(connection);
    let proxy = alice.start_with(|config| config.ledger.keep = Duration::from_millis(1)).await;
    proxy.ready().await;
    assert_eq!(buy(&proxy, &format!("{}/paid", fair.origin.url())).await.status, StatusCode::OK);
    proxy.stop().await;
    let left = rows(&alice);
    assert_eq!(left[0].seq, count - 1, "{left:#?}");
    let found = verify(&alice.state_dir()).unwrap_err();
    assert!(found.starts_with(&format!("row {} was changed", count - 1)), "{found}");
}
