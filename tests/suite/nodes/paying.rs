//! The same faults seen by the programs behind the proxy, and by `tollpass check`.

use http::{Request, StatusCode};
use serde_json::json;
use tokio::time::timeout;

use super::{CASE_WITHIN, PASSING, nothing, of_channel, of_token};
use crate::program::{Ran, run, text};
use crate::support::chains::each_network;
use crate::support::fair::{PRICE, empty};
use crate::support::payer::Running;
use crate::support::relay::{Act, Fault, Relay};
use crate::support::town::{Town, only};
use crate::support::wire::{Got, ask};

/// A short retry interval that can still be observed.
const SOON: &str = "[deposit]\nretry_after = \"1s\"\n";

/// A seller, and Alice's proxy behind a relay to the node.
struct Behind {
    town: Town,
    relay: Relay,
}

async fn on_each(case: impl AsyncFn(Behind)) {
    each_network(async |network| {
        let mut town = Town::on(&network.url, SOON).await;
        let relay = Relay::before(&network.url).await;
        town.alice.change(&network.url, &relay.url());
        let done = timeout(CASE_WITHIN, case(Behind { town, relay })).await;
        assert!(done.is_ok(), "not done within {CASE_WITHIN:?} on {}", network.name);
    })
    .await;
}

impl Behind {
    /// A setting of `[chain]`.
    fn set(&mut self, setting: &str) {
        self.town.alice.change("[chain]\n", &format!("[chain]\n{setting}\n"));
    }

    /// The client gets the 402 with the reason, while free resources pass.
    async fn is_refused(&self, proxy: &Running, parts: &[&str]) {
        let (got, free) = tokio::join!(self.town.ask(proxy), self.free(proxy));
        assert_eq!((got.status, free.status), (StatusCode::PAYMENT_REQUIRED, StatusCode::OK), "{got:?}");
        let why = reason(&got);
        assert!(parts.iter().all(|part| why.contains(part)), "not {parts:?}: {why}");
    }

    async fn free(&self, proxy: &Running) -> Got {
        let url = format!("{}/free", self.town.origin.url());
        ask(proxy.address, Request::get(url).body(empty()).unwrap()).await
    }

    /// Retries until the request is paid, without a restart.
    async fn until_paid(&self, proxy: &Running) {
        while self.town.ask(proxy).await.status != StatusCode::OK {
            tokio::task::yield_now().await;
        }
    }

    async fn check(&self) -> Ran {
        run(&["check", "--config", text(&self.town.alice.config_path())]).await
    }
}

fn reason(got: &Got) -> &str {
    got.headers["proxy-status"].to_str().unwrap()
}

#[tokio::test]
async fn a_start_and_a_purchase_meet_all_passing_faults_and_open_one_channel() {
    on_each(async |behind| {
        for (number, act) in PASSING.into_iter().enumerate() {
            // A node that never responds costs the whole request_timeout.
            if !matches!(act, Act::Stall) {
                behind.relay.fault(Fault::on_any(act).after(6 * number).each(6 * PASSING.len()));
            }
        }
        behind.relay.fault(Fault::on_any(Act::Answer(429, &[("retry-after", "0")], b"")).each(6));
        let proxy = behind.town.alice.start().await;
        let (paid, free) = tokio::join!(behind.town.ask(&proxy), behind.free(&proxy));
        assert_eq!((paid.status, free.status), (StatusCode::OK, StatusCode::OK), "{paid:?}");
        behind.town.buy(&proxy, 3).await;
        assert_eq!((behind.relay.fundings(), only(&proxy).await.promised), (1, (4 * PRICE).into()));
        proxy.stop().await;
    })
    .await;
}

#[tokio::test]
async fn late_receipts_cost_no_second_channel_however_many_requests_come() {
    on_each(async |behind| {
        behind.relay.fault(Fault::change("eth_getTransactionReceipt", nothing).times(100));
        behind.relay.fault(Fault::change("eth_getTransactionByHash", nothing).times(50));
        behind.relay.fault(Fault::result("eth_getLogs", json!([])).times(60));
        let proxy = behind.town.alice.start().await;
        let paid = futures_util::future::join_all((0..5).map(|_| behind.town.ask(&proxy))).await;
        assert!(paid.iter().all(|got| got.status == StatusCode::OK), "{paid:?}");
        assert_eq!((behind.relay.fundings(), only(&proxy).await.promised), (1, (5 * PRICE).into()));
        proxy.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_deposit_whose_effect_does_not_show_is_not_sent_again() {
    on_each(async |mut behind| {
        behind.set("retry_timeout = \"100ms\"");
        let proxy = behind.town.alice.start().await;
        proxy.ready().await;
        behind.relay.fault(Fault::change("eth_getTransactionReceipt", |mut receipt| {
            if receipt.is_object() {
                receipt["logs"] = json!([]);
            }
            receipt
        }));
        behind.relay.fault(Fault::result("eth_getLogs", json!([])));
        behind.relay.fault(Fault::on("eth_call", Act::Refuse(3, "execution reverted")).when(of_channel));
        for _ in 0..3 {
            behind.is_refused(&proxy, &["is confirmed, but its effect", "has no such channel"]).await;
        }
        assert_eq!(behind.relay.fundings(), 1);
        behind.relay.heal();
        behind.until_paid(&proxy).await;
        assert_eq!((behind.relay.fundings(), only(&proxy).await.deposit), (1, (10 * PRICE).into()));
        proxy.stop().await;
    })
    .await;
}

/// The contract's state of each channel, with one of its five words replaced.
fn shows(word: usize, value: u64) -> Fault {
    let change = move |result: serde_json::Value| {
        let Some(digits) = result.as_str().filter(|text| text.len() == 2 + 5 * 64) else { return result };
        let (from, to) = (2 + word * 64, 2 + (word + 1) * 64);
        json!(format!("{}{value:064x}{}", &digits[..from], &digits[to..]))
    };
    Fault::change("eth_call", change).when(of_channel)
}

#[tokio::test]
async fn a_node_that_denies_a_deposit_gets_no_second_one() {
    const DEPOSIT: usize = 1;
    const SETTLE_BLOCK: usize = 2;
    on_each(async |mut behind| {
        behind.set("retry_timeout = \"100ms\"");
        behind.town.alice.change("retry_after = \"1s\"", "retry_after = \"1h\"");
        let proxy = behind.town.alice.start().await;
        // An opening, and a top-up once its ten prices are used up.
        for (bought, word, value, reason) in [
            (0, DEPOSIT, 0, "the chain shows a deposit of 0 instead of 10000"),
            (9, DEPOSIT, 0, "the chain shows a deposit of 10000 instead of 15000"),
        ] {
            behind.town.buy(&proxy, bought).await;
            let before = behind.relay.fundings();
            behind.relay.fault(shows(word, value));
            behind.is_refused(&proxy, &[reason]).await;
            for _ in 0..5 {
                behind.is_refused(&proxy, &[]).await;
            }
            assert_eq!(behind.relay.fundings(), before + 1, "{reason}");
            behind.relay.heal();
            // It becomes visible: nothing more is sent for it.
            behind.town.rig.mining(behind.until_paid(&proxy)).await;
            assert_eq!(behind.relay.fundings(), before + 1, "{reason}");
        }
        // The channel, and each that replaces it, is being closed as soon as it exists.
        behind.town.buy(&proxy, 3).await;
        let before = behind.relay.fundings();
        behind.relay.fault(shows(SETTLE_BLOCK, 900));
        for _ in 0..6 {
            let got = behind.town.ask(&proxy).await;
            assert!(got.status == StatusCode::OK || reason(&got).contains("could not"), "{got:?}");
        }
        assert!(behind.relay.fundings() <= before + 1);
        proxy.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_tip_of_a_million_gwei_is_refused_with_the_key_and_both_numbers() {
    on_each(async |behind| {
        let tip = "0x38d7ea4c68000";
        behind.relay.fault(Fault::result("eth_maxPriorityFeePerGas", json!(tip)));
        let proxy = behind.town.alice.start().await;
        behind.is_refused(&proxy, &["would cost 1000", "chain.max_fee_per_gas allows 500 gwei"]).await;
        behind.check().await.expect_failure(&["FAIL   fees", "chain.max_fee_per_gas allows 500 gwei"]);
        assert!(behind.relay.sent().is_empty());
        behind.relay.heal();
        behind.until_paid(&proxy).await;
        assert_eq!(behind.relay.fundings(), 1);
        proxy.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_node_that_changes_its_chain_or_token_is_refused_now_and_after_a_restart() {
    on_each(async |mut behind| {
        let other = behind.town.rig.manager;
        let chain = Fault::result("eth_chainId", json!("0x1"));
        let token =
            Fault::result("eth_call", json!(format!("0x{:0>64}", &format!("{other:?}")[2..]))).when(of_token);
        let proxy = behind.town.alice.start().await;
        proxy.ready().await;
        behind.relay.fault(chain.clone());
        behind
            .is_refused(&proxy, &["is on chain 1, but payments are for chain 31337", "chain.chain_id"])
            .await;
        behind.relay.heal();
        behind.relay.fault(token.clone());
        // The first failure is remembered for a second.
        while !reason(&behind.town.ask(&proxy).await).contains("reports the token") {
            tokio::task::yield_now().await;
        }
        behind.is_refused(&proxy, &["reports the token", "cannot change"]).await;
        assert!(behind.relay.sent().is_empty());
        behind.relay.heal();
        proxy.stop().await;

        behind.town.alice.change("[deposit]\n", "[limits]\nready_timeout = \"500ms\"\n[deposit]\n");
        for (fault, parts) in [
            (chain, ["is on chain 1, but", "on chain 31337"]),
            (token, ["reports the token", "cannot change"]),
        ] {
            let sent = behind.relay.sent().len();
            behind.relay.fault(fault);
            let proxy = behind.town.alice.start().await;
            behind.is_refused(&proxy, &parts).await;
            behind.check().await.expect_failure(&[&["FAIL   journal"], &parts[..]].concat());
            assert_eq!(behind.relay.sent().len(), sent);
            // Correct data is accepted without a restart.
            behind.relay.heal();
            behind.until_paid(&proxy).await;
            proxy.stop().await;
        }
        // Another chain is fine if it is configured.
        behind.set("chain_id = 5");
        behind
            .check()
            .await
            .expect_failure(&["is on chain 31337, but payments are for chain 5", "set by chain.chain_id"]);
    })
    .await;
}

#[tokio::test]
async fn a_stranded_transaction_is_seen_by_check_and_freed_by_the_next_request() {
    on_each(async |mut behind| {
        let (fast, slow) = ("poll_every = \"10ms\"", "poll_every = \"300ms\"\nconfirm_timeout = \"200ms\"");
        behind.town.alice.change(fast, slow);
        let proxy = behind.town.alice.start().await;
        proxy.ready().await;
        behind.relay.fault(Fault::change("eth_getTransactionCount", super::plus(3)).times(2));
        behind.is_refused(&proxy, &["is not confirmed after 200ms"]).await;
        proxy.stop().await;
        let ran = behind.check().await;
        ran.expect_failure(&["FAIL   nonces", "with nonce 3 can never be mined", "nonce 0 is missing"]);
        behind.town.alice.change(slow, fast);
        let proxy = behind.town.alice.start().await;
        behind.until_paid(&proxy).await;
        assert_eq!((behind.relay.fundings(), behind.relay.sent().len()), (1, 4));
        assert_eq!(only(&proxy).await.promised, PRICE.into());
        proxy.stop().await;
        assert!(behind.check().await.out.contains("ok     nonces"));
    })
    .await;
}

#[tokio::test]
async fn a_server_that_is_not_a_node_is_reported_to_clients_and_by_check() {
    on_each(async |mut behind| {
        behind.town.alice.change("[deposit]\n", "[limits]\nready_timeout = \"500ms\"\n[deposit]\n");
        let page =
            Act::Answer(200, &[("content-type", "text/html")], b"<!doctype html><title>Log in</title>");
        behind.relay.fault(Fault::on_any(page));
        let proxy = behind.town.alice.start().await;
        behind.is_refused(&proxy, &["not ready to pay", "returned an HTML page", "chain.rpc_url"]).await;
        behind.set("retry_timeout = \"100ms\"");
        behind.check().await.expect_failure(&["FAIL   node", "returned an HTML page", "chain.rpc_url"]);
        behind.relay.heal();
        behind.until_paid(&proxy).await;
        assert_eq!(behind.relay.fundings(), 1);
        proxy.stop().await;
    })
    .await;
}

#[tokio::test]
async fn check_says_that_another_state_directory_uses_the_same_key() {
    on_each(async |mut behind| {
        let proxy = behind.town.alice.start().await;
        behind.until_paid(&proxy).await;
        proxy.stop().await;
        let ran = behind.check().await;
        assert!(ran.code == 0 && !ran.out.contains("another program or state directory"), "{ran:?}");
        behind.town.alice.change("state_dir = \"state\"", "state_dir = \"other\"");
        let ran = behind.check().await;
        assert!(
            ran.out.contains("note   key       this state directory did not open the channel"),
            "{ran:?}"
        );
        assert!(ran.out.contains("another program or state directory uses the same key"), "{ran:?}");
    })
    .await;
}
