//! The durable limit: what it allows to sign, and how it counts after a failed write or a crash.

use crate::protocol::engine::tests::*;

fn reserving() -> Policy {
    Policy { sign_ahead: 4, ..policy() }
}

fn bound(effects: &[Effect]) -> Option<Amount> {
    recorded(effects).map(|channel| channel.durable_limit)
}

#[test]
fn what_is_reserved_ahead_is_signed_without_another_record() {
    let mut world = World::with(reserving(), vec![(channel_id(7), channel(200, 20))]);
    let (first, effects) = world.demand(ask(10));
    assert_eq!(bound(&effects), Some(70.into()), "30 and four prices ahead");
    world.when(Input::Answer(first, Outcome::Accepted));

    for _ in 0..2 {
        let (next, effects) = world.demand(ask(10));
        assert_eq!(bound(&effects), None);
        world.when(Input::Answer(next, Outcome::Accepted));
    }

    // Less than half is left: the limit rises while this payment continues.
    world.stalls = true;
    let (fourth, effects) = world.demand(ask(10));
    assert!(grant(&effects).is_some(), "{effects:?}");
    let record = recorded(&effects).expect("a reservation");
    assert_eq!(
        (record.durable_limit, record.promised, record.acknowledged),
        (100.into(), 60.into(), 50.into())
    );
    world.when(Input::Answer(fourth, Outcome::Accepted));
    let (fifth, effects) = world.demand(ask(10));
    assert_eq!((bound(&effects), grant(&effects).is_some()), (None, true), "one at a time");
    world.disk_writes();
    world.when(Input::Answer(fifth, Outcome::Accepted));
    assert_eq!(world.channel().durable_limit, 100.into());
}

#[test]
fn one_write_reserves_for_all_channels_in_use_to_a_seller() {
    let unused = channel(500, 20);
    let in_doubt = Channel { durable_limit: 40.into(), ..unused };
    let in_use = channel(200, 20);
    let channels = [(7, in_use), (8, in_use), (9, unused), (10, in_doubt)];
    let mut world =
        World::with(reserving(), channels.map(|(block, channel)| (channel_id(block), channel)).into());
    for _ in 0..3 {
        let (one, other) = (world.granted(10).0, world.granted(10).0);
        world.when(Input::Answer(one, Outcome::Accepted));
        world.when(Input::Answer(other, Outcome::Accepted));
    }
    world.stalls = true;
    let (_, effects) = world.demand(ask(10));
    let [Effect::Grant(..), Effect::Persist(_, records)] = &effects[..] else { panic!("{effects:?}") };
    let bounds: Vec<_> = records
        .iter()
        .map(|record| match record {
            Record::Channel(id, channel) => (*id, channel.durable_limit),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(bounds, [(channel_id(7), 100.into()), (channel_id(8), 90.into())]);

    // Neither is raised twice in the meantime.
    assert!(world.engine.view().is_being_written(channel_id(8)));
    let (_, effects) = world.demand(ask(10));
    assert_eq!(bound(&effects), None, "{effects:?}");
    world.disk_writes();
    assert_eq!(world.engine.view().channel(channel_id(8)).durable_limit, 90.into());
}

#[test]
fn nothing_is_signed_beyond_what_is_on_disk() {
    let mut world = World::with(reserving(), vec![(channel_id(7), channel(1000, 0))]);
    world.stalls = true;
    let mut on_disk = Amount::ZERO;
    for _ in 0..40 {
        let (id, mut effects) = world.demand(ask(10));
        if grant(&effects).is_none() {
            on_disk = bound(&effects).expect("a record");
            effects = world.disk_writes();
        } else if bound(&effects).is_some() {
            // The disk is too slow for all reservations.
            world.disk_fails();
        }
        assert!(grant(&effects).unwrap().total <= on_disk);
        world.when(Input::Answer(id, Outcome::Accepted));
    }
}

#[test]
fn a_bound_whose_record_failed_counts_for_nothing() {
    for leaves in [false, true] {
        let mut world = World::with(reserving(), vec![(channel_id(7), channel(200, 20))]);
        world.stalls = true;
        let (id, _) = world.demand(ask(10));
        if leaves {
            world.when(Input::Withdraw(id));
        }
        world.disk_fails();
        let (_, effects) = world.demand(ask(10));
        assert_eq!((bound(&effects), grant(&effects)), (Some(70.into()), None), "the record is tried again");
    }
}

#[test]
fn after_a_crash_the_bound_is_exposure_until_the_seller_tells() {
    let crashed = Channel { durable_limit: 70.into(), ..channel(200, 20) };
    let doubt = Some(70.into());
    let world = || World::with(reserving(), vec![(channel_id(7), crashed)]);
    assert_eq!((world().channel().exposure(), world().channel().doubt), (70.into(), doubt));

    // The certain total is presented first, which queries without paying. Then the price is added to the total that the
    // seller proves.
    for held in [20, 30, 60, 70] {
        let mut world = world();
        let (id, total) = world.granted(10);
        assert_eq!(total, 20.into());
        let complaint = (held != 20).then_some(Complaint::InvalidAmount);
        let state = world.state(held);
        let effects = world.rejected(id, microraiden::ChannelOffer { complaint, state, ..ask(10) });
        let paid = Amount::from(held + 10);
        assert_eq!(grant(&effects).map(|draft| draft.total), Some(paid), "{held}");
        assert_eq!((world.channel().promised, world.channel().exposure()), (paid, paid));
        // That was first signed for this request.
        let state = world.state(held + 10);
        let effects = world.rejected(id, microraiden::ChannelOffer { state, ..ask(10) });
        assert_eq!(refusal(&effects), Some(&Refusal::PaidAnswerLost { total: paid }));
    }

    // A response without information leaves it in doubt, and nothing more is promised.
    for outcome in [Outcome::InDoubt, Outcome::Accepted] {
        let mut world = world();
        let (id, _) = world.granted(10);
        world.when(Input::Answer(id, outcome));
        assert_eq!((world.channel().doubt, world.channel().promised), (doubt, 20.into()));
        assert_eq!(world.granted(10).1, 20.into());
    }
}

#[test]
fn a_clean_end_reserves_nothing() {
    let mut world = World::with(reserving(), vec![(channel_id(7), channel(200, 20))]);
    let (id, _) = world.granted(10);
    world.when(Input::Answer(id, Outcome::Accepted));
    assert_eq!(bound(&world.when(Input::Idle)), Some(70.into()), "while it runs the bound stays");
    assert_eq!(bound(&world.when(Input::Flush)), Some(30.into()));
}
