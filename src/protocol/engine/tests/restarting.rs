//! What survives a restart: the totals presented to sellers, what may have been signed, and the cost of a journal that
//! was lost or is older than the seller's state.

use crate::protocol::engine::tests::*;

impl World {
    /// Restarts with the journal's content.
    fn restart(&mut self) {
        let channels: Vec<_> =
            self.engine.view().channels().map(|(id, channel)| (id, kept(channel))).collect();
        let account = *self.engine.account().unwrap();
        self.engine = Engine::new(Arc::clone(&self.policy));
        self.when(ready(account, channels, Vec::new()));
    }

    /// Shuts down cleanly, and restarts.
    fn end_and_restart(&mut self) {
        self.when(Input::Stop);
        self.when(Input::Flush);
        // A stopped engine still knows whose channels these are.
        self.restart();
    }

    /// The seller answers a query with its total.
    fn tells(&mut self, id: PurchaseId, price: u64, state: Option<SellerRecord>) -> Vec<Effect> {
        let complaint = Some(Complaint::InvalidAmount);
        self.rejected(id, microraiden::ChannelOffer { complaint, state, ..ask(price) })
    }

    fn claim(total: u64) -> Option<SellerRecord> {
        Some(SellerRecord { sender: None, total: total.into(), signature: None })
    }
}

/// A total was signed and provably never sent; the program shuts down cleanly. The next request may raise by one price
/// only, whatever the seller claims about that total.
#[test]
fn what_was_never_sent_is_not_free_after_a_restart() {
    let mut world = World::with_channel(100, 30);
    let (first, total) = world.granted(10);
    assert_eq!(total, 40.into());
    world.when(Input::Withdraw(first));
    world.end_and_restart();
    assert_eq!((world.channel().promised, world.channel().presented), (40.into(), 30.into()));
    assert!(!world.channel().has_doubt(), "an orderly end leaves no doubt");

    // Bob is queried first; he claims nothing, and then claims the payment of this request as an old one.
    let (second, question) = world.granted(10);
    assert_eq!(question, 30.into());
    let state = world.state(30);
    assert_eq!(grant(&world.tells(second, 10, state)).unwrap().total, 40.into());
    let state = world.state(40);
    let effects = world.tells(second, 10, state);
    assert_eq!(refusal(&effects), Some(&Refusal::PaidAnswerLost { total: 40.into() }));
}

#[test]
fn what_was_never_sent_raises_on_each_of_several_channels_after_a_restart() {
    let deposit = Deposit { channels: 2, ..Deposit::default() };
    let channels = vec![(channel_id(7), channel(100, 30)), (channel_id(8), channel(90, 30))];
    let mut world = World::with(Policy { deposit, ..policy() }, channels);
    let (first, second) = (world.granted(10).0, world.granted(10).0);
    world.when(Input::Withdraw(first));
    world.when(Input::Withdraw(second));
    world.end_and_restart();

    // The seller accepts neither channel; each payment would be worth something to it.
    let (id, _) = world.granted(10);
    let mut granted = Vec::new();
    let mut effects = world.tells(id, 10, World::claim(0));
    while let Some(draft) = grant(&effects) {
        granted.push(draft);
        effects = world.tells(id, 10, World::claim(0));
    }
    let above = |id, shown: u64| {
        let totals = granted.iter().filter(|draft| draft.channel == channel_id(id)).map(|draft| draft.total);
        totals.max().unwrap_or_default().saturating_sub(shown.into())
    };
    assert!(above(7, 30).saturating_add(above(8, 30)) <= 10.into(), "{granted:?}");
    assert!(refusal(&effects).is_some());
}

/// After a crash without sign-ahead, a granted payment may or may not have been sent: it counts as not presented.
#[test]
fn a_crash_between_grant_and_sending_makes_nothing_free() {
    let mut world = World::with_channel(100, 30);
    let (_, effects) = world.demand(ask(10));
    let on_disk = recorded(&effects).unwrap();
    assert_eq!((on_disk.durable_limit, on_disk.presented), (40.into(), 30.into()));
    let mut world = World::with(policy(), vec![(channel_id(7), on_disk)]);
    assert_eq!((world.channel().exposure(), world.channel().has_doubt()), (40.into(), false));
    assert!(world.channel().must_query, "the seller is asked first");
    let (id, _) = world.granted(10);
    let state = world.state(30);
    assert_eq!(grant(&world.tells(id, 10, state)).unwrap().total, 40.into());
    let state = world.state(40);
    let effects = world.tells(id, 10, state);
    assert_eq!(refusal(&effects), Some(&Refusal::PaidAnswerLost { total: 40.into() }));
}

#[test]
fn only_our_own_signature_ends_a_doubt() {
    let crashed = Channel { durable_limit: 1000.into(), ..channel(1000, 15) };
    let world = || World::with(policy(), vec![(channel_id(7), crashed)]);

    // Less without a signature, more without one, the queried total without one.
    for claimed in [0, 7, 15, 500] {
        let mut world = world();
        let (id, question) = world.granted(10);
        assert_eq!(question, 15.into());
        let effects = world.tells(id, 10, World::claim(claimed));
        assert_eq!(grant(&effects).is_some(), claimed <= 15, "{claimed}");
        assert_eq!(world.channel().exposure(), 1000.into(), "{claimed}");
    }

    // What this run has signed itself proves nothing about earlier signatures.
    let mut world = world();
    let (id, _) = world.granted(10);
    assert_eq!(grant(&world.tells(id, 10, World::claim(0))).unwrap().total, 10.into());
    world.when(Input::Answer(id, Outcome::Accepted));
    let (id, total) = world.granted(10);
    assert_eq!(total, 20.into());
    let state = world.state(10);
    world.tells(id, 10, state);
    assert_eq!(world.channel().exposure(), 1000.into());
    // The true total does, at any time.
    let (id, _) = world.granted(10);
    let state = world.state(500);
    assert_eq!(grant(&world.tells(id, 10, state)).unwrap().total, 510.into());
    assert_eq!(world.channel().exposure(), 510.into());

    // Also over the seller's own interface, where a claim of nothing does not either.
    let mut told = crashed.recover();
    told.correct(Amount::ZERO, false);
    assert_eq!((told.acknowledged, told.exposure()), (Amount::ZERO, 1000.into()));
    told.correct(500.into(), true);
    assert_eq!((told.acknowledged, told.exposure()), (500.into(), 500.into()));
}

#[test]
fn a_doubt_outlives_an_orderly_restart() {
    let crashed = Channel { durable_limit: 90.into(), ..channel(100, 20) };
    let mut world = World::with(policy(), vec![(channel_id(7), crashed)]);
    let (id, _) = world.granted(10);
    world.tells(id, 10, World::claim(0));
    world.when(Input::Answer(id, Outcome::Accepted));
    world.end_and_restart();
    assert_eq!((world.channel().exposure(), world.channel().has_doubt()), (90.into(), true));
}

/// The journal is lost, or an old copy; the seller holds up to one price more than it shows, or exactly that.
#[test]
fn the_first_payment_after_lost_or_older_state_goes_through_on_proof() {
    for (known, held) in [(0, 4), (0, 10), (0, 60), (30, 31), (30, 40), (30, 45)] {
        let found = vec![(channel_id(7), Some(on_chain(200)))];
        let mut world = if known == 0 {
            World::synced(policy(), Vec::new(), found)
        } else {
            World::with(policy(), vec![(channel_id(7), channel(200, known))])
        };
        world.restart();
        let (id, question) = world.granted(10);
        assert_eq!(question, known.into());
        let state = world.state(held);
        let effects = world.tells(id, 10, state);
        assert_eq!(grant(&effects).unwrap().total, (held + 10).into(), "{known} {held}");
        world.when(Input::Answer(id, Outcome::Accepted));
        assert_eq!(world.channel().exposure(), (held + 10).into());
        assert_eq!(world.granted(10).1, (held + 20).into());
    }
}

/// The seller was not queried first, as if another program paid with the same key in the meantime.
#[test]
fn a_total_that_this_store_never_signed_is_older_than_the_request() {
    for held in [1, 4, 9] {
        let mut world = World::with_channel(100, 0);
        let (id, total) = world.granted(10);
        assert_eq!(total, 10.into());
        let state = world.state(held);
        let effects = world.tells(id, 10, state);
        assert_eq!(grant(&effects).unwrap().total, (held + 10).into());
        // No more than that is paid.
        let state = world.state(held + 10);
        let effects = world.tells(id, 10, state);
        assert_eq!(refusal(&effects), Some(&Refusal::PaidAnswerLost { total: (held + 10).into() }));
    }
}

#[test]
fn the_history_of_a_channel_that_only_the_chain_knows_is_unknown() {
    let mut world = World::synced(policy(), Vec::new(), vec![(channel_id(7), Some(on_chain(100)))]);
    assert_eq!((world.channel().promised, world.channel().exposure()), (Amount::ZERO, 100.into()));
    assert_eq!(world.granted(10).1, Amount::ZERO, "the seller is asked");
    // A channel that we opened is known from the start.
    let mut world = World::with(policy(), Vec::new());
    assert!(submitted_op(&world.demand(ask(10)).1).is_some());
    world.when(Input::OpFinished(BOB, Ok(Some((channel_id(7), Some(on_chain(100)))))));
    assert!(!world.channel().has_doubt());
}

/// The seller shows a payment of this request that raised nothing: it does not become older than the request.
#[test]
fn a_payment_of_the_request_itself_is_not_older_than_it() {
    let mut world = World::with_channel(100, 0);
    let (id, total) = world.granted(35);
    assert_eq!(total, 35.into());
    assert_eq!(grant(&world.tells(id, 10, World::claim(0))).unwrap().total, 10.into());
    let state = world.state(10);
    let effects = world.tells(id, 26, state);
    assert_eq!(refusal(&effects), Some(&Refusal::SecondPrice { price: 26.into() }), "{effects:?}");
}

/// Two requests take turns on one channel. The seller proves to one the total that the other one has signed in between,
/// which is not older than the first one's own payment.
#[test]
fn what_another_request_signed_in_between_is_not_older() {
    let mut world = World::with_channel(100, 0);
    world.hooks = Arc::new(Hooks { invalid_amount: Adopt::Adopt { times: 3 }.into(), ..Hooks::default() });
    let demand = |world: &mut World, price| {
        world.next += 1;
        let purchase = PurchaseId(world.next);
        let (host, receivers, hooks) = ("bob.example".into(), Vec::new(), Arc::clone(&world.hooks));
        let limit = SpendLimit {
            host,
            max_price: 111.into(),
            receivers,
            preference: Arc::default(),
            hooks,
            budgets: Arc::default(),
            origin: Default::default(),
        };
        let offer = Offer::MicroRaiden(ask(price));
        let deadline = world.now + policy().pay_timeout;
        (purchase, world.when(Input::Demand { purchase, offer, limit, deadline }))
    };
    let (b, effects) = demand(&mut world, 10);
    assert_eq!(grant(&effects).unwrap().total, 10.into());
    let (a, _) = demand(&mut world, 10);
    // The price rises above what the channel holds: while it is topped up, the other request leases it.
    let effects = world.tells(b, 111, World::claim(0));
    let topped = submitted_op(&effects).expect("a top up");
    assert_eq!(grant(&effects).unwrap().total, 10.into());
    let state = world.state(10);
    assert_eq!(grant(&world.tells(a, 10, state)).unwrap().total, 20.into());
    world.when(Input::Answer(a, Outcome::InDoubt));
    let ChannelOp::TopUp { added, .. } = topped else { panic!("{topped:?}") };
    let deposit = added.saturating_add(100.into()).to_string().parse().unwrap();
    let effects = world.when(Input::OpFinished(BOB, Ok(Some((channel_id(7), Some(on_chain(deposit)))))));
    assert_eq!(grant(&effects).unwrap().total, 121.into(), "10 and 101");
    let state = world.state(20);
    let effects = world.tells(b, 111, state);
    assert_eq!(refusal(&effects), Some(&Refusal::SecondPrice { price: 111.into() }), "{effects:?}");
}

/// A channel that can pay within the price takes precedence over one with less left that cannot.
#[test]
fn after_a_correction_the_channel_that_costs_nothing_more_pays() {
    let deposit = Deposit { channels: 2, ..Deposit::default() };
    let channels = vec![(channel_id(7), channel(100, 50)), (channel_id(8), channel(105, 50))];
    let mut world = World::with(Policy { deposit, ..policy() }, channels);
    let (id, effects) = world.demand(ask(10));
    assert_eq!(grant(&effects).map(|draft| (draft.channel, draft.total)), Some((channel_id(7), 60.into())));
    // A response that charged nothing had counted as paid.
    let state = world.state(40);
    let effects = world.tells(id, 10, state);
    assert_eq!(grant(&effects).map(|draft| (draft.channel, draft.total)), Some((channel_id(7), 50.into())));
}

#[test]
fn transactions_of_unknown_fate_are_not_looked_for_without_a_pause_whoever_they_are_for() {
    let mut world = World::with(policy(), Vec::new());
    let open = submitted_op(&world.demand_of("mallory.example", &[], ask(10)).1).unwrap();
    let intent = Intent { op: open, moves: true, nonce: 3, hash: [9; 32], raw: vec![1], host: None };
    world.when(Input::Intent(intent));
    let (id, _) = world.demand(ask(10));
    let unclear = || OpFailure { op: open, reason: "node is gone".into(), is_final: false, balance: None };
    let effects = world.when(Input::OpFinished(BOB, Err(unclear())));
    let refused = |effects: &[Effect]| {
        effects.iter().any(
            |effect| matches!(effect, Effect::Refuse(refused, Refusal::FundFailed { .. }) if *refused == id),
        )
    };
    assert!(refused(&effects), "{effects:?}");
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Resume(..))), "{effects:?}");
    world.pass(Duration::from_secs(31));
    assert!(matches!(world.demand(ask(10)).1[..], [Effect::Resume(BOB, _)]));
}
