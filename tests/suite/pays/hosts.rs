//! Several hosts that name one receiver: none blocks, uses or affects the channel of another.

use std::time::Duration;

use http::{Request, StatusCode};
use tollpass::channels::Operation;

use super::QUICK;
use crate::support::fair::{Fair, PRICE, empty};
use crate::support::mallory::{Answer, Demand, Mallory};
use crate::support::payer::{Alice, Running};
use crate::support::wire::{Got, ask};

/// Bob's responses must come within this time: he does not wait for Mallory.
const SOON: Duration = Duration::from_secs(10);
const RULES: &str = "[[pay]]\nhost = \"*\"\nmax_price = 10000\n";

async fn get(proxy: &Running, url: &str) -> Got {
    ask(proxy.address, Request::get(url).body(empty()).unwrap()).await
}

async fn buy(proxy: &Running, url: &str) {
    let got = tokio::time::timeout(SOON, get(proxy, url)).await.expect("it is held up");
    assert_eq!(got.status, StatusCode::OK, "{got:?}");
}

/// The seller's own host, and Mallory under the name of localhost, who names the seller's receiver.
struct Scene {
    fair: Fair,
    alice: Alice,
    proxy: Running,
    mallory: Mallory,
}

impl Scene {
    async fn with(rules: &str, payment: Answer) -> Self {
        let fair = Fair::open().await;
        let (contract, token) = (fair.market.manager, fair.market.token);
        let demand = Demand { contract, receiver: fair.origin.receiver(), token };
        let mallory = Mallory::spawn(move |presented| {
            if presented.target.starts_with("/api/1/channels") {
                return Answer::new(StatusCode::OK, "{\"balance\": 0, \"last_signature\": null}");
            }
            if presented.payment.is_some() { payment.clone() } else { demand.base(PRICE) }
        })
        .await;
        let alice = Alice::ruled(&fair.market, &format!("{rules}{QUICK}")).await;
        let proxy = alice.start().await;
        Self { fair, alice, proxy, mallory }
    }

    fn bobs(&self) -> String {
        format!("{}/paid", self.fair.origin.url())
    }

    fn mallorys(&self) -> String {
        format!("http://localhost:{}/x", self.mallory.address().port())
    }

    /// The hosts of the channels, in order of their opening.
    async fn hosts(&self) -> Vec<String> {
        let channels = self.proxy.channels().await;
        channels.into_iter().map(|channel| channel.host.unwrap_or_default()).collect()
    }
}

#[tokio::test]
async fn a_host_that_never_answers_holds_up_only_itself() {
    let scene = Scene::with(&format!("[limits]\ndrain_timeout = \"200ms\"\n{RULES}"), Answer::Never).await;
    // Mallory comes first, and keeps her payment.
    let request = Request::get(scene.mallorys()).body(empty()).unwrap();
    let held = tokio::spawn(ask(scene.proxy.address, request));
    scene.mallory.await_presented(2).await;
    for _ in 0..3 {
        buy(&scene.proxy, &scene.bobs()).await;
    }
    assert_eq!(scene.hosts().await, ["localhost", "127.0.0.1"]);
    assert_eq!(scene.fair.origin.total_registered(), (3 * PRICE).into());
    assert!(!held.is_finished());
    held.abort();
    // After a restart their hosts are still known.
    let Scene { fair, alice, proxy, mallory } = scene;
    proxy.stop().await;
    let proxy = alice.start().await;
    proxy.ready().await;
    let scene = Scene { fair, alice, proxy, mallory };
    assert_eq!(scene.hosts().await, ["localhost", "127.0.0.1"]);
    buy(&scene.proxy, &scene.bobs()).await;
    scene.proxy.stop().await;
}

#[tokio::test]
async fn a_rule_that_lists_the_receiver_lets_hosts_share_a_channel() {
    let fair = Fair::open().await;
    let receivers = format!("receivers = [\"{}\"]\n", fair.origin.receiver());
    drop(fair);
    let scene = Scene::with(&format!("{RULES}{receivers}"), Answer::new(StatusCode::OK, "yours")).await;
    buy(&scene.proxy, &scene.bobs()).await;
    buy(&scene.proxy, &scene.mallorys()).await;
    assert_eq!(scene.hosts().await, ["127.0.0.1"]);
    scene.proxy.stop().await;
}

/// Mallory claims that nothing was ever paid: this affects her own channel only.
#[tokio::test]
async fn a_host_speaks_for_its_own_channel_only() {
    let scene = Scene::with(RULES, Answer::new(StatusCode::OK, "yours")).await;
    buy(&scene.proxy, &scene.bobs()).await;
    buy(&scene.proxy, &scene.bobs()).await;
    buy(&scene.proxy, &scene.mallorys()).await;
    assert_eq!(scene.hosts().await, ["127.0.0.1", "localhost"]);
    let bobs = scene.proxy.channels().await[0].id();
    let closing = Operation::CloseTogether { channel: bobs, seller: None };
    scene.proxy.channels.operate(closing).await.unwrap_or_else(|trouble| panic!("{trouble}"));
    let paid = scene.fair.market.tokens_of(scene.fair.origin.receiver()).await;
    assert_eq!(paid, 2 * PRICE, "Bob was asked, and has all that was promised");
    let asked = |presented: &&crate::support::mallory::Presented| presented.target.starts_with("/api");
    assert_eq!(scene.mallory.presented().iter().filter(asked).count(), 0);
    scene.proxy.stop().await;
}
