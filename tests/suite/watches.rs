//! Watching the chain on real nodes: actions of the receiver, reorganisations, failing nodes.

use std::time::{Duration, Instant};

use tokio::time::timeout;
use tollpass::chain::{BlockWatcher, ChainError, ChainSettings, Synced};
use tollpass::protocol::{ChannelId, OnChain};

use crate::support::chains::each_network;
use crate::support::relay::{Mode, Relay};
use crate::support::sides::{Sides, alone, settle};

/// The time limit of a test on one network.
const CASE_WITHIN: Duration = Duration::from_secs(60);

async fn on_each(case: impl AsyncFn(&str)) {
    each_network(async |network| {
        let done = timeout(CASE_WITHIN, case(&network.url)).await;
        assert!(done.is_ok(), "not done within {CASE_WITHIN:?} on {}", network.name);
    })
    .await;
}

/// The watcher's state of a channel once it has seen the head; it must contain the channel.
async fn seen(sides: &Sides, watcher: &mut BlockWatcher, channel: ChannelId) -> Option<OnChain> {
    let synced = watcher.next(&[]).await.unwrap();
    assert_eq!(synced.head, sides.rig.head().await);
    of(&synced, channel).unwrap_or_else(|| panic!("{channel} is not in {synced:?}"))
}

fn of(synced: &Synced, channel: ChannelId) -> Option<Option<OnChain>> {
    synced.channels.iter().find(|(id, _)| *id == channel).map(|(_, on_chain)| *on_chain)
}

/// The settled channels with their totals.
fn on_what(synced: &Synced) -> Vec<(ChannelId, u64)> {
    synced.settled.iter().map(|(id, total)| (*id, total.to_string().parse().unwrap())).collect()
}

#[tokio::test]
async fn sees_the_receivers_actions_and_the_outcome_of_a_close() {
    on_each(async |url| {
        let sides = Sides::new(url).await;
        let (first, second) = (sides.open(100).await, sides.open(100).await);
        let mut watcher = sides.chain.watch(0);
        assert!(seen(&sides, &mut watcher, first).await.is_some());
        sides.withdraw(first, 40).await;
        let now = seen(&sides, &mut watcher, first).await.unwrap();
        assert_eq!((now.withdrawn, now.settle_block), (40.into(), 0));
        sides.receiver_closes(first, 50).await;
        let synced = watcher.next(&[]).await.unwrap();
        assert_eq!((of(&synced, first), on_what(&synced)), (Some(None), vec![(first, 50)]), "{synced:?}");

        sides.execute(alone(second, 30)).await.unwrap();
        let now = seen(&sides, &mut watcher, second).await.unwrap();
        assert_eq!(
            (u64::from(now.settle_block), now.closing_balance),
            (sides.rig.head().await + 500, 30.into())
        );
        sides.rig.mine(501).await;
        assert_eq!(seen(&sides, &mut watcher, second).await, Some(now));
        sides.execute(settle(second)).await.unwrap();
        let synced = watcher.next(&[]).await.unwrap();
        assert_eq!((of(&synced, second), on_what(&synced)), (Some(None), vec![(second, 30)]), "{synced:?}");
    })
    .await;
}

#[tokio::test]
async fn reads_only_channels_with_events_and_requested_ones() {
    on_each(async |url| {
        let sides = Sides::new(url).await;
        let (old, quiet) = (sides.open(100).await, sides.open(100).await);
        sides.rig.mine(30).await;
        let mut watcher = sides.chain.watch(sides.rig.head().await);
        assert_eq!(watcher.next(&[]).await.unwrap().channels, []);
        sides.withdraw(old, 40).await;
        let synced = watcher.next(&[]).await.unwrap();
        assert_eq!((of(&synced, quiet), synced.channels.len()), (None, 1));
        assert_eq!(synced.cursor, sides.rig.head().await - 12);
        // Two polls that far apart, and the event can no longer be undone.
        for _ in 0..2 {
            sides.rig.mine(30).await;
            watcher.next(&[]).await.unwrap();
        }
        sides.rig.mine(1).await;
        let asked = watcher.next(&[quiet]).await.unwrap().channels;
        assert_eq!(asked.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [quiet]);
    })
    .await;
}

#[tokio::test]
async fn waits_for_another_newest_block() {
    on_each(async |url| {
        let sides = Sides::new(url).await;
        let relay = Relay::before(url).await;
        let chain = sides.rig.chain_with(ChainSettings { rpc_url: relay.url(), ..sides.rig.settings() });
        let channel = sides.open(100).await;
        let mut watcher = chain.watch(0);
        watcher.next(&[]).await.unwrap();
        let (asked, known) = (relay.questions("eth_getBlockByNumber").len(), [channel]);
        tokio::select! {
            early = watcher.next(&known) => panic!("nothing was mined: {early:?}"),
            () = relay.until_asked("eth_getBlockByNumber", asked + 4) => {}
        }
        sides.withdraw(channel, 40).await;
        let synced = watcher.next(&[]).await.unwrap();
        assert_eq!(of(&synced, channel).unwrap().unwrap().withdrawn, 40.into());
    })
    .await;
}

#[tokio::test]
async fn a_reorganisation_that_moves_an_opening_shows_the_old_channel_gone_and_the_new_one() {
    on_each(async |url| {
        let sides = Sides::new(url).await;
        sides.rig.mine(20).await;
        let mut watcher = sides.chain.watch(0);
        watcher.next(&[]).await.unwrap();
        let snapshot = sides.rig.snapshot().await;
        let before = sides.open(100).await;
        sides.rig.mine(5).await;
        assert!(seen(&sides, &mut watcher, before).await.is_some());
        // The head falls back, and the opening with it. Until the head has caught up, the node may only be behind.
        sides.rig.revert(snapshot).await;
        let synced = watcher.next(&[]).await.unwrap();
        assert_eq!((of(&synced, before), on_what(&synced)), (None, Vec::new()), "{synced:?}");
        sides.rig.mine(2).await;
        let synced = watcher.next(&[]).await.unwrap();
        assert_eq!((of(&synced, before), on_what(&synced)), (Some(None), Vec::new()), "{synced:?}");

        let snapshot = sides.rig.snapshot().await;
        let before = sides.open(100).await;
        assert!(seen(&sides, &mut watcher, before).await.is_some());
        // It is opened in a later block.
        sides.rig.revert(snapshot).await;
        sides.rig.mine(2).await;
        let after = sides.open(100).await;
        assert_ne!(before, after);
        let synced = watcher.next(&[]).await.unwrap();
        assert_eq!(of(&synced, before), Some(None), "{synced:?}");
        assert!(of(&synced, after).unwrap().is_some(), "{synced:?}");
        // And a reorganisation whose new branch is not longer than the old one.
        let snapshot = sides.rig.snapshot().await;
        let before = sides.open(100).await;
        let head = sides.rig.head().await;
        assert!(seen(&sides, &mut watcher, before).await.is_some());
        sides.rig.revert(snapshot).await;
        sides.withdraw(after, 1).await;
        assert_eq!(sides.rig.head().await, head);
        assert_eq!(seen(&sides, &mut watcher, before).await, None);
    })
    .await;
}

#[tokio::test]
async fn a_node_that_fails_is_an_error_of_each_look_and_nothing_is_missed() {
    on_each(async |url| {
        let sides = Sides::new(url).await;
        let relay = Relay::before(url).await;
        let pause = Duration::from_millis(40);
        let (rpc_url, retry_timeout) = (relay.url(), Duration::ZERO);
        let settings = ChainSettings { rpc_url, retry_timeout, poll_every: pause, ..sides.rig.settings() };
        let mut watcher = sides.rig.chain_with(settings).watch(0);
        watcher.next(&[]).await.unwrap();
        let channel = sides.open(100).await;
        relay.set(Mode::Cut);
        let (began, asked) = (Instant::now(), relay.questions("eth_getBlockByNumber").len());
        for _ in 0..4 {
            let error = watcher.next(&[]).await.unwrap_err();
            assert!(matches!(error, ChainError::NodeUnreachable { .. }), "{error}");
        }
        // The first pause began before that.
        assert!(began.elapsed() >= pause * 2, "{:?}", began.elapsed());
        assert_eq!(relay.questions("eth_getBlockByNumber").len(), asked + 4);
        // It saw the new block, but not its contents.
        relay.set(Mode::LoseAnswerOf("eth_getLogs"));
        assert!(watcher.next(&[]).await.is_err());
        relay.set(Mode::LoseAnswerOf("eth_call"));
        assert!(watcher.next(&[]).await.is_err());
        // A read that is dropped halfway loses nothing either.
        relay.set(Mode::StallOf("eth_call"));
        let asked = relay.questions("eth_call").len();
        tokio::select! {
            early = watcher.next(&[]) => panic!("{early:?}"),
            () = relay.until_asked("eth_call", asked + 1) => {}
        }
        relay.set(Mode::Pass);
        assert!(seen(&sides, &mut watcher, channel).await.is_some());
    })
    .await;
}
