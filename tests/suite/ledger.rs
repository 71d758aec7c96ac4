//! The ledger: where every unit went, also after a crash, and whether its rows were changed.

use std::sync::Mutex;
use std::time::Duration;

use http::{Request, StatusCode, header};
use rusqlite::Connection;
use tollpass::chain::signer::Signer;
use tollpass::channels::Operation;
use tollpass::devnet::origin::{Kind, Lose, Resource};
use tollpass::payments::LedgerKey;
use tollpass::payments::journal::{self, LedgerReader};
use tollpass::payments::ledger::{LedgerRow, LedgerState, LedgerSum};
use tollpass::protocol::{Address, Amount};

use crate::pays::QUICK;
use crate::support::cheats;
use crate::support::fair::{Fair, PRICE, empty};
use crate::support::mallory::{Demand, Mallory};
use crate::support::market::Market;
use crate::support::payer::{Alice, KEY, PATIENCE, Running, write_private};
use crate::support::wire::{Got, Wire, ask};

mod mixed;
pub mod shown;
mod tampered;
mod watched;

/// The rows of a state directory.
pub fn rows(alice: &Alice) -> Vec<LedgerRow> {
    let mut rows = Vec::new();
    if let Some(reader) = LedgerReader::open(&alice.state_dir()).unwrap() {
        reader.rows(|row| rows.push(row)).unwrap();
    }
    rows
}

/// What they add up to.
pub fn sum(rows: &[LedgerRow]) -> LedgerSum {
    let mut sum = LedgerSum::default();
    rows.iter().for_each(|row| sum.add(row));
    sum
}

pub fn states(rows: &[LedgerRow]) -> Vec<LedgerState> {
    rows.iter().map(|row| row.state).collect()
}

/// Waits until the rows of a running proxy are as wanted.
pub async fn await_rows(alice: &Alice, mut is_wanted: impl FnMut(&[LedgerRow]) -> bool) -> Vec<LedgerRow> {
    let waiting = async {
        loop {
            let rows = rows(alice);
            if is_wanted(&rows) {
                return rows;
            }
            // Another connection wrote the rows, and SQLite notifies none of a change.
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("{:#?}", rows(alice)))
}

pub async fn buy(proxy: &Running, url: &str) -> Got {
    let asked = ask(proxy.address, Request::get(url).body(empty()).unwrap());
    tokio::time::timeout(PATIENCE, asked).await.expect("no answer")
}

#[tokio::test]
async fn a_payment_on_a_channel_has_a_row_with_its_request_client_and_rule() {
    let path = "/paid/0123456789abcdef";
    let resource = Resource { path: path.into(), price: PRICE.into(), kind: Kind::Text("goods\n".into()) };
    let fair = Fair::with(|settings| settings.resources.push(resource)).await;
    let client = "[[client]]\nname = \"laptop\"\ntoken_file = \"laptop\"\n";
    let alice = Alice::with(&fair.market, &format!("{QUICK}{client}")).await;
    write_private(&alice.directory.path().join("laptop"), "a-token-of-the-laptop");
    let proxy = alice.start().await;
    let url = format!("{}{path}?key=secret", fair.origin.url());
    let credentials = "Basic bGFwdG9wOmEtdG9rZW4tb2YtdGhlLWxhcHRvcA==";
    let request = Request::get(&url).header(header::PROXY_AUTHORIZATION, credentials).body(empty()).unwrap();
    assert_eq!(ask(proxy.address, request).await.status, StatusCode::OK);
    let seen = await_rows(&alice, |rows| states(rows).ends_with(&[LedgerState::Paid])).await;
    let [row] = &seen[..] else { panic!("one row, since the payment ended at once: {seen:#?}") };
    let origin = fair.origin.address().to_string();
    let parties = &row.parties;
    assert_eq!((row.seq, row.method.as_str(), parties.host.as_str()), (1, "GET", origin.as_str()));
    assert_eq!(
        (row.path.as_str(), parties.client.as_str(), parties.rule.as_str()),
        ("/paid/*", "laptop", "127.0.0.1")
    );
    assert_eq!((row.price, row.counts, row.total), (PRICE.into(), PRICE.into(), Some(PRICE.into())));
    assert_eq!(parties.payee, fair.origin.receiver().to_string());
    assert!(parties.channel.starts_with(&parties.payee), "{row:?}");
    assert_eq!((parties.network.as_str(), &parties.token), ("eip155:31337", &fair.market.token.to_string()));
    assert_eq!((parties.scheme.as_str(), row.receipt.as_str()), ("microraiden", "stated"));
    let all = format!("{seen:?}");
    assert!(!all.contains("secret") && !all.contains("0123456789abcdef"), "{all}");
    proxy.stop().await;
    assert_eq!(rows(&alice), seen, "a clean stop adds nothing");
    let proxy = alice.start().await;
    proxy.ready().await;
    proxy.stop().await;
    assert_eq!(rows(&alice), seen, "and the next start finds nothing to add");
}

#[tokio::test]
async fn a_slow_payment_shows_as_sent_and_a_lost_response_as_in_doubt_until_another_takes_its_place() {
    let fair = Fair::open().await;
    let alice = Alice::with(&fair.market, QUICK).await;
    let proxy = alice.start().await;
    let url = format!("{}/paid", fair.origin.url());
    fair.origin.hold_answers();
    let (address, slow) = (proxy.address, Request::get(&url).body(empty()).unwrap());
    let slow = tokio::spawn(async move { ask(address, slow).await.status });
    let sent = await_rows(&alice, |rows| !rows.is_empty()).await;
    assert_eq!(states(&sent), [LedgerState::Sent]);
    assert_eq!(sum(&sent).in_flight, Amount::from(PRICE).into());
    fair.origin.release();
    assert_eq!(slow.await.unwrap(), StatusCode::OK);
    let paid = await_rows(&alice, |rows| rows.len() == 2).await;
    assert_eq!(
        (paid[1].state, paid[1].previous),
        (LedgerState::Paid, Some((LedgerState::Sent, PRICE.into())))
    );
    assert_eq!(paid[1].payment, paid[0].payment);
    assert_eq!((sum(&paid).payments, sum(&paid).paid), (1, Amount::from(PRICE).into()));

    // Lost before the seller registered it: the next request presents the same total. A GET would be sent again.
    fair.origin.lose_next_answer(Lose::BeforeRegistering);
    let post = Request::post(format!("{}/paid/echo", fair.origin.url())).body(empty()).unwrap();
    assert_eq!(ask(proxy.address, post).await.status, StatusCode::BAD_GATEWAY);
    let lost = await_rows(&alice, |rows| rows.len() == 3).await;
    assert_eq!((lost[2].state, sum(&lost).in_doubt), (LedgerState::InDoubt, Amount::from(PRICE).into()));
    assert_eq!(buy(&proxy, &url).await.status, StatusCode::OK);
    let replaced = await_rows(&alice, |rows| rows.len() == 5).await;
    assert_eq!(states(&replaced[3..]), [LedgerState::Refused, LedgerState::Paid]);
    assert_eq!((replaced[3].payment, replaced[3].counts), (lost[2].payment, Amount::ZERO));
    let total = sum(&replaced);
    assert_eq!((total.paid, total.in_doubt), (Amount::from(2 * PRICE).into(), Amount::ZERO.into()));
    assert_eq!(fair.origin.total_registered(), (2 * PRICE).into());
    proxy.stop().await;
}

#[tokio::test]
async fn a_seller_that_takes_a_payment_and_withholds_the_answer_is_named() {
    let market = Market::open().await;
    let demand = Demand { contract: market.manager, receiver: Address([0x3a; 20]), token: market.token };
    let mallory = Mallory::spawn(cheats::shown_as_old(demand, 5)).await;
    let alice = Alice::with(&market, QUICK).await;
    let proxy = alice.start().await;
    assert_eq!(buy(&proxy, &format!("{}/x", mallory.url())).await.status, StatusCode::BAD_GATEWAY);
    let seen = await_rows(&alice, |rows| !rows.is_empty()).await;
    assert_eq!(states(&seen), [LedgerState::PaidNotDelivered]);
    assert_eq!(sum(&seen).paid, Amount::from(5).into());
    proxy.stop().await;
}

#[tokio::test]
async fn after_a_kill_the_ledger_adds_up_to_what_is_promised_and_after_closing_to_what_the_seller_holds() {
    let fair = Fair::open().await;
    let alice = Alice::with(&fair.market, &format!("{QUICK}[limits]\nsign_ahead = 5\n")).await;
    let url = format!("{}/paid", fair.origin.url());
    for _ in 0..2 {
        let program = alice.serve(&[]).await;
        let mut client = Wire::connect(program.address).await;
        for _ in 0..4 {
            let request = Request::get(&url).body(empty()).unwrap();
            assert_eq!(client.ask(request).await.unwrap().status, StatusCode::OK);
        }
        // At once: the rows of some payments are in memory only.
        program.kill().await;
    }
    let proxy = alice.start().await;
    proxy.ready().await;
    let promised = proxy.promised().await;
    let recovered = await_rows(&alice, |rows| sum(rows).total() == promised.into()).await;
    // Unless a record raised the limit once more before the second kill, the first recovery covers it all.
    let is_recovered = |row: &&LedgerRow| row.state == LedgerState::Recovered;
    let last = recovered.iter().rev().find(is_recovered).unwrap();
    assert_eq!(last.total, Some(promised));
    assert_eq!((last.parties.host.as_str(), last.method.as_str(), last.path.as_str()), ("127.0.0.1", "", ""));
    assert_eq!(buy(&proxy, &url).await.status, StatusCode::OK);
    let channel = proxy.channels().await[0].id();
    // Registered, but the response was lost.
    fair.origin.lose_next_answer(Lose::AfterRegistering);
    assert_eq!(buy(&proxy, &url).await.status, StatusCode::BAD_GATEWAY);
    let together = Operation::CloseTogether { channel, seller: None };
    proxy.channels.operate(together).await.unwrap();
    let settled = await_rows(&alice, |rows| states(rows).contains(&LedgerState::Settled)).await;
    let held = fair.market.tokens_of(fair.origin.receiver()).await;
    assert_eq!(held, 10 * PRICE);
    assert_eq!(sum(&settled).total(), Amount::from(held).into(), "{settled:#?}");
    proxy.stop().await;
    assert_eq!(sum(&rows(&alice)).total(), Amount::from(held).into());
}

#[tokio::test]
async fn rows_that_do_not_fit_into_the_queue_are_lost_and_their_sum_is_not() {
    let fair = Fair::open().await;
    let alice = Alice::with(&fair.market, &format!("{QUICK}[limits]\nledger_queue = 2\n")).await;
    let proxy = alice.start().await;
    let url = format!("{}/paid", fair.origin.url());
    assert_eq!(buy(&proxy, &url).await.status, StatusCode::OK);
    await_rows(&alice, |rows| rows.len() == 1).await;
    // From here on no row is written until the test lets it.
    let (gate, waiting) = std::sync::mpsc::channel::<()>();
    let waiting = Mutex::new(waiting);
    journal::before_ledger(&alice.state_dir(), move || {
        // An error: the gate is open for good.
        let _ = waiting.lock().unwrap().recv();
    });
    for _ in 0..6 {
        assert_eq!(buy(&proxy, &url).await.status, StatusCode::OK, "no payment waits for its row");
    }
    drop(gate);
    let all = await_rows(&alice, |rows| sum(rows).total() == Amount::from(7 * PRICE).into()).await;
    let total = sum(&all);
    assert_eq!((total.payments, total.unknown), (3, Amount::from(4 * PRICE).into()), "{all:#?}");
    proxy.stop().await;
}

/// A failed write of the ledger neither stops payments nor forwarding.
#[tokio::test]
async fn without_its_table_everything_else_goes_on_and_the_sum_follows() {
    let fair = Fair::open().await;
    let alice = Alice::with(&fair.market, QUICK).await;
    let proxy = alice.start().await;
    let url = format!("{}/paid", fair.origin.url());
    assert_eq!(buy(&proxy, &url).await.status, StatusCode::OK);
    await_rows(&alice, |rows| rows.len() == 1).await;
    let other = Connection::open(alice.state_dir().join(journal::FILE)).unwrap();
    other.execute_batch("ALTER TABLE ledger RENAME TO elsewhere").unwrap();
    for _ in 0..3 {
        assert_eq!(buy(&proxy, &url).await.status, StatusCode::OK);
    }
    assert_eq!(buy(&proxy, &format!("{}/free", fair.origin.url())).await.status, StatusCode::OK);
    // The rows fail to be written at least once: the second attempt begins after the first has failed.
    let (attempts, mut seen) = tokio::sync::watch::channel(0);
    journal::before_ledger(&alice.state_dir(), move || attempts.send_modify(|count| *count += 1));
    tokio::time::timeout(PATIENCE, seen.wait_for(|count| *count >= 2)).await.unwrap().unwrap();
    other.execute_batch("ALTER TABLE elsewhere RENAME TO ledger").unwrap();
    await_rows(&alice, |rows| sum(rows).total() == Amount::from(4 * PRICE).into()).await;
    proxy.stop().await;
}

/// A journal of an older version has channels without rows.
#[tokio::test]
async fn what_was_paid_before_there_was_a_ledger_is_one_row_per_channel() {
    let fair = Fair::open().await;
    let alice = Alice::with(&fair.market, QUICK).await;
    let url = format!("{}/paid", fair.origin.url());
    let proxy = alice.start().await;
    for _ in 0..3 {
        assert_eq!(buy(&proxy, &url).await.status, StatusCode::OK);
    }
    proxy.stop().await;
    let older = Connection::open(alice.state_dir().join(journal::FILE)).unwrap();
    // Those of the ledger and of later versions.
    let tables = [
        "ledger",
        "ledger_chain",
        "ledger_open",
        "ledger_channel",
        "ledger_sum",
        "ledger_parties",
        "budget",
        "hold",
        "frozen",
        "paused_host",
        "fee",
        "paid_price",
        "allowance",
    ];
    let drops: String = tables.iter().map(|table| format!("DROP TABLE {table}; ")).collect();
    let columns = ["purchase", "payer", "payment", "valid_before", "taken_until", "signature"];
    let columns: String = columns
        .iter()
        .chain(&["host", "counted", "is_used", "is_served"])
        .map(|column| format!("ALTER TABLE authorization DROP COLUMN {column}; "))
        .collect();
    let version = journal::LEDGER_VERSION - 1;
    older.execute_batch(&format!("{drops} {columns} PRAGMA user_version = {version};")).unwrap();
    drop(older);
    for file in std::fs::read_dir(alice.state_dir()).unwrap().map(|entry| entry.unwrap().path()) {
        if file.to_str().unwrap().contains("ledger-head") {
            std::fs::remove_file(file).unwrap();
        }
    }
    assert!(LedgerReader::open(&alice.state_dir()).unwrap().is_none());
    let proxy = alice.start().await;
    proxy.ready().await;
    assert_eq!(buy(&proxy, &url).await.status, StatusCode::OK);
    proxy.stop().await;
    let all = rows(&alice);
    assert_eq!(states(&all), [LedgerState::Recovered, LedgerState::Paid]);
    assert_eq!(all[0].adjusts, Amount::from(3 * PRICE).into());
    assert_eq!(sum(&all).total(), Amount::from(4 * PRICE).into());
}

/// Before version 11, each row had all its columns.
#[tokio::test]
async fn the_rows_of_an_older_journal_stay_and_keep_their_chain() {
    let fair = Fair::open().await;
    let alice = Alice::with(&fair.market, QUICK).await;
    let url = format!("{}/paid", fair.origin.url());
    let proxy = alice.start().await;
    for _ in 0..3 {
        assert_eq!(buy(&proxy, &url).await.status, StatusCode::OK);
    }
    proxy.stop().await;
    let written = rows(&alice);
    let older = Connection::open(alice.state_dir().join(journal::FILE)).unwrap();
    older
        .execute_batch(
            "CREATE TABLE whole AS SELECT ledger.chain, ledger.seq, at, payment, state, previous, counted, method, host, path,
                client, rule, budgets, scheme, payee, network, token, price, counts, adjusts, channel, total, nonce,
                receipt, seal
             FROM ledger JOIN ledger_parties AS shared ON shared.seq = ledger.parties;
             DROP TABLE ledger; DROP TABLE ledger_parties; DROP TABLE fee; ALTER TABLE whole RENAME TO ledger;
             DROP TABLE paid_price; ALTER TABLE paused_host DROP COLUMN is_price_rise;
             ALTER TABLE authorization DROP COLUMN purchase; ALTER TABLE authorization DROP COLUMN payer; ALTER TABLE authorization DROP COLUMN payment;
             ALTER TABLE authorization DROP COLUMN valid_before; ALTER TABLE authorization DROP COLUMN taken_until;
             ALTER TABLE authorization DROP COLUMN signature; DROP TABLE allowance;
             ALTER TABLE authorization DROP COLUMN host;
             ALTER TABLE authorization DROP COLUMN counted; ALTER TABLE authorization DROP COLUMN is_used;
             ALTER TABLE authorization DROP COLUMN is_served;
             PRAGMA user_version = 10;",
        )
        .unwrap();
    drop(older);
    let signer = Signer::new(&KEY).unwrap();
    let verify = || {
        let mut reader = LedgerReader::open(&alice.state_dir()).unwrap().unwrap();
        reader.verify(&LedgerKey::of(&Signer::new(&KEY).unwrap().into()), signer.address()).unwrap().last
    };
    assert_eq!((rows(&alice), verify()), (written.clone(), 3), "read before any proxy migrates it");
    let proxy = alice.start().await;
    proxy.ready().await;
    assert_eq!((rows(&alice), verify()), (written, 3));
    assert_eq!(buy(&proxy, &url).await.status, StatusCode::OK);
    proxy.stop().await;
    assert_eq!((rows(&alice).len(), verify()), (4, 4));
    assert_eq!(rows(&alice)[3].parties, rows(&alice)[2].parties);
}
