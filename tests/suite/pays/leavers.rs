//! Clients that disconnect: nothing is signed for them afterwards, and exchanges with a signed payment finish without
//! them.

use tokio::task::JoinHandle;
use tollpass::protocol::Amount;

use super::Scene;
use crate::support::fair::{PRICE, empty};
use crate::support::raw::soon;
use crate::support::wire::Wire;

impl Scene {
    /// A client that requests `/paid` and waits until it is aborted.
    async fn client(&self) -> JoinHandle<()> {
        let mut wire = Wire::connect(self.proxy.address).await;
        let request = self.request("/paid").body(empty()).unwrap();
        tokio::spawn(async move { panic!("an answer came: {:?}", wire.ask(request).await) })
    }
}

#[tokio::test]
async fn nothing_is_signed_for_a_client_that_left_during_the_opening() {
    let scene = Scene::open().await;
    let before = scene.proxy.shutdown.running();
    scene.fair.market.automine(false).await;
    let client = scene.client().await;
    scene.fair.market.await_pending(scene.alice.address).await;
    client.abort();
    scene.await_idle(before).await;
    scene.fair.market.automine(true).await;
    scene.fair.market.mine(1).await;
    let opened = async { while scene.proxy.channels().await.is_empty() {} };
    soon("the channel", opened).await;
    scene.expect_totals(0, 0, 0).await;
    assert_eq!(scene.fair.origin.exchanges(), 1, "a payment was presented");
    // The channel is available to the next client.
    scene.buy().await;
    scene.expect_paid(1).await;
    scene.close().await;
}

#[tokio::test]
async fn a_client_that_leaves_while_the_seller_is_slow_costs_at_most_one_price() {
    // Retries for longer than this test.
    let hooks = super::QUICK.replace("times = 1000, timeout = \"20s\"", "times = 10000, timeout = \"1h\"");
    let scene = Scene::with(|_| {}, &hooks).await;
    let before = scene.proxy.shutdown.running();
    scene.fair.origin.stop_noticing();
    let client = scene.client().await;
    // The 402, and a payment that the seller rejects twice, because it does not know the channel.
    soon("the same payment again", scene.fair.origin.await_exchanges(3)).await;
    client.abort();
    scene.await_idle(before).await;
    let presented = scene.fair.origin.exchanges();
    scene.expect_totals(0, 1, 0).await;
    scene.fair.origin.resume_noticing();
    soon("the channel", scene.fair.origin.await_channels(1)).await;
    assert_eq!(scene.fair.origin.exchanges(), presented, "it went on without the client");
    scene.buy().await;
    scene.expect_paid(1).await;
    scene.close().await;
}

#[tokio::test]
async fn what_was_signed_comes_to_its_end_without_the_client() {
    let scene = Scene::open().await;
    let before = scene.proxy.shutdown.running();
    // From here on the seller knows the channel: otherwise its rejections would be held back, too.
    scene.buy().await;
    scene.await_idle(before).await;
    scene.fair.origin.hold_answers();
    let client = scene.client().await;
    soon("the payment", scene.fair.origin.await_payments(2)).await;
    client.abort();
    // Only the paid exchange remains.
    scene.await_idle(before + 1).await;
    assert_eq!(scene.proxy.shutdown.running(), before + 1, "the exchange was torn apart");
    scene.expect_totals(2, 2, 1).await;
    scene.fair.origin.release();
    scene.await_idle(before).await;
    let acknowledged =
        async { while scene.proxy.channels().await[0].acknowledged != Amount::from(2 * PRICE) {} };
    soon("the acknowledgement", acknowledged).await;
    scene.buy().await;
    scene.expect_paid(3).await;
    scene.close().await;
}
