//! The main purpose: requests that meet a paywall are paid, unnoticed by the program behind the proxy.

mod answers;
mod bodies;
mod budgets;
mod crowd;
mod expects;
mod funding;
mod hosts;
mod leavers;
mod pauses;
mod priced;
mod restarts;
mod unpaid;
mod unsent;

use std::time::Duration;

use http::{Request, StatusCode};
use tollpass::devnet::origin::SellerSettings;
use tollpass::protocol::Amount;

use crate::support::curl::curl;
use crate::support::fair::{Fair, PRICE, empty};
use crate::support::payer::{Alice, Running};
use crate::support::raw::soon;
use crate::support::wire::{Got, ask};

/// Hooks with short retries, as the seller here polls the chain every few milliseconds.
pub const QUICK: &str = "[hooks]\n\
    nonexisting_channel = { action = \"retry\", every = \"10ms\", times = 1000, timeout = \"20s\" }\n\
    insufficient_confirmations = { action = \"retry\", every = \"10ms\", times = 1000, timeout = \"20s\" }\n";

/// A seller, and Alice's proxy.
struct Scene {
    fair: Fair,
    alice: Alice,
    proxy: Running,
}

impl Scene {
    async fn open() -> Self {
        Self::with(|_| {}, QUICK).await
    }

    async fn with(change: impl FnOnce(&mut SellerSettings), more: &str) -> Self {
        let fair = Fair::with(change).await;
        let alice = Alice::with(&fair.market, more).await;
        let proxy = alice.start().await;
        Self { fair, alice, proxy }
    }

    /// A request for a path of the seller, as a client sends it to a proxy.
    fn request(&self, path: &str) -> http::request::Builder {
        Request::get(format!("{}{path}", self.fair.origin.url()))
    }

    /// Asks through the proxy, on a connection of its own.
    async fn get(&self, path: &str) -> Got {
        ask(self.proxy.address, self.request(path).body(empty()).unwrap()).await
    }

    /// Requests `/paid` successfully.
    async fn buy(&self) {
        let got = self.get("/paid").await;
        assert_eq!(got.status, StatusCode::OK, "{got:?}");
        assert!(got.body.starts_with(b"This text was paid for"), "{got:?}");
    }

    /// Both sides agree that this many requests were paid, over one channel.
    async fn expect_paid(&self, requests: u64) {
        self.expect_totals(requests, requests, requests).await;
    }

    /// The registered, promised and acknowledged totals, in requests.
    async fn expect_totals(&self, registered: u64, promised: u64, acknowledged: u64) {
        let units = |requests: u64| Amount::from(requests * PRICE);
        assert_eq!(self.fair.origin.total_registered(), units(registered), "registered");
        assert_eq!(self.proxy.promised().await, units(promised), "promised");
        let channels = self.proxy.channels().await;
        let held =
            channels.iter().map(|channel| channel.acknowledged).fold(Amount::ZERO, Amount::saturating_add);
        assert_eq!(held, units(acknowledged), "acknowledged");
        assert!(channels.len() <= 1, "{channels:?}");
        assert_eq!(self.fair.market.openings().await, channels.len());
    }

    /// Waits until the proxy has no open connections.
    async fn await_idle(&self, before: usize) {
        let mut looks = tokio::time::interval(Duration::from_millis(2));
        let idle = async {
            while self.proxy.shutdown.running() > before {
                looks.tick().await;
            }
        };
        soon("the end of what a client left behind", idle).await;
    }

    async fn close(self) {
        self.proxy.stop().await;
    }
}

#[tokio::test]
async fn curl_pays_and_does_not_know() {
    let scene = Scene::open().await;
    let url = format!("{}/paid", scene.fair.origin.url());
    assert_eq!(curl(None, &[&url]).await.got.status, StatusCode::PAYMENT_REQUIRED);
    for paid in 1..=2 {
        let got = curl(Some(scene.proxy.address), &[&url]).await.got;
        assert_eq!(got.status, StatusCode::OK, "{got:?}");
        assert!(got.body.starts_with(b"This text was paid for"), "{got:?}");
        assert!(got.rdn().is_empty(), "{got:?}");
        scene.expect_paid(paid).await;
    }
    scene.close().await;
}

#[tokio::test]
async fn every_dialect_of_curl_is_paid() {
    let scene = Scene::open().await;
    let url = format!("{}/paid", scene.fair.origin.url());
    for (paid, (option, told)) in (1..).zip([
        ("--http1.0", "HTTP/1.0"),
        ("--http1.1", "HTTP/1.1"),
        // It requests HTTP/2 but accepts HTTP/1.1.
        ("--http2", "> Upgrade: h2c"),
        ("--compressed", "Accept-Encoding"),
    ]) {
        let fetched = curl(Some(scene.proxy.address), &[option, &url]).await;
        assert!(fetched.told.contains(told), "{}", fetched.told);
        assert_eq!(fetched.got.status, StatusCode::OK, "{option}: {:?}", fetched.got);
        assert!(fetched.got.body.starts_with(b"This text was paid for"), "{option}: {:?}", fetched.got);
        scene.expect_paid(paid).await;
    }
    scene.close().await;
}

#[tokio::test]
async fn one_connection_pays_again_and_again() {
    let scene = Scene::open().await;
    let mut wire = crate::support::wire::Wire::connect(scene.proxy.address).await;
    for paid in 1..=3 {
        let got = wire.ask(scene.request("/paid").body(empty()).unwrap()).await.unwrap();
        assert_eq!(got.status, StatusCode::OK, "{got:?}");
        assert!(got.rdn().is_empty(), "{got:?}");
        scene.expect_paid(paid).await;
    }
    scene.close().await;
}
