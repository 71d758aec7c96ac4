//! The chain module against real nodes: operations, nonces, confirmations, failures, sync, and recovery after a crash.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ethers_core::types::U256;
use futures_util::future::join_all;
use jsonrpsee::rpc_params;
use serde_json::Value as Json;
use tokio::time::timeout;
use tollpass::chain::signer::Signer;
use tollpass::chain::{Chain, ChainError, ChainSettings, OpError, Resolution, Underfunded};
use tollpass::devnet::accounts;
use tollpass::devnet::chain::DevChainSettings;
use tollpass::protocol::{Address, Amount, ChannelId, ChannelOp, OnChain};

use crate::support::chains::{Network, each_network};
use crate::support::ports::ReservedPort;
use crate::support::relay::{Mode, Relay};
use crate::support::rig::{Fund, Notes, Rig, TOKENS, funded, open, receiver, top_up};

/// The time limit of a test on one network.
const CASE_WITHIN: Duration = Duration::from_secs(60);

async fn on_each(case: impl AsyncFn(&str)) {
    each_network(async |network| {
        let done = timeout(CASE_WITHIN, case(&network.url)).await;
        assert!(done.is_ok(), "not done within {CASE_WITHIN:?} on {}", network.name);
    })
    .await;
}

fn untouched(deposit: u64) -> OnChain {
    let none = Amount::ZERO;
    OnChain { deposit: deposit.into(), settle_block: 0, closing_balance: none, withdrawn: none }
}

#[tokio::test]
async fn reads_the_contract_and_the_payers_balances() {
    on_each(async |url| {
        let rig = Rig::new(url).await;
        let info = rig.chain().contract_info().await.unwrap();
        assert_eq!((info.token, info.version.as_str(), info.challenge_period), (rig.token, "0.2.0", 500));
        assert_eq!((info.chain_id, info.head), (31337, rig.head().await));
        let balances = rig.chain().balances().await.unwrap();
        assert_eq!((balances.tokens, balances.decimals), (Amount::from(TOKENS), Some(18)));
        assert_eq!(balances.symbol.as_deref(), Some("DEMO"));
        assert!(balances.wei > U256::exp10(21));
    })
    .await;
}

#[tokio::test]
async fn refuses_a_contract_that_it_cannot_use() {
    on_each(async |url| {
        let rig = Rig::new(url).await;
        let facts_of = async |manager| {
            rig.chain_with(ChainSettings { channel_manager: manager, ..rig.settings() })
                .contract_info()
                .await
                .unwrap_err()
        };
        let error = facts_of(receiver(9)).await;
        assert!(matches!(error, ChainError::NoCode { contract, .. } if contract == receiver(9)), "{error}");
        let error = facts_of(rig.token).await;
        assert!(matches!(error, ChainError::WrongContract { .. }), "{error}");
        // A contract that responds to every call with the string "0.1.0".
        let runtime = "60206000526005602052 64302e312e30 60d81b604052 60606000f3".replace(' ', "");
        let code = format!("601b600c600039601b6000f3{runtime}").parse().unwrap();
        let error = facts_of(rig.deploy(code).await).await;
        assert!(matches!(&error, ChainError::WrongVersion { version, .. } if version == "0.1.0"), "{error}");
    })
    .await;
}

#[tokio::test]
async fn opens_and_tops_up_with_one_transaction_each_where_the_token_allows() {
    on_each(async |url| {
        let rig = Rig::new(url).await;
        let (chain, notes) = (rig.chain(), Notes::new());
        let (id, on_chain) = chain.fund(&open(7, 50), &notes).await.unwrap();
        assert_eq!((id.receiver, u64::from(id.open_block)), (receiver(7), rig.head().await));
        assert_eq!(on_chain, untouched(50));
        assert_eq!(chain.fund(&top_up(id, 25), &notes).await.unwrap(), (id, untouched(75)));
        assert_eq!(notes.moves(), [true, true]);
        assert_eq!(chain.channel(id).await.unwrap(), Some(untouched(75)));
        let nobody = ChannelId { open_block: id.open_block + 2, ..id };
        let error = chain.channel(nobody).await.unwrap_err();
        assert!(matches!(error, ChainError::Behind { channel, .. } if channel == nobody), "{error}");
        rig.mine(1).await;
        assert_eq!(chain.channel(nobody).await.unwrap(), None);
        assert_eq!(chain.balances().await.unwrap().tokens, Amount::from(TOKENS - 75));
    })
    .await;
}

#[tokio::test]
async fn opens_and_tops_up_by_allowance_with_a_plain_token() {
    on_each(async |url| {
        let rig = Rig::plain(url).await;
        let (chain, notes) = (rig.chain(), Notes::new());
        let (id, on_chain) = chain.fund(&open(7, 50), &notes).await.unwrap();
        assert_eq!((on_chain, notes.moves()), (untouched(50), vec![false, true]));
        // A remaining allowance that is too small is reset to 0 first: the token insists on it.
        rig.approve(5).await;
        let notes = Notes::new();
        assert_eq!(chain.fund(&top_up(id, 25), &notes).await.unwrap(), (id, untouched(75)));
        assert_eq!(notes.moves(), [false, false, true]);
        // One that is large enough is used.
        rig.approve(30).await;
        let notes = Notes::new();
        assert_eq!(chain.fund(&top_up(id, 30), &notes).await.unwrap(), (id, untouched(105)));
        assert_eq!(notes.moves(), [true]);
        assert_eq!(chain.balances().await.unwrap().tokens, Amount::from(TOKENS - 105));
    })
    .await;
}

#[tokio::test]
async fn a_token_that_takes_any_call_is_not_believed_to_have_the_transfer_of_erc_223() {
    on_each(async |url| {
        // It returns 1 to everything: a balance of 1, an allowance of 1, and true.
        let code = "600a600c600039600a6000f3 6001600052 60206000f3".replace(' ', "");
        let rig = Rig::with(url, code.parse().unwrap()).await;
        let (_, on_chain) = rig.chain().fund(&open(7, 1), &Notes::new()).await.unwrap();
        assert_eq!(on_chain, untouched(1));
    })
    .await;
}

#[tokio::test]
async fn several_orders_at_once_get_nonces_of_their_own() {
    on_each(async |url| {
        for rig in [Rig::new(url).await, Rig::plain(url).await] {
            let (chain, notes) = (rig.chain(), Notes::new());
            let first = rig.pending().await;
            rig.automine(false).await;
            let ops: Vec<ChannelOp> = (1..=5).map(|number| open(number, 10)).collect();
            let opened = rig.mining(join_all(ops.iter().map(|op| chain.fund(op, &notes)))).await;
            rig.automine(true).await;
            for (op, outcome) in ops.iter().zip(opened) {
                let (id, on_chain) = outcome.unwrap();
                assert_eq!((id.receiver, on_chain), (op.receiver(), untouched(10)));
            }
            let nonces = notes.nonces();
            assert_eq!(nonces, (first..first + nonces.len() as u64).collect::<Vec<_>>());
        }
    })
    .await;
}

#[tokio::test]
async fn pays_a_gas_price_where_blocks_have_no_base_fee_and_by_eip_1559_elsewhere() {
    let old = DevChainSettings { has_base_fee: false, ..DevChainSettings::default() };
    let network = Network::embedded(old).await;
    let (rig, notes) = (Rig::new(&network.url).await, Notes::new());
    let (_, on_chain) = rig.chain().fund(&open(7, 50), &notes).await.unwrap();
    assert_eq!((on_chain, transaction(&rig, &notes).await["type"].as_str()), (untouched(50), Some("0x0")));
    network.stop().await;
    on_each(async |url| {
        let (rig, notes) = (Rig::new(url).await, Notes::new());
        rig.chain().fund(&open(7, 50), &notes).await.unwrap();
        assert_eq!(transaction(&rig, &notes).await["type"], "0x2");
    })
    .await;
}

async fn transaction(rig: &Rig, notes: &Notes) -> Json {
    rig.ask("eth_getTransactionByHash", rpc_params![format!("0x{}", hex(&notes.all()[0].hash))]).await
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn waits_for_as_many_confirmations_as_asked_and_finds_the_transaction_again_later() {
    on_each(async |url| {
        let rig = Rig::new(url).await;
        let notes = Notes::new();
        let impatient = rig.chain_with(ChainSettings {
            confirmations: 3,
            confirm_timeout: Duration::from_millis(300),
            ..rig.settings()
        });
        // One confirmation of three.
        let error = impatient.fund(&open(7, 50), &notes).await.unwrap_err();
        assert!(matches!(error, OpError::StillPending { last: None, .. }), "{error}");
        assert!(error.is_unclear());
        let opened = rig.head().await;
        rig.mine(1).await;
        assert!(impatient.resume(&notes.all(), &notes).await.unwrap_err().is_unclear());
        rig.mine(1).await;
        let id = ChannelId { receiver: receiver(7), open_block: opened as u32 };
        assert_eq!(funded(impatient.resume(&notes.all(), &notes).await.unwrap()), (id, untouched(50)));
    })
    .await;
}

#[tokio::test]
async fn follows_a_reorganisation_until_the_transaction_is_deep_enough() {
    on_each(async |url| {
        let rig = Rig::new(url).await;
        let chain = rig.chain_with(ChainSettings { confirmations: 3, ..rig.settings() });
        let notes = Notes::new();
        let (count, snapshot) = (rig.pending().await, rig.snapshot().await);
        // On the other branch the channel cannot open in the same block.
        rig.mine(2).await;
        let undone = rig.head().await + 1;
        let reorganise = async {
            rig.until_mined(count + 1).await;
            assert_eq!(rig.head().await, undone);
            rig.revert(snapshot).await;
            rig.mine(4).await;
            // The node has dropped the transaction: it is submitted again, and mined at once.
            rig.until_pending(count + 1).await;
            rig.mine(2).await;
        };
        let op = open(7, 50);
        let (outcome, ()) = tokio::join!(chain.fund(&op, &notes), reorganise);
        let (id, on_chain) = outcome.unwrap();
        assert_ne!(u64::from(id.open_block), undone);
        assert_eq!(on_chain, untouched(50));
        assert_eq!(notes.all().len(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_transaction_that_would_fail_is_not_sent_and_the_rule_is_named() {
    on_each(async |url| {
        for rig in [Rig::new(url).await, Rig::plain(url).await] {
            rig.mint(Signer::new(&accounts::key(1).unwrap()).unwrap().address(), U256::exp10(21)).await;
            let (chain, notes) = (rig.chain(), Notes::new());
            let limit: Amount = U256::exp10(20).try_into().unwrap();
            let over = limit.checked_add(Amount::from(1)).unwrap();
            let nobody = ChannelId { receiver: receiver(7), open_block: 1 };
            for (op, part) in [
                (top_up(nobody, 5), "not found"),
                (ChannelOp::Open { receiver: receiver(7), deposit: over }, "over the contract's limit"),
            ] {
                let error = chain.fund(&op, &notes).await.unwrap_err();
                assert!(matches!(error, OpError::WouldFail { .. }) && !error.is_unclear(), "{error}");
                assert!(error.to_string().contains(part), "{error}");
            }
            assert!(!notes.moves().contains(&true));
            let (id, _) =
                chain.fund(&ChannelOp::Open { receiver: receiver(7), deposit: limit }, &notes).await.unwrap();
            let error = chain.fund(&top_up(id, 1), &notes).await.unwrap_err();
            assert!(error.to_string().contains("over the contract's limit"), "{error}");
            rig.close(id, 0).await;
            let error = chain.fund(&top_up(id, 1), &notes).await.unwrap_err();
            assert!(error.to_string().contains("is being closed"), "{error}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_mined_failure_is_an_error_with_its_hash_and_the_rule() {
    on_each(async |url| {
        let rig = Rig::new(url).await;
        rig.allow_thief().await;
        let notes = Notes::new();
        notes.fill_up(true);
        rig.chain().fund(&open(7, 50), &notes).await.unwrap_err();
        // Signed when there was enough; now there is not.
        rig.steal(TOKENS - 49).await;
        let error = rig.chain().resume(&notes.all(), &notes).await.unwrap_err();
        assert!(matches!(error, OpError::TransactionFailed { .. }) && !error.is_unclear(), "{error}");
        let text = error.to_string();
        assert!(text.contains(&hex(&notes.all()[0].hash)), "{text}");
        assert!(text.contains("the payer holds 49 base units of the token, fewer than 50"), "{text}");
        assert_eq!(rig.chain().balances().await.unwrap().tokens, Amount::from(49));
    })
    .await;
}

#[tokio::test]
async fn too_few_tokens_or_too_little_ether_is_reported_with_both_amounts() {
    on_each(async |url| {
        let rig = Rig::new(url).await;
        let notes = Notes::new();
        match rig.chain().fund(&open(7, TOKENS + 1), &notes).await.unwrap_err() {
            OpError::Underfunded(why) => match *why {
                Underfunded::Token { has, needs, token, .. } => {
                    assert_eq!((has, needs), (Amount::from(TOKENS), Amount::from(TOKENS + 1)));
                    assert_eq!(token, rig.token);
                    assert!(why.to_string().ends_with("send it 1 more"), "{why}");
                }
                other @ Underfunded::Ether { .. } => panic!("{other}"),
            },
            other => panic!("{other}"),
        }
        let signer = Signer::new(&[0x77; 32]).unwrap();
        rig.mint(signer.address(), 100.into()).await;
        let poor = Chain::new(rig.settings(), Arc::new(signer.into())).unwrap();
        let error = poor.fund(&open(7, 50), &notes).await.unwrap_err();
        match &error {
            OpError::Underfunded(why) => match **why {
                Underfunded::Ether { has, needs, .. } => assert!(has.is_zero() && needs > has, "{why}"),
                Underfunded::Token { .. } => panic!("{why}"),
            },
            other => panic!("{other}"),
        }
        assert!(notes.all().is_empty() && !error.is_unclear());
    })
    .await;
}

#[tokio::test]
async fn a_node_that_is_down_or_slow_is_named_without_the_secrets_of_its_url() {
    on_each(async |url| {
        let rig = Rig::new(url).await;
        let relay = Relay::before(url).await;
        let host = relay.url();
        let chain = rig.chain_with(ChainSettings {
            rpc_url: format!("{}/v3/topsecret?key=othersecret", host.replace("://", "://user:hunter22@")),
            request_timeout: Duration::from_millis(200),
            ..rig.settings()
        });
        let id = ChannelId { receiver: receiver(7), open_block: 1 };
        for mode in [Mode::Cut, Mode::Stall, Mode::Status(429)] {
            relay.set(mode);
            let error = timeout(Duration::from_secs(5), chain.channel(id)).await.unwrap().unwrap_err();
            let text = format!("{error} {error:?} {chain:?}");
            assert!(text.contains(&host), "{text}");
            assert!(!text.contains("secret") && !text.contains("hunter22"), "{text}");
            match (mode, error) {
                (Mode::Cut, ChainError::NodeUnreachable { .. })
                | (Mode::Stall, ChainError::Timeout { method: "eth_call", .. })
                | (Mode::Status(_), ChainError::NodeRejected { status: 429, .. }) => {}
                (_, other) => panic!("{mode:?}: {other}"),
            }
        }
        // With an https URL the client starts TLS, which fails with a node without it.
        let tls = ChainSettings { rpc_url: host.replace("http:", "https:"), ..rig.settings() };
        let error = rig.chain_with(tls).contract_info().await.unwrap_err();
        assert!(matches!(error, ChainError::NodeUnreachable { .. }), "{error}");
        let unused = ReservedPort::new();
        let down = unused.url();
        let chain = rig.chain_with(ChainSettings { rpc_url: down, ..rig.settings() });
        let error = chain.fund(&open(7, 50), &Notes::new()).await.unwrap_err();
        assert!(matches!(error, OpError::Chain(ChainError::NodeUnreachable { .. })), "{error}");
    })
    .await;
}

#[tokio::test]
async fn a_node_that_dies_in_the_middle_of_a_wait_is_waited_for_up_to_the_limit() {
    on_each(async |url| {
        let rig = Rig::new(url).await;
        let relay = Relay::before(url).await;
        let settings = ChainSettings { rpc_url: relay.url(), ..rig.settings() };
        let chain = rig.chain_with(settings.clone());
        rig.automine(false).await;
        let notes = Notes::new();
        let (count, op) = (rig.pending().await, open(7, 50));
        let outage = async {
            rig.until_pending(count + 1).await;
            relay.set(Mode::Cut);
            rig.mine(1).await;
            let asked = relay.questions("eth_blockNumber").len();
            relay.until_asked("eth_blockNumber", asked + 2).await;
            relay.set(Mode::Pass);
        };
        let (outcome, ()) = tokio::join!(chain.fund(&op, &notes), outage);
        assert_eq!(outcome.unwrap().1, untouched(50));

        let impatient =
            rig.chain_with(ChainSettings { confirm_timeout: Duration::from_millis(300), ..settings.clone() });
        let (notes, op) = (Notes::new(), open(8, 50));
        let outage = async {
            rig.until_pending(count + 2).await;
            relay.set(Mode::Cut);
        };
        let (outcome, ()) = tokio::join!(impatient.fund(&op, &notes), outage);
        let error = outcome.unwrap_err();
        let OpError::StillPending { last: Some(last), .. } = &error else { panic!("{error}") };
        assert!(matches!(**last, ChainError::NodeUnreachable { .. }) && error.is_unclear(), "{error}");
        // Resuming while the node is down is still unclear; when it is back, it is not.
        assert!(impatient.resume(&notes.all(), &notes).await.unwrap_err().is_unclear());
        relay.set(Mode::Pass);
        let resolution = rig.mining(chain.resume(&notes.all(), &notes)).await.unwrap();
        assert_eq!(funded(resolution).1, untouched(50));
        rig.automine(true).await;
    })
    .await;
}

#[tokio::test]
async fn a_lost_response_to_a_sent_transaction_is_not_a_failure() {
    on_each(async |url| {
        let rig = Rig::new(url).await;
        let relay = Relay::before(url).await;
        let chain = rig.chain_with(ChainSettings { rpc_url: relay.url(), ..rig.settings() });
        let count = rig.pending().await;
        // The node has it, but we do not know.
        relay.set(Mode::LoseAnswerOf("eth_sendRawTransaction"));
        let (_, on_chain) = chain.fund(&open(7, 50), &Notes::new()).await.unwrap();
        assert_eq!((on_chain, rig.pending().await), (untouched(50), count + 1));
        // The node has it, but we get an error.
        relay.set(Mode::GarbleAnswerOf("eth_sendRawTransaction"));
        let (_, on_chain) = chain.fund(&open(9, 50), &Notes::new()).await.unwrap();
        assert_eq!((on_chain, rig.pending().await), (untouched(50), count + 2));
        // The node does not have it, and we do not know: the same bytes are submitted again.
        relay.set(Mode::LoseQuestionOf("eth_sendRawTransaction"));
        let (notes, op) = (Notes::new(), open(8, 50));
        let restore = async {
            notes.until(1).await;
            let asked = relay.questions("eth_sendRawTransaction").len();
            relay.until_asked("eth_sendRawTransaction", asked + 2).await;
            relay.set(Mode::Pass);
        };
        let (outcome, ()) = tokio::join!(chain.fund(&op, &notes), restore);
        assert_eq!((outcome.unwrap().1, rig.pending().await), (untouched(50), count + 3));
        assert_eq!(notes.all().len(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_nonce_that_turns_out_to_be_used_is_followed_by_the_next() {
    on_each(async |url| {
        let rig = Rig::new(url).await;
        rig.approve(1).await;
        let (relay, count) = (Relay::before(url).await, rig.pending().await);
        let chain = rig.chain_with(ChainSettings { rpc_url: relay.url(), ..rig.settings() });
        relay.set(Mode::Answer("eth_getTransactionCount", count - 1));
        let notes = Notes::new();
        let opened = chain.fund(&open(7, 50), &notes).await.unwrap();
        assert_eq!((opened.1, notes.nonces()), (untouched(50), vec![count - 1, count]));
        // Of the two intents, the one that was mined is found.
        relay.set(Mode::Pass);
        let resumed = chain.resume(&notes.all(), &notes).await.unwrap();
        assert_eq!((funded(resumed), rig.pending().await), (opened, count + 1));
    })
    .await;
}

#[tokio::test]
async fn nothing_is_sent_that_could_not_be_journalled_and_its_nonce_is_used_again() {
    on_each(async |url| {
        for rig in [Rig::new(url).await, Rig::plain(url).await] {
            let (chain, notes) = (rig.chain(), Notes::new());
            let count = rig.pending().await;
            notes.fill_up(true);
            let error = chain.fund(&open(7, 50), &notes).await.unwrap_err();
            assert!(matches!(error, OpError::NotRecorded(_)) && !error.is_unclear(), "{error}");
            assert_eq!(rig.pending().await, count);
            notes.fill_up(false);
            chain.fund(&open(7, 50), &notes).await.unwrap();
            assert_eq!(notes.nonces()[..2], [count, count]);
        }
    })
    .await;
}

#[tokio::test]
async fn an_intent_that_was_recorded_and_never_sent_is_carried_out_on_resuming() {
    on_each(async |url| {
        let rig = Rig::new(url).await;
        let notes = Notes::new();
        notes.fill_up(true);
        rig.chain().fund(&open(7, 50), &notes).await.unwrap_err();
        let count = rig.pending().await;
        let resumed = rig.chain().resume(&notes.all(), &notes).await.unwrap();
        let id = ChannelId { receiver: receiver(7), open_block: rig.head().await as u32 };
        assert_eq!(funded(resumed), (id, untouched(50)));
        // Again: now it is mined, and found; nothing is sent.
        assert_eq!(rig.chain().resume(&notes.all(), &notes).await.unwrap(), resumed);
        assert_eq!(rig.pending().await, count + 1);
    })
    .await;
}

#[tokio::test]
async fn an_intent_whose_nonce_another_transaction_used_is_replaced() {
    on_each(async |url| {
        let rig = Rig::new(url).await;
        let notes = Notes::new();
        notes.fill_up(true);
        rig.chain().fund(&open(7, 50), &notes).await.unwrap_err();
        rig.approve(1).await;
        let error = rig.chain().resume(&notes.all(), &notes).await.unwrap_err();
        let nonce = notes.nonces()[0];
        assert!(matches!(error, OpError::Replaced { nonce: n, .. } if n == nonce), "{error}");
        assert!(!error.is_unclear());
        assert_eq!(rig.chain().sync(0, &[]).await.unwrap().channels, []);
    })
    .await;
}

#[tokio::test]
async fn approvals_alone_move_nothing() {
    on_each(async |url| {
        let rig = Rig::plain(url).await;
        let notes = Notes::new();
        notes.fill_up(true);
        rig.chain().fund(&open(7, 50), &notes).await.unwrap_err();
        assert_eq!(notes.moves(), [false]);
        assert_eq!(rig.chain().resume(&notes.all(), &notes).await.unwrap(), Resolution::NothingMoved);
        // The approval exists now, and is used.
        let notes = Notes::new();
        rig.chain().fund(&open(7, 50), &notes).await.unwrap();
        assert_eq!(notes.moves(), [true]);
    })
    .await;
}

#[tokio::test]
async fn sync_finds_every_event_whatever_range_the_node_accepts() {
    on_each(async |url| {
        let rig = Rig::new(url).await;
        let (chain, notes) = (rig.chain(), Notes::new());
        let (opened, _) = chain.fund(&open(1, 10), &notes).await.unwrap();
        let (topped, _) = chain.fund(&open(2, 20), &notes).await.unwrap();
        let (closing, _) = chain.fund(&open(3, 30), &notes).await.unwrap();
        let (settled, _) = chain.fund(&open(4, 40), &notes).await.unwrap();
        rig.close(settled, 4).await;
        rig.mine(501).await;
        rig.settle(settled).await;
        chain.fund(&top_up(topped, 2), &notes).await.unwrap();
        rig.close(closing, 3).await;
        let head = rig.head().await;
        let closed = OnChain { settle_block: head as u32 + 500, closing_balance: 3.into(), ..untouched(30) };
        let everything = vec![
            (opened, Some(untouched(10))),
            (topped, Some(untouched(22))),
            (closing, Some(closed)),
            (settled, None),
        ];
        let synced = chain.sync(0, &[]).await.unwrap();
        assert_eq!((&synced.channels, synced.cursor), (&everything, head - 12));
        assert_eq!(synced.settled, BTreeMap::from([(settled, 4.into())]), "of no other one");

        // From the cursor on, only the late events are found; known channels are read anyway.
        let late = chain.sync(synced.cursor, &[opened]).await.unwrap();
        assert_eq!(late.channels, [everything[0], everything[1], everything[2], everything[3]]);
        let above = chain.sync(head + 1, &[opened]).await.unwrap();
        assert_eq!((above.channels, above.cursor), (vec![everything[0]], head - 12));

        let relay = Relay::before(url).await;
        relay.set(Mode::MaxLogRange(100));
        let relayed = rig.chain_with(ChainSettings { rpc_url: relay.url(), ..rig.settings() });
        assert_eq!(relayed.sync(0, &[]).await.unwrap(), synced);
        assert!(relay.questions("eth_getLogs").len() >= (head / 100) as usize);
        relay.set(Mode::MaxLogRange(0));
        let error = relayed.sync(0, &[]).await.unwrap_err();
        assert!(matches!(error, ChainError::NodeRefused { code: -32005, .. }), "{error}");
    })
    .await;
}

#[tokio::test]
async fn sync_ignores_channels_of_other_payers() {
    on_each(async |url| {
        let rig = Rig::new(url).await;
        let signer = Signer::new(&accounts::key(2).unwrap()).unwrap();
        rig.mint(signer.address(), 100.into()).await;
        let other = Chain::new(rig.settings(), Arc::new(signer.into())).unwrap();
        let (id, _) = other.fund(&open(1, 10), &Notes::new()).await.unwrap();
        assert_eq!(rig.chain().sync(0, &[]).await.unwrap().channels, []);
        let never: ChannelId = ChannelId { receiver: Address::default(), open_block: 3 };
        assert_eq!(
            other.sync(0, &[never]).await.unwrap().channels,
            [(never, None), (id, Some(untouched(10)))]
        );
    })
    .await;
}
