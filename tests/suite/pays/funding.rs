//! Channels that run low are topped up, not replaced.

use http::StatusCode;
use tollpass::protocol::Amount;

use super::Scene;
use crate::support::fair::{PRICE, empty};
use crate::support::raw::soon;
use crate::support::wire::Wire;

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
