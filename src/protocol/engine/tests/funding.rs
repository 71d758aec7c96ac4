//! Funding channels: how much, how often, and what happens if the funds are not visible.

use crate::protocol::engine::tests::*;
use crate::protocol::policy::{DepositLimit, DepositSize};
use crate::protocol::refusal::FundingRetry;

const COSTLY: u64 = 90;

impl World {
    /// The node reports that an operation succeeded, and shows this deposit.
    fn carried_out(&mut self, open_block: u32, shown: Option<OnChain>) -> Vec<Effect> {
        self.when(Input::OpFinished(BOB, Ok(Some((channel_id(open_block), shown)))))
    }

    /// The transaction of an operation is about to be sent.
    fn intends(&mut self, op: ChannelOp) -> Vec<Effect> {
        self.next += 1;
        let hash = [self.next as u8; 32];
        self.when(Input::Intent(Intent { op, moves: true, nonce: self.next, hash, raw: vec![1], host: None }))
    }

    fn fails(&mut self, op: ChannelOp, balance: Option<u64>) -> Vec<Effect> {
        let balance = balance.map(|wei| Balance { wei: wei.into(), tokens: 5.into() });
        let failure = OpFailure { op, reason: "too little ether".into(), is_final: true, balance };
        self.when(Input::OpFinished(BOB, Err(failure)))
    }

    fn has(&mut self, wei: Option<u64>) -> Vec<Effect> {
        let balance = wei.map(|wei| Balance { wei: wei.into(), tokens: 5.into() });
        self.when(Input::Balance(balance))
    }
}

/// As in the original client: `topup_deposit` is the capacity afterwards, not the amount added.
#[test]
fn a_top_up_fills_up_to_its_target() {
    for (top_up, left, price, added) in [
        (DepositSize::Times(5), 0, 10, 50),
        (DepositSize::Times(5), 4, 10, 46),
        (DepositSize::Times(5), 9, 10, 41),
        (DepositSize::Units(70.into()), 4, 10, 66),
        // Less than the price would not help.
        (DepositSize::Units(3.into()), 4, 10, 6),
        (DepositSize::Times(1), 4, 10, 6),
    ] {
        let deposit = Deposit { top_up, ..Deposit::default() };
        let world =
            World::with(Policy { deposit, ..policy() }, vec![(channel_id(7), channel(100, 100 - left))]);
        let mut world = world;
        let expected = ChannelOp::TopUp { channel: channel_id(7), added: added.into() };
        assert_eq!(submitted_op(&world.demand(ask(price)).1), Some(expected), "{top_up:?} {left}");
    }
    for (initial, deposit) in [
        (DepositSize::Times(10), 100),
        (DepositSize::Units(70.into()), 70),
        (DepositSize::Units(3.into()), 10),
    ] {
        let policy = Policy { deposit: Deposit { initial, ..Deposit::default() }, ..policy() };
        let expected = ChannelOp::Open { receiver: BOB, deposit: deposit.into() };
        assert_eq!(submitted_op(&World::with(policy, Vec::new()).demand(ask(10)).1), Some(expected));
    }
}

#[test]
fn a_deposit_that_does_not_show_is_sent_once() {
    let mut world = World::with_channel(100, 95);
    let topped = submitted_op(&world.demand(ask(10)).1).unwrap();
    world.intends(topped);
    let effects = world.carried_out(7, Some(on_chain(0)));
    assert!(matches!(refusal(&effects), Some(Refusal::FundFailed { .. })), "{effects:?}");
    assert_eq!(world.channel().funded, 145.into());
    // Not after any pause, nor after a restart: the user must check it.
    for _ in 0..5 {
        world.pass(Duration::from_secs(7200));
        let effects = world.demand(ask(10)).1;
        let channel = channel_id(7);
        let unseen = Refusal::DepositUnseen { channel, sent: 145.into(), shown: 100.into() };
        assert_eq!((submitted_op(&effects), refusal(&effects)), (None, Some(&unseen)));
        let account = *world.engine.account().unwrap();
        let channels = vec![(channel, world.channel())];
        world.engine = Engine::new(Arc::clone(&world.policy));
        world.when(ready(account, channels, Vec::new()));
    }
    // It becomes visible after all.
    world.when(seen(7, Some(on_chain(145)), None));
    world.when(Input::SellerTotal(channel_id(7), 95.into(), true));
    assert_eq!(world.granted(10).1, 105.into());
}

#[test]
fn what_shows_late_is_topped_up_again_at_once() {
    let mut world = World::with_channel(100, 95);
    let topped = submitted_op(&world.demand(ask(10)).1).unwrap();
    world.intends(topped);
    assert!(matches!(refusal(&world.carried_out(7, Some(on_chain(100)))), Some(Refusal::FundFailed { .. })));
    world.when(seen(7, Some(on_chain(145)), None));
    assert!(submitted_op(&world.demand(ask(COSTLY)).1).is_some(), "the failure is over");
}

#[test]
fn the_user_can_say_that_a_deposit_came_back() {
    let mut world = World::with_channel(100, 95);
    let topped = submitted_op(&world.demand(ask(10)).1).unwrap();
    world.intends(topped);
    world.carried_out(7, Some(on_chain(100)));
    world.pass(Duration::from_secs(7200));
    assert!(matches!(refusal(&world.demand(ask(10)).1), Some(Refusal::DepositUnseen { .. })));
    world.when(Input::Chain {
        channels: vec![(channel_id(7), Some(on_chain(100)))],
        settled: BTreeMap::new(),
        cursor: 13,
        by_user: true,
    });
    assert_eq!(submitted_op(&world.demand(ask(10)).1), Some(topped));
}

#[test]
fn what_was_sent_counts_towards_the_cap_until_it_has_come_back() {
    let deposit = Deposit { max_per_channel: 160.into(), ..Deposit::default() };
    let mut world = World::with(Policy { deposit, ..policy() }, vec![(channel_id(7), channel(100, 95))]);
    let topped = submitted_op(&world.demand(ask(10)).1).unwrap();
    world.intends(topped);
    assert_eq!(world.channel().funded, 145.into(), "from the moment that it is about to be sent");
    let more = |added: u64| ChannelOp::TopUp { channel: channel_id(7), added: added.into() };
    let (deposit, cap) = (161.into(), 160.into());
    assert_eq!(world.engine.check_amount(&more(16)), Err(OpRefused::AboveCap { deposit, cap }));
    assert_eq!(world.engine.check_amount(&more(15)), Ok(()));
    // It provably failed: the money is back.
    world.fails(topped, Some(1));
    assert_eq!(world.channel().funded, 100.into());
}

#[test]
fn what_all_channels_hold_is_limited_and_includes_deposits_on_their_way() {
    let deposit = Deposit { max_total: Some(250.into()), ..Deposit::default() };
    let mut world = World::with(Policy { deposit, ..policy() }, vec![(channel_id(7), channel(100, 20))]);
    let to = |receiver: u8, price: u64| microraiden::ChannelOffer {
        receiver: Address([receiver; 20]),
        ..ask(price)
    };
    // Of 150, the first new receiver gets 100, the second what is left, the third nothing.
    let opened = submitted_op(&world.demand(to(1, 10)).1).unwrap();
    assert_eq!(opened, ChannelOp::Open { receiver: Address([1; 20]), deposit: 100.into() });
    let opened = submitted_op(&world.demand(to(2, 10)).1).unwrap();
    assert_eq!(opened, ChannelOp::Open { receiver: Address([2; 20]), deposit: 50.into() });
    let limit = DepositLimit { key: "max_total", locked: 250.into(), limit: 250.into() };
    let refused = Refusal::DepositLimit { price: 10.into(), limit: Box::new(limit) };
    assert_eq!(refusal(&world.demand(to(3, 10)).1), Some(&refused));
    // The same for the user's own operations. A channel with enough left pays on.
    let more = ChannelOp::TopUp { channel: channel_id(7), added: 1.into() };
    assert_eq!(world.engine.check_amount(&more), Err(OpRefused::AboveLimit { amount: 1.into(), limit }));
    assert!(grant(&world.demand(ask(10)).1).is_some());
    // What provably was not deposited is free again.
    let failure = OpFailure { op: opened, reason: "no ether".into(), is_final: true, balance: None };
    world.when(Input::OpFinished(Address([2; 20]), Err(failure)));
    assert_eq!(
        world.engine.check_amount(&ChannelOp::TopUp { channel: channel_id(7), added: 50.into() }),
        Ok(())
    );
}

#[test]
fn what_the_channels_to_one_receiver_hold_is_limited() {
    let deposit = Deposit { max_per_receiver: Some(130.into()), ..Deposit::default() };
    let mut world = World::with(Policy { deposit, ..policy() }, vec![(channel_id(7), channel(100, 95))]);
    let topped = submitted_op(&world.demand(ask(10)).1).unwrap();
    assert_eq!(topped, ChannelOp::TopUp { channel: channel_id(7), added: 30.into() });
    let more = ChannelOp::Open { receiver: BOB, deposit: 1.into() };
    let limit = DepositLimit { key: "max_per_receiver", locked: 130.into(), limit: 130.into() };
    let refused = Err(OpRefused::AboveLimit { amount: 1.into(), limit });
    assert_eq!(world.engine.check_amount(&more), refused, "before its transaction exists");
    world.intends(topped);
    assert_eq!(world.engine.check_amount(&more), refused, "while it is sent");
    world.carried_out(7, Some(on_chain(130)));
    assert_eq!(world.engine.check_amount(&more), refused, "and once it has arrived");
    let other = ChannelOp::Open { receiver: Address([1; 20]), deposit: 130.into() };
    assert_eq!(world.engine.check_amount(&other), Ok(()));
    // A settled channel holds nothing.
    world.when(Input::Chain {
        channels: vec![(channel_id(7), None)],
        settled: BTreeMap::from([(channel_id(7), 95.into())]),
        cursor: 13,
        by_user: false,
    });
    assert_eq!(world.engine.check_amount(&more), Ok(()));
}

#[test]
fn at_most_one_transaction_is_made_for_a_request() {
    // The node shows the new channel as closing, or not at all.
    let closing = OnChain { settle_block: 900, ..on_chain(100) };
    for shown in [Some(closing), Some(on_chain(0)), None] {
        let mut world = World::with(policy(), Vec::new());
        let opened = submitted_op(&world.demand(ask(10)).1).unwrap();
        world.intends(opened);
        let effects = world.carried_out(7, shown);
        assert_eq!(submitted_op(&effects), None, "{shown:?}");
        assert!(matches!(refusal(&effects), Some(Refusal::FundFailed { .. })), "{shown:?} {effects:?}");
        assert_eq!(submitted_op(&world.demand(ask(10)).1), None, "{shown:?}");
    }
    // It was used up by the price, which rose in the meantime.
    let mut world = World::with(policy(), Vec::new());
    let (id, effects) = world.demand(ask(1));
    assert!(submitted_op(&effects).is_some());
    let effects = world.carried_out(7, Some(on_chain(10)));
    assert!(grant(&effects).is_some());
    let dearer = microraiden::ChannelOffer {
        price: COSTLY.into(),
        ..complain(Complaint::InvalidAmount, world.state(0))
    };
    let effects = world.rejected(id, dearer);
    assert_eq!((submitted_op(&effects), refusal(&effects)), (None, Some(&Refusal::FundedOnce)));
}

#[test]
fn deposits_are_bounded_in_number_and_time_also_across_a_restart() {
    let deposit = Deposit { max_count: 2, count_window: Duration::from_secs(600), ..Deposit::default() };
    let policy = Policy { deposit, ..policy() };
    let mut world = World::with(policy.clone(), vec![(channel_id(7), channel(100, 95))]);
    let refused = |free_in| {
        let (within, free_in) = (deposit.count_window, Some(Duration::from_secs(free_in)));
        Refusal::TooManyDeposits { receiver: BOB, max: 2, within, free_in }
    };
    let mut held = 100;
    for _ in 0..2 {
        let (id, effects) = world.demand(ask(COSTLY));
        let topped = submitted_op(&effects).unwrap();
        let effects = world.intends(topped);
        assert!(records(&effects).contains(&Record::Deposit(BOB, "bob.example".into())));
        let ChannelOp::TopUp { added, .. } = topped else { panic!("{topped:?}") };
        held += added.to_string().parse::<u64>().unwrap();
        world.carried_out(7, Some(on_chain(held)));
        world.when(Input::Answer(id, Outcome::Accepted));
        world.when(Input::SellerTotal(channel_id(7), held.into(), true));
        world.pass(Duration::from_secs(5));
    }
    assert_eq!(refusal(&world.demand(ask(10)).1), Some(&refused(590)));
    // Other hosts have their own count.
    assert!(submitted_op(&world.demand_of("mallory.example", &[], ask(10)).1).is_some());

    let account = *world.engine.account().unwrap();
    let channels = vec![(channel_id(7), world.channel())];
    let recent = (BOB, "bob.example".into(), Duration::from_secs(500));
    let Input::Ready { account, channels, hosts, intents, on_chain, cursor, .. } =
        ready(account, channels, Vec::new())
    else {
        unreachable!()
    };
    world.engine = Engine::new(Arc::new(policy));
    let deposits = vec![recent.clone(), recent];
    world.when(Input::Ready { account, channels, hosts, intents, deposits, on_chain, cursor });
    assert_eq!(refusal(&world.demand(ask(10)).1), Some(&refused(100)));
    world.pass(Duration::from_secs(99));
    assert_eq!(refusal(&world.demand(ask(10)).1), Some(&refused(1)));
    world.pass(Duration::from_secs(1));
    assert!(submitted_op(&world.demand(ask(10)).1).is_some());
}

#[test]
fn a_failure_that_is_remembered_says_so_and_is_tried_again_when_the_balance_has_changed() {
    let mut world = World::with(policy(), Vec::new());
    let open = submitted_op(&world.demand(ask(10)).1).unwrap();
    let effects = world.fails(open, Some(7));
    let failed = |ago, next| {
        let retry = FundingRetry { ago: Duration::from_secs(ago), next: Duration::from_secs(next) };
        Refusal::FundFailed { op: Box::new(open), reason: "too little ether".to_owned(), retry }
    };
    assert_eq!(refusal(&effects), Some(&failed(0, 30)), "the request that it was tried for");
    assert!(failed(0, 30).to_string().ends_with("too little ether"));

    world.pass(Duration::from_secs(27));
    let (_, effects) = world.demand(ask(10));
    assert_eq!(effects, [Effect::QueryBalance], "what the payer has is looked up first");
    let (_, effects) = world.demand(ask(10));
    assert_eq!(effects, [], "once for all who wait");
    let effects = world.has(Some(7));
    let refusals = effects.iter().map(|effect| match effect {
        Effect::Refuse(_, refusal) => refusal.clone(),
        effect => panic!("{effect:?}"),
    });
    let refusals: Vec<Refusal> = refusals.collect();
    assert_eq!(refusals, [failed(27, 3), failed(27, 3)]);
    assert_eq!(refusals[0].retry_after(), Some(Duration::from_secs(3)));
    assert!(refusals[0].to_string().ends_with("too little ether (tried 27 s ago, next attempt in 3 s)"));
    // Current for a moment.
    assert!(refusal(&world.demand(ask(10)).1).is_some());

    // The node is down: the balance is unknown, and nothing is attempted.
    world.pass(Duration::from_secs(1));
    world.demand(ask(10));
    assert_eq!(submitted_op(&world.has(None)), None);
    world.pass(Duration::from_secs(1));
    world.demand(ask(10));
    assert_eq!(submitted_op(&world.has(Some(8))), Some(open), "money has come");
}

#[test]
fn a_node_that_is_back_is_asked_again_at_once() {
    let mut world = World::with(policy(), Vec::new());
    let open = submitted_op(&world.demand(ask(10)).1).unwrap();
    world.fails(open, None);
    world.pass(Duration::from_secs(2));
    assert_eq!(world.demand(ask(10)).1, [Effect::QueryBalance]);
    assert_eq!(submitted_op(&world.has(Some(7))), Some(open));
}

#[test]
fn a_transaction_that_was_sent_and_failed_waits_longer_each_time() {
    let mut world = World::with(policy(), Vec::new());
    for pause in [30, 60, 120, 240] {
        let open = submitted_op(&world.demand(ask(10)).1).unwrap();
        world.intends(open);
        world.fails(open, Some(7));
        world.pass(Duration::from_secs(pause - 1));
        let effects = world.demand(ask(10)).1;
        assert!(refusal(&effects).is_some(), "its fee has changed the balance: {effects:?}");
        world.pass(Duration::from_secs(1));
    }
}

#[test]
fn nothing_is_ordered_for_nothing_or_above_the_cap() {
    let deposit = Deposit { max_per_channel: 100.into(), ..Deposit::default() };
    let world = World::with(Policy { deposit, ..policy() }, vec![(channel_id(7), channel(60, 20))]);
    let open = |deposit: u64| ChannelOp::Open { receiver: BOB, deposit: deposit.into() };
    let topped = |added: u64| ChannelOp::TopUp { channel: channel_id(7), added: added.into() };
    let above = |deposit: u64| Err(OpRefused::AboveCap { deposit: deposit.into(), cap: 100.into() });
    for (op, expected) in [
        (open(0), Err(OpRefused::Nothing)),
        (open(100), Ok(())),
        (open(101), above(101)),
        (open(5000), above(5000)),
        (topped(0), Err(OpRefused::Nothing)),
        (topped(40), Ok(())),
        (topped(41), above(101)),
    ] {
        assert_eq!(world.engine.may_start(&op), expected, "{op:?}");
    }
}
