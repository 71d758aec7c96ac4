//! Reading the ledger again and again, as the dashboard does: each row once, the newest first or those that are new.

use std::ops::ControlFlow;

use tollpass::payments::journal::{LedgerPlace, LedgerSums};

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

    let (mut backwards, mut before): (Vec<u64>, Option<LedgerPlace>) = (Vec::new(), None);
    loop {
        let mut page = Vec::new();
        reader
            .newest_first(before, |place, row| {
                page.push(row.seq);
                before = Some(place);
                if page.len() == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })
            .unwrap();
        if page.is_empty() {
            break;
        }
        backwards.extend(page);
    }
    assert_eq!(backwards, [7, 6, 5, 4, 3, 2, 1]);

    buy_some(&proxy, &fair, 5).await;
    await_rows(&alice, |rows| rows.len() == 12).await;
    let numbers = |rows: Vec<LedgerRow>| rows.iter().map(|row| row.seq).collect::<Vec<_>>();
    assert_eq!(numbers(reader.rows_after(&mut seen.clone(), 10).unwrap()), [8, 9, 10, 11, 12]);
    assert_eq!(numbers(reader.rows_after(&mut seen, 2).unwrap()), [11, 12], "the newest of too many");
    assert!(reader.rows_after(&mut seen, 2).unwrap().is_empty());
    proxy.stop().await;
}
