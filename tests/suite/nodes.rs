//! Nodes that fail, lag or lie, through a relay that misbehaves on demand: at most one transaction moves the money of
//! an operation, and errors are reported.

mod paying;

use std::time::Duration;

use ethers_core::types::U256;
use ethers_core::types::transaction::eip2718::TypedTransaction;
use ethers_core::utils::rlp::Rlp;
use serde_json::{Value, json};
use tokio::time::timeout;
use tollpass::chain::{Chain, ChainError, ChainSettings, OpError, PinSource, Resolution};
use tollpass::protocol::{Address, Amount, ChannelId, ChannelOp, OnChain, Wei};

use crate::support::chains::each_network;
use crate::support::relay::{Act, Fault, Relay};
use crate::support::rig::{Fund, Notes, Rig, funded, open, receiver, top_up};

/// The time limit of a test on one network.
const CASE_WITHIN: Duration = Duration::from_secs(120);

async fn on_each(case: impl AsyncFn(Stand)) {
    each_network(async |network| {
        let done = timeout(CASE_WITHIN, async { case(Stand::new(Rig::new(&network.url).await).await).await });
        assert!(done.await.is_ok(), "not done within {CASE_WITHIN:?} on {}", network.name);
    })
    .await;
}

/// A chain behind a relay.
struct Stand {
    rig: Rig,
    relay: Relay,
    notes: Notes,
}

impl Stand {
    async fn new(rig: Rig) -> Self {
        let relay = Relay::before(&rig.url).await;
        Self { rig, relay, notes: Notes::new() }
    }

    fn settings(&self) -> ChainSettings {
        let retry_timeout = Duration::from_secs(5);
        let request_timeout = Duration::from_millis(500);
        ChainSettings { rpc_url: self.relay.url(), retry_timeout, request_timeout, ..self.rig.settings() }
    }

    fn chain(&self) -> Chain {
        self.rig.chain_with(self.settings())
    }

    /// A chain with a short retry window.
    fn hasty(&self) -> Chain {
        self.rig.chain_with(ChainSettings { retry_timeout: Duration::from_millis(200), ..self.settings() })
    }

    async fn fund(&self, op: &ChannelOp) -> Result<(ChannelId, OnChain), OpError> {
        self.chain().fund(op, &self.notes).await
    }

    /// This many transactions moved money, and the payer has that much less.
    async fn moved(&self, fundings: usize, tokens: u64) {
        assert_eq!(self.relay.fundings(), fundings);
        let left = self.rig.chain().balances().await.unwrap().tokens;
        assert_eq!(left, Amount::from(crate::support::rig::TOKENS - tokens));
    }
}

/// Calls of `getChannelInfo`.
fn of_channel(params: &Value) -> bool {
    let selector = ethers_core::utils::id("getChannelInfo(address,address,uint32)");
    data(params).starts_with(&format!("0x{}", ethers_core::utils::hex::encode(selector)))
}

/// Calls of `token()`.
fn of_token(params: &Value) -> bool {
    data(params).starts_with("0xfc0c546a")
}

fn data(params: &Value) -> &str {
    params[0]["data"].as_str().or(params[0]["input"].as_str()).unwrap_or_default()
}

/// Pending transaction counts.
fn of_pending(params: &Value) -> bool {
    params[1] == "pending"
}

/// Increases a quantity.
fn plus(more: u64) -> impl Fn(Value) -> Value {
    move |value| json!(U256::from_str_radix(value.as_str().unwrap(), 16).unwrap() + more)
}

/// The result of `getChannelInfo` with another deposit and settle block.
fn channel_info(deposit: u64, settle_block: u64) -> impl Fn(Value) -> Value {
    move |answer| {
        let text = answer.as_str().unwrap();
        json!(format!("{}{deposit:064x}{settle_block:064x}{}", &text[..66], &text[194..]))
    }
}

fn nothing(_: Value) -> Value {
    Value::Null
}

/// Transient faults.
const PASSING: [Act; 8] = [
    Act::Refuse(-32000, "header not found"),
    Act::Refuse(-32603, "Internal error"),
    Act::Answer(429, &[("retry-after", "0")], b"{\"error\": \"slow down\"}"),
    Act::Answer(503, &[], b"<html>Service Unavailable"),
    Act::Answer(200, &[("content-type", "text/html")], b"<!doctype html><p>Maintenance"),
    Act::Answer(200, &[], b""),
    Act::Cut,
    Act::Stall,
];

#[tokio::test]
async fn one_passing_fault_of_any_call_delays_an_opening_and_costs_nothing() {
    on_each(async |stand| {
        let methods = [
            "eth_chainId",
            "eth_getCode",
            "eth_call",
            "eth_blockNumber",
            "eth_getTransactionCount",
            "eth_estimateGas",
            "eth_getBlockByNumber",
            "eth_maxPriorityFeePerGas",
            "eth_getBalance",
            "eth_getTransactionReceipt",
            "eth_sendRawTransaction",
        ];
        let mut opened = 0;
        for (number, method) in methods.into_iter().enumerate() {
            // Each method meets three of the faults; all methods together meet all of them.
            for act in PASSING.iter().cycle().skip(number).step_by(3).take(3) {
                stand.relay.heal();
                stand.relay.fault(Fault::on(method, act.clone()).times(1));
                opened += 1;
                let (_, on_chain) = stand.fund(&open(opened, 10)).await.unwrap();
                assert_eq!(on_chain.deposit, 10.into(), "{method}");
            }
        }
        stand.moved(opened.into(), u64::from(opened) * 10).await;
    })
    .await;
}

#[tokio::test]
async fn a_node_that_refuses_each_sixth_call_is_used_all_the_same() {
    on_each(async |stand| {
        let act = Act::Answer(429, &[("retry-after", "0")], b"");
        for every in [6, 4, 3, 2] {
            stand.relay.heal();
            stand.relay.fault(Fault::on_any(act.clone()).each(every));
            stand.chain().contract_info().await.unwrap();
        }
        let (id, _) = stand.fund(&open(7, 50)).await.unwrap();
        assert_eq!(stand.fund(&top_up(id, 25)).await.unwrap().1.deposit, 75.into());
        let synced = stand.chain().sync(0, &[id]).await.unwrap();
        assert_eq!(synced.channels.len(), 1);
        stand.moved(2, 75).await;
    })
    .await;
}

#[tokio::test]
async fn null_logs_are_requested_again_and_never_count_as_empty() {
    on_each(async |stand| {
        let (id, _) = stand.fund(&open(7, 50)).await.unwrap();
        stand.relay.fault(Fault::change("eth_getLogs", nothing).times(2));
        assert_eq!(stand.chain().sync(0, &[]).await.unwrap().channels[0].0, id);
        stand.relay.fault(Fault::change("eth_getLogs", nothing));
        let error = stand.hasty().sync(0, &[]).await.unwrap_err();
        assert!(error.to_string().contains("returned an invalid result for eth_getLogs: null"), "{error}");
        assert!(stand.relay.questions("eth_getLogs").len() < 12);
    })
    .await;
}

#[tokio::test]
async fn retry_after_is_heeded_within_the_bound() {
    on_each(async |stand| {
        let wait = Act::Answer(429, &[("retry-after", "1")], b"");
        stand.relay.fault(Fault::on("eth_chainId", wait).times(1));
        let before = tokio::time::Instant::now();
        stand.chain().contract_info().await.unwrap();
        assert!(before.elapsed() >= Duration::from_secs(1));
        assert_eq!(stand.relay.questions("eth_chainId").len(), 2);

        let long = Act::Answer(503, &[("retry-after", "86400")], b"");
        stand.relay.fault(Fault::on("eth_chainId", long));
        let error =
            timeout(Duration::from_secs(3), stand.hasty().contract_info()).await.unwrap().unwrap_err();
        assert!(matches!(error, ChainError::NodeRejected { status: 503, .. }), "{error}");
        // One retry at the end of the retry window, and no more.
        assert_eq!(stand.relay.questions("eth_chainId").len(), 4);
    })
    .await;
}

#[tokio::test]
async fn a_node_that_knows_no_pending_state_and_no_tips_is_used_without() {
    on_each(async |stand| {
        let pending = Act::Refuse(-32602, "pending is not supported");
        stand.relay.fault(Fault::on("eth_getTransactionCount", pending).when(of_pending));
        let missing =
            br#"{"jsonrpc": "2.0", "id": 1, "error": {"code": -32601, "message": "no such method"}}"#;
        stand.relay.fault(Fault::on("eth_maxPriorityFeePerGas", Act::Answer(400, &[], missing)));
        stand.fund(&open(7, 50)).await.unwrap();
        stand.moved(1, 50).await;
    })
    .await;
}

#[tokio::test]
async fn an_accepted_transaction_is_never_made_again_whatever_the_node_reports() {
    on_each(async |stand| {
        let busy = br#"{"jsonrpc": "2.0", "id": 1, "error": {"code": -32000, "message": "some new words"}}"#;
        let low = br#"{"jsonrpc": "2.0", "id": 1, "error": {"code": -32000, "message": "nonce too low"}}"#;
        let cheap = br#"{"jsonrpc": "2.0", "id": 1,
                         "error": {"code": -32000, "message": "replacement transaction underpriced"}}"#;
        let masks: [(u16, &'static [u8]); 8] = [
            (200, busy),
            (200, low),
            (200, cheap),
            (200, b"<html>"),
            (200, b""),
            (429, b""),
            (502, b"<html>Bad Gateway"),
            (403, b"forbidden"),
        ];
        for (number, (status, body)) in (1..).zip(masks) {
            stand.relay.heal();
            stand.relay.fault(Fault::on("eth_sendRawTransaction", Act::Mask(status, body)).times(1));
            stand.fund(&open(number, 10)).await.unwrap();
            stand.moved(number.into(), u64::from(number) * 10).await;
        }
        // Also if the node shows it only later.
        for (number, (status, body)) in (11..).zip(masks) {
            stand.relay.heal();
            stand.relay.fault(Fault::on("eth_sendRawTransaction", Act::Mask(status, body)).times(1));
            stand.relay.fault(Fault::change("eth_getTransactionReceipt", nothing).times(6));
            stand.relay.fault(Fault::change("eth_getTransactionByHash", nothing).times(6));
            stand.fund(&open(number, 10)).await.unwrap();
            stand.moved(usize::from(number) - 2, u64::from(number - 2) * 10).await;
        }
    })
    .await;
}

#[tokio::test]
async fn endless_refusals_are_not_a_verdict() {
    on_each(async |stand| {
        let refuse = Act::Refuse(-32000, "sender is not on our list");
        stand.relay.fault(Fault::on("eth_sendRawTransaction", refuse));
        let impatient = stand
            .rig
            .chain_with(ChainSettings { confirm_timeout: Duration::from_secs(1), ..stand.settings() });
        let error = impatient.fund(&open(7, 50), &stand.notes).await.unwrap_err();
        assert!(error.is_unclear() && error.to_string().contains("sender is not on our list"), "{error}");
        for refusal in ["nonce too low", "replacement transaction underpriced", "exceeds block gas limit"] {
            stand.relay.heal();
            stand.relay.fault(Fault::on("eth_sendRawTransaction", Act::Refuse(-32000, refusal)));
            let error = impatient.resume(&stand.notes.all(), &stand.notes).await.unwrap_err();
            assert!(error.is_unclear(), "{refusal}: {error}");
        }
        stand.relay.heal();
        // Another operation may take its nonce, which is the proof.
        stand.fund(&open(8, 50)).await.unwrap();
        let nonces = stand.notes.nonces();
        assert_eq!(nonces[0], nonces[1]);
        let (last, op) = (stand.notes.all()[..1].to_vec(), open(7, 50));
        let error = stand.chain().resume(&last, &stand.notes).await.unwrap_err();
        assert!(matches!(error, OpError::Replaced { by: Some(_), .. }), "{error}");
        stand.chain().fund(&op, &stand.notes).await.unwrap();
        stand.moved(3, 100).await;
    })
    .await;
}

#[tokio::test]
async fn a_receipt_that_lags_behind_the_nonce_costs_no_second_channel() {
    on_each(async |stand| {
        // The receipt never comes: the event proves the opening, and is found by the transaction's hash.
        stand.relay.fault(Fault::change("eth_getTransactionReceipt", nothing));
        let (id, on_chain) = stand.fund(&open(7, 50)).await.unwrap();
        assert_eq!(on_chain.deposit, 50.into());
        assert_eq!(stand.fund(&top_up(id, 25)).await.unwrap().1.deposit, 75.into());
        stand.moved(2, 75).await;
    })
    .await;
}

#[tokio::test]
async fn a_used_nonce_alone_does_not_prove_a_replacement() {
    on_each(async |stand| {
        let hide = |stand: &Stand| {
            for method in ["eth_getTransactionReceipt", "eth_getTransactionByHash"] {
                stand.relay.fault(Fault::change(method, nothing));
            }
            stand.relay.fault(Fault::result("eth_getLogs", json!([])));
            let is_full: fn(&Value) -> bool = |params| params[1] == true;
            stand.relay.fault(Fault::change("eth_getBlockByNumber", nothing).when(is_full));
        };
        hide(&stand);
        let op = open(7, 50);
        let chain = stand.chain();
        let wait = async {
            let asked = stand.relay.questions("eth_getLogs").len();
            stand.relay.until_asked("eth_getLogs", asked + 20).await;
            // Many blocks alone are not a proof.
            stand.rig.mine(30).await;
            stand.relay.until_asked("eth_getLogs", asked + 40).await;
            stand.relay.heal();
        };
        let (opened, ()) = tokio::join!(chain.fund(&op, &stand.notes), wait);
        let (id, on_chain) = opened.unwrap();
        assert_eq!((id.receiver, on_chain.deposit), (receiver(7), 50.into()));
        stand.moved(1, 50).await;

        // If the wait times out first, it is unclear, and found after a restart.
        hide(&stand);
        let impatient = stand
            .rig
            .chain_with(ChainSettings { confirm_timeout: Duration::from_millis(300), ..stand.settings() });
        let error = impatient.fund(&open(8, 50), &stand.notes).await.unwrap_err();
        assert!(error.is_unclear(), "{error}");
        stand.relay.heal();
        let last = stand.notes.all().last().cloned().unwrap();
        let resumed = stand.chain().resume(&[last], &stand.notes).await.unwrap();
        assert_eq!(funded(resumed).0.receiver, receiver(8));
        stand.moved(2, 100).await;
    })
    .await;
}

#[tokio::test]
async fn only_many_blocks_and_a_long_time_without_a_trace_end_a_doubt() {
    on_each(async |stand| {
        // Signed but never sent; then the nonce is used by another transaction, which no block shows.
        stand.notes.fill_up(true);
        stand.fund(&open(7, 50)).await.unwrap_err();
        stand.rig.approve(1).await;
        let is_full: fn(&Value) -> bool = |params| params[1] == true;
        stand.relay.fault(Fault::change("eth_getBlockByNumber", nothing).when(is_full));
        let settings = ChainSettings { confirm_timeout: Duration::from_secs(2), ..stand.settings() };
        let chain = stand.rig.chain_with(settings);
        let error = chain.resume(&stand.notes.all(), &stand.notes).await.unwrap_err();
        assert!(matches!(error, OpError::StillPending { .. }), "no blocks follow: {error}");
        let error = stand.rig.mining(chain.resume(&stand.notes.all(), &stand.notes)).await.unwrap_err();
        assert!(matches!(error, OpError::Replaced { by: None, .. }), "{error}");
        assert!(
            error.to_string().contains("another program or state directory uses the same key"),
            "{error}"
        );
        // With the block, the other transaction is the proof.
        stand.relay.heal();
        let error = chain.resume(&stand.notes.all(), &stand.notes).await.unwrap_err();
        assert!(matches!(error, OpError::Replaced { by: Some(_), .. }), "{error}");
        assert_eq!(stand.relay.fundings(), 1, "handed over once more, and refused");
    })
    .await;
}

#[tokio::test]
async fn the_same_order_by_another_transaction_with_its_nonce_counts_as_carried_out() {
    on_each(async |stand| {
        stand.notes.fill_up(true);
        stand.fund(&open(7, 50)).await.unwrap_err();
        // As a wallet does to speed up a transaction.
        let intent = stand.notes.all().remove(0);
        let (signed, _) = TypedTransaction::decode_signed(&Rlp::new(&intent.raw)).unwrap();
        stand.rig.as_payer(stand.rig.token, signed.data().unwrap().clone()).await;
        let resumed = stand.chain().resume(&[intent], &stand.notes).await.unwrap();
        assert_eq!(funded(resumed).1.deposit, 50.into());
        stand.moved(0, 50).await;
    })
    .await;
}

#[tokio::test]
async fn done_rests_on_a_proof_whatever_the_receipt_says() {
    on_each(async |stand| {
        let field = |name: &'static str, value: Value| {
            Fault::change("eth_getTransactionReceipt", move |mut receipt| {
                if receipt.is_object() {
                    receipt[name] = value.clone();
                }
                receipt
            })
        };
        // A status of 0, no status, no events: the contract shows that it succeeded.
        for (number, fault) in
            (1..).zip([field("status", json!("0x0")), field("status", Value::Null), field("logs", json!([]))])
        {
            stand.relay.heal();
            stand.relay.fault(fault);
            assert_eq!(stand.fund(&open(number, 10)).await.unwrap().1.deposit, 10.into());
        }
        stand.moved(3, 30).await;
        // The event proves what the state does not show.
        for (number, (deposit, settle_block)) in (4..).zip([(0, 0), (3, 0), (10, 77)]) {
            stand.relay.heal();
            let lie = Fault::change("eth_call", channel_info(deposit, settle_block)).when(of_channel);
            stand.relay.fault(lie);
            let (_, shown) = stand.hasty().fund(&open(number, 10), &stand.notes).await.unwrap();
            assert_eq!((shown.deposit, u64::from(shown.settle_block)), (deposit.into(), settle_block));
        }
        stand.moved(6, 60).await;
        // A top-up that the state does not show, although the deposit is large enough for it.
        stand.relay.heal();
        let (id, _) = stand.fund(&open(9, 100)).await.unwrap();
        stand.relay.fault(Fault::change("eth_call", channel_info(100, 0)).when(of_channel));
        let (_, shown) = stand.hasty().fund(&top_up(id, 10), &stand.notes).await.unwrap();
        assert_eq!(shown.deposit, 100.into());
        stand.moved(8, 170).await;
    })
    .await;
}

#[tokio::test]
async fn success_without_any_effect_is_unclear_until_the_effect_shows() {
    on_each(async |stand| {
        let hide = |stand: &Stand| {
            stand.relay.fault(Fault::change("eth_getTransactionReceipt", |mut receipt| {
                if receipt.is_object() {
                    receipt["logs"] = json!([]);
                }
                receipt
            }));
            stand.relay.fault(Fault::result("eth_getLogs", json!([])));
        };
        hide(&stand);
        stand.relay.fault(Fault::on("eth_call", Act::Refuse(3, "execution reverted")).when(of_channel));
        let error = stand.hasty().fund(&open(7, 50), &stand.notes).await.unwrap_err();
        assert!(error.is_unclear() && matches!(error, OpError::Unseen { .. }), "{error}");
        assert!(error.to_string().contains("the contract has no such channel"), "{error}");
        let error = stand.hasty().resume(&stand.notes.all(), &stand.notes).await.unwrap_err();
        assert!(error.is_unclear(), "{error}");

        // An uncontradicted deposit of 0 is not a proof.
        stand.relay.heal();
        hide(&stand);
        stand.relay.fault(Fault::change("eth_call", channel_info(0, 0)).when(of_channel));
        let error = stand.hasty().resume(&stand.notes.all(), &stand.notes).await.unwrap_err();
        assert!(error.is_unclear() && error.to_string().contains("it holds 0"), "{error}");
        stand.relay.heal();
        let resumed = stand.chain().resume(&stand.notes.all(), &stand.notes).await.unwrap();
        assert_eq!(funded(resumed).1.deposit, 50.into());
        stand.moved(1, 50).await;
    })
    .await;
}

#[tokio::test]
async fn fees_above_the_limits_are_refused_for_every_transaction_and_the_key_is_named() {
    const GWEI: u64 = 1_000_000_000;
    each_network(async |network| {
        let stand = Stand::new(Rig::new(&network.url).await).await;
        let (unused, _) = stand.fund(&open(6, 50)).await.unwrap();
        let (closed, _) = stand.fund(&open(7, 50)).await.unwrap();
        let op = ChannelOp::CloseAlone { channel: closed, total: 1.into() };
        stand.chain().execute(&op, &stand.notes).await.unwrap();
        stand.rig.mine(501).await;
        let ops = [
            open(8, 50),
            top_up(unused, 5),
            ChannelOp::CloseAlone { channel: unused, total: 1.into() },
            ChannelOp::Settle { channel: closed },
        ];
        let plain = Stand::new(Rig::plain(&network.url).await).await;
        let tip = || Fault::result("eth_maxPriorityFeePerGas", json!(U256::from(1_000_000 * GWEI)));
        let base = || {
            Fault::change("eth_getBlockByNumber", |mut block| {
                block["baseFeePerGas"] = json!(U256::from(1_000_000 * GWEI));
                block
            })
        };
        let legacy = || {
            Fault::change("eth_getBlockByNumber", |mut block| {
                block.as_object_mut().unwrap().remove("baseFeePerGas");
                block
            })
        };
        let price = || Fault::result("eth_gasPrice", json!(U256::from(1_000_000 * GWEI)));
        let gas = || Fault::result("eth_estimateGas", json!(U256::exp10(12)));
        let never = || Fault::change("eth_syncing", nothing);
        for (faults, parts) in [
            ([tip(), never()], ["1000001 gwei", "chain.max_fee_per_gas allows 500 gwei"]),
            ([base(), never()], ["100000", "chain.max_fee_per_gas allows 500 gwei"]),
            ([legacy(), price()], ["0.001 ETH", "chain.max_fee_per_gas allows 500 gwei"]),
            ([gas(), never()], ["ETH", "chain.max_fee allows 0.1 ETH"]),
        ] {
            let mut cases: Vec<(&Stand, &ChannelOp)> = ops.iter().map(|op| (&stand, op)).collect();
            let approval = open(9, 50);
            cases.push((&plain, &approval));
            for (stand, op) in cases {
                let sent = stand.relay.sent().len();
                stand.relay.heal();
                faults.iter().for_each(|fault| stand.relay.fault(fault.clone()));
                let error = stand.chain().execute(op, &stand.notes).await.unwrap_err();
                assert!(matches!(error, OpError::Chain(ChainError::TooDear { .. })), "{op:?}: {error}");
                let text = error.to_string();
                // The base fee of the embedded chain is low but not zero.
                assert!(text.contains(parts[1]), "{text}");
                assert!(text.contains(parts[0]) || text.contains(" wei"), "{text}");
                assert_eq!(stand.relay.sent().len(), sent, "{op:?}");
                assert!(!error.is_unclear());
            }
        }
        // One that was signed under other limits is not sent again.
        stand.relay.heal();
        stand.notes.fill_up(true);
        stand.fund(&open(10, 50)).await.unwrap_err();
        let last = [stand.notes.all().pop().unwrap()];
        let confirm_timeout = Duration::from_secs(1);
        let settings = ChainSettings { max_fee_per_gas: Wei(1), confirm_timeout, ..stand.settings() };
        let strict = stand.rig.chain_with(settings);
        let sent = stand.relay.sent().len();
        let error = strict.resume(&last, &stand.notes).await.unwrap_err();
        assert!(error.is_unclear() && error.to_string().contains("chain.max_fee_per_gas"), "{error}");
        assert_eq!(stand.relay.sent().len(), sent);
        // It was never sent: the next one takes its nonce.
        stand.notes.fill_up(false);
        stand.fund(&open(11, 50)).await.unwrap();
        assert_eq!(stand.notes.nonces().pop(), Some(last[0].nonce));
    })
    .await;
}

#[tokio::test]
async fn a_count_of_waiting_transactions_that_is_too_high_strands_nothing() {
    on_each(async |stand| {
        let count = stand.rig.pending().await;
        for (number, times) in [(1, 1), (2, 2), (3, usize::MAX)] {
            stand.relay.heal();
            let lie = Fault::change("eth_getTransactionCount", plus(3)).when(of_pending);
            stand.relay.fault(lie.times(times));
            stand.fund(&open(number, 10)).await.unwrap();
        }
        assert_eq!(stand.notes.nonces(), [count, count + 1, count + 2]);
        stand.moved(3, 30).await;
    })
    .await;
}

#[tokio::test]
async fn a_gap_between_nonces_is_found_and_filled_and_blocks_no_transaction() {
    on_each(async |stand| {
        let count = stand.rig.pending().await;
        // Both counts are too high once: the transaction takes a nonce that is not the next.
        stand.relay.fault(Fault::change("eth_getTransactionCount", plus(3)).times(2));
        let (_, on_chain) = stand.fund(&open(1, 10)).await.unwrap();
        assert_eq!(on_chain.deposit, 10.into());
        assert_eq!(stand.notes.nonces(), [count + 3, count, count + 1, count + 2]);
        assert_eq!(
            stand.notes.moves(),
            [true, false, false, false],
            "the fillers are on record, and move nothing"
        );
        stand.moved(1, 10).await;

        // After a restart, only the journal is known.
        let notes = Notes::new();
        stand.relay.fault(Fault::change("eth_getTransactionCount", plus(2)).times(2));
        let impatient = stand
            .rig
            .chain_with(ChainSettings { confirm_timeout: Duration::from_millis(20), ..stand.settings() });
        let error = impatient.fund(&open(2, 10), &notes).await.unwrap_err();
        assert!(error.is_unclear(), "{error}");
        let stranded = notes.all()[..1].to_vec();
        let gap = stand.chain().gap(&stranded).await.unwrap();
        // The client with the short timeout may have begun to fill it.
        assert!(gap.is_some() || notes.all().len() > 1, "{gap:?}");
        // Another receiver's transaction is not delayed, and takes a nonce in the gap.
        let restarted = stand.chain();
        restarted.remember(&notes.all());
        restarted.fund(&open(3, 10), &notes).await.unwrap();
        let resumed = restarted.resume(&notes.all()[..1], &notes).await.unwrap();
        assert_eq!(funded(resumed).0.receiver, receiver(2));
        assert_eq!(stand.chain().gap(&notes.all()).await.unwrap(), None);
        stand.moved(3, 30).await;
    })
    .await;
}

#[tokio::test]
async fn a_gap_is_never_filled_with_recorded_bytes_that_move_money() {
    on_each(async |stand| {
        // The first was signed but never sent; the second waits behind it.
        stand.notes.fill_up(true);
        stand.fund(&open(1, 10)).await.unwrap_err();
        stand.notes.fill_up(false);
        let first = stand.notes.all().remove(0);
        let later = Notes::new();
        stand.relay.fault(Fault::change("eth_getTransactionCount", plus(1)).times(2));
        let restarted = stand.chain();
        restarted.remember(std::slice::from_ref(&first));
        restarted.fund(&open(2, 10), &later).await.unwrap();
        assert_eq!(later.moves(), [true, false], "a zero-value transfer fills it");
        stand.moved(1, 10).await;
        let error = restarted.resume(&[first], &stand.notes).await.unwrap_err();
        assert!(matches!(error, OpError::Replaced { by: Some(_), .. }), "{error}");
        restarted.fund(&open(1, 10), &stand.notes).await.unwrap();
        stand.moved(2, 20).await;
    })
    .await;
}

#[tokio::test]
async fn nothing_is_signed_for_another_chain_or_token_than_at_first() {
    on_each(async |stand| {
        let chain = stand.chain();
        let info = chain.contract_info().await.unwrap();
        chain.pin(info.chain_id, info.token);
        let plain = Rig::plain(&stand.rig.url).await;
        let other: Address = plain.token;
        for fault in [
            Fault::result("eth_chainId", json!("0x1")),
            Fault::result("eth_call", json!(format!("0x{:0>64}", &format!("{other:?}")[2..]))).when(of_token),
        ] {
            stand.relay.heal();
            stand.relay.fault(fault);
            let error = chain.execute(&open(7, 50), &stand.notes).await.unwrap_err();
            let text = error.to_string();
            match error {
                OpError::Chain(ChainError::WrongChain { found: 1, pinned: 31337, source_of_pin, .. }) => {
                    assert_eq!(source_of_pin, PinSource::SeenBefore);
                    assert!(text.contains("chain.chain_id"), "{text}");
                }
                OpError::Chain(ChainError::WrongToken { found, pinned, .. }) => {
                    assert_eq!((found, pinned), (other, stand.rig.token));
                }
                other => panic!("{other}"),
            }
            assert!(chain.contract_info().await.is_err(), "{text}");
        }
        stand.relay.heal();
        let chosen = stand.rig.chain_with(ChainSettings { chain_id: Some(5), ..stand.settings() });
        let error = chosen.contract_info().await.unwrap_err();
        assert!(
            matches!(
                error,
                ChainError::WrongChain { found: 31337, pinned: 5, source_of_pin: PinSource::Configured, .. }
            ),
            "{error}"
        );
        assert!(chosen.execute(&open(7, 50), &stand.notes).await.is_err());
        assert!(stand.notes.all().is_empty() && stand.relay.sent().is_empty());
        chain.fund(&open(7, 50), &stand.notes).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_response_that_is_not_json_rpc_is_described() {
    on_each(async |stand| {
        for (act, part) in [
            (Act::Answer(200, &[("content-type", "text/html")], b"<!doctype html><p>Log in"), "an HTML page"),
            (Act::Answer(200, &[], b""), "an empty response"),
            (Act::Answer(200, &[("content-encoding", "gzip")], b"\x1f\x8b\x08\x00"), "compressed"),
            (
                Act::Answer(200, &[("content-type", "application/json")], b"{\"message\": \"x\"}"),
                "not JSON-RPC",
            ),
            (Act::Answer(200, &[("content-type", "text/plain")], b"hello"), "text, Content-Type text/plain"),
        ] {
            stand.relay.heal();
            stand.relay.fault(Fault::on_any(act));
            let error = stand.hasty().contract_info().await.unwrap_err();
            let text = error.to_string();
            assert!(matches!(error, ChainError::NotJsonRpc { .. }), "{text}");
            assert!(
                text.contains(part) && text.contains("chain.rpc_url") && text.contains("eth_chainId"),
                "{text}"
            );
        }
    })
    .await;
}

#[tokio::test]
async fn a_channel_that_a_lagging_node_does_not_know_yet_is_not_gone() {
    on_each(async |stand| {
        let (id, _) = stand.fund(&open(7, 50)).await.unwrap();
        let head = stand.rig.head().await;
        stand.relay.fault(Fault::on("eth_call", Act::Refuse(3, "execution reverted")).when(of_channel));
        // It reports that it is behind.
        let behind = head - 1;
        stand.relay.fault(Fault::result("eth_blockNumber", json!(U256::from(behind))));
        let synced = stand.chain().sync(0, &[id]).await.unwrap();
        assert_eq!(synced.channels, [], "nothing is known of it");
        stand.relay.heal();
        stand
            .relay
            .fault(Fault::on("eth_call", Act::Refuse(3, "execution reverted")).when(of_channel).times(1));
        let synced = stand.chain().sync(0, &[id]).await.unwrap();
        assert_eq!(synced.channels[0].1.map(|now| now.deposit), Some(50.into()));
    })
    .await;
}

#[tokio::test]
async fn ends_of_channels_meet_the_same_faults_and_happen_once() {
    on_each(async |stand| {
        let (first, _) = stand.fund(&open(6, 50)).await.unwrap();
        for (number, act) in PASSING.into_iter().enumerate() {
            stand.relay.fault(Fault::on_any(act).after(6 * number).each(6 * PASSING.len()));
        }
        stand.relay.fault(Fault::change("eth_getTransactionReceipt", nothing).times(10));
        let op = ChannelOp::CloseAlone { channel: first, total: 3.into() };
        let done = stand.chain().execute(&op, &stand.notes).await.unwrap();
        assert_eq!(done.on_chain.unwrap().closing_balance, 3.into());
        stand.rig.mine(501).await;
        let settle = ChannelOp::Settle { channel: first };
        let done = stand.chain().execute(&settle, &stand.notes).await.unwrap();
        assert_eq!(done.on_chain, None);
        // As after a crash: what has happened is found, not repeated.
        let last = stand.notes.all().pop().unwrap();
        let resumed = stand.chain().resume(&[last], &stand.notes).await.unwrap();
        assert!(matches!(resumed, Resolution::Done(done) if done.on_chain.is_none()));
        assert_eq!(stand.relay.sent().len(), 3);
    })
    .await;
}

#[tokio::test]
async fn a_transaction_that_the_node_has_although_it_refused_it_is_decided_before_another() {
    on_each(async |stand| {
        stand.rig.automine(false).await;
        let chain = stand.chain();
        let refusal =
            br#"{"jsonrpc": "2.0", "id": 1, "error": {"code": -32000, "message": "exceeds block gas limit"}}"#;
        stand.relay.fault(Fault::on("eth_sendRawTransaction", Act::Mask(200, refusal)).times(1));
        chain.fund(&open(7, 50), &stand.notes).await.unwrap_err();
        let first = stand.notes.all();
        // The node has it: neither the same operation nor a smaller one is sent in addition.
        let later = Notes::new();
        for op in [open(7, 50), open(7, 20)] {
            let error = chain.fund(&op, &later).await.unwrap_err();
            assert!(matches!(error, OpError::StillPending { .. }), "{error}");
        }
        assert!(later.all().iter().all(|intent| intent.hash == first[0].hash), "it is on record again");
        let resumed = stand.rig.mining(chain.resume(&later.all()[..1], &later)).await.unwrap();
        assert_eq!(funded(resumed).1.deposit, 50.into());
        stand.rig.automine(true).await;
        stand.moved(1, 50).await;
    })
    .await;
}

#[tokio::test]
async fn of_several_attempts_any_that_moved_carries_the_order_out() {
    on_each(async |stand| {
        // The first attempt was never sent, and another transaction took its nonce; the second is mined.
        let attempts = Notes::new();
        attempts.fill_up(true);
        stand.chain().fund(&open(7, 50), &attempts).await.unwrap_err();
        attempts.fill_up(false);
        let approval = stand.rig.pending().await;
        stand.rig.approve(1).await;
        stand.chain().fund(&open(7, 50), &attempts).await.unwrap();
        assert_eq!(attempts.nonces(), [approval, approval + 1]);
        let resumed = stand.chain().resume(&attempts.all(), &attempts).await.unwrap();
        assert_eq!(funded(resumed).1.deposit, 50.into());

        // The other way round: the later attempt lost its nonce, the earlier one becomes visible only after a while.
        let attempts = Notes::new();
        stand.chain().fund(&open(8, 50), &attempts).await.unwrap();
        attempts.fill_up(true);
        stand.chain().fund(&open(8, 50), &attempts).await.unwrap_err();
        stand.rig.approve(1).await;
        for method in ["eth_getTransactionReceipt", "eth_getTransactionByHash"] {
            stand.relay.fault(Fault::change(method, nothing).times(4));
        }
        stand.relay.fault(Fault::result("eth_getLogs", json!([])).times(4));
        let resumed = stand.chain().resume(&attempts.all(), &attempts).await.unwrap();
        assert_eq!(funded(resumed).1.deposit, 50.into());
        stand.moved(2, 100).await;
    })
    .await;
}

#[tokio::test]
async fn a_top_up_that_is_taken_up_is_proven_by_its_event_alone() {
    on_each(async |stand| {
        let (id, _) = stand.fund(&open(7, 100)).await.unwrap();
        let notes = Notes::new();
        stand.chain().fund(&top_up(id, 10), &notes).await.unwrap();
        stand.relay.fault(Fault::change("eth_getTransactionReceipt", |mut receipt| {
            if receipt.is_object() {
                receipt["logs"] = json!([]);
            }
            receipt
        }));
        stand.relay.fault(Fault::result("eth_getLogs", json!([])));
        // The channel holds more than the amount added, as it did before.
        let error = stand.hasty().resume(&notes.all(), &notes).await.unwrap_err();
        assert!(matches!(error, OpError::Unseen { .. }), "{error}");
        stand.relay.heal();
        let resumed = stand.chain().resume(&notes.all(), &notes).await.unwrap();
        assert_eq!(funded(resumed).1.deposit, 110.into());
        stand.moved(2, 110).await;
    })
    .await;
}

#[tokio::test]
async fn a_gap_is_not_filled_while_the_node_hides_pending_transactions() {
    on_each(async |stand| {
        stand.relay.fault(Fault::change("eth_getTransactionCount", plus(1)).times(2));
        let is_pending: fn(&Value) -> bool = |params| params[0] == "pending";
        let busy = Act::Answer(503, &[], b"");
        stand.relay.fault(Fault::on("eth_getBlockByNumber", busy).when(is_pending));
        let settings = ChainSettings { confirm_timeout: Duration::from_secs(2), ..stand.settings() };
        let retry_timeout = Duration::from_millis(50);
        let chain = stand.rig.chain_with(ChainSettings { retry_timeout, ..settings });
        let error = chain.fund(&open(7, 10), &stand.notes).await.unwrap_err();
        assert!(error.is_unclear(), "{error}");
        assert_eq!(stand.notes.moves(), [true]);
        stand.relay.heal();
        let resumed = stand.chain().resume(&stand.notes.all(), &stand.notes).await.unwrap();
        assert_eq!((funded(resumed).1.deposit, stand.notes.moves()), (10.into(), vec![true, false]));
        stand.moved(1, 10).await;
    })
    .await;
}
