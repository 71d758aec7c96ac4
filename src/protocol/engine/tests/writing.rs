//! A slow or failing disk: what continues, and what waits for which write.

use crate::protocol::engine::tests::*;

/// Whether each purchase was granted or refused, in order.
fn answers(effects: &[Effect]) -> Vec<(PurchaseId, bool)> {
    let answers = effects.iter().filter_map(|effect| match effect {
        Effect::Grant(id, _) => Some((*id, true)),
        Effect::Refuse(id, _) => Some((*id, false)),
        _ => None,
    });
    answers.collect()
}

/// One channel whose durable limit leaves nothing to sign, and a disk that does not write.
fn stalled() -> World {
    let mut world = World::with_channel(100, 20);
    world.stalls = true;
    world
}

#[test]
fn while_one_record_is_written_another_channel_pays_within_its_durable_limit() {
    let deposit = Deposit { channels: 2, ..Deposit::default() };
    let channels = vec![(channel_id(7), channel(30, 20)), (channel_id(8), channel(200, 20))];
    let mut world = World::with(Policy { deposit, sign_ahead: 4, ..policy() }, channels);
    let (first, _) = world.granted(20);
    world.when(Input::Answer(first, Outcome::Accepted));
    world.stalls = true;
    let (waits, effects) = world.demand(ask(10));
    assert_eq!(answers(&effects), []);
    let (goes_on, effects) = world.demand(ask(10));
    assert_eq!(answers(&effects), [(goes_on, true)]);
    assert_eq!(answers(&world.disk_writes()), [(waits, true)]);
}

/// The client disconnects while its record is written, and the next one leases the channel.
#[test]
fn a_payment_relies_on_a_record_that_another_purchase_has_caused() {
    for is_written in [true, false] {
        let mut world = stalled();
        let (left, effects) = world.demand(ask(10));
        assert!(recorded(&effects).is_some());
        world.when(Input::Withdraw(left));
        let (next, effects) = world.demand(ask(10));
        assert_eq!((records(&effects), answers(&effects)), (vec![], vec![]), "it waits for that one");
        let effects = if is_written { world.disk_writes() } else { world.disk_fails() };
        assert_eq!(answers(&effects), [(next, is_written)]);
        assert_eq!(world.engine.view().lease(channel_id(7)).is_some(), is_written);
    }
}

#[test]
fn of_two_writes_each_payment_relies_on_its_own() {
    for (first_is_written, second_is_written) in [(true, true), (true, false), (false, true), (false, false)]
    {
        let deposit = Deposit { channels: 2, ..Deposit::default() };
        let channels = vec![(channel_id(7), channel(100, 50)), (channel_id(8), channel(100, 20))];
        let mut world = World::with(Policy { deposit, ..policy() }, channels);
        world.stalls = true;
        let (first, _) = world.demand(ask(10));
        let earlier = world.newest;
        let (second, _) = world.demand(ask(10));
        let ends = |seq, is_written| match is_written {
            true => Input::Durable(seq),
            false => Input::NotRecorded(seq, "disk full".into()),
        };
        let effects = world.when(ends(earlier, first_is_written));
        assert_eq!(answers(&effects), [(first, first_is_written)]);
        let effects = world.when(ends(world.newest, second_is_written));
        assert_eq!(answers(&effects), [(second, second_is_written)]);
    }
}

/// The record of the host fails; the one that raises the limit, submitted before that was known, succeeds.
#[test]
fn a_payment_relies_on_the_record_of_its_host_too() {
    let mut world = World::synced(policy(), Vec::new(), vec![(channel_id(7), Some(on_chain(100)))]);
    world.when(Input::SellerTotal(channel_id(7), Amount::ZERO, false));
    world.stalls = true;
    let (left, _) = world.demand(ask(10));
    let with_host = world.newest;
    world.when(Input::Withdraw(left));
    let (id, effects) = world.demand(ask(20));
    assert_eq!((recorded(&effects).is_some(), answers(&effects)), (true, vec![]));
    assert_eq!(answers(&world.when(Input::NotRecorded(with_host, "disk full".into()))), [(id, false)]);
    assert_eq!(answers(&world.disk_writes()), []);
    let (next, effects) = world.demand(ask(20));
    let host = Record::Host(channel_id(7), "bob.example".into());
    assert_eq!((records(&effects), answers(&effects)), (vec![host], vec![]), "the limit is on disk already");
    assert_eq!(answers(&world.disk_writes()), [(next, true)]);
}

#[test]
fn a_limit_that_was_durable_before_a_failed_write_is_durable_after_it() {
    let mut world =
        World::with(Policy { sign_ahead: 4, ..policy() }, vec![(channel_id(7), channel(200, 20))]);
    let (first, _) = world.granted(10);
    world.when(Input::Answer(first, Outcome::Accepted));
    world.stalls = true;
    let (left, effects) = world.demand(ask(50));
    assert_eq!(answers(&effects), []);
    world.when(Input::Withdraw(left));
    world.disk_fails();
    let (id, effects) = world.demand(ask(10));
    assert_eq!(answers(&effects), [(id, true)]);
}

#[test]
fn a_transaction_is_sent_once_it_is_on_disk_and_discarded_if_it_cannot_be() {
    for is_written in [true, false] {
        let mut world = World::with(policy(), Vec::new());
        let open = submitted_op(&world.demand(ask(10)).1).unwrap();
        world.stalls = true;
        let intent = Intent { op: open, moves: true, nonce: 3, hash: [9; 32], raw: vec![1], host: None };
        let effects = world.when(Input::Intent(intent));
        assert!(matches!(effects[..], [Effect::Persist(..)]), "{effects:?}");
        let (effects, expected) = if is_written {
            (world.disk_writes(), Effect::Send([9; 32]))
        } else {
            (world.disk_fails(), Effect::Discard([9; 32], "disk full".into()))
        };
        assert_eq!(effects, [expected]);
    }
}

#[test]
fn a_disk_that_hangs_keeps_no_request_beyond_its_deadline() {
    let mut world = stalled();
    let (id, _) = world.demand(ask(10));
    assert_eq!(world.engine.poll_timeout(), Some(world.now + Duration::from_secs(300)));
    let effects = world.pass(Duration::from_secs(300));
    assert_eq!(effects, [Effect::Refuse(id, Refusal::Deadline { waited_for: Awaited::Journal })]);
    assert_eq!(world.channel().in_doubt, None, "it was never signed");
    assert_eq!(answers(&world.disk_writes()), [], "it is too late");
}

#[test]
fn nothing_is_granted_after_the_end_though_its_record_was_under_way() {
    let mut world = stalled();
    let (id, _) = world.demand(ask(10));
    let effects = world.when(Input::Stop);
    assert_eq!(answers(&effects), [(id, false)]);
    assert_eq!(recorded(&effects).map(|channel| channel.durable_limit), Some(20.into()), "nothing is ahead");
    assert_eq!(answers(&world.disk_writes()), []);
    assert_eq!(world.channel().durable_limit, 20.into());
}
