//! Channel ownership: one host's channel pays for no other host, unless the user lists the receiver.

use crate::protocol::engine::tests::*;

const MALLORY: &str = "mallory.example";

fn open(world: &mut World, open_block: u32) -> Vec<Effect> {
    world.when(Input::OpFinished(BOB, Ok(Some((channel_id(open_block), Some(on_chain(100)))))))
}

#[test]
fn another_host_that_names_the_receiver_gets_a_channel_of_its_own() {
    let mut world = World::with_channel(100, 20);
    let (slow, effects) = world.demand_of(MALLORY, &[], ask(10));
    assert_eq!(submitted_op(&effects), Some(ChannelOp::Open { receiver: BOB, deposit: 100.into() }));
    // Bob does not wait for it, and keeps his channel.
    let (bobs, total) = world.granted(10);
    assert_eq!(total, 30.into());
    let effects = open(&mut world, 8);
    let drafts = effects.iter().filter_map(|effect| match effect {
        Effect::Grant(id, draft) => Some((*id, draft.on_channel()?.channel)),
        _ => None,
    });
    let drafts: Vec<_> = drafts.collect();
    assert_eq!(drafts, [(slow, channel_id(8))]);
    assert!(records(&effects).contains(&Record::Host(channel_id(8), MALLORY.into())));

    // While Mallory holds her own back, Bob pays on; and the other way round.
    world.when(Input::Answer(bobs, Outcome::Accepted));
    assert_eq!(world.granted(10).1, 40.into());
    let (_, effects) = world.demand_of(MALLORY, &[], ask(10));
    assert_eq!(effects, [], "she waits for her own");
    let effects = world.when(Input::Answer(slow, Outcome::Accepted));
    assert_eq!(grant(&effects).map(|draft| draft.channel), Some(channel_id(8)));
}

#[test]
fn a_rule_that_lists_the_receiver_shares_its_channels() {
    let mut world = World::with_channel(100, 20);
    let (_, effects) = world.demand_of(MALLORY, &[BOB], ask(10));
    assert_eq!(grant(&effects).map(|draft| draft.channel), Some(channel_id(7)));
    assert_eq!(&**world.engine.host(&channel_id(7)).unwrap(), "bob.example", "it stays Bob's");
}

#[test]
fn a_channel_of_no_host_goes_to_the_first_that_pays_from_it() {
    let mut world = World::synced(policy(), Vec::new(), vec![(channel_id(7), Some(on_chain(100)))]);
    world.when(Input::SellerTotal(channel_id(7), Amount::ZERO, false));
    let (id, effects) = world.demand_of("first.example", &[], ask(10));
    assert!(records(&effects).contains(&Record::Host(channel_id(7), "first.example".into())));
    world.when(Input::Answer(id, Outcome::Accepted));
    let (_, effects) = world.demand_of("second.example", &[], ask(10));
    assert!(matches!(submitted_op(&effects), Some(ChannelOp::Open { .. })));
}

#[test]
fn a_failure_of_one_host_is_not_another_ones() {
    let mut world = World::with(policy(), Vec::new());
    let (_, effects) = world.demand_of(MALLORY, &[], ask(10));
    let failure = OpFailure {
        op: submitted_op(&effects).unwrap(),
        reason: "reverted".into(),
        is_final: true,
        balance: None,
    };
    let effects = world.when(Input::OpFinished(BOB, Err(failure)));
    assert!(matches!(refusal(&effects), Some(Refusal::FundFailed { .. })));
    assert!(submitted_op(&world.demand(ask(10)).1).is_some(), "Bob's own is tried at once");
}

#[test]
fn the_host_of_an_opening_survives_a_crash_between_sending_and_confirmation() {
    let mut world = World::with(policy(), Vec::new());
    let op = submitted_op(&world.demand_of(MALLORY, &[], ask(10)).1).unwrap();
    let intent = Intent { op, moves: true, nonce: 3, hash: [9; 32], raw: vec![1], host: None };
    let effects = world.when(Input::Intent(intent));
    let kept = records(&effects).into_iter().find_map(|record| match record {
        Record::Intent(intent) => Some(intent),
        _ => None,
    });
    let intents = vec![kept.unwrap()];
    let account = *world.engine.account().unwrap();
    world.engine = Engine::new(Arc::new(policy()));
    world.when(Input::Ready {
        account,
        channels: Vec::new(),
        hosts: Vec::new(),
        intents,
        deposits: Vec::new(),
        on_chain: Vec::new(),
        cursor: 12,
    });
    open(&mut world, 8);
    assert_eq!(&**world.engine.host(&channel_id(8)).unwrap(), MALLORY);
}

#[test]
fn hosts_are_known_by_one_name() {
    for (host, name) in [
        ("API.Example.com", "api.example.com"),
        ("api.example.com.", "api.example.com"),
        ("[::1]", "::1"),
        ("[0:0:0:0:0:0:0:1]", "::1"),
        ("127.0.0.1", "127.0.0.1"),
        ("127.1", "127.0.0.1"),
        ("0x7f000001.", "127.0.0.1"),
        ("[::ffff:127.0.0.1]", "127.0.0.1"),
        ("[fe80::1%25eth0]", "fe80::1"),
    ] {
        assert_eq!(&*host_name(host), name);
    }
}

#[test]
fn a_shared_channel_goes_to_the_request_that_has_waited_longest() {
    let mut world = World::with_channel(100, 20);
    let (first, _) = world.granted(10);
    let (second, _) = world.demand_of("z.example", &[BOB], ask(10));
    let (third, _) = world.demand_of("a.example", &[BOB], ask(10));
    let effects = world.when(Input::Answer(first, Outcome::Accepted));
    assert!(matches!(effects.last(), Some(Effect::Grant(id, _)) if *id == second), "{effects:?}");
    let effects = world.when(Input::Answer(second, Outcome::Accepted));
    assert!(matches!(effects.last(), Some(Effect::Grant(id, _)) if *id == third), "{effects:?}");
}

#[test]
fn who_may_share_does_not_wait_behind_who_may_not() {
    let mut world = World::with_channel(100, 20);
    // Mallory's own channel is pending; a rule of hers for another port lists Bob.
    let (_, effects) = world.demand_of(MALLORY, &[], ask(10));
    assert!(submitted_op(&effects).is_some());
    let (sharing, effects) = world.demand_of(MALLORY, &[BOB], ask(10));
    assert!(
        matches!(effects[..], [Effect::Grant(id, _)] | [_, Effect::Grant(id, _)] if id == sharing),
        "{effects:?}"
    );
}

#[test]
fn a_host_that_could_not_be_written_is_written_with_its_channel() {
    let mut world = World::synced(policy(), Vec::new(), vec![(channel_id(7), Some(on_chain(100)))]);
    world.stalls = true;
    let (_, effects) = world.demand(ask(10));
    let host = Record::Host(channel_id(7), "bob.example".into());
    assert!(records(&effects).contains(&host));
    world.disk_fails();
    assert!(records(&world.when(Input::Idle)).contains(&host), "tried again");
    world.disk_fails();
    // The next payment from the channel depends on it.
    let (_, effects) = world.demand(ask(10));
    assert_eq!((records(&effects).contains(&host), grant(&effects)), (true, None));
    assert!(grant(&world.disk_writes()).is_some());
    assert!(!records(&world.when(Input::Idle)).contains(&host), "once is enough");
}
