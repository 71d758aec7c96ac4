//! Channels that run low are topped up, not replaced.

use http::{Request, StatusCode};
use rusqlite::Connection;
use tollpass::payments::journal::FILE;
use tollpass::protocol::Amount;

use super::{QUICK, Scene};
use crate::support::fair::{Fair, PRICE, empty};
use crate::support::payer::{Alice, Running};
use crate::support::raw::soon;
use crate::support::wire::{Wire, ask};

/// How many requests the first deposit pays.
const FIRST: u64 = 10;

#[tokio::test]
async fn a_channel_that_is_used_up_is_topped_up() {
    let scene = Scene::open().await;
    for paid in 1..=23 {
        scene.buy().await;
        assert_eq!(scene.fair.origin.payments(), paid);
    }
    scene.expect_paid(23).await;
    assert_eq!(scene.proxy.channels().await[0].deposit, Amount::from(25 * PRICE));
    assert_eq!(scene.fair.market.top_ups().await, 3);
    scene.close().await;
}

#[tokio::test]
async fn a_seller_that_has_not_seen_the_top_up_is_shown_the_same_payment_again() {
    let scene = Scene::open().await;
    for _ in 0..FIRST {
        scene.buy().await;
    }
    scene.fair.origin.stop_noticing();
    let before = scene.fair.origin.exchanges();
    let mut wire = Wire::connect(scene.proxy.address).await;
    let request = scene.request("/paid").body(empty()).unwrap();
    let waiting = tokio::spawn(async move { wire.ask(request).await.unwrap().status });
    // The 402, then the same proof repeatedly.
    soon("three payments", scene.fair.origin.await_exchanges(before + 4)).await;
    scene.expect_totals(FIRST, FIRST + 1, FIRST).await;
    assert_eq!(scene.proxy.channels().await[0].deposit, Amount::from((FIRST + 5) * PRICE));
    assert!(!waiting.is_finished());
    scene.fair.origin.resume_noticing();
    assert_eq!(soon("the answer", waiting).await.unwrap(), StatusCode::OK);
    assert_eq!(scene.fair.origin.payments(), FIRST + 1);
    assert_eq!(scene.fair.market.top_ups().await, 1);
    scene.expect_paid(FIRST + 1).await;
    scene.close().await;
}

#[tokio::test]
async fn the_fees_of_a_day_are_limited_across_restarts() {
    let fair = Fair::open().await;
    let mut alice = Alice::with(&fair.market, QUICK).await;
    let url = format!("{}/paid", fair.origin.url());
    let buy = async |proxy: &Running| ask(proxy.address, Request::get(&url).body(empty()).unwrap()).await;
    let proxy = alice.start().await;
    for _ in 0..FIRST {
        assert_eq!(buy(&proxy).await.status, StatusCode::OK);
    }
    proxy.stop().await;
    // Whatever the opening cost at most, nothing is left for a top-up.
    let journal = Connection::open(alice.state_dir().join(FILE)).unwrap();
    let sum: i64 =
        journal.query_row("SELECT sum(CAST(most AS INTEGER)) FROM fee", [], |row| row.get(0)).unwrap();
    assert!(sum > 0);
    let unlimited = "poll_every = \"10ms\"\n";
    let limited = format!("{unlimited}max_fees_per_day = {sum}\n");
    alice.change(unlimited, &limited);
    let proxy = alice.start().await;
    let refused = buy(&proxy).await;
    assert_eq!(refused.status, StatusCode::PAYMENT_REQUIRED);
    let reason = refused.headers["proxy-status"].to_str().unwrap();
    for part in ["all transactions of one day would cost", "chain.max_fees_per_day allows"] {
        assert!(reason.contains(part), "{reason}");
    }
    proxy.stop().await;
    assert_eq!(fair.market.top_ups().await, 0);
    // A day later they no longer count.
    journal.execute("UPDATE fee SET at = at - 86400", []).unwrap();
    let proxy = alice.start().await;
    assert_eq!(buy(&proxy).await.status, StatusCode::OK);
    assert_eq!(fair.market.top_ups().await, 1);
    proxy.stop().await;
}
