//! Stopping and starting again, with and without what was written down.

use super::{QUICK, Scene};

#[tokio::test]
async fn after_a_restart_the_same_channel_goes_on() {
    let mut scene = Scene::open().await;
    for _ in 0..2 {
        scene.buy().await;
    }
    let before = scene.fair.origin.exchanges();
    scene.proxy.stop().await;
    scene.proxy = scene.alice.start().await;
    scene.proxy.ready().await;
    scene.buy().await;
    scene.expect_paid(3).await;
    // The price survived. The seller is asked what it holds, once: the journal may be an old copy.
    assert_eq!(scene.fair.origin.exchanges() - before, 2, "a payment had to be corrected");
    scene.buy().await;
    scene.expect_paid(4).await;
    assert_eq!(scene.fair.origin.exchanges() - before, 3);
    scene.close().await;
}

#[tokio::test]
async fn without_its_store_it_finds_the_channel_on_the_chain_and_the_total_at_the_seller() {
    let mut scene = Scene::with(|_| {}, QUICK).await;
    for _ in 0..3 {
        scene.buy().await;
    }
    scene.proxy.stop().await;
    std::fs::remove_dir_all(scene.alice.state_dir()).unwrap();
    scene.proxy = scene.alice.start().await;
    scene.buy().await;
    scene.expect_paid(4).await;
    scene.buy().await;
    scene.expect_paid(5).await;
    scene.close().await;
}
