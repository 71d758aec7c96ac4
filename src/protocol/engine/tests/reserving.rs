//! The bound on disk: what it lets be signed, and what it counts for when a write or the program fails.

use crate::protocol::engine::tests::*;

fn reserving() -> Policy {
    Policy { sign_ahead: 4, ..policy() }
}

fn bound(effects: &[Effect]) -> Option<Amount> {
    effects.iter().find_map(|effect| match effect {
        Effect::Persist(Record::Channel(_, channel)) => Some(channel.durable_limit),
        _ => None,
    })
}

fn reservation(effects: &[Effect]) -> Option<Channel> {
    effects.iter().find_map(|effect| match effect {
        Effect::Reserve(channels) => channels.first().map(|(_, channel)| *channel),
        _ => None,
    })
}

#[test]
fn what_is_reserved_ahead_is_signed_without_another_record() {
    let mut world = World::with(reserving(), vec![(channel_id(7), channel(200, 20))]);
    let (first, effects) = world.demand(ask(10));
    assert_eq!(bound(&effects), Some(70.into()), "30 and four prices ahead");
    world.when(Input::Answer(first, Outcome::Accepted));

    for _ in 0..2 {
        let (next, effects) = world.demand(ask(10));
        assert_eq!((bound(&effects), reservation(&effects)), (None, None));
        world.when(Input::Answer(next, Outcome::Accepted));
    }

    // Less than half is left: the bound moves while this payment goes on.
    let (fourth, effects) = world.demand(ask(10));
    assert_eq!(bound(&effects), None);
    let record = reservation(&effects).expect("a reservation");
    assert_eq!(
        (record.durable_limit, record.promised, record.acknowledged),
        (100.into(), 60.into(), 50.into())
    );
    world.when(Input::Answer(fourth, Outcome::Accepted));
    let (fifth, effects) = world.demand(ask(10));
    assert_eq!(reservation(&effects), None, "one at a time");
    world.when(Input::Reserved(channel_id(7), Some(100.into())));
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
    let (_, effects) = world.demand(ask(10));
    let [Effect::Reserve(channels), Effect::Grant(..)] = &effects[..] else { panic!("{effects:?}") };
    let bounds: Vec<_> = channels.iter().map(|(id, channel)| (*id, channel.durable_limit)).collect();
    assert_eq!(bounds, [(channel_id(7), 100.into()), (channel_id(8), 90.into())]);

    // Each is told of by itself, and neither is asked for twice meanwhile.
    world.when(Input::Reserved(channel_id(7), Some(100.into())));
    assert!(world.engine.view().is_reserving(channel_id(8)));
    let (_, effects) = world.demand(ask(10));
    assert_eq!((reservation(&effects), bound(&effects)), (None, None), "{effects:?}");
    world.when(Input::Reserved(channel_id(8), Some(90.into())));
    assert_eq!(world.engine.view().channel(channel_id(8)).durable_limit, 90.into());
}

#[test]
fn nothing_is_signed_beyond_what_is_on_disk() {
    let mut world = World::with(reserving(), vec![(channel_id(7), channel(1000, 0))]);
    let mut on_disk = Amount::ZERO;
    for _ in 0..40 {
        let (id, effects) = world.demand(ask(10));
        on_disk = on_disk.max(bound(&effects).unwrap_or_default());
        assert!(grant(&effects).unwrap().total <= on_disk);
        world.when(Input::Answer(id, Outcome::Accepted));
        // The disk is too slow for all reservations.
        if reservation(&effects).is_some() {
            world.when(Input::Reserved(channel_id(7), None));
        }
    }
}

#[test]
fn a_bound_whose_record_failed_counts_for_nothing() {
    let mut world = World::with(reserving(), vec![(channel_id(7), channel(200, 20))]);
    let (id, _) = world.demand(ask(10));
    world.when(Input::NotRecorded(id, channel_id(7), "disk full".into()));
    let (_, effects) = world.demand(ask(10));
    assert_eq!(bound(&effects), Some(70.into()), "the record is tried again");
}

#[test]
fn a_bound_whose_record_failed_counts_for_nothing_when_the_client_has_left_before() {
    let mut world = World::with(reserving(), vec![(channel_id(7), channel(200, 20))]);
    let (id, _) = world.demand(ask(10));
    world.when(Input::Withdraw(id));
    world.when(Input::NotRecorded(id, channel_id(7), "disk full".into()));
    let (_, effects) = world.demand(ask(10));
    assert_eq!(bound(&effects), Some(70.into()), "the record is tried again");
}

#[test]
fn after_a_crash_the_bound_is_exposure_until_the_seller_tells() {
    let crashed = Channel { durable_limit: 70.into(), ..channel(200, 20) };
    let doubt = Some(70.into());
    let world = || World::with(reserving(), vec![(channel_id(7), crashed)]);
    assert_eq!((world().channel().exposure(), world().channel().doubt), (70.into(), doubt));

    // What is certain is presented first: that asks, and does not pay. Then the price is added to what the seller
    // proves to hold.
    for held in [20, 30, 60, 70] {
        let mut world = world();
        let (id, total) = world.granted(10);
        assert_eq!(total, 20.into());
        let complaint = (held != 20).then_some(Complaint::InvalidAmount);
        let state = world.state(held);
        let effects = world.rejected(id, microraiden::Offer { complaint, state, ..ask(10) });
        let paid = Amount::from(held + 10);
        assert_eq!(grant(&effects).map(|draft| draft.total), Some(paid), "{held}");
        assert_eq!((world.channel().promised, world.channel().exposure()), (paid, paid));
        // That was first signed for this request.
        let state = world.state(held + 10);
        let effects = world.rejected(id, microraiden::Offer { state, ..ask(10) });
        assert_eq!(refusal(&effects), Some(&Refusal::PaidAnswerLost { total: paid }));
    }

    // An answer that says nothing leaves it in doubt, and nothing more is promised.
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
