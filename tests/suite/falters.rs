//! Nodes that are down, empty wallets, sellers that do not see the chain, journals that cannot be written: the client
//! gets the seller's 402 with the reason in time, free resources pass, and later everything is paid again, without a
//! restart and without a second channel.

use std::fs::OpenOptions;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use http::{Request, StatusCode};
use jsonrpsee::core::client::ClientT as _;
use jsonrpsee::http_client::HttpClient;
use jsonrpsee::rpc_params;
use serde_json::{Value, json};
use tollpass::devnet::origin::{Kind, Resource};
use tollpass::payments::journal;
use tollpass::protocol::Amount;

use crate::support::fair::{Fair, PRICE, empty};
use crate::support::market::Market;
use crate::support::payer::{Alice, Running};
use crate::support::relay::{Mode, Relay};
use crate::support::wire::{Got, Wire};

/// Everything here ends much sooner, by its own timeouts.
const BOUND: Duration = Duration::from_secs(30);
/// Short retry intervals.
const SOON: &str = "[deposit]\nretry_after = \"1s\"\n";
/// More than the wallet holds.
const DEAR: u64 = 2_000_000_000;

/// A seller, and Alice's proxy behind a relay to the node.
struct Scene {
    fair: Fair,
    relay: Relay,
    proxy: Running,
    alice: Alice,
}

impl Scene {
    /// `limits` goes below `[limits]`; `change` may change the configuration before the start.
    async fn with(limits: &str, mode: Mode, change: impl FnOnce(&mut Alice, &Market)) -> Self {
        let fair = Fair::with(|settings| {
            let kind = Kind::Text("dear\n".into());
            settings.resources.push(Resource { path: "/dear".into(), price: DEAR.into(), kind });
        });
        let fair = fair.await;
        let relay = Relay::before(&fair.market.chain.url()).await;
        relay.set(mode);
        let hooks = crate::pays::QUICK;
        let mut alice = Alice::with(&fair.market, &format!("{SOON}{hooks}[limits]\n{limits}\n")).await;
        alice.change(&fair.market.chain.url(), &relay.url());
        change(&mut alice, &fair.market);
        let proxy = alice.start().await;
        Self { fair, relay, proxy, alice }
    }

    async fn ask(&self, path: &str) -> Got {
        let url = format!("{}{path}", self.fair.origin.url());
        let asked = async {
            let mut wire = Wire::connect(self.proxy.address).await;
            wire.ask(Request::get(url).body(empty()).unwrap()).await.unwrap()
        };
        tokio::time::timeout(BOUND, asked).await.expect("it does not end")
    }

    /// Ten concurrent requests get the seller's own 402 with this reason, while free resources pass.
    async fn ten_are_refused(&self, path: &str, reason: &str) {
        let refused = join_all((0..10).map(|_| self.ask(path)));
        let free = async {
            let before = Instant::now();
            assert_eq!(self.ask("/free").await.status, StatusCode::OK);
            before.elapsed()
        };
        let before = Instant::now();
        let (refused, free) = tokio::join!(refused, free);
        for got in refused {
            assert_eq!(got.status, StatusCode::PAYMENT_REQUIRED, "{got:?}");
            assert!(got.headers.contains_key("rdn-price"), "the seller's own: {got:?}");
            let why = got.headers["proxy-status"].to_str().unwrap();
            assert!(why.contains(reason), "not {reason:?}: {why}");
        }
        let all = before.elapsed();
        assert!(all < Duration::from_secs(8) && free <= all, "{all:?}, what is free {free:?}");
    }

    /// Retries until the request is paid, without a restart.
    async fn until_paid(&self) {
        let paid = async {
            while self.ask("/paid").await.status != StatusCode::OK {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(BOUND, paid).await.expect("it is never paid again");
    }

    /// Exactly one channel, on the chain too, and one payment in it.
    async fn one_channel_paid(&self, payments: u64) {
        let paid = Amount::from(payments * PRICE);
        assert_eq!((self.proxy.promised().await, self.fair.origin.total_registered()), (paid, paid));
        assert_eq!(self.proxy.channels().await.len(), 1);
        assert_eq!(self.openings().await, 1);
    }

    /// How many channels the contract ever opened.
    async fn openings(&self) -> usize {
        let node = HttpClient::builder().build(self.fair.market.chain.url()).unwrap();
        let filter = json!({ "fromBlock": "0x0", "address": self.fair.market.manager });
        node.request::<Vec<Value>, _>("eth_getLogs", rpc_params![filter]).await.unwrap().len()
    }
}

#[tokio::test]
async fn a_node_that_is_down_at_the_start_is_waited_for() {
    let scene = Scene::with("ready_timeout = \"300ms\"", Mode::Cut, |_, _| {}).await;
    scene.ten_are_refused("/paid", "not ready to pay: the node http://127.0.0.1").await;
    assert!(scene.proxy.channels().await.is_empty());
    scene.relay.set(Mode::Pass);
    scene.until_paid().await;
    scene.one_channel_paid(1).await;
}

#[tokio::test]
async fn an_invalid_contract_is_reported_and_nothing_is_paid() {
    let wrong = Scene::with("ready_timeout = \"2s\"", Mode::Pass, |alice, market| {
        alice.change(&market.manager.to_string(), &market.token.to_string());
    });
    wrong.await.ten_are_refused("/paid", "is not a channel contract").await;
}

#[tokio::test]
async fn a_node_that_is_lost_while_a_channel_is_opened_costs_no_second_channel() {
    for mode in [
        Mode::LoseQuestionOf("eth_sendRawTransaction"),
        Mode::LoseQuestionOf("eth_getTransactionReceipt"),
        Mode::LoseAnswerOf("eth_getTransactionReceipt"),
    ] {
        // The client's timeout comes first.
        let scene = Scene::with("pay_timeout = \"1s\"", mode, |_, _| {}).await;
        let reason =
            "limits.pay_timeout: the transaction that opens or tops up a channel is not confirmed yet";
        scene.ten_are_refused("/paid", reason).await;
        assert_eq!(scene.proxy.promised().await, Amount::ZERO, "{mode:?}");
        scene.relay.set(Mode::Pass);
        scene.until_paid().await;
        scene.one_channel_paid(1).await;

        // The wait for the transaction times out first; it is resumed before another is sent.
        let patience = "poll_every = \"10ms\"\nconfirm_timeout = \"300ms\"";
        let scene = Scene::with("", mode, |alice, _| alice.change("poll_every = \"10ms\"", patience)).await;
        scene.ten_are_refused("/paid", "is not confirmed after 300ms").await;
        scene.relay.set(Mode::Pass);
        scene.until_paid().await;
        scene.one_channel_paid(1).await;
    }

    // A response lost after the node accepted the transaction causes no delay.
    let scene = Scene::with("", Mode::LoseAnswerOf("eth_sendRawTransaction"), |_, _| {}).await;
    assert_eq!(scene.ask("/paid").await.status, StatusCode::OK);
    scene.one_channel_paid(1).await;
}

#[tokio::test]
async fn a_silent_node_times_out() {
    let scene = Scene::with("pay_timeout = \"1s\"", Mode::Pass, |_, _| {}).await;
    // Ready, and one channel open: it can pay without the node.
    assert_eq!(scene.ask("/paid").await.status, StatusCode::OK);
    scene.relay.set(Mode::Stall);
    for paid in 2..=10 {
        assert_eq!(scene.ask("/paid").await.status, StatusCode::OK, "payment {paid}");
    }
    scene.ten_are_refused("/paid", "not paid within limits.pay_timeout").await;
    assert_eq!(scene.proxy.promised().await, Amount::from(10 * PRICE));
}

#[tokio::test]
async fn a_transaction_that_fails_or_cannot_be_paid_says_why() {
    for (mode, path, reason) in [
        // Too little gas: mined, and reverted.
        (Mode::Answer("eth_estimateGas", 30_000), "/paid", "failed: "),
        (Mode::Answer("eth_getBalance", 0), "/paid", "wei more"),
        (Mode::Pass, "/dear", "send it 1000000000 more"),
    ] {
        let scene = Scene::with("", mode, |alice, _| {
            alice.change("max_price = 10000", "max_price = 3000000000");
            alice.change("[deposit]\n", "[deposit]\ninitial = 1\n");
        });
        let scene = scene.await;
        scene.ten_are_refused(path, "could not open a channel of ").await;
        scene.ten_are_refused(path, reason).await;
        assert!(scene.proxy.channels().await.is_empty());
        assert_eq!(scene.openings().await, 0);
        scene.relay.set(Mode::Pass);
        scene.until_paid().await;
        scene.one_channel_paid(1).await;
    }
}

#[tokio::test]
async fn a_seller_that_misses_the_channel_gets_a_limited_number_of_retries_and_is_later_paid_on_it() {
    let scene = Scene::with("", Mode::Pass, |alice, _| {
        alice.change("times = 1000, timeout = \"20s\"", "times = 3, timeout = \"20s\"");
    });
    let scene = scene.await;
    scene.fair.origin.stop_noticing();
    let reason = "the seller does not know the channel: gave up after 3 attempts (hooks.nonexisting_channel)";
    scene.ten_are_refused("/paid", reason).await;
    assert_eq!(scene.fair.origin.total_registered(), Amount::ZERO);
    assert_eq!(scene.proxy.promised().await, Amount::from(PRICE), "ten requests, one total");
    scene.fair.origin.resume_noticing();
    scene.fair.origin.await_poll().await;
    assert_eq!(scene.ask("/paid").await.status, StatusCode::OK);
    scene.one_channel_paid(1).await;
}

/// The file can be read, but not written.
#[tokio::test]
async fn a_journal_that_is_read_only_from_the_start_ends_payments_and_nothing_else() {
    let scene = Scene::with("ready_timeout = \"300ms\"", Mode::Pass, |_, _| {}).await;
    scene.until_paid().await;
    let Scene { fair, relay, proxy, alice } = scene;
    proxy.stop().await;
    let file = alice.state_dir().join(journal::FILE);
    // The writer thread ends by itself, and the write-ahead log is removed with it, which contains a newer first page.
    let log = alice.state_dir().join(format!("{}-wal", journal::FILE));
    let closed = async {
        let mut looks = tokio::time::interval(Duration::from_millis(5));
        while log.exists() {
            looks.tick().await;
        }
    };
    tokio::time::timeout(BOUND, closed).await.expect("the journal stays open");
    write_version(&file, 3);
    let proxy = alice.start().await;
    let scene = Scene { fair, relay, proxy, alice };
    let presented = scene.fair.origin.exchanges();
    scene.ten_are_refused("/paid", "attempt to write a readonly database").await;
    assert_eq!(scene.fair.origin.exchanges() - presented, 11, "ten without a payment, one free");
    assert_eq!(scene.fair.origin.total_registered(), Amount::from(PRICE));
    let Scene { fair, relay, proxy, alice } = scene;
    proxy.stop().await;
    write_version(&file, 2);
    let proxy = alice.start().await;
    let scene = Scene { fair, relay, proxy, alice };
    scene.until_paid().await;
    scene.one_channel_paid(2).await;
    scene.proxy.stop().await;
}

/// A SQLite file with an unknown write version can only be read. That holds for every user, including root.
fn write_version(file: &Path, version: u8) {
    let mut file = OpenOptions::new().write(true).open(file).unwrap();
    file.seek(SeekFrom::Start(18)).unwrap();
    file.write_all(&[version]).unwrap();
}

/// Another program locks the journal: like on a full disk, nothing can be written.
#[tokio::test]
async fn without_a_journal_nothing_is_opened_and_nothing_signed() {
    let scene = Scene::with("sign_ahead = 0", Mode::Pass, |_, _| {}).await;
    scene.proxy.ready().await;
    scene.ten_are_refused("/dear", "is above max_price").await;
    let other = rusqlite::Connection::open(scene.alice.state_dir().join(journal::FILE)).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let reason = "the intent could not be recorded, so the transaction was not sent";
    scene.ten_are_refused("/paid", reason).await;
    assert_eq!(scene.openings().await, 0);
    other.execute_batch("ROLLBACK").unwrap();
    scene.until_paid().await;
    scene.one_channel_paid(1).await;

    // Payments are recorded before the journal is locked again.
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let presented = scene.fair.origin.exchanges();
    scene.ten_are_refused("/paid", "the journal cannot be written, so nothing is signed").await;
    assert_eq!(scene.fair.origin.exchanges() - presented, 11, "ten without a payment, one free");
    assert_eq!(scene.fair.origin.total_registered(), Amount::from(PRICE));
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(scene.ask("/paid").await.status, StatusCode::OK);
    scene.one_channel_paid(2).await;
    scene.proxy.stop().await;
}
