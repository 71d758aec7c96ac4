//! Closing channels on real nodes: cooperatively, unilaterally, after a dispute, after a crash. In every case, the
//! tokens of payer, receiver and contract add up to the initial total.

use std::time::Duration;

use jsonrpsee::rpc_params;
use serde_json::Value as Json;
use tokio::time::timeout;
use tollpass::chain::{ChainSettings, OpError, OpResult, Resolution};
use tollpass::protocol::UnmetPrecondition;
use tollpass::protocol::{ChannelId, ChannelOp, OnChain, Signature};

use crate::support::chains::each_network;
use crate::support::rig::{Rig, TOKENS};
use crate::support::sides::{Sides, alone, settle};

/// The time limit of a test on one network.
const CASE_WITHIN: Duration = Duration::from_secs(60);
/// Blocks in which the receiver can dispute.
const CHALLENGE_PERIOD: u64 = 500;

async fn on_each(case: impl AsyncFn(&str)) {
    each_network(async |network| {
        let done = timeout(CASE_WITHIN, case(&network.url)).await;
        assert!(done.is_ok(), "not done within {CASE_WITHIN:?} on {}", network.name);
    })
    .await;
}

/// The channel while it is being closed at `closing_balance`, requested in block `at`.
fn closing(deposit: u64, closing_balance: u64, at: u64) -> OnChain {
    OnChain {
        deposit: deposit.into(),
        settle_block: (at + CHALLENGE_PERIOD) as u32,
        closing_balance: closing_balance.into(),
        withdrawn: 0.into(),
    }
}

#[tokio::test]
async fn closed_together_it_is_settled_at_once() {
    on_each(async |url| {
        for rig in [Rig::new(url).await, Rig::plain(url).await] {
            let sides = Sides::over(rig);
            let id = sides.open(100).await;
            assert_eq!(sides.holdings().await, (TOKENS - 100, 0, 100));
            let op = sides.together(id, 30);
            let done = sides.paid(op).await;
            assert_eq!((done.channel, done.on_chain), (id, None));
            assert_eq!(sides.holdings().await, (TOKENS - 30, 30, 0));
            assert_eq!(sides.unmet(op).await, UnmetPrecondition::NotThere { channel: id });
        }
    })
    .await;
}

#[tokio::test]
async fn closed_alone_it_is_settled_after_the_challenge_period() {
    on_each(async |url| {
        let sides = Sides::new(url).await;
        let channel = sides.open(100).await;
        assert_eq!(sides.unmet(settle(channel)).await, UnmetPrecondition::NotClosing { channel });
        let done = sides.paid(alone(channel, 30)).await;
        let head = sides.rig.head().await;
        assert_eq!((done.channel, done.on_chain), (channel, Some(closing(100, 30, head))));
        assert_eq!(sides.holdings().await, (TOKENS - 100, 0, 100));

        let settle_block = (head + CHALLENGE_PERIOD) as u32;
        let again = UnmetPrecondition::ClosingAlready { channel, settle_block, closing_balance: 30.into() };
        for total in [30, 40] {
            assert_eq!(sides.unmet(alone(channel, total)).await, again);
        }
        assert_eq!(sides.unmet(settle(channel)).await.blocks_left(), CHALLENGE_PERIOD + 1);
        sides.rig.mine(CHALLENGE_PERIOD).await;
        let early = sides.unmet(settle(channel)).await;
        assert_eq!(
            early,
            UnmetPrecondition::TooEarly { channel, settle_block, head: head + CHALLENGE_PERIOD }
        );
        assert_eq!(early.blocks_left(), 1);
        sides.rig.mine(1).await;
        let done = sides.paid(settle(channel)).await;
        assert_eq!((done.channel, done.on_chain), (channel, None));
        assert_eq!(sides.holdings().await, (TOKENS - 30, 30, 0));
        for op in [settle(channel), alone(channel, 0)] {
            assert_eq!(sides.unmet(op).await, UnmetPrecondition::NotThere { channel });
        }
    })
    .await;
}

#[tokio::test]
async fn the_deposit_of_a_channel_that_was_never_used_comes_back() {
    on_each(async |url| {
        for rig in [Rig::new(url).await, Rig::plain(url).await] {
            let sides = Sides::over(rig);
            let id = sides.open(100).await;
            sides.execute(alone(id, 0)).await.unwrap();
            sides.rig.mine(CHALLENGE_PERIOD + 1).await;
            sides.execute(settle(id)).await.unwrap();
            assert_eq!(sides.holdings().await, (TOKENS, 0, 0));
        }
    })
    .await;
}

#[tokio::test]
async fn a_close_alone_that_would_lock_the_deposit_up_is_not_sent() {
    on_each(async |url| {
        let sides = Sides::new(url).await;
        let channel = sides.open(100).await;
        sides.withdraw(channel, 40).await;
        let below = UnmetPrecondition::BelowWithdrawn { channel, total: 39.into(), withdrawn: 40.into() };
        for op in [alone(channel, 39), sides.together(channel, 39)] {
            assert_eq!(sides.unmet(op).await, below);
        }
        let above = UnmetPrecondition::AboveDeposit { channel, total: 101.into(), deposit: 100.into() };
        for op in [alone(channel, 101), sides.together(channel, 101)] {
            assert_eq!(sides.unmet(op).await, above);
        }
        sides.execute(alone(channel, 40)).await.unwrap();
        sides.rig.mine(CHALLENGE_PERIOD + 1).await;
        sides.execute(settle(channel)).await.unwrap();
        assert_eq!(sides.holdings().await, (TOKENS - 40, 40, 0));
    })
    .await;
}

#[tokio::test]
async fn a_channel_that_another_program_locked_up_is_freed_together() {
    on_each(async |url| {
        let sides = Sides::new(url).await;
        let channel = sides.open(100).await;
        sides.withdraw(channel, 40).await;
        sides.rig.close(channel, 39).await;
        sides.rig.mine(CHALLENGE_PERIOD + 1).await;
        let locked =
            UnmetPrecondition::LockedUp { channel, closing_balance: 39.into(), withdrawn: 40.into() };
        assert_eq!(sides.unmet(settle(channel)).await, locked);
        sides.execute(sides.together(channel, 40)).await.unwrap();
        assert_eq!(sides.holdings().await, (TOKENS - 40, 40, 0));
    })
    .await;
}

#[tokio::test]
async fn a_dispute_within_the_challenge_period_ends_it_on_the_higher_total() {
    on_each(async |url| {
        let sides = Sides::new(url).await;
        let channel = sides.open(100).await;
        sides.execute(alone(channel, 10)).await.unwrap();
        sides.receiver_closes(channel, 60).await;
        assert_eq!(sides.holdings().await, (TOKENS - 60, 60, 0));
        assert_eq!(sides.unmet(settle(channel)).await, UnmetPrecondition::NotThere { channel });
        // Our request was mined, and the channel has been settled.
        let Resolution::Done(done) = sides.chain.resume(&sides.notes.all(), &sides.notes).await.unwrap()
        else {
            panic!("nothing was done")
        };
        assert_eq!((done.channel, done.on_chain), (channel, None));

        // A cooperative close is still possible.
        let channel = sides.open(100).await;
        sides.execute(alone(channel, 10)).await.unwrap();
        sides.execute(sides.together(channel, 20)).await.unwrap();
        assert_eq!(sides.holdings().await, (TOKENS - 80, 80, 0));
    })
    .await;
}

#[tokio::test]
async fn a_signature_that_is_not_by_whom_it_should_be_is_named_and_nothing_is_sent() {
    on_each(async |url| {
        let sides = Sides::new(url).await;
        let channel = sides.open(100).await;
        let ChannelOp::CloseTogether { total, balance_signature, closing_signature, .. } =
            sides.together(channel, 30)
        else {
            panic!("another order")
        };
        let with = |balance_signature: Signature, closing_signature: Signature| ChannelOp::CloseTogether {
            channel,
            total,
            balance_signature,
            closing_signature,
        };
        for (op, part) in [
            (with(balance_signature, balance_signature), "the closing signature is not by the receiver"),
            (with(closing_signature, closing_signature), "the balance proof is not signed by the payer"),
            (with(balance_signature, Signature([0; 65])), "the closing signature is not by the receiver"),
        ] {
            let error = sides.execute(op).await.unwrap_err();
            assert!(matches!(error, OpError::WouldFail { .. }), "{error}");
            assert!(error.to_string().contains(part), "{error}");
            assert!(!format!("{error:?} {op:?}").contains(&balance_signature.to_hex()[2..]));
        }
        assert!(sides.notes.all().is_empty());
        assert_eq!(sides.holdings().await, (TOKENS - 100, 0, 100));
    })
    .await;
}

/// Records `op` without sending it, as if the program crashed in between.
async fn crash(sides: &Sides, op: ChannelOp) {
    sides.notes.fill_up(true);
    let error = sides.execute(op).await.unwrap_err();
    assert!(matches!(error, OpError::NotRecorded(_)), "{error}");
    sides.notes.fill_up(false);
}

async fn resume(sides: &Sides) -> Result<OpResult, OpError> {
    let last = sides.notes.all().pop().unwrap();
    match sides.chain.resume(&[last], &sides.notes).await? {
        Resolution::Done(done) => Ok(done),
        Resolution::NothingMoved => panic!("nothing moved"),
    }
}

#[tokio::test]
async fn an_operation_left_unsent_by_a_crash_is_carried_out_once() {
    on_each(async |url| {
        let sides = Sides::new(url).await;
        let (first, second) = (sides.open(100).await, sides.open(100).await);
        let head = sides.rig.head().await;
        let closing = Some(closing(100, 30, head + 1));
        for (op, on_chain, holdings) in [
            (alone(first, 30), closing, (TOKENS - 200, 0, 200)),
            (sides.together(second, 50), None, (TOKENS - 150, 50, 100)),
            (settle(first), None, (TOKENS - 80, 80, 0)),
        ] {
            if op == settle(first) {
                sides.rig.mine(CHALLENGE_PERIOD).await;
            }
            let (count, before) = (sides.rig.pending().await, sides.holdings().await);
            crash(&sides, op).await;
            assert_eq!((sides.rig.pending().await, sides.holdings().await), (count, before));
            let done = resume(&sides).await.unwrap();
            assert_eq!((done.on_chain, sides.holdings().await), (on_chain, holdings), "{op:?}");
            assert!(done.fee.is_some());
            // Again: now it is mined, and found; nothing is sent.
            assert_eq!(resume(&sides).await.unwrap(), done);
            assert_eq!(sides.rig.pending().await, count + 1);
        }
    })
    .await;
}

#[tokio::test]
async fn an_end_that_came_about_meanwhile_is_not_paid_for_again() {
    on_each(async |url| {
        let sides = Sides::new(url).await;
        let [first, second, third] = [sides.open(100).await, sides.open(100).await, sides.open(100).await];
        let ended = |channel: ChannelId| OpResult { channel, on_chain: None, transaction: None, fee: None };

        crash(&sides, sides.together(first, 30)).await;
        sides.receiver_closes(first, 30).await;
        let count = sides.rig.pending().await;
        assert_eq!(resume(&sides).await.unwrap(), ended(first));

        crash(&sides, alone(second, 30)).await;
        sides.receiver_closes(second, 30).await;
        assert_eq!(resume(&sides).await.unwrap(), ended(second));
        assert_eq!(sides.rig.pending().await, count);

        // The same request by another program with our key, and then one at another total.
        crash(&sides, alone(third, 30)).await;
        sides.rig.close(third, 30).await;
        let done = resume(&sides).await.unwrap();
        let head = sides.rig.head().await;
        assert_eq!((done.on_chain, done.fee), (Some(closing(100, 30, head)), None));
        sides.rig.mine(CHALLENGE_PERIOD + 1).await;
        crash(&sides, settle(third)).await;
        sides.rig.settle(third).await;
        assert_eq!(resume(&sides).await.unwrap(), ended(third));
        assert_eq!(sides.holdings().await, (TOKENS - 90, 90, 0));

        let fourth = sides.open(100).await;
        crash(&sides, alone(fourth, 30)).await;
        sides.rig.close(fourth, 20).await;
        let error = resume(&sides).await.unwrap_err();
        assert!(matches!(error, OpError::Replaced { .. }), "{error}");
        assert_eq!(sides.holdings().await, (TOKENS - 190, 90, 100));
    })
    .await;
}

/// Submits the last recorded transaction to the node.
async fn send_by_hand(sides: &Sides) {
    let raw: String = sides.notes.all().pop().unwrap().raw.iter().map(|byte| format!("{byte:02x}")).collect();
    let _: Json = sides.rig.ask("eth_sendRawTransaction", rpc_params![format!("0x{raw}")]).await;
}

#[tokio::test]
async fn a_mined_failure_is_an_error_unless_the_channel_ended_all_the_same() {
    on_each(async |url| {
        let sides = Sides::new(url).await;
        let channel = sides.open(100).await;
        sides.execute(alone(channel, 30)).await.unwrap();
        let snapshot = sides.rig.snapshot().await;
        sides.rig.mine(CHALLENGE_PERIOD + 1).await;
        crash(&sides, settle(channel)).await;
        // A reorganisation turns the clock back: the same transaction is too early now.
        sides.rig.revert(snapshot).await;
        send_by_hand(&sides).await;
        let error = resume(&sides).await.unwrap_err();
        assert!(matches!(error, OpError::TransactionFailed { .. }) && !error.is_unclear(), "{error}");
        assert!(error.to_string().contains("cannot be settled yet"), "{error}");
        assert_eq!(sides.holdings().await, (TOKENS - 100, 0, 100));

        sides.rig.mine(CHALLENGE_PERIOD + 1).await;
        crash(&sides, settle(channel)).await;
        sides.receiver_closes(channel, 40).await;
        send_by_hand(&sides).await;
        assert_eq!(
            resume(&sides).await.unwrap(),
            OpResult { channel, on_chain: None, transaction: None, fee: None }
        );
        assert_eq!(sides.holdings().await, (TOKENS - 40, 40, 0));
    })
    .await;
}

#[tokio::test]
async fn an_end_that_a_reorganisation_undid_is_sent_again() {
    on_each(async |url| {
        let sides = Sides::new(url).await;
        let channel = sides.open(100).await;
        let settings = ChainSettings { confirmations: 3, ..sides.rig.settings() };
        let sides = sides.with(settings);
        let (rig, count, snapshot) = (&sides.rig, sides.rig.pending().await, sides.rig.snapshot().await);
        let reorganise = async {
            rig.until_mined(count + 1).await;
            assert_eq!(rig.tokens_of(rig.manager).await, 0);
            rig.revert(snapshot).await;
            assert_eq!(rig.tokens_of(rig.manager).await, 100);
            rig.mine(4).await;
            rig.until_pending(count + 1).await;
            rig.mine(2).await;
        };
        let (outcome, ()) = tokio::join!(sides.execute(sides.together(channel, 30)), reorganise);
        assert_eq!(outcome.unwrap().on_chain, None);
        assert_eq!((sides.notes.all().len(), sides.holdings().await), (1, (TOKENS - 30, 30, 0)));
    })
    .await;
}

#[tokio::test]
async fn estimates_the_highest_cost_of_opening_and_topping_up() {
    on_each(async |url| {
        for rig in [Rig::new(url).await, Rig::plain(url).await] {
            let sides = Sides::over(rig);
            let receiver = sides.open(1).await.receiver;
            // A remaining allowance that is too small takes one more transaction to change, if it is needed.
            sides.rig.approve(5).await;
            let done = sides.paid(ChannelOp::Open { receiver, deposit: 100.into() }).await;
            sides.paid(ChannelOp::TopUp { channel: done.channel, added: 20.into() }).await;
            sides.rig.approve(30).await;
            sides.paid(ChannelOp::TopUp { channel: done.channel, added: 30.into() }).await;
            let poor = ChannelOp::Open { receiver, deposit: (TOKENS + 1).into() };
            let error = sides.chain.estimate(&poor).await.unwrap_err();
            assert!(matches!(error, OpError::Underfunded(_)), "{error}");
        }
    })
    .await;
}
