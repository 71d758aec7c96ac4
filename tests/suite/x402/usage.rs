//! Payments with an unclear outcome on a real chain: the node shows whether they were taken, and whatever else it says, or
//! does not say, changes nothing.

use std::time::Duration;

use ethers_core::abi::Token;
use ethers_core::types::U256;
use tollpass::devnet::{contracts, deploy};
use tollpass::failpoint;
use tollpass::payments::ledger::OnChainUse;
use tollpass::protocol::{Address, Amount};

use super::*;
use crate::support::market::{Market, address};
use crate::support::payer::{Program, program};
use crate::support::relay::{Act, Fault, Relay};

/// The selector of `authorizationState`, which tells whether an authorization was used.
const AUTHORIZATION_STATE: &str = "0xe94a0102";

/// A chain with the token, and a node that the test can disturb.
struct Scene {
    market: Market,
    token: Address,
    relay: Relay,
}

/// A payment as the facilitator gets it.
struct Redeemable(Value);

impl Scene {
    async fn open() -> Self {
        let market = Market::open().await;
        let token = deploy::deploy_authorized_token(&market.chain.url()).await.unwrap();
        let relay = Relay::before(&market.chain.url()).await;
        Self { market, token, relay }
    }

    /// Alice with money, and a budget of this many prices.
    async fn alice(&self, prices: u64) -> Alice {
        let (token, url) = (self.token, self.relay.url());
        let alice = Alice::without_chain(&format!(
            "[[asset]]\nsymbol = \"TOY\"\nnetwork = \"eip155:31337\"\ntoken = \"{token}\"\ndecimals = 6\n\
             eip712_name = \"Demo Dollar\"\neip712_version = \"2\"\n\
             [[pay]]\nhost = \"localhost\"\nmax_price = \"0.001 TOY\"\n\
             [[budget]]\nname = \"all\"\nwallet = true\ntotal = \"{} units of TOY\"\n\
             [[network]]\nid = \"eip155:31337\"\nrpc_url = \"{url}\"\nretry_timeout = \"1ms\"\n\
             [limits]\nanswer_timeout = \"300ms\"\nunclear_repeats = 0\nretry_window = \"20s\"\n\
             chain_check_every = \"5ms\"\n",
            prices * PRICE
        ));
        let tokens = [(token, Amount::from(10 * PRICE))];
        deploy::fund(&self.market.chain.url(), alice.address, U256::zero(), &tokens).await.unwrap();
        alice
    }

    /// Takes payments, and fails without settling them while `fails`. They are valid for as short as they can be.
    async fn seller(&self, fails: impl Fn(&Presented) -> bool + Send + 'static) -> Mallory {
        let token = self.token;
        Mallory::spawn(move |presented| {
            if !presented.headers.contains_key(V2.header()) {
                let entry = json!({
                    "scheme": "exact", "network": "eip155:31337", "amount": PRICE.to_string(), "asset": token,
                    "payTo": BOB, "maxTimeoutSeconds": 7, "extra": {"name": "Demo Dollar", "version": "2"},
                });
                return V2.asks("Payment required", &[entry]);
            }
            match fails(presented) {
                true => Answer::new(StatusCode::GATEWAY_TIMEOUT, "late"),
                false => V2.served(),
            }
        })
        .await
    }

    /// The questions about the use of authorizations; that for the wallet's balance comes at any time after a start.
    fn uses_asked(&self) -> Vec<Value> {
        let mut asked = self.relay.questions("eth_call");
        asked.retain(|question| question[0]["data"].as_str().unwrap().starts_with(AUTHORIZATION_STATE));
        asked
    }

    /// What the facilitator does with a payment.
    async fn settle(&self, Redeemable(payload): &Redeemable) {
        let fields = &payload["authorization"];
        let text = |name: &str| fields[name].as_str().unwrap();
        let number = |name: &str| Token::Uint(U256::from_dec_str(text(name)).unwrap());
        let bytes = |hex: &str| ethers_core::utils::hex::decode(hex).unwrap();
        let arguments = [
            address(text("from").parse().unwrap()),
            address(text("to").parse().unwrap()),
            number("value"),
            number("validAfter"),
            number("validBefore"),
            Token::FixedBytes(bytes(text("nonce"))),
            Token::Bytes(bytes(payload["signature"].as_str().unwrap())),
        ];
        let token = contracts::authorized_token();
        self.market.call(0, token, self.token, "transferWithAuthorization", &arguments).await;
    }

    /// Mines until the ledger is as wanted.
    async fn mine_until(&self, alice: &Alice, mut is_wanted: impl FnMut(&[LedgerRow]) -> bool) {
        let mining = async {
            while !is_wanted(&ledger::rows(alice)) {
                self.market.mine(1).await;
                // The rows are another connection's, and SQLite notifies none of a change.
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let over = tokio::time::timeout(PATIENCE, mining).await;
        over.unwrap_or_else(|_| panic!("{:#?}", ledger::rows(alice)));
    }
}

fn last_payment(seller: &Mallory) -> Redeemable {
    let presented = seller.presented();
    let paid = presented.iter().rev().find_map(|presented| presented.headers.get(V2.header())).unwrap();
    let payment: Value = serde_json::from_slice(&STANDARD.decode(paid.as_bytes()).unwrap()).unwrap();
    Redeemable(payment["payload"].clone())
}

async fn post(address: std::net::SocketAddr, seller: &Mallory, path: &str) -> Got {
    let url = format!("http://localhost:{}{path}", seller.address().port());
    let request = Request::post(url).body(empty()).unwrap();
    tokio::time::timeout(PATIENCE, ask(address, request)).await.expect("no answer")
}

/// What is spent of the budget, in prices.
fn spent(proxy: &Running) -> u64 {
    let spent = proxy.payments.budgets()[0].windows.last().unwrap().spent.clone();
    let units: f64 = spent.split(' ').next().unwrap().parse().unwrap();
    (units * 1000.0).round() as u64
}

fn has(state: LedgerState) -> impl FnMut(&[LedgerRow]) -> bool {
    move |rows| last_states(rows).contains(&state)
}

#[tokio::test]
async fn what_was_settled_is_known_to_be_taken_and_stays_spent() {
    let scene = Scene::open().await;
    let seller = scene.seller(|_| true).await;
    let alice = scene.alice(2).await;
    let proxy = alice.start().await;
    assert_eq!(post(proxy.address, &seller, "/goods").await.status, StatusCode::GATEWAY_TIMEOUT);
    scene.settle(&last_payment(&seller)).await;
    let rows = ledger::await_rows(&alice, has(LedgerState::PaidNotDelivered)).await;
    let last = rows.last().unwrap();
    assert_eq!(last.confirmation, Some(OnChainUse::Used), "{rows:#?}");
    let got = post(proxy.address, &seller, "/goods").await;
    assert!(reason(&got).contains("reason=paid-not-delivered"), "{got:?}");
    assert!(got.headers.contains_key("retry-after"), "{got:?}");
    assert_eq!((spent(&proxy), proxy.payments.holds().len()), (1, 0));
    proxy.stop().await;
    // It is not asked about again, also after a restart.
    let asked = scene.uses_asked().len();
    let proxy = alice.start().await;
    let got = post(proxy.address, &seller, "/goods").await;
    assert!(reason(&got).contains("reason=paid-not-delivered"), "{got:?}");
    proxy.stop().await;
    assert_eq!(scene.uses_asked().len(), asked);
    assert_eq!((nonces_of(&seller), held_by_bob(&scene).await), (1, PRICE));
}

/// Of two payments that were served, the facilitator settles one: the ledger has both claims, and what the chain shows.
#[tokio::test]
async fn what_a_seller_states_is_confirmed_or_refuted() {
    let scene = Scene::open().await;
    let seller = scene.seller(|_| false).await;
    let alice = scene.alice(2).await;
    let proxy = alice.start().await;
    for path in ["/taken", "/given"] {
        assert_eq!(post(proxy.address, &seller, path).await.status, StatusCode::OK);
        if path == "/taken" {
            scene.settle(&last_payment(&seller)).await;
        }
    }
    assert_eq!((spent(&proxy), proxy.payments.holds().len()), (2, 0));
    let of = |rows: &[LedgerRow], path: &str| rows.iter().rfind(|row| row.path == path).cloned().unwrap();
    let is_confirmed = |rows: &[LedgerRow]| of(rows, "/taken").confirmation.is_some();
    let rows = ledger::await_rows(&alice, is_confirmed).await;
    let taken = of(&rows, "/taken");
    assert_eq!((taken.state, taken.confirmation), (LedgerState::Paid, Some(OnChainUse::Used)));
    assert!(taken.receipt.contains("transaction"), "the claim stays: {taken:?}");
    assert_eq!(of(&rows, "/given").confirmation, None);
    // A restart forgets neither. The purchase is not continued: it was served.
    proxy.stop().await;
    let proxy = alice.start().await;
    let got = post(proxy.address, &seller, "/given").await;
    assert!(reason(&got).contains("reason=over-budget"), "{got:?}");
    scene.mine_until(&alice, has(LedgerState::Expired)).await;
    let given = of(&ledger::rows(&alice), "/given");
    assert_eq!((given.confirmation, given.counts), (Some(OnChainUse::Unused), Amount::ZERO));
    assert!(given.receipt.contains("transaction"), "the claim stays: {given:?}");
    assert_eq!(spent(&proxy), 1);
    // Nothing is asked about again.
    let asked = scene.uses_asked().len();
    let blocks = scene.relay.questions("eth_chainId").len();
    assert_eq!(post(proxy.address, &seller, "/again").await.status, StatusCode::OK);
    tokio::time::timeout(PATIENCE, scene.relay.until_asked("eth_chainId", blocks + 1)).await.unwrap();
    proxy.stop().await;
    let later = scene.uses_asked().split_off(asked);
    let nonce = last_nonce(&seller);
    assert!(later.iter().all(|question| question.to_string().contains(&nonce)), "{later:?}");
    assert_eq!(ledger::sum(&ledger::rows(&alice)).total(), Amount::from(2 * PRICE).into());
    // Claim and confirmation are shown apart.
    let table = ledger::shown::printed(&alice, &[]).await;
    for (path, shown) in [("/taken", "paid     receipt  used    "), ("/given", "expired  receipt  unused  ")]
    {
        let line = table.lines().rfind(|line| line.contains(path)).unwrap();
        assert!(line.contains(shown), "{table}");
    }
    let rows: Value = serde_json::from_str(&ledger::shown::printed(&alice, &["--json"]).await).unwrap();
    let shown: Vec<_> = rows.as_array().unwrap().iter().map(|row| row["confirmation"].clone()).collect();
    assert!([json!("used"), json!("unused"), Value::Null].iter().all(|word| shown.contains(word)), "{rows}");
    assert!(ledger::shown::printed(&alice, &["verify"]).await.contains("is unchanged"));
}

fn last_nonce(seller: &Mallory) -> String {
    let Redeemable(payload) = last_payment(seller);
    payload["authorization"]["nonce"].as_str().unwrap().trim_start_matches("0x").to_owned()
}

fn nonces_of(seller: &Mallory) -> usize {
    let mut all: Vec<_> =
        seller.presented().iter().filter_map(|one| one.headers.get(V2.header()).cloned()).collect();
    all.dedup();
    all.len()
}

/// What Bob has.
async fn held_by_bob(scene: &Scene) -> u64 {
    let owner = address(BOB.parse().unwrap());
    let data = contracts::authorized_token().call("balanceOf", &[owner]).unwrap();
    let call = json!({ "to": scene.token, "data": data });
    number(scene, "eth_call", jsonrpsee::rpc_params![call, "latest"]).await
}

async fn number(scene: &Scene, method: &str, params: jsonrpsee::core::params::ArrayParams) -> u64 {
    let node = jsonrpsee::http_client::HttpClient::builder().build(scene.market.chain.url()).unwrap();
    jsonrpsee::core::client::ClientT::request::<U256, _>(&node, method, params).await.unwrap().as_u64()
}

#[tokio::test]
async fn what_was_never_settled_is_free_again_once_it_has_expired_and_the_purchase_is_paid_at_once() {
    let scene = Scene::open().await;
    let seller = scene.seller(|presented| presented.number < 2).await;
    let alice = scene.alice(1).await;
    let proxy = alice.start().await;
    assert_eq!(post(proxy.address, &seller, "/goods").await.status, StatusCode::GATEWAY_TIMEOUT);
    let got = post(proxy.address, &seller, "/others").await;
    assert!(reason(&got).contains("reason=over-budget"), "{got:?}");
    let holds = proxy.payments.holds();
    assert_eq!((holds.len(), holds[0].host.as_deref()), (1, Some("localhost")), "{holds:?}");
    assert!(holds[0].until.contains("by the chain eip155:31337"), "{holds:?}");
    // Blocks of the future end nothing.
    scene.market.mine(60).await;
    let unclear = || proxy.payments.report().other_assets[0].total().unclear.requests;
    assert_eq!(unclear(), 1);
    scene.mine_until(&alice, has(LedgerState::Expired)).await;
    assert_eq!((spent(&proxy), proxy.payments.holds().len()), (0, 0));
    assert!(proxy.payments.report().other_assets.is_empty(), "{:?}", proxy.payments.report());
    let got = post(proxy.address, &seller, "/goods").await;
    assert_eq!(got.status, StatusCode::OK, "{got:?}");
    assert_eq!((nonces_of(&seller), spent(&proxy)), (2, 1));
    proxy.stop().await;
    let rows = ledger::rows(&alice);
    assert_eq!(last_states(&rows), [LedgerState::Expired, LedgerState::Paid], "{rows:#?}");
    let first = rows.iter().find(|row| row.state == LedgerState::Expired).unwrap();
    let valid_before: u64 = last_valid_before(&seller, 0);
    assert!(first.at >= valid_before * 1000, "{first:?}");
    assert_eq!(ledger::sum(&rows).total(), Amount::from(PRICE).into());
}

fn last_valid_before(seller: &Mallory, which: usize) -> u64 {
    let presented = seller.presented();
    let paid: Vec<_> = presented.iter().filter_map(|one| one.headers.get(V2.header())).collect();
    let payment: Value = serde_json::from_slice(&STANDARD.decode(paid[which].as_bytes()).unwrap()).unwrap();
    payment["payload"]["authorization"]["validBefore"].as_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn whatever_else_a_node_says_ends_nothing() {
    let scene = Scene::open().await;
    let seller = scene.seller(|_| true).await;
    let alice = scene.alice(1).await;
    let proxy = alice.start().await;
    // From the beginning: none of this is an answer.
    let faults = || {
        let block = |member: &'static str, value: &'static str| {
            Fault::change("eth_getBlockByNumber", move |mut block| {
                block[member] = value.into();
                block
            })
        };
        [
            Fault::on_any(Act::Cut),
            Fault::result("eth_chainId", json!("0x1")),
            Fault::on("eth_call", Act::Refuse(3, "execution reverted")),
            Fault::on("eth_call", Act::Refuse(-32000, "header not found")),
            Fault::result("eth_call", json!("0x")),
            Fault::result("eth_call", json!(format!("0x{}", "00".repeat(31)))),
            Fault::result("eth_call", json!(format!("0x{}", "00".repeat(64)))),
            Fault::result("eth_call", Value::Null),
            Fault::result("eth_getBlockByNumber", Value::Null),
            block("timestamp", "0x1"),
            block("timestamp", "0x1ffffffffffffffff"),
            block("number", "0x1"),
            block("hash", "0x1111111111111111111111111111111111111111111111111111111111111111"),
            Fault::result("eth_blockNumber", json!("0xffff")),
            Fault::on_any(Act::Answer(200, &[("content-type", "text/html")], b"<html>")),
        ]
    };
    scene.relay.fault(Fault::on_any(Act::Cut));
    assert_eq!(post(proxy.address, &seller, "/goods").await.status, StatusCode::GATEWAY_TIMEOUT);
    let valid_before = last_valid_before(&seller, 0);
    // It expires by the machine's clock, which a test cannot set.
    let expiry = UNIX_EPOCH + Duration::from_secs(valid_before + 1);
    tokio::time::sleep(expiry.duration_since(SystemTime::now()).unwrap_or_default()).await;
    scene.market.mine(1).await;
    for (number, fault) in faults().into_iter().enumerate() {
        scene.relay.heal();
        scene.relay.fault(fault);
        let asked = scene.relay.questions("eth_chainId").len();
        tokio::time::timeout(PATIENCE, scene.relay.until_asked("eth_chainId", asked + 3)).await.unwrap();
        assert_eq!((spent(&proxy), proxy.payments.holds().len()), (1, 1), "the fault {number}");
        assert!(!has(LedgerState::Expired)(&ledger::rows(&alice)), "the fault {number}");
    }
    scene.relay.heal();
    ledger::await_rows(&alice, has(LedgerState::Expired)).await;
    assert_eq!(spent(&proxy), 0);
    proxy.stop().await;
}

#[tokio::test]
async fn without_enough_confirmations_nothing_is_shown() {
    let scene = Scene::open().await;
    let seller = scene.seller(|_| true).await;
    let mut alice = scene.alice(1).await;
    alice.change("retry_timeout = \"1ms\"", "retry_timeout = \"1ms\"\nconfirmations = 3");
    let proxy = alice.start().await;
    assert_eq!(post(proxy.address, &seller, "/goods").await.status, StatusCode::GATEWAY_TIMEOUT);
    let head = scene.relay.questions("eth_getBlockByNumber").len();
    scene.settle(&last_payment(&seller)).await;
    let asked = scene.relay.until_asked("eth_getBlockByNumber", head + 5);
    tokio::time::timeout(PATIENCE, asked).await.expect("it does not ask");
    // The state is read after the third block from the end, where it was not settled.
    let asked = scene.relay.questions("eth_getBlockByNumber").pop().unwrap();
    let newest = number(&scene, "eth_blockNumber", jsonrpsee::rpc_params![]).await;
    assert_eq!(asked, json!([format!("0x{:x}", newest - 2), false]));
    assert!(!has(LedgerState::PaidNotDelivered)(&ledger::rows(&alice)));
    let holds = proxy.payments.holds();
    assert_eq!(holds.len(), 1, "{holds:?}");
    proxy.stop().await;
    alice.change("\nconfirmations = 3", "");
    let proxy = alice.start().await;
    ledger::await_rows(&alice, has(LedgerState::PaidNotDelivered)).await;
    proxy.stop().await;
}

/// Without a node, time ends the doubt, and the amount stays spent.
#[tokio::test]
async fn status_says_what_stays_spent() {
    let scene = Scene::open().await;
    let seller = scene.seller(|_| true).await;
    let mut alice = scene.alice(1).await;
    alice.change("id = \"eip155:31337\"", "id = \"eip155:1\"");
    let proxy = alice.start().await;
    assert_eq!(post(proxy.address, &seller, "/goods").await.status, StatusCode::GATEWAY_TIMEOUT);
    let holds = proxy.payments.holds();
    assert_eq!(holds.len(), 1, "{holds:?}");
    let hold = &holds[0];
    assert_eq!((hold.amount, hold.payee.to_string().as_str()), (PRICE.into(), BOB));
    assert_eq!(
        (hold.until.as_str(), hold.budgets.as_slice()),
        ("stays spent: no [[network]] for eip155:31337", ["all".to_owned()].as_slice())
    );
    assert_eq!(scene.uses_asked().len(), 0);
    proxy.stop().await;
}

/// Runs the real program on a copy of the state, until it aborts after so many effects or the ledger is as wanted.
async fn live(scene: &Scene, alice: &Alice, after: Option<u64>, wanted: LedgerState) -> Option<String> {
    let mut command = program(["serve", "--config"]);
    command.arg(alice.config_path());
    if let Some(after) = after {
        command.env(failpoint::VARIABLE, after.to_string());
    }
    let mut running = Program::start(command).await;
    let is_over = scene.mine_until(alice, has(wanted));
    tokio::select! {
        _ = running.child.wait() => {}
        () = is_over => {
            running.terminate();
            let (status, log) = running.ended().await;
            return (!status.success()).then_some(log);
        }
    }
    let (_, log) = running.ended().await;
    Some(log)
}

/// Copies the state directory of a program that does not run.
fn copy(from: &Alice, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from.state_dir()).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_file() {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

#[tokio::test]
async fn a_kill_after_any_effect_frees_or_takes_the_money_once() {
    for settles in [false, true] {
        let scene = Scene::open().await;
        let seller = scene.seller(|presented| presented.number == 3).await;
        let mut alice = scene.alice(2).await;
        // The first one is never settled, and is not asked about.
        alice.change("chain_check_every =", "served_checks = 0\nchain_check_every =");
        let running = alice.serve(&[]).await;
        // One price is spent, and another one in doubt.
        assert_eq!(post(running.address, &seller, "/first").await.status, StatusCode::OK);
        scene.relay.fault(Fault::on_any(Act::Cut));
        assert_eq!(post(running.address, &seller, "/goods").await.status, StatusCode::GATEWAY_TIMEOUT);
        ledger::await_rows(&alice, |rows| last_states(rows).len() == 2).await;
        running.kill().await;
        if settles {
            scene.settle(&last_payment(&seller)).await;
        }
        scene.relay.heal();
        let wanted = if settles { LedgerState::PaidNotDelivered } else { LedgerState::Expired };
        let kept = tempfile::tempdir().unwrap();
        copy(&alice, kept.path());
        let mut effects = Vec::new();
        for after in 1..50 {
            std::fs::remove_dir_all(alice.state_dir()).unwrap();
            copy_back(kept.path(), &alice);
            let log = live(&scene, &alice, Some(after), wanted).await;
            if let Some(log) = &log {
                let words = log.lines().find(|line| line.starts_with("aborting after effect"));
                effects.push(words.unwrap_or_else(|| panic!("{log}")).to_owned());
                // Another life, which ends well.
                assert_eq!(live(&scene, &alice, None, wanted).await, None, "{effects:#?}");
            }
            let proxy = alice.start().await;
            assert_eq!(spent(&proxy), 1 + u64::from(settles), "{effects:#?}");
            proxy.stop().await;
            let rows = ledger::rows(&alice);
            assert_eq!(rows.iter().filter(|row| row.state == wanted).count(), 1, "{effects:#?} {rows:#?}");
            assert_eq!(ledger::sum(&rows).total(), Amount::from((1 + u64::from(settles)) * PRICE).into());
            if log.is_none() {
                break;
            }
        }
        for effect in ["usage known", "records about to be written", "records written"] {
            assert!(effects.iter().any(|seen| seen.ends_with(effect)), "no {effect} among {effects:#?}");
        }
    }
}

fn copy_back(from: &std::path::Path, alice: &Alice) {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().mode(0o700).create(alice.state_dir()).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        std::fs::copy(entry.path(), alice.state_dir().join(entry.file_name())).unwrap();
    }
}
