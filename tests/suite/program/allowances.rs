//! `tollpass approve-token` as users run it: with a running proxy and without one, on a network of its own and on that of the
//! channels.

use ethers_core::abi::Token;
use ethers_core::types::{Bytes, H160, U256};
use http::{Request, StatusCode};
use jsonrpsee::rpc_params;
use serde_json::{Value, json};
use tollpass::devnet::chain::DevChainSettings;
use tollpass::devnet::{contracts, deploy};
use tollpass::payments::journal;

use super::{Ran, run, text};
use crate::pays::QUICK;
use crate::support::chains::Network;
use crate::support::fair::{Fair, empty};
use crate::support::market::account;
use crate::support::notary::{Does, Notary, TRANSACTIONS};
use crate::support::payer::{Alice, PATIENCE, Program};
use crate::support::wire::ask;

const PERMIT2: &str = "0x000000000022D473030F116dDEE9F6B43aC78BA3";
const NETWORK: &str = "eip155:31337";
/// Does nothing, successfully.
const CODE: &str = "0x00";

/// A network with Permit2's address in use, and Alice with ether there and no channels.
struct Scene {
    network: Network,
    alice: Alice,
    /// Its allowances can be changed at any time.
    easy: H160,
    /// Its allowances must be 0 before they are changed.
    strict: H160,
}

impl Scene {
    /// `more` is added to `[[network]]`.
    async fn set(more: &str) -> Self {
        let network = Network::embedded(DevChainSettings::default()).await;
        let options = deploy::Options { is_plain_wanted: true, ..deploy::Options::default() };
        let strict = deploy::deploy(&network.url, options).await.unwrap().plain.unwrap().token;
        let easy = deploy::deploy_authorized_token(&network.url).await.unwrap();
        let url = &network.url;
        let alice = Alice::without_chain(&format!(
            "[[network]]\nid = \"{NETWORK}\"\nrpc_url = \"{url}\"\n{more}\
             [[asset]]\nsymbol = \"EASY\"\nnetwork = \"{NETWORK}\"\ntoken = \"{easy}\"\ndecimals = 6\n"
        ));
        deploy::fund(url, alice.address, U256::exp10(18), &[]).await.unwrap();
        let _: Value = network.request("anvil_setCode", rpc_params![PERMIT2, CODE]).await.unwrap();
        Self { network, alice, easy: easy.into(), strict: strict.into() }
    }

    async fn approve(&self, arguments: &[&str]) -> Ran {
        approve(&self.alice, arguments).await
    }

    /// The running program, once its key is unlocked.
    async fn serve(&self) -> Program {
        let program = self.alice.serve(&[]).await;
        let asking = async { while self.approve(&["EASY", "--show"]).await.code != 0 {} };
        tokio::time::timeout(PATIENCE, asking).await.expect("it does not become ready");
        program
    }

    async fn allowance(&self, token: H160) -> U256 {
        allowance(&self.network, &self.alice, token).await
    }

    async fn has_succeeded(&self, transaction: &str) -> bool {
        let receipt: Value =
            self.network.request("eth_getTransactionReceipt", rpc_params![transaction]).await.unwrap();
        receipt["status"] == "0x1"
    }

    async fn sent(&self) -> u64 {
        let params = rpc_params![H160::from(self.alice.address), "latest"];
        let count: U256 = self.network.request("eth_getTransactionCount", params).await.unwrap();
        count.as_u64()
    }
}

async fn approve(alice: &Alice, arguments: &[&str]) -> Ran {
    let config = alice.config_path();
    let first = ["approve-token", "--config", text(&config), "--network", NETWORK];
    run(&[&first, arguments].concat()).await
}

async fn allowance(network: &Network, alice: &Alice, token: H160) -> U256 {
    let parties = [Token::Address(alice.address.into()), Token::Address(PERMIT2.parse().unwrap())];
    let data = contracts::token().call("allowance", &parties).unwrap();
    let answer: Bytes =
        network.request("eth_call", rpc_params![json!({"to": token, "data": data}), "latest"]).await.unwrap();
    U256::from_big_endian(&answer)
}

#[tokio::test]
async fn an_allowance_is_set_shown_and_changed_with_and_without_a_running_proxy() {
    let scene = Scene::set("").await;
    let strict = format!("{:?}", scene.strict);
    for is_running in [false, true] {
        let program = match is_running {
            true => Some(scene.serve().await),
            false => None,
        };
        let shown = scene.approve(&["EASY"]).await;
        let before =
            if is_running { "Permit2 may move 0.000007 EASY on" } else { "Permit2 may move 0 EASY on" };
        assert!(shown.code == 0 && shown.out.starts_with(before), "{shown:?}");
        let begun = scene.sent().await;
        // Without a terminal, only --yes agrees.
        let asked = scene.approve(&["EASY", "5 EASY"]).await;
        assert!(asked.code == 3 && asked.errors.contains("--yes"), "{asked:?}");
        assert!(asked.errors.contains("up to 5 EASY") && asked.errors.contains("fees: at most"), "{asked:?}");
        assert_eq!(scene.sent().await, begun, "nothing was sent");

        let set = scene.approve(&["EASY", "5", "EASY", "--yes"]).await;
        let (said, hash) = set.out.trim_end().split_once("\ntransaction: ").unwrap();
        assert_eq!((set.code, said), (0, "Permit2 may move 5 EASY on eip155:31337"), "{set:?}");
        assert!(scene.has_succeeded(hash).await, "{set:?}");
        assert_eq!((scene.allowance(scene.easy).await, scene.sent().await), (5_000_000.into(), begun + 1));
        let same = scene.approve(&["EASY", "5000000", "--yes"]).await;
        assert_eq!((same.code, scene.sent().await), (0, begun + 1), "it is so already: {same:?}");
        assert!(!same.out.contains("transaction"), "{same:?}");
        let unlimited = scene.approve(&["EASY", "--unlimited", "--yes", "--json"]).await;
        let json: Value = serde_json::from_str(&unlimited.out).unwrap();
        assert_eq!((&json["unlimited"], &json["network"]), (&json!(true), &json!(NETWORK)), "{unlimited:?}");
        assert_eq!(scene.allowance(scene.easy).await, U256::MAX);
        let lower = scene.approve(&["EASY", "7", "--yes"]).await;
        assert_eq!((lower.code, scene.sent().await), (0, begun + 3), "{lower:?}");

        // One that is not 0 becomes 0 first.
        let mut shown = 0;
        for amount in ["8", "9"] {
            let set = scene.approve(&[&strict, amount, "--yes"]).await;
            assert_eq!(set.code, 0, "{set:?}");
            shown += set.out.matches("\ntransaction: 0x").count();
            assert_eq!(scene.allowance(scene.strict).await, U256::from_dec_str(amount).unwrap());
        }
        let transactions = if is_running { 4 } else { 3 };
        assert_eq!((scene.sent().await, shown as u64), (begun + 3 + transactions, transactions));
        if let Some(program) = program {
            program.terminate();
            assert_eq!(program.ended().await.0.code(), Some(0));
        }
    }
}

#[tokio::test]
async fn nothing_is_sent_where_it_would_be_of_no_use() {
    let scene = Scene::set("").await;
    let nobody = "0x70ab1e0000000000000000000000000000004020";
    for (arguments, why) in [
        (vec![nobody, "5", "--yes"], "is not a token on eip155:31337"),
        (vec!["EASY", "5 RDN", "--yes"], "the token is EASY, not RDN"),
        (vec!["USDC", "5", "--yes"], "no token \"USDC\" is known on eip155:31337"),
        (vec!["EASY", "5", "--unlimited"], "cannot be used with"),
    ] {
        let ran = scene.approve(&arguments).await;
        assert!(ran.code != 0 && ran.errors.contains(why), "{arguments:?}: {ran:?}");
    }
    let config = scene.alice.config_path();
    let other = ["approve-token", "--config", text(&config), "--network", "eip155:8453", "USDC", "5"];
    let ran = run(&other).await;
    assert!(ran.code == 1 && ran.errors.contains("add a [[network]] with id = \"eip155:8453\""), "{ran:?}");
    let _: Value = scene.network.request("anvil_setCode", rpc_params![PERMIT2, "0x"]).await.unwrap();
    let ran = scene.approve(&["EASY", "5", "--yes"]).await;
    assert!(ran.code == 1 && ran.errors.contains("has no contract at"), "{ran:?}");

    let program = scene.serve().await;
    let _: Value = scene.network.request("anvil_setCode", rpc_params![PERMIT2, CODE]).await.unwrap();
    let frozen = run(&["freeze", "--config", text(&config)]).await;
    assert_eq!(frozen.code, 0, "{frozen:?}");
    let ran = scene.approve(&["EASY", "5", "--yes"]).await;
    assert!(ran.code == 1 && ran.errors.contains("tollpass is frozen"), "{ran:?}");
    program.terminate();
    assert_eq!((scene.sent().await, scene.allowance(scene.easy).await), (0, U256::zero()));
}

#[tokio::test]
async fn fees_have_limits_that_a_restart_does_not_lift() {
    let mut scene = Scene::set("max_fee_per_gas = \"1 wei\"\nmax_fees_per_day = \"1 ETH\"\n").await;
    let ran = scene.approve(&["EASY", "5", "--yes"]).await;
    assert!(ran.code == 1 && ran.errors.contains("network.max_fee_per_gas allows 1 wei"), "{ran:?}");
    scene.alice.change("max_fee_per_gas = \"1 wei\"", "max_fee_per_gas = \"100 gwei\"");
    assert_eq!(scene.approve(&["EASY", "5", "--yes"]).await.code, 0);
    // What the first can have cost, and one wei more.
    let journal = rusqlite::Connection::open(scene.alice.state_dir().join(journal::FILE)).unwrap();
    let read = |row: &rusqlite::Row<'_>| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?));
    let (most, body) = journal.query_row("SELECT most, body FROM allowance", [], read).unwrap();
    assert!(body.starts_with("0x02"), "the signed transaction: {body}");
    let most: u128 = most.parse().unwrap();
    scene.alice.change("\"1 ETH\"", &format!("\"{} wei\"", most + 1));
    let ran = scene.approve(&["EASY", "6", "--yes"]).await;
    assert!(ran.code == 1 && ran.errors.contains("network.max_fees_per_day allows"), "{ran:?}");
    assert_eq!((scene.sent().await, scene.allowance(scene.easy).await), (1, 5.into()));
}

/// The token wants 0 first, and then there is not enough left for the second transaction.
#[tokio::test]
async fn an_allowance_that_is_left_at_zero_says_so_and_what_to_do() {
    let mut scene = Scene::set("max_fees_per_day = \"1 ETH\"\n").await;
    let strict = format!("{:?}", scene.strict);
    assert_eq!(scene.approve(&[&strict, "8", "--yes"]).await.code, 0);
    let journal = rusqlite::Connection::open(scene.alice.state_dir().join(journal::FILE)).unwrap();
    let most: String = journal.query_row("SELECT most FROM allowance", [], |row| row.get(0)).unwrap();
    let most: u128 = most.parse().unwrap();
    // Enough for one more that sets it to 0, which takes less gas.
    let limit = format!("\"{} wei\"", most * 19 / 10);
    scene.alice.change("\"1 ETH\"", &limit);
    let ran = scene.approve(&[&strict, "9", "--yes"]).await;
    for part in ["has been set to 0", "max_fees_per_day allows", "run the same command again"] {
        assert!(ran.code == 1 && ran.errors.contains(part), "{part}: {ran:?}");
    }
    assert_eq!(scene.allowance(scene.strict).await, U256::zero());
    scene.alice.change(&limit, "\"1 ETH\"");
    assert_eq!(scene.approve(&[&strict, "9", "--yes"]).await.code, 0);
    assert_eq!(scene.allowance(scene.strict).await, 9.into());
}

#[tokio::test]
async fn an_external_signer_is_asked_after_the_journal_knows_what_for() {
    let mut scene = Scene::set("").await;
    let notary = Notary::new();
    notary.serves(&mut scene.alice, "");
    notary.does(TRANSACTIONS, Does::Refuse);
    let ran = scene.approve(&["EASY", "5", "--yes"]).await;
    assert!(ran.code == 1 && ran.errors.contains("the signer refused"), "{ran:?}");
    notary.does(TRANSACTIONS, Does::Garbage);
    let ran = scene.approve(&["EASY", "5", "--yes"]).await;
    assert!(ran.code == 1 && ran.errors.contains("gave no clear answer"), "{ran:?}");
    let journal = rusqlite::Connection::open(scene.alice.state_dir().join(journal::FILE)).unwrap();
    let asked =
        || journal.query_row("SELECT count(*) FROM allowance", [], |row| row.get::<_, i64>(0)).unwrap();
    assert!(asked() >= 1);
    notary.does(TRANSACTIONS, Does::Sign);
    let ran = scene.approve(&["EASY", "5", "--yes"]).await;
    assert_eq!((ran.code, scene.allowance(scene.easy).await), (0, 5.into()), "{ran:?}");
}

/// The channels' transactions have the same account, and neither takes the other's nonce.
#[tokio::test]
async fn on_the_network_of_the_channels_allowances_and_channels_share_one_count_of_nonces() {
    let fair = Fair::open().await;
    let alice = Alice::with(&fair.market, QUICK).await;
    let program = alice.serve(&[]).await;
    let buy = async || {
        let paid = Request::get(format!("{}/paid", fair.origin.url())).body(empty()).unwrap();
        tokio::time::timeout(PATIENCE, ask(program.address, paid)).await.expect("no answer").status
    };
    assert_eq!(buy().await, StatusCode::OK);
    let token = fair.market.token.to_string();
    // The channels' node is asked, without a [[network]].
    let missing = approve(&alice, &[&token, "5", "--yes"]).await;
    assert!(missing.code == 1 && missing.errors.contains("has no contract at"), "{missing:?}");
    fair.market.place(PERMIT2, CODE).await;
    let [five, six] = ["5", "6"].map(|amount| [token.as_str(), amount, "--yes"]);
    let (first, second, third) = tokio::join!(approve(&alice, &five), approve(&alice, &six), buy());
    assert_eq!((first.code, second.code, third), (0, 0, StatusCode::OK), "{first:?} {second:?}");
    let config = alice.config_path();
    let receiver = account(9).address().to_string();
    let open = ["channels", "--config", text(&config), "--yes", "open", &receiver, "10"];
    let opened = run(&open).await;
    assert_eq!(opened.code, 0, "{opened:?}");
    program.terminate();
    assert_eq!(program.ended().await.0.code(), Some(0));
    let shown = approve(&alice, &[&token]).await;
    assert!(
        ["5", "6"].iter().any(|units| shown.out.contains(&format!("move {units} base units"))),
        "{shown:?}"
    );
}
