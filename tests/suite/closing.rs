//! Closing channels by command and at exit, with honest and dishonest sellers: every token ends up where it belongs,
//! and each refusal states its reason.

mod denied;

use std::time::{Duration, Instant};

use http::{Method, Request, StatusCode};
use tollpass::chain::signer::Signer;
use tollpass::channels::{Operation, OperationError, OperationOutcome, OperationReport, PlannedAction};
use tollpass::devnet::origin::Lose;
use tollpass::payments::ChannelAccessError;
use tollpass::protocol::schemes::microraiden::{headers as rdn, proof};
use tollpass::protocol::{Address, Amount, ChannelId};

use crate::pays::QUICK;
use crate::support::chains::each_network;
use crate::support::fair::{Fair, PRICE, empty};
use crate::support::mallory::{Answer, Demand, Mallory, Presented};
use crate::support::payer::{Alice, KEY, PATIENCE, Running, WEALTH};
use crate::support::town::{Town, only, until_phase};
use crate::support::wire::ask;

/// The time limit of a test on one network.
const CASE_WITHIN: Duration = Duration::from_secs(60);
/// Blocks between a unilateral close and its settlement.
const CHALLENGE_PERIOD: u64 = 500;

async fn on_each(more: &str, case: impl AsyncFn(Town)) {
    each_network(async |network| {
        let town = Town::on(&network.url, more).await;
        let done = tokio::time::timeout(CASE_WITHIN, case(town)).await;
        assert!(done.is_ok(), "not done within {CASE_WITHIN:?} on {}", network.name);
    })
    .await;
}

fn together(channel: ChannelId) -> Operation {
    Operation::CloseTogether { channel, seller: None }
}

fn alone(channel: ChannelId, total: Option<u64>, below_promised: bool) -> Operation {
    Operation::CloseAlone { channel, total: total.map(Amount::from), below_promised }
}

/// Plans the operation, and executes it.
async fn done(proxy: &Running, operation: Operation) -> OperationReport {
    let plan = proxy.channels.plan(&operation).await.unwrap_or_else(|trouble| panic!("{trouble}"));
    assert!(plan.wei.is_some_and(|wei| wei.parse::<u128>().unwrap() > 0), "{:?}", plan.action);
    proxy.channels.operate(operation).await.unwrap_or_else(|trouble| panic!("{trouble}"))
}

/// The operation is refused with these words, and nothing is sent.
async fn refused(proxy: &Running, operation: Operation, words: &str) {
    let trouble = proxy.channels.operate(operation).await.unwrap_err().to_string();
    assert!(trouble.contains(words), "no {words:?} in {trouble}");
}

#[tokio::test]
async fn a_cooperative_close_pays_both_and_the_next_payment_opens_another_channel() {
    on_each("", async |town| {
        let proxy = town.alice.start().await;
        town.buy(&proxy, 3).await;
        let channel = only(&proxy).await.id();
        assert_eq!(town.holdings().await, (WEALTH - 10 * PRICE, 0, 10 * PRICE));
        let report = done(&proxy, together(channel)).await;
        assert!(matches!(report.outcome, OperationOutcome::Ended(ended) if ended == channel), "{report:?}");
        assert_eq!(town.holdings().await, (WEALTH - 3 * PRICE, 3 * PRICE, 0));
        let gone = only(&proxy).await;
        assert_eq!((gone.phase.as_str(), gone.promised), ("gone", (3 * PRICE).into()));
        refused(&proxy, together(channel), "it is settled").await;
        refused(&proxy, Operation::Settle { channel }, "settled already").await;

        town.buy(&proxy, 1).await;
        assert_eq!(town.holdings().await, (WEALTH - 13 * PRICE, 3 * PRICE, 10 * PRICE));
        assert_eq!(proxy.channels().await.len(), 2);
        proxy.stop().await;
    })
    .await;
}

#[tokio::test]
async fn an_unused_deposit_is_returned_in_full_once_and_not_too_early() {
    on_each("", async |town| {
        let proxy = town.alice.start().await;
        proxy.ready().await;
        let (receiver, deposit) = (town.origin.receiver(), Amount::from(500));
        done(&proxy, Operation::Open { receiver, deposit }).await;
        let channel = only(&proxy).await.id();
        let plan = proxy.channels.plan(&together(channel)).await.unwrap();
        assert_eq!(plan.action, PlannedAction::CloseUnused { channel, deposit });
        refused(&proxy, Operation::Settle { channel }, "is not closing").await;
        done(&proxy, together(channel)).await;
        assert_eq!(only(&proxy).await.phase, "closing");
        refused(&proxy, Operation::Settle { channel }, "try again in 501 blocks").await;
        refused(&proxy, alone(channel, None, false), "is being closed already").await;
        town.rig.mine(CHALLENGE_PERIOD).await;
        refused(&proxy, Operation::Settle { channel }, "try again in 1 blocks").await;
        town.rig.mine(1).await;
        assert_eq!(town.holdings().await, (WEALTH - 500, 0, 500));
        done(&proxy, Operation::Settle { channel }).await;
        assert_eq!(town.holdings().await, (WEALTH, 0, 0));
        refused(&proxy, Operation::Settle { channel }, "settled already").await;
        assert_eq!(only(&proxy).await.phase, "gone");
        proxy.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_unilateral_close_uses_the_promised_total_unless_a_lower_one_is_given() {
    on_each("", async |town| {
        let proxy = town.alice.start().await;
        town.buy(&proxy, 3).await;
        let first = only(&proxy).await.id();
        refused(&proxy, alone(first, Some(2 * PRICE), false), "--below-promised").await;
        // The contract would accept it, and the deposit would be lost.
        town.withdraw(first, 2 * PRICE).await;
        refused(&proxy, alone(first, Some(PRICE), true), "lock the deposit permanently").await;
        let unknown = ChannelId { open_block: first.open_block + 1, ..first };
        refused(&proxy, alone(unknown, None, false), "not found").await;
        done(&proxy, alone(first, None, false)).await;
        assert_eq!(town.holdings().await, (WEALTH - 10 * PRICE, 2 * PRICE, 8 * PRICE));
        town.rig.mine(CHALLENGE_PERIOD + 1).await;
        done(&proxy, Operation::Settle { channel: first }).await;
        assert_eq!(town.holdings().await, (WEALTH - 3 * PRICE, 3 * PRICE, 0));

        town.buy(&proxy, 2).await;
        let second = proxy.channels().await.into_iter().find(|listed| listed.phase == "open").unwrap().id();
        done(&proxy, alone(second, Some(PRICE), true)).await;
        town.rig.mine(CHALLENGE_PERIOD + 1).await;
        done(&proxy, Operation::Settle { channel: second }).await;
        assert_eq!(town.holdings().await, (WEALTH - 4 * PRICE, 4 * PRICE, 0));
        proxy.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_seller_that_closes_by_itself_is_noticed_and_paid_over_another_channel() {
    on_each("", async |town| {
        let proxy = town.alice.start().await;
        town.buy(&proxy, 2).await;
        let channel = only(&proxy).await.id();
        let payer = town.alice.address;
        town.seller_closes(channel, 2 * PRICE).await;
        until_phase(&proxy, channel, "gone").await;
        assert_eq!(town.origin.registered(payer, channel.open_block), Some((2 * PRICE).into()));
        assert_eq!(town.holdings().await, (WEALTH - 2 * PRICE, 2 * PRICE, 0));
        town.buy(&proxy, 1).await;
        assert_eq!(town.holdings().await, (WEALTH - 12 * PRICE, 2 * PRICE, 10 * PRICE));
        proxy.stop().await;
    })
    .await;
}

#[tokio::test]
async fn an_opening_that_a_reorganisation_undid_is_gone_and_its_promises_stay() {
    on_each("", async |town| {
        let proxy = town.alice.start().await;
        proxy.ready().await;
        let snapshot = town.rig.snapshot().await;
        town.buy(&proxy, 2).await;
        let before = only(&proxy).await.id();
        town.rig.revert(snapshot).await;
        town.rig.mine(3).await;
        town.rig.mining(until_phase(&proxy, before, "gone")).await;
        assert_eq!(only(&proxy).await.promised, (2 * PRICE).into());
        assert_eq!(town.holdings().await, (WEALTH, 0, 0));
        refused(&proxy, together(before), "it is settled").await;
        // The seller has processed the new blocks.
        town.origin.await_poll().await;
        town.buy(&proxy, 1).await;
        let channels = proxy.channels().await;
        let old = channels.iter().find(|listed| listed.id() == before).unwrap();
        assert_eq!((channels.len(), old.phase.as_str(), old.promised), (2, "gone", (2 * PRICE).into()));
        proxy.stop().await;
    })
    .await;
}

/// The payment is granted, then its channel is undone, then the seller responds: the same request is paid from another
/// channel, and only once.
/// another channel, and only once.
#[tokio::test]
async fn a_channel_that_vanishes_under_a_payment_is_replaced_within_the_request() {
    on_each("", async |mut town| {
        town.alice.change(
            "nonexisting_channel = { action = \"retry\"",
            "nonexisting_channel = { action = \"reopen\"",
        );
        let proxy = town.alice.start().await;
        proxy.ready().await;
        let snapshot = town.rig.snapshot().await;
        // The seller does not see the opening before it is undone.
        town.origin.stop_noticing();
        town.open_by_hand(&proxy).await;
        let exchanges = town.origin.exchanges();
        let asked = tokio::spawn(ask(proxy.address, town.paid()));
        // The 402, then the payment, which is presented repeatedly.
        town.origin.await_exchanges(exchanges + 3).await;
        let first = only(&proxy).await.id();
        assert_eq!(town.origin.total_registered(), Amount::ZERO);
        town.rig.revert(snapshot).await;
        town.rig.mine(3).await;
        town.rig.mining(until_phase(&proxy, first, "gone")).await;
        town.origin.resume_noticing();
        let got = town.rig.mining(asked).await.unwrap();
        assert_eq!(got.status, StatusCode::OK, "{got:?}");
        let mut channels = proxy.channels().await;
        channels.sort_by_key(|listed| listed.phase.clone());
        let shown: Vec<_> = channels.iter().map(|listed| (listed.phase.as_str(), listed.promised)).collect();
        assert_eq!(shown, [("gone", PRICE.into()), ("open", PRICE.into())]);
        assert_eq!(town.origin.total_registered(), PRICE.into());
        assert_eq!(town.holdings().await, (WEALTH - 10 * PRICE, 0, 10 * PRICE));
        proxy.stop().await;
    })
    .await;
}

/// A webhook decides at each step what to do about a channel that the seller denies, whatever the policy says.
#[tokio::test]
async fn a_webhook_may_say_reopen_where_the_policy_retries_and_retry_where_it_reopens() {
    for (policy, word, replaced) in [("retry", "reopen", true), ("reopen", "retry", false)] {
        on_each("", async |mut town| {
            let answer = leaked(format!("{{\"do\": \"{word}\"}}"));
            let webhook = Mallory::spawn(move |_| text(200, answer)).await;
            let asks =
                format!("nonexisting_channel = {{ action = \"{policy}\", webhook = \"{}/\"", webhook.url());
            town.alice.change("nonexisting_channel = { action = \"retry\"", &asks);
            let proxy = town.alice.start().await;
            proxy.ready().await;
            let snapshot = town.rig.snapshot().await;
            town.origin.stop_noticing();
            town.open_by_hand(&proxy).await;
            let exchanges = town.origin.exchanges();
            let asked = tokio::spawn(ask(proxy.address, town.paid()));
            town.origin.await_exchanges(exchanges + 3).await;
            let first = only(&proxy).await.id();
            town.rig.revert(snapshot).await;
            town.rig.mine(3).await;
            town.rig.mining(until_phase(&proxy, first, "gone")).await;
            if replaced {
                town.origin.resume_noticing();
                let got = town.rig.mining(asked).await.unwrap();
                assert_eq!(got.status, StatusCode::OK, "{got:?}");
            } else {
                // One that began before the channel was gone, and two that must have noticed.
                let exchanges = town.origin.exchanges();
                town.rig.mining(town.origin.await_exchanges(exchanges + 3)).await;
                asked.abort();
            }
            assert_eq!(proxy.channels().await.len(), if replaced { 2 } else { 1 }, "{policy} {word}");
            let question: serde_json::Value = serde_json::from_slice(&webhook.presented()[0].body).unwrap();
            assert_eq!(question["hook"], "nonexisting_channel");
            proxy.stop().await;
        })
        .await;
    }
}

/// Mallory accepts the payment, has the channel settled with it, and then claims that there is none.
#[tokio::test]
async fn a_seller_that_settles_and_denies_the_channel_gets_nothing_more() {
    on_each("", async |mut town| {
        town.alice.change(
            "nonexisting_channel = { action = \"retry\"",
            "nonexisting_channel = { action = \"reopen\"",
        );
        let proxy = town.alice.start().await;
        let (contract, token) = (town.rig.manager, town.rig.token);
        let demand = Demand { contract, receiver: town.origin.receiver(), token };
        let mallory = Mallory::spawn(move |presented: &Presented| match presented.payment {
            Some(_) => demand.base(PRICE).complain(&rdn::NONEXISTING_CHANNEL),
            None => demand.base(PRICE),
        });
        let mallory = mallory.await;
        let request = Request::get(format!("{}/x", mallory.url())).body(empty()).unwrap();
        let asked = tokio::spawn(ask(proxy.address, request));
        mallory.await_presented(2).await;
        let channel = only(&proxy).await.id();
        let payment = mallory.presented()[1].payment.unwrap();
        let taken = (payment.open_block, payment.total, payment.signature);
        assert_eq!(taken, (channel.open_block, PRICE.into(), town.balance(channel, PRICE)));
        town.seller_closes(channel, PRICE).await;
        let got = asked.await.unwrap();
        assert_eq!(got.status, StatusCode::BAD_GATEWAY, "{got:?}");
        assert!(got.text().contains("paid, answer lost"), "{got:?}");
        let listed = only(&proxy).await;
        assert_eq!((listed.phase.as_str(), listed.promised), ("gone", PRICE.into()));
        assert_eq!(mallory.highest(), PRICE.into());
        assert_eq!(town.holdings().await, (WEALTH - PRICE, PRICE, 0));
        proxy.stop().await;
    })
    .await;
}

/// A channel that the watcher would not read by itself is read until its state is clear.
#[tokio::test]
async fn an_old_channel_that_a_reorganisation_undid_is_gone_once_it_was_missed() {
    on_each("", async |town| {
        let snapshot = town.rig.snapshot().await;
        let proxy = town.alice.start().await;
        town.buy(&proxy, 1).await;
        let channel = only(&proxy).await.id();
        proxy.stop().await;
        // Too long ago for the next start to read it again.
        town.rig.mine(40).await;
        let proxy = town.alice.start().await;
        proxy.ready().await;
        town.rig.revert(snapshot).await;
        proxy.channels.operate(Operation::Sync).await.unwrap_or_else(|trouble| panic!("{trouble}"));
        // The seller's node may have shown another state: the watcher must confirm it, more than once.
        town.rig.mining(until_phase(&proxy, channel, "gone")).await;
        assert_eq!(only(&proxy).await.promised, PRICE.into());
        proxy.stop().await;
    })
    .await;
}

#[tokio::test]
async fn another_total_of_the_sellers_is_taken_where_we_signed_it() {
    on_each("", async |town| {
        let proxy = town.alice.start().await;
        town.buy(&proxy, 2).await;
        let channel = only(&proxy).await.id();
        // Another program with the same key has paid in the meantime.
        let total = 3 * PRICE;
        let presented = Request::get("/paid")
            .header(&rdn::SENDER_ADDRESS, town.alice.address.to_string())
            .header(&rdn::OPEN_BLOCK, channel.open_block)
            .header(&rdn::BALANCE, total)
            .header(&rdn::BALANCE_SIGNATURE, town.balance(channel, total).to_hex());
        let got = ask(town.origin.address(), presented.body(empty()).unwrap()).await;
        assert_eq!(got.status, StatusCode::OK, "{got:?}");
        done(&proxy, together(channel)).await;
        assert_eq!(only(&proxy).await.promised, total.into());
        assert_eq!(town.holdings().await, (WEALTH - total, total, 0));
        proxy.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_payment_whose_answer_was_lost_is_cleared_up_before_it_closes() {
    on_each("", async |town| {
        let proxy = town.alice.start().await;
        town.buy(&proxy, 1).await;
        for (when, registered) in [(Lose::BeforeRegistering, PRICE), (Lose::AfterRegistering, 2 * PRICE)] {
            let open = async || proxy.channels().await.into_iter().find(|listed| listed.phase == "open");
            town.origin.lose_next_answer(when);
            // A GET would be sent again.
            let post = Request::post(format!("{}/paid/echo", town.origin.url())).body(empty()).unwrap();
            let got = ask(proxy.address, post).await;
            assert_ne!(got.status, StatusCode::OK, "{got:?}");
            let (alice, seller, _) = town.holdings().await;
            let listed = open().await.unwrap();
            assert_eq!(listed.promised, (2 * PRICE).into());
            done(&proxy, together(listed.id())).await;
            let expected = (alice + 10 * PRICE - registered, seller + registered, 0);
            assert_eq!(town.holdings().await, expected);
            town.buy(&proxy, 1).await;
        }
        proxy.stop().await;
    })
    .await;
}

/// One close waits for the payment in flight and for the channel that is being opened; another one is refused.
#[tokio::test]
async fn a_close_waits_for_payments_in_flight_and_no_new_one_uses_the_channel() {
    on_each("", async |town| {
        let proxy = town.alice.start().await;
        town.buy(&proxy, 1).await;
        let channel = only(&proxy).await.id();
        town.origin.hold_answers();
        let in_flight = tokio::spawn(ask(proxy.address, town.paid()));
        town.origin.await_payments(2).await;
        let mut closes: Vec<_> = (0..2)
            .map(|_| {
                let channels = proxy.channels.clone();
                tokio::spawn(async move { channels.operate(together(channel)).await })
            })
            .collect();
        let (first, place, _) = futures_util::future::select_all(&mut closes).await;
        assert!(matches!(first.unwrap(), Err(OperationError::Access(ChannelAccessError::Locked(locked))) if locked == channel));
        let close = closes.remove(1 - place);

        // The channel is locked: the next request opens another one, in a block that is not mined yet.
        town.rig.automine(false).await;
        let newcomer = tokio::spawn(ask(proxy.address, town.paid()));
        let pending = async {
            while proxy.channels.operate(Operation::Sync).await.is_ok()
                && town.rig.waiting_of(town.alice.address).await == 0
            {}
        };
        tokio::time::timeout(PATIENCE, pending).await.expect("no channel is opened");
        assert!(!close.is_finished());
        town.origin.release();
        assert_eq!(in_flight.await.unwrap().status, StatusCode::OK);
        let closed = town.rig.mining(close).await.unwrap();
        closed.unwrap_or_else(|trouble| panic!("{trouble}"));
        let got = town.rig.mining(newcomer).await.unwrap();
        assert_eq!(got.status, StatusCode::OK, "{got:?}");
        assert_eq!(town.holdings().await, (WEALTH - 12 * PRICE, 2 * PRICE, 10 * PRICE));
        assert_eq!(town.origin.total_registered(), (3 * PRICE).into());
        proxy.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_lost_journal_does_not_take_the_seller_for_unpaid() {
    on_each("", async |town| {
        let proxy = town.alice.start().await;
        town.buy(&proxy, 2).await;
        proxy.stop().await;
        std::fs::remove_dir_all(town.alice.state_dir()).unwrap();
        let proxy = town.alice.start().await;
        proxy.ready().await;
        let listed = only(&proxy).await;
        assert_eq!((listed.promised, listed.in_doubt), ((10 * PRICE).into(), true), "its history is unknown");
        let seller = Some(format!("{}/api/1", town.origin.url()));
        let closing = Operation::CloseTogether { channel: listed.id(), seller };
        proxy.channels.operate(closing).await.unwrap_or_else(|trouble| panic!("{trouble}"));
        assert_eq!(town.holdings().await, (WEALTH - 2 * PRICE, 2 * PRICE, 0));
        proxy.stop().await;
    })
    .await;
}

/// Mallory's responses to requests for a channel's state and for her closing signature.
#[derive(Clone)]
struct Manners {
    state: Answer,
    consent: Answer,
}

fn text(status: u16, text: &'static str) -> Answer {
    Answer::new(StatusCode::from_u16(status).unwrap(), text)
}

fn leaked(text: String) -> &'static str {
    Box::leak(text.into_boxed_str())
}

#[tokio::test]
async fn a_seller_that_does_not_help_is_named_in_time_and_nothing_is_sent() {
    let fair = Fair::open().await;
    let sent = async || fair.market.sent_by(Signer::new(&KEY).unwrap().address()).await;
    let limits = "[limits]\nseller_timeout = \"300ms\"\n";
    let alice = Alice::with(&fair.market, &format!("{QUICK}{limits}")).await;
    let proxy = alice.start().await;
    let receiver = Signer::new(&[0x3a; 32]).unwrap();
    let (manager, token) = (fair.market.manager, fair.market.token);
    let demand = Demand { contract: manager, receiver: receiver.address(), token };
    let manners = std::sync::Arc::new(std::sync::Mutex::new(Manners {
        state: text(404, "no"),
        consent: text(400, "not today"),
    }));
    let script = {
        let manners = manners.clone();
        move |presented: &Presented| match (
            &presented.method,
            presented.target.starts_with("/api/1/channels"),
        ) {
            (&Method::DELETE, true) => manners.lock().unwrap().consent.clone(),
            (_, true) => manners.lock().unwrap().state.clone(),
            _ if presented.payment.is_some() => text(200, "paid"),
            _ => demand.base(PRICE),
        }
    };
    let mallory = Mallory::spawn(script).await;
    let url = format!("{}/x", mallory.url());
    let pay = async || ask(proxy.address, Request::get(&url).body(empty()).unwrap()).await.status;
    assert_eq!(pay().await, StatusCode::OK);
    let channel = only(&proxy).await.id();
    let signed_by = |key: [u8; 32], total: u64| {
        let digest = proof::closing_digest(alice.address, channel.open_block, total.into(), manager);
        Signer::new(&key).unwrap().sign(digest).unwrap().to_hex()
    };
    let consent = |signature: String| text(200, leaked(format!(r#"{{"close_signature": "{signature}"}}"#)));
    let no_state = text(404, "no");
    let claims = text(200, leaked(format!(r#"{{"balance": {}, "last_signature": null}}"#, 9 * PRICE)));
    for (state, answer, words) in [
        (
            no_state.clone(),
            text(400, "not today"),
            "the seller refused (400): not today. Try again, or close without",
        ),
        (claims, text(400, "not today"), "claims to hold 9000, but has no signature of ours for it"),
        (no_state.clone(), consent(signed_by([0x3b; 32], PRICE)), "is not from the receiver's key"),
        (no_state.clone(), consent(signed_by([0x3a; 32], 2 * PRICE)), "is not from the receiver's key"),
        (no_state.clone(), consent("0x12".into()), "response is invalid"),
        (no_state.clone(), text(200, "<html>"), "response is invalid"),
        (no_state.clone(), Answer::CutBeforeHead, "cannot reach the seller"),
        (no_state.clone(), Answer::Never, "no response within limits.seller_timeout (300ms)"),
    ] {
        *manners.lock().unwrap() = Manners { state, consent: answer };
        let (began, before) = (Instant::now(), sent().await);
        refused(&proxy, together(channel), words).await;
        assert!(began.elapsed() < Duration::from_secs(5), "{words}: {:?}", began.elapsed());
        assert_eq!(sent().await, before, "{words}");
        assert_eq!(only(&proxy).await.phase, "open", "{words}");
        assert_eq!(pay().await, StatusCode::OK, "the channel pays again after {words}");
    }
    drop(mallory);
    refused(&proxy, together(channel), "cannot reach the seller").await;
    proxy.stop().await;
}

#[tokio::test]
async fn at_the_end_every_used_channel_is_closed_where_that_is_wanted() {
    on_each("[deposit]\non_exit = \"cooperative\"\n", async |town| {
        let proxy = town.alice.start().await;
        town.buy(&proxy, 2).await;
        let unused = Address([0x77; 20]);
        done(&proxy, Operation::Open { receiver: unused, deposit: 500.into() }).await;
        // Shutdown begins while a payment is in flight, which is included in the close.
        town.origin.hold_answers();
        let in_flight = tokio::spawn(ask(proxy.address, town.paid()));
        town.origin.await_payments(3).await;
        proxy.shutdown.begin();
        town.origin.release();
        assert_eq!(in_flight.await.unwrap().status, StatusCode::OK);
        proxy.stop().await;
        assert_eq!(town.holdings().await, (WEALTH - 3 * PRICE - 500, 3 * PRICE, 500));

        let proxy = town.alice.start().await;
        proxy.ready().await;
        let channels = proxy.channels().await;
        let phases: Vec<_> =
            channels.iter().map(|listed| (listed.receiver == unused, &*listed.phase)).collect();
        assert!(phases.contains(&(true, "open")) && phases.contains(&(false, "gone")), "{phases:?}");
        proxy.stop().await;
    })
    .await;
}

#[tokio::test]
async fn the_end_waits_for_no_close_beyond_its_deadline_and_the_next_start_finishes_it() {
    let more = "[deposit]\non_exit = \"cooperative\"\n[limits]\ndrain_timeout = \"1s\"\n";
    on_each(more, async |town| {
        let proxy = town.alice.start().await;
        town.buy(&proxy, 2).await;
        town.rig.automine(false).await;
        let began = Instant::now();
        proxy.stop().await;
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        assert_eq!(town.holdings().await, (WEALTH - 10 * PRICE, 0, 10 * PRICE));
        town.rig.automine(true).await;
        let proxy = town.alice.start().await;
        proxy.ready().await;
        let channel = only(&proxy).await.id();
        town.rig.mining(until_phase(&proxy, channel, "gone")).await;
        assert_eq!(town.holdings().await, (WEALTH - 2 * PRICE, 2 * PRICE, 0));
        proxy.stop().await;
    })
    .await;
}

#[tokio::test]
async fn channels_that_a_rush_opened_are_closed_when_it_is_over_and_one_pays_on() {
    on_each("[deposit]\nchannels = 3\nclose_idle_after = \"1s\"\n", async |town| {
        let proxy = town.alice.start().await;
        // Three payments at the same time, none of which completes before all are sent.
        town.origin.hold_answers();
        let rush: Vec<_> = (0..3).map(|_| tokio::spawn(ask(proxy.address, town.paid()))).collect();
        town.origin.await_payments(3).await;
        assert_eq!(town.holdings().await, (WEALTH - 30 * PRICE, 0, 30 * PRICE));
        town.origin.release();
        for request in rush {
            assert_eq!(request.await.unwrap().status, StatusCode::OK);
        }
        let one_is_open = async {
            let mut looks = tokio::time::interval(Duration::from_millis(5));
            loop {
                looks.tick().await;
                let channels = proxy.channels().await;
                if channels.iter().filter(|listed| listed.phase == "gone").count() == 2 {
                    return channels;
                }
            }
        };
        let channels = tokio::time::timeout(PATIENCE, one_is_open).await.expect("more than one stays open");
        let left: Vec<_> = channels.iter().filter(|listed| listed.phase == "open").collect();
        assert_eq!((channels.len(), left.len()), (3, 1), "{channels:?}");
        assert_eq!(town.holdings().await, (WEALTH - 12 * PRICE, 2 * PRICE, 10 * PRICE));

        town.buy(&proxy, 2).await;
        let channels = proxy.channels().await;
        let left: Vec<_> = channels.iter().filter(|listed| listed.phase == "open").collect();
        assert_eq!(
            (channels.len(), left.len(), left[0].acknowledged),
            (3, 1, (3 * PRICE).into()),
            "{channels:?}"
        );
        assert_eq!(town.holdings().await, (WEALTH - 12 * PRICE, 2 * PRICE, 10 * PRICE));
        proxy.stop().await;
    })
    .await;
}
