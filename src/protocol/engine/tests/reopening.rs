//! Channels that no longer exist on the chain, undone or settled, and payments from another one.

use crate::protocol::engine::tests::*;

impl World {
    fn reopening(deposit: u64, paid: u64) -> Self {
        let (every, times, within) = (Duration::from_secs(5), 2, Duration::from_secs(60));
        let mut world = Self::with_channel(deposit, paid);
        let nonexisting_channel = Missing::Reopen { every, times, within }.into();
        world.hooks = Arc::new(Hooks { nonexisting_channel, ..Hooks::default() });
        world
    }

    /// The chain shows that the channel was settled at this total.
    fn settle(&mut self, open_block: u32, total: u64) {
        self.when(seen(open_block, None, Some(total)));
    }

    /// Another channel exists.
    fn opened(&mut self, open_block: u32) -> Vec<Effect> {
        let open = ChannelOp::Open { receiver: BOB, deposit: 100.into() };
        if !self.engine.is_waiting_for_chain() {
            self.when(Input::ChannelOp(open));
        }
        self.when(Input::OpFinished(BOB, Ok(Some((channel_id(open_block), Some(on_chain(100)))))))
    }
}

#[test]
fn a_channel_that_is_gone_is_left_with_its_promises_and_another_one_pays() {
    let mut world = World::reopening(100, 20);
    let (id, _) = world.granted(10);
    world.vanish(7);
    let effects = world.rejected(id, complain(Complaint::NonexistingChannel, None));
    assert_eq!(submitted_op(&effects), Some(ChannelOp::Open { receiver: BOB, deposit: 100.into() }));
    let draft = grant(&world.opened(9)).expect("the same purchase goes on");
    assert_eq!((draft.channel, draft.total), (channel_id(9), 10.into()));
    assert_eq!((world.channel().phase, world.channel().promised), (Phase::Gone, 30.into()));

    // Only once, even if the second one vanishes, too.
    world.vanish(9);
    for _ in 0..2 {
        assert_eq!(world.rejected(id, complain(Complaint::NonexistingChannel, None)), []);
        assert!(grant(&world.pass(Duration::from_secs(5))).is_some());
    }
    let complaint = Complaint::NonexistingChannel;
    let effects = world.rejected(id, complain(complaint, None));
    assert_eq!(effects, [Effect::Refuse(id, Refusal::HookGaveUp { complaint, attempts: 2 })]);
}

#[test]
fn whoever_is_asked_decides_for_one_turn_whether_another_channel_pays() {
    let denial = || complain(Complaint::NonexistingChannel, None);
    let decides = |world: &mut World, id, decision: Decision| {
        world.is_asked = true;
        let asked = world.rejected(id, denial());
        world.is_asked = false;
        let question = Question { hook: "nonexisting_channel", webhook: None };
        assert_eq!(asked, [Effect::Consult(id, question)]);
        world.when(Input::Consulted(id, Some(decision)))
    };
    // A policy that only retries: with an approver's decision the channel is replaced, once.
    let mut world = World::with_channel(100, 20);
    let (id, _) = world.granted(10);
    world.vanish(7);
    let effects = decides(&mut world, id, Decision::Reopen);
    assert_eq!(submitted_op(&effects), Some(ChannelOp::Open { receiver: BOB, deposit: 100.into() }));
    assert!(grant(&world.opened(9)).is_some_and(|draft| draft.channel == channel_id(9)));
    world.vanish(9);
    assert_eq!(decides(&mut world, id, Decision::Reopen), []);

    // A channel that exists on the chain is never replaced.
    let mut world = World::with_channel(100, 20);
    let (id, _) = world.granted(10);
    assert_eq!(decides(&mut world, id, Decision::Reopen), []);
    assert!(grant(&world.pass(Duration::from_secs(5))).is_some_and(|draft| draft.channel == channel_id(7)));

    // A policy that reopens: not at this step, but at the next one.
    let mut world = World::reopening(100, 20);
    let (id, _) = world.granted(10);
    world.vanish(7);
    assert_eq!(decides(&mut world, id, Decision::Retry), []);
    assert!(grant(&world.pass(Duration::from_secs(5))).is_some_and(|draft| draft.channel == channel_id(7)));
    let effects = world.rejected(id, denial());
    assert_eq!(submitted_op(&effects), Some(ChannelOp::Open { receiver: BOB, deposit: 100.into() }));
}

#[test]
fn mallory_who_denies_a_channel_gets_no_second_price() {
    // The channel exists on the chain: nothing is opened, and the reason states it.
    let mut world = World::reopening(100, 20);
    let (id, _) = world.granted(10);
    let denial = || complain(Complaint::NonexistingChannel, None);
    for _ in 0..2 {
        assert_eq!(world.rejected(id, denial()), []);
        assert!(grant(&world.pass(Duration::from_secs(5))).is_some());
    }
    let effects = world.rejected(id, denial());
    let expected = Refusal::ChannelExists { channel: channel_id(7), attempts: 2 };
    assert_eq!(effects, [Effect::Refuse(id, expected)]);
    assert_eq!(world.channel().promised, 30.into());

    // It is about to be closed: what was signed can still be redeemed.
    let mut world = World::reopening(100, 20);
    let (id, _) = world.granted(10);
    world.when(seen(7, Some(OnChain { settle_block: 900, ..on_chain(100) }), None));
    assert_eq!(world.rejected(id, denial()), []);

    // What another channel has already signed for this request still counts after a reopening.
    let mut world = World::reopening(100, 20);
    let (id, _) = world.granted(10);
    world.vanish(7);
    world.rejected(id, denial());
    world.opened(9);
    let state = Some(SellerRecord { sender: None, total: 0.into(), signature: None });
    let dearer = microraiden::ChannelOffer { price: 30.into(), ..complain(Complaint::InvalidAmount, state) };
    assert_eq!(grant(&world.rejected(id, dearer)).map(|draft| draft.total), Some(30.into()));
    let exposed = world.engine.view().channel(channel_id(9)).promised;
    assert_eq!(exposed, 30.into(), "one price, the dearer one, on the only channel that can be redeemed");
}

#[test]
fn mallory_who_settles_on_a_payment_and_then_denies_the_channel_gets_no_second_price() {
    let denial = || complain(Complaint::NonexistingChannel, None);
    let mut world = World::reopening(100, 20);
    let (id, _) = world.granted(10);
    world.settle(7, 30);
    let effects = world.rejected(id, denial());
    assert_eq!(effects, [Effect::Refuse(id, Refusal::PaidAnswerLost { total: 30.into() })]);
    assert_eq!((world.channel().phase, world.channel().promised), (Phase::Gone, 30.into()));

    // The settlement came between reading the events and the channel: the next reading shows it.
    let mut world = World::reopening(100, 20);
    let (id, _) = world.granted(10);
    world.when(seen(7, None, None));
    assert_eq!(world.rejected(id, denial()), []);
    world.settle(7, 30);
    assert!(grant(&world.pass(Duration::from_secs(5))).is_some());
    let effects = world.rejected(id, denial());
    assert_eq!(effects, [Effect::Refuse(id, Refusal::PaidAnswerLost { total: 30.into() })]);

    // An operation that ended the channel does not report the final total: the chain does, later.
    for (settled, expected) in [(None, Some(30)), (Some(20), None)] {
        let mut world = World::reopening(100, 20);
        let (id, _) = world.granted(10);
        world.when(Input::OpFinished(BOB, Ok(Some((channel_id(7), None)))));
        if let Some(total) = settled {
            world.settle(7, total);
        }
        let effects = world.rejected(id, denial());
        let expected = expected.map(|total: u64| Refusal::PaidAnswerLost { total: total.into() });
        assert_eq!(
            (refusal(&effects), submitted_op(&effects).is_some()),
            (expected.as_ref(), expected.is_none())
        );
    }
}

#[test]
fn what_a_settlement_pays_out_of_a_request_stays_counted_and_the_rest_is_paid_elsewhere() {
    let denial = || complain(Complaint::NonexistingChannel, None);
    // Settled below this payment, which is void now.
    let mut world = World::reopening(100, 20);
    let (id, _) = world.granted(10);
    world.settle(7, 20);
    let effects = world.rejected(id, denial());
    assert_eq!(submitted_op(&effects), Some(ChannelOp::Open { receiver: BOB, deposit: 100.into() }));
    assert_eq!(grant(&world.opened(9)).map(|draft| draft.total), Some(10.into()));

    // The price rose in between, and the channel is settled at the first of two payments.
    let dearer = |world: &World| microraiden::ChannelOffer {
        price: 30.into(),
        ..complain(Complaint::InvalidAmount, world.state(20))
    };
    for is_there in [false, true] {
        let mut world = World::reopening(100, 20);
        let (id, _) = world.granted(10);
        let again = dearer(&world);
        assert_eq!(grant(&world.rejected(id, again)).map(|draft| draft.total), Some(50.into()));
        if is_there {
            world.opened(9);
        }
        world.settle(7, 30);
        // Nothing is opened for it either.
        let effects = world.rejected(id, denial());
        assert_eq!(effects, [Effect::Refuse(id, Refusal::SecondPrice { price: 30.into() })]);
    }

    // Presenting again what an earlier request has promised promises nothing new.
    let mut world = World::reopening(100, 20);
    let (first, _) = world.granted(10);
    world.when(Input::Answer(first, Outcome::InDoubt));
    let (second, total) = world.granted(10);
    assert_eq!(total, 30.into());
    world.settle(7, 30);
    assert!(submitted_op(&world.rejected(second, denial())).is_some());
    assert_eq!(grant(&world.opened(9)).map(|draft| draft.total), Some(10.into()));
}

#[test]
fn what_others_promised_in_between_hides_nothing_that_a_settlement_pays_out() {
    let mut world = World::reopening(100, 20);
    let (id, _) = world.granted(10);
    // Another channel comes in between, on which no new promise is needed.
    world.when(seen(8, Some(OnChain { withdrawn: 20.into(), ..on_chain(25) }), None));
    world.when(Input::SellerTotal(channel_id(8), Amount::ZERO, false));
    let dearer =
        |state| microraiden::ChannelOffer { price: 20.into(), ..complain(Complaint::InvalidAmount, state) };
    let state = world.state(20);
    let draft = grant(&world.rejected(id, dearer(state))).unwrap();
    assert_eq!((draft.channel, draft.total), (channel_id(8), 20.into()));
    let (second, total) = world.granted(10);
    assert_eq!(total, 30.into());
    world.when(Input::Answer(second, Outcome::Accepted));
    let (third, total) = world.granted(10);
    assert_eq!(total, 40.into());
    let state = world.state(30);
    world.rejected(third, complain(Complaint::InvalidAmount, state));
    // The first one returns.
    let signature = world.alice.sign(proof::balance_digest(channel_id(8), 10.into(), CONTRACT)).ok();
    let state = Some(SellerRecord { sender: None, total: 10.into(), signature });
    let draft = grant(&world.rejected(id, dearer(state))).unwrap();
    assert_eq!((draft.channel, draft.total), (channel_id(7), 50.into()));
    world.settle(7, 30);
    world.settle(8, 20);
    let effects = world.rejected(id, complain(Complaint::NonexistingChannel, None));
    assert_eq!(refusal(&effects), Some(&Refusal::SecondPrice { price: 20.into() }));
}

#[test]
fn a_channel_that_is_missing_once_is_not_believed_to_be_gone() {
    let there = |world: &World| world.channel().phase == Phase::Open;
    let vanished = |world: &World| world.engine.view().missing();
    let mut world = World::with_channel(100, 20);
    world.when(seen(7, None, None));
    assert_eq!((there(&world), vanished(&world)), (true, vec![channel_id(7)]));
    world.when(seen(7, Some(on_chain(100)), None));
    assert_eq!((there(&world), vanished(&world)), (true, Vec::new()));
    world.when(seen(7, None, None));
    assert!(there(&world), "not twice in a row");
    world.when(seen(7, None, None));
    assert_eq!((there(&world), vanished(&world)), (false, Vec::new()));
    // Nor must it be read again forever, like one that is unknown.
    world.when(seen(7, None, None));
    world.when(seen(8, None, None));
    assert_eq!(vanished(&world), []);

    // A settlement is trusted at once, and forgotten if a reorganisation undoes it.
    let mut world = World::with_channel(100, 20);
    world.when(seen(7, Some(on_chain(100)), Some(20)));
    assert!(there(&world), "the node has not got that far");
    world.when(seen(7, None, Some(20)));
    assert_eq!((there(&world), vanished(&world)), (false, Vec::new()));
    world.when(seen(7, Some(on_chain(100)), None));
    world.when(seen(7, None, None));
    assert_eq!((there(&world), vanished(&world)), (true, vec![channel_id(7)]));
    // Settlements of other payers' channels are not stored.
    world.when(seen(9, None, Some(5)));
    assert!([7, 9].iter().all(|open_block| world.engine.view().settled(channel_id(*open_block)).is_none()));

    // At startup nothing was promised in this run yet.
    let known = vec![(channel_id(7), channel(100, 20))];
    let world = World::synced(policy(), known, vec![(channel_id(7), None)]);
    assert_eq!((there(&world), vanished(&world)), (false, Vec::new()));
}
