//! Reading the ledger again and again, as the dashboard does: each row once, the newest first or those that are new.

use std::ops::ControlFlow;

use tollpass::payments::journal::{LedgerPlace, LedgerSums};
use tollpass::payments::ledger::SumKey;

use super::*;

async fn buy_some(proxy: &Running, fair: &Fair, count: u64) {
    let mut client = Wire::connect(proxy.address).await;
    for _ in 0..count {
        let request = Request::get(format!("{}/paid", fair.origin.url())).body(empty()).unwrap();
        assert_eq!(client.ask(request).await.unwrap().status, StatusCode::OK);
    }
}

fn reader(alice: &Alice) -> LedgerReader {
    LedgerReader::open(&alice.state_dir()).unwrap().unwrap()
}

fn total(sums: &LedgerSums) -> (u64, String) {
    let mut total = LedgerSum::default();
    sums.all().values().for_each(|sum| total.merge(sum));
    (total.payments, total.paid.to_string())
}

#[tokio::test]
async fn what_is_added_up_again_is_complete_even_if_rows_were_removed_meanwhile() {
    let fair = Fair::open().await;
    let alice = Alice::with(&fair.market, &format!("{QUICK}[ledger]\nmax_size = \"64KiB\"\n")).await;
    let mut sums = LedgerSums::default();
    let mut bought = 0;
    // The last ones push those before out.
    for count in [5, 3, 0, 200] {
        let proxy = alice.start().await;
        buy_some(&proxy, &fair, count).await;
        proxy.stop().await;
        bought += count;
        reader(&alice).add_up(&mut sums).unwrap();
        assert_eq!(total(&sums), (bought, (bought * PRICE).to_string()));
    }
    assert!(rows(&alice)[0].seq > 9, "rows that were not read yet were removed");
}

/// Adds 5000 sums of removed rows, each of one payment and with these columns of its number `i`.
fn add_sums(alice: &Alice, columns: &str) {
    let connection = Connection::open(alice.state_dir().join(journal::FILE)).unwrap();
    let sql = format!(
        "WITH RECURSIVE numbers(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM numbers WHERE i < 5000)
         INSERT INTO ledger_sum (chain, network, token, payments, paid, in_flight, in_doubt, unknown, day, host, client, rule)
         SELECT chains.id, 'eip155:1', '0xabc', 1, '10', '0', '0', '0', {columns}
         FROM numbers, (SELECT id FROM ledger_chain LIMIT 1) AS chains"
    );
    connection.execute(&sql, []).unwrap();
}

#[tokio::test]
async fn clients_and_rules_take_no_days_from_what_is_added_up_but_too_many_hosts_do() {
    let fair = Fair::open().await;
    let alice = Alice::with(&fair.market, QUICK).await;
    let proxy = alice.start().await;
    buy_some(&proxy, &fair, 1).await;
    proxy.stop().await;
    add_sums(&alice, "20000, 'a.example', 'client ' || (i % 100), 'rule ' || i");
    let mut sums = LedgerSums::default();
    reader(&alice).add_up(&mut sums).unwrap();
    let key = SumKey {
        day: 20000,
        network: "eip155:1".into(),
        token: "0xabc".into(),
        host: "a.example".into(),
        ..SumKey::default()
    };
    assert_eq!((sums.all().len(), sums.all()[&key].payments), (2, 5000), "with the payment of today");

    add_sums(&alice, "10000 + i, i || '.example', '', ''");
    let mut sums = LedgerSums::default();
    reader(&alice).add_up(&mut sums).unwrap();
    assert!(sums.all().keys().any(|key| key.day == 0), "the oldest have no day");
    assert_eq!(sums.all()[&key].payments, 5000, "the newest have one");
    assert_eq!(total(&sums).0, 10_001, "none is lost");
}

#[tokio::test]
async fn a_payment_comes_in_its_last_state_only_whatever_page_its_other_rows_are_on() {
    let fair = Fair::open().await;
    let alice = Alice::with(&fair.market, QUICK).await;
    let proxy = alice.start().await;
    buy_some(&proxy, &fair, 7).await;
    proxy.stop().await;
    // The second payment and the sixth were unclear at first.
    let connection = Connection::open(alice.state_dir().join(journal::FILE)).unwrap();
    for (first, last) in [(2, 8), (6, 9)] {
        let sql = "INSERT INTO ledger SELECT chain, ?2, parties, at, payment, state, 'in-doubt', counts, method, path, price,
                 counts, adjusts, total, nonce, receipt, seal, confirmation, offer FROM ledger WHERE seq = ?1";
        connection.execute(sql, [first, last]).unwrap();
        connection.execute("UPDATE ledger SET state = 'in-doubt' WHERE seq = ?1", [first]).unwrap();
    }
    let reader = reader(&alice);
    for size in [1, 2, 3, 100] {
        assert_eq!(pages(&reader, size), [9, 8, 7, 5, 4, 3, 1], "{size} on each page");
    }
}

/// The rows that come backwards, in pages of this size.
fn pages(reader: &LedgerReader, size: usize) -> Vec<u64> {
    let (mut backwards, mut before): (Vec<u64>, Option<LedgerPlace>) = (Vec::new(), None);
    loop {
        let mut page = Vec::new();
        reader
            .newest_first(before, |place, row| {
                page.push(row.seq);
                before = Some(place);
                if page.len() == size { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })
            .unwrap();
        if page.is_empty() {
            return backwards;
        }
        backwards.extend(page);
    }
}

#[tokio::test]
async fn each_row_comes_once_whether_backwards_in_pages_or_as_it_is_written() {
    let fair = Fair::open().await;
    let alice = Alice::with(&fair.market, QUICK).await;
    let proxy = alice.start().await;
    buy_some(&proxy, &fair, 7).await;
    await_rows(&alice, |rows| rows.len() == 7).await;
    let reader = reader(&alice);
    let mut seen = reader.heads().unwrap();
    assert!(reader.rows_after(&mut seen, 10).unwrap().is_empty());

    assert_eq!(pages(&reader, 3), [7, 6, 5, 4, 3, 2, 1]);

    buy_some(&proxy, &fair, 5).await;
    await_rows(&alice, |rows| rows.len() == 12).await;
    let numbers = |rows: Vec<LedgerRow>| rows.iter().map(|row| row.seq).collect::<Vec<_>>();
    assert_eq!(numbers(reader.rows_after(&mut seen.clone(), 10).unwrap()), [8, 9, 10, 11, 12]);
    assert_eq!(numbers(reader.rows_after(&mut seen, 2).unwrap()), [11, 12], "the newest of too many");
    assert!(reader.rows_after(&mut seen, 2).unwrap().is_empty());
    proxy.stop().await;
}
