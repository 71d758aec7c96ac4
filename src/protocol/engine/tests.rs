//! Stories of Alice, who pays, Bob, an honest seller, and Mallory, a dishonest one.

mod budgeting;
mod consulting;
mod funding;
mod hosts;
mod reloading;
mod reopening;
mod reserving;
mod restarting;
mod runs;
mod usage;
mod writing;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::chain::signer::Signer;
use crate::protocol::budget::BudgetSet;
use crate::protocol::channel::{ChannelDraft, InDoubt};
use crate::protocol::engine::*;
use crate::protocol::policy::Complaint;
use crate::protocol::policy::{
    Adopt, AuthorizationLimits, Deposit, Hooks, KnownAsset, Missing, PriceLimit, Retry, SpendOrigin,
};
use crate::protocol::schemes::microraiden;
use crate::protocol::schemes::microraiden::{SellerRecord, proof};
use crate::protocol::{Phase, Signature};

const BOB: Address = Address([0xbb; 20]);
const CONTRACT: Address = Address([0xcc; 20]);
const TOKEN: Address = Address([0x70; 20]);

/// The engine, a clock that only moves on demand, and Alice's key.
struct World {
    engine: Engine,
    policy: Arc<Policy>,
    /// The hooks of the rule for all her purchases.
    hooks: Arc<Hooks>,
    now: Instant,
    alice: Signer,
    next: u64,
    /// True if the test answers questions to an approver.
    is_asked: bool,
    /// True while the disk writes nothing.
    stalls: bool,
    /// The newest write that the disk was given.
    newest: Seq,
    /// The budgets of all her purchases.
    budgets: BudgetSet,
    /// Where all her requests come from.
    origin: SpendOrigin,
}

fn policy() -> Policy {
    let (every, times, within) = (Duration::from_secs(5), 3, Duration::from_secs(60));
    let retry = Retry::Retry { every, times, within };
    Policy {
        version: 0,
        clients: Arc::default(),
        distinguishes_clients: false,
        budgets: Vec::new(),
        rules: Vec::new(),
        deposit: Deposit::default(),
        hooks: Arc::new(Hooks {
            insufficient_confirmations: retry.into(),
            nonexisting_channel: Missing::Retry { every, times, within }.into(),
            invalid_balance_proof: retry.into(),
            invalid_amount: Adopt::Adopt { times: 3 }.into(),
            ..Hooks::default()
        }),
        max_attempts: 8,
        sign_ahead: 0,
        ready_timeout: Duration::from_secs(30),
        pay_timeout: Duration::from_secs(300),
        authorizations: AuthorizationLimits::default(),
    }
}

impl World {
    /// Alice with one channel to Bob with this deposit, of which the seller holds `paid`.
    fn with_channel(deposit: u64, paid: u64) -> Self {
        Self::with(policy(), vec![(channel_id(7), channel(deposit, paid))])
    }

    fn with(policy: Policy, channels: Vec<(ChannelId, Channel)>) -> Self {
        Self::synced(policy, channels, Vec::new())
    }

    fn synced(
        policy: Policy,
        channels: Vec<(ChannelId, Channel)>,
        on_chain: Vec<(ChannelId, Option<OnChain>)>,
    ) -> Self {
        let alice = Signer::new(&[0xa0; 32]).unwrap();
        let account = Account { chain_id: 1, contract: CONTRACT, token: TOKEN, payer: alice.address() };
        let hooks = Arc::clone(&policy.hooks);
        let policy = Arc::new(policy);
        let mut engine = Engine::new(Arc::clone(&policy));
        let now = Instant::now();
        engine.handle(ready(account, channels, on_chain), now);
        let mut world = Self {
            engine,
            policy,
            now,
            alice,
            hooks,
            next: 0,
            is_asked: false,
            stalls: false,
            newest: Seq(0),
            budgets: BudgetSet::default(),
            origin: SpendOrigin::default(),
        };
        // Bob has already stated his total, unless something is in doubt.
        let known: Vec<_> = world.engine.view().channels().collect();
        for (id, channel) in known
            .into_iter()
            .filter(|(_, channel)| channel.doubt.or(channel.in_doubt.map(|it| it.total)).is_none())
        {
            world.when(Input::SellerTotal(id, channel.acknowledged, false));
        }
        world.effects();
        world.disk_writes();
        world.when(Input::Idle);
        world
    }

    /// The effects of an input, and of the writes that it causes, unless the disk stalls.
    fn when(&mut self, input: Input) -> Vec<Effect> {
        self.engine.handle(input, self.now);
        let mut effects = self.effects();
        while !self.stalls && self.engine.is_writing() {
            self.engine.handle(Input::Durable(self.newest), self.now);
            effects.extend(self.effects());
        }
        effects
    }

    /// The effects so far. Unless she answers herself, there is no approver for a question.
    fn effects(&mut self) -> Vec<Effect> {
        let mut effects = Vec::new();
        while let Some(effect) = self.engine.poll_effect() {
            match effect {
                Effect::Consult(id, _) if !self.is_asked => {
                    self.engine.handle(Input::Consulted(id, None), self.now);
                }
                effect => effects.push(effect),
            }
        }
        for effect in &effects {
            if let Effect::Persist(seq, _) = effect {
                self.newest = *seq;
            }
        }
        effects
    }

    /// All pending writes succeed.
    fn disk_writes(&mut self) -> Vec<Effect> {
        self.when(Input::Durable(self.newest))
    }

    /// All pending writes fail.
    fn disk_fails(&mut self) -> Vec<Effect> {
        self.when(Input::NotRecorded(self.newest, "disk full".into()))
    }

    fn demand(&mut self, offer: microraiden::ChannelOffer) -> (PurchaseId, Vec<Effect>) {
        self.demand_of("bob.example", &[], offer)
    }

    /// A demand of this host, with a rule that lists these receivers.
    fn demand_of(
        &mut self,
        host: &str,
        receivers: &[Address],
        offer: microraiden::ChannelOffer,
    ) -> (PurchaseId, Vec<Effect>) {
        self.next += 1;
        let purchase = PurchaseId(self.next);
        let hooks = Arc::clone(&self.hooks);
        let receivers = receivers.to_vec();
        let budgets = self.budgets.clone();
        let limit = SpendLimit {
            host: host.into(),
            max_price: 100.into(),
            receivers,
            preference: Arc::default(),
            hooks,
            budgets,
            origin: self.origin.clone(),
        };
        let offer = Offer::MicroRaiden(offer);
        let deadline = self.now + policy().pay_timeout;
        (purchase, self.when(Input::Demand { purchase, offer, limit, deadline }))
    }

    /// A demand that must be granted: the purchase and the total.
    fn granted(&mut self, price: u64) -> (PurchaseId, Amount) {
        let (id, effects) = self.demand(ask(price));
        (id, grant(&effects).expect("a grant").total)
    }

    fn rejected(&mut self, id: PurchaseId, offer: microraiden::ChannelOffer) -> Vec<Effect> {
        self.when(Input::Answer(id, Outcome::Rejected(Box::new(Offer::MicroRaiden(offer)))))
    }

    fn pass(&mut self, time: Duration) -> Vec<Effect> {
        self.now += time;
        self.when(Input::Tick)
    }

    fn signed(&self, total: u64) -> Option<Signature> {
        self.alice.sign(proof::balance_digest(channel_id(7), total.into(), CONTRACT)).ok()
    }

    /// The seller's state with Alice's signature.
    fn state(&self, total: u64) -> Option<SellerRecord> {
        Some(SellerRecord {
            sender: Some(self.alice.address()),
            total: total.into(),
            signature: self.signed(total),
        })
    }

    /// The chain no longer has the channel, and shows no settlement of it.
    fn vanish(&mut self, open_block: u32) {
        for _ in 0..2 {
            self.when(seen(open_block, None, None));
        }
    }

    /// The channel as the journal would have it.
    fn channel(&self) -> Channel {
        kept(self.engine.view().channel(channel_id(7)))
    }
}

fn kept(channel: Channel) -> Channel {
    Channel { signed: Amount::ZERO, payments: 0, ..channel }
}

/// All records.
fn records(effects: &[Effect]) -> Vec<Record> {
    let records = effects.iter().filter_map(|effect| match effect {
        Effect::Persist(_, records) => Some(records.clone()),
        _ => None,
    });
    records.flatten().collect()
}

/// The recorded state of a channel, if any.
fn recorded(effects: &[Effect]) -> Option<Channel> {
    records(effects).into_iter().find_map(|record| match record {
        Record::Channel(_, channel) => Some(kept(channel)),
        _ => None,
    })
}

fn ready(
    account: Account,
    channels: Vec<(ChannelId, Channel)>,
    on_chain: Vec<(ChannelId, Option<OnChain>)>,
) -> Input {
    let hosts = channels.iter().map(|(id, _)| (*id, "bob.example".into())).collect();
    let (intents, deposits) = (Vec::new(), Vec::new());
    Input::Ready { account, channels, hosts, intents, deposits, on_chain, cursor: 12 }
}

fn channel_id(open_block: u32) -> ChannelId {
    ChannelId { receiver: BOB, open_block }
}

fn on_chain(deposit: u64) -> OnChain {
    OnChain {
        deposit: deposit.into(),
        settle_block: 0,
        closing_balance: Amount::ZERO,
        withdrawn: Amount::ZERO,
    }
}

fn channel(deposit: u64, paid: u64) -> Channel {
    Channel {
        promised: paid.into(),
        presented: paid.into(),
        durable_limit: paid.into(),
        acknowledged: paid.into(),
        ..Channel::new(on_chain(deposit))
    }
}

/// A reading of the chain: the channel's state, and the total it was settled at.
fn seen(open_block: u32, on_chain: Option<OnChain>, settled: Option<u64>) -> Input {
    let id = channel_id(open_block);
    let settled = settled.map(|total| (id, total.into())).into_iter().collect();
    Input::Chain { channels: vec![(id, on_chain)], settled, cursor: 13, by_user: false }
}

fn ask(price: u64) -> microraiden::ChannelOffer {
    microraiden::ChannelOffer {
        price: price.into(),
        contract: CONTRACT,
        receiver: BOB,
        token: Some(TOKEN),
        gateway: None,
        complaint: None,
        state: None,
    }
}

fn complain(complaint: Complaint, state: Option<SellerRecord>) -> microraiden::ChannelOffer {
    microraiden::ChannelOffer { complaint: Some(complaint), state, ..ask(10) }
}

fn grant(effects: &[Effect]) -> Option<ChannelDraft> {
    effects.iter().find_map(|effect| match effect {
        Effect::Grant(_, draft) => draft.on_channel().copied(),
        _ => None,
    })
}

fn refusal(effects: &[Effect]) -> Option<&Refusal> {
    effects.iter().find_map(|effect| match effect {
        Effect::Refuse(_, refusal) => Some(refusal),
        _ => None,
    })
}

fn submitted_op(effects: &[Effect]) -> Option<ChannelOp> {
    effects.iter().find_map(|effect| match effect {
        Effect::Submit(op) => Some(*op),
        _ => None,
    })
}

#[test]
fn the_record_stands_before_the_grant() {
    let mut world = World::with_channel(100, 20);
    let (id, effects) = world.demand(ask(10));
    let draft = ChannelDraft { channel: channel_id(7), total: 30.into(), price: 10.into(), is_query: false };
    let expected = Channel {
        promised: 30.into(),
        durable_limit: 30.into(),
        in_doubt: Some(InDoubt { total: 30.into(), price: 10.into() }),
        ..channel(100, 20)
    };
    assert_eq!(recorded(&effects), Some(expected));
    assert!(
        matches!(&effects[..], [Effect::Persist(..), Effect::Grant(granted, what)] if (*granted, what.on_channel()) == (id, Some(&draft)))
    );
    world.when(Input::Answer(id, Outcome::Accepted));
    assert_eq!(world.channel(), channel(100, 30));
}

#[test]
fn what_no_rule_allows_is_refused_before_anything_moves() {
    let alice = Signer::new(&[0xa0; 32]).unwrap().address();
    let foreign = Address([0x66; 20]);
    for (offer, expected) in [
        (ask(0), Refusal::PriceZero),
        (ask(101), Refusal::TooExpensive { price: "101".into(), max_price: "100".into() }),
        (
            microraiden::ChannelOffer { price: Amount::MAX, ..ask(0) },
            Refusal::TooExpensive { price: Amount::MAX.to_string().into(), max_price: "100".into() },
        ),
        (
            microraiden::ChannelOffer { contract: foreign, ..ask(10) },
            Refusal::ForeignContract { theirs: foreign, ours: CONTRACT },
        ),
        (
            microraiden::ChannelOffer { token: Some(foreign), ..ask(10) },
            Refusal::ForeignToken { theirs: foreign, ours: TOKEN },
        ),
    ] {
        let mut world = World::with_channel(1000, 0);
        let (id, effects) = world.demand(offer);
        assert_eq!(effects, [Effect::Refuse(id, expected)]);
    }
    let mut world = World::with_channel(1000, 0);
    let (_, effects) = world.demand_of("bob.example", &[alice], ask(10));
    assert_eq!(refusal(&effects), Some(&Refusal::ForeignReceiver(BOB)));
}

#[test]
fn ten_at_once_cause_one_opening() {
    let mut world = World::with(policy(), Vec::new());
    let ops: Vec<ChannelOp> = (0..10).filter_map(|_| submitted_op(&world.demand(ask(10)).1)).collect();
    assert_eq!(ops, [ChannelOp::Open { receiver: BOB, deposit: 100.into() }]);

    let mut effects = world.when(Input::OpFinished(BOB, Ok(Some((channel_id(7), Some(on_chain(100)))))));
    for expected in 1..=10_u64 {
        let draft = grant(&effects).expect("the next one is served");
        assert_eq!(draft.total, (expected * 10).into());
        effects = world.when(Input::Answer(PurchaseId(expected), Outcome::Accepted));
    }
    assert_eq!(effects, []);
}

#[test]
fn the_fullest_use_comes_first_then_top_up_then_open() {
    let two = vec![(channel_id(1), channel(100, 50)), (channel_id(2), channel(100, 80))];
    let mut world = World::with(policy(), two.clone());
    assert_eq!(grant(&world.demand(ask(10)).1).map(|draft| draft.channel), Some(channel_id(2)));
    assert_eq!(grant(&world.demand(ask(10)).1).map(|draft| draft.channel), Some(channel_id(1)));

    let mut world = World::with(policy(), two.clone());
    let topped = submitted_op(&world.demand(ask(60)).1);
    assert_eq!(topped, Some(ChannelOp::TopUp { channel: channel_id(1), added: 250.into() }));

    let deposit = Deposit { max_per_channel: 105.into(), ..Deposit::default() };
    let mut world = World::with(Policy { deposit, ..policy() }, two);
    let opened = submitted_op(&world.demand(ask(60)).1);
    assert_eq!(opened, Some(ChannelOp::Open { receiver: BOB, deposit: 105.into() }));
}

#[test]
fn a_failed_opening_refuses_all_who_wait_and_is_not_tried_at_once_again() {
    let mut world = World::with(policy(), Vec::new());
    let open = submitted_op(&world.demand(ask(10)).1).unwrap();
    world.demand(ask(10));
    let failure = OpFailure { op: open, reason: "no ether".into(), is_final: true, balance: None };
    let effects = world.when(Input::OpFinished(BOB, Err(failure)));
    assert_eq!(effects.iter().filter(|effect| matches!(effect, Effect::Refuse(..))).count(), 2);
    assert_eq!(submitted_op(&world.demand(ask(10)).1), None);
    world.pass(Duration::from_secs(31));
    assert_eq!(submitted_op(&world.demand(ask(10)).1), Some(open));
}

#[test]
fn a_transaction_of_unknown_fate_is_cleared_up_before_another() {
    let mut world = World::with(policy(), Vec::new());
    let open = submitted_op(&world.demand(ask(10)).1).unwrap();
    let intent = Intent { op: open, moves: true, nonce: 3, hash: [9; 32], raw: vec![1], host: None };
    let effects = world.when(Input::Intent(intent.clone()));
    // If older intents could not be deleted, they are with the same write. The deposit counts from here on.
    let intent = Intent { host: Some("bob.example".to_owned()), ..intent };
    let deposit = Record::Deposit(BOB, "bob.example".into());
    let recorded = [Record::IntentsResolved(BOB), deposit, Record::Intent(intent.clone())];
    assert_eq!(records(&effects), recorded);
    assert!(
        matches!(effects[..], [Effect::Persist(..), Effect::Send(hash)] if hash == [9; 32]),
        "{effects:?}"
    );
    let failure = OpFailure { op: open, reason: "node is gone".into(), is_final: false, balance: None };
    world.when(Input::OpFinished(BOB, Err(failure)));
    world.pass(Duration::from_secs(31));
    let (id, effects) = world.demand(ask(10));
    assert_eq!(effects, [Effect::Resume(BOB, vec![intent])]);
    let effects = world.when(Input::OpFinished(BOB, Ok(Some((channel_id(7), Some(on_chain(100)))))));
    assert!(records(&effects).contains(&Record::IntentsResolved(BOB)));
    assert!(matches!(effects.last(), Some(Effect::Grant(granted, _)) if *granted == id));
}

#[test]
fn a_lost_answer_is_resolved_by_the_next_purchase() {
    // Never registered: the same total pays now.
    let mut world = World::with_channel(100, 20);
    let (first, total) = world.granted(10);
    world.when(Input::Answer(first, Outcome::InDoubt));
    let (second, again) = world.granted(10);
    assert_eq!((total, again), (30.into(), 30.into()));
    world.when(Input::Answer(second, Outcome::Accepted));
    assert_eq!(world.channel(), channel(100, 30));

    // Registered: the seller shows it, and the next price is added.
    let mut world = World::with_channel(100, 20);
    let (first, _) = world.granted(10);
    world.when(Input::Answer(first, Outcome::InDoubt));
    let (second, _) = world.granted(10);
    let state = world.state(30);
    let effects = world.rejected(second, microraiden::ChannelOffer { state, ..ask(10) });
    assert_eq!(grant(&effects).unwrap().total, 40.into());

    // Another price: added to the believed total, and corrected by the seller.
    let mut world = World::with_channel(100, 20);
    let (first, _) = world.granted(10);
    world.when(Input::Answer(first, Outcome::InDoubt));
    let (second, total) = world.granted(7);
    assert_eq!(total, 27.into());
    let answer = complain(Complaint::InvalidAmount, world.state(30));
    let effects = world.rejected(second, microraiden::ChannelOffer { price: 7.into(), ..answer });
    assert_eq!(grant(&effects).unwrap().total, 37.into());
}

#[test]
fn mallory_shows_the_payment_just_made_as_an_old_one() {
    let mut world = World::with_channel(100, 20);
    let (id, _) = world.granted(10);
    let state = world.state(30);
    let effects = world.rejected(id, microraiden::ChannelOffer { state, ..ask(10) });
    assert_eq!(effects, [Effect::Refuse(id, Refusal::PaidAnswerLost { total: 30.into() })]);
    assert_eq!(world.channel(), channel(100, 30));
}

#[test]
fn mallory_lowers_the_total_and_then_shows_the_payment_as_an_old_one() {
    let mut world = World::with_channel(100, 50);
    let (id, _) = world.granted(10);
    let answer = complain(Complaint::InvalidAmount, world.state(0));
    let lowered = grant(&world.rejected(id, answer)).unwrap();
    assert_eq!(lowered.total, 10.into());
    let answer = complain(Complaint::InvalidAmount, world.state(60));
    let effects = world.rejected(id, answer);
    assert_eq!(refusal(&effects), Some(&Refusal::PaidAnswerLost { total: 60.into() }));
    assert_eq!(world.channel().promised, 60.into());
}

#[test]
fn a_lower_total_is_adopted_and_promises_stay() {
    let mut world = World::with_channel(100, 50);
    let (id, _) = world.granted(10);
    let answer = complain(Complaint::InvalidAmount, world.state(40));
    assert_eq!(grant(&world.rejected(id, answer)).unwrap().total, 50.into());
    assert_eq!(world.channel().promised, 60.into());
    world.when(Input::Answer(id, Outcome::Accepted));
    assert_eq!((world.channel().acknowledged, world.channel().promised), (50.into(), 60.into()));
}

#[test]
fn lost_records_come_back_by_our_own_signature_only() {
    let mut world = World::with_channel(100, 0);
    let (id, _) = world.granted(10);
    let answer = complain(Complaint::InvalidAmount, world.state(40));
    assert_eq!(grant(&world.rejected(id, answer)).unwrap().total, 50.into());
    assert_eq!(world.channel().promised, 50.into());

    let stranger = Signer::new(&[0xb1; 32]).unwrap();
    let forged = stranger.sign(proof::balance_digest(channel_id(7), 40.into(), CONTRACT)).ok();
    for signature in [None, forged, Some(Signature([0; 65]))] {
        let mut world = World::with_channel(100, 0);
        let (id, _) = world.granted(10);
        let state = Some(SellerRecord { sender: None, total: 40.into(), signature });
        let effects = world.rejected(id, complain(Complaint::InvalidAmount, state));
        assert_eq!(refusal(&effects), Some(&Refusal::UnprovenTotal { claimed: 40.into() }));
        assert_eq!(world.channel().promised, 10.into());
    }
}

#[test]
fn a_changed_price_is_taken_within_the_rule() {
    let mut world = World::with_channel(1000, 50);
    let (id, _) = world.granted(10);
    let state = world.state(50);
    let dearer = microraiden::ChannelOffer { price: 30.into(), ..complain(Complaint::InvalidAmount, state) };
    assert_eq!(grant(&world.rejected(id, dearer.clone())).unwrap().total, 80.into());
    assert_eq!(world.channel().promised, 80.into());
    let too_dear = microraiden::ChannelOffer { price: 101.into(), ..dearer };
    let effects = world.rejected(id, too_dear);
    assert!(matches!(refusal(&effects), Some(Refusal::TooExpensive { .. })));
    assert_eq!(world.channel().promised, 80.into());
}

#[test]
fn complaints_that_pass_are_met_with_the_same_payment_until_patience_ends() {
    for complaint in
        [Complaint::InsufficientConfirmations, Complaint::NonexistingChannel, Complaint::InvalidBalanceProof]
    {
        let mut world = World::with_channel(100, 0);
        let (id, total) = world.granted(10);
        for _ in 0..3 {
            assert_eq!(world.rejected(id, complain(complaint, None)), []);
            assert_eq!(world.pass(Duration::from_millis(4999)), []);
            let again = world.pass(Duration::from_millis(1));
            assert_eq!(grant(&again).unwrap().total, total);
        }
        let effects = world.rejected(id, complain(complaint, None));
        assert_eq!(effects, [Effect::Refuse(id, Refusal::HookGaveUp { complaint, attempts: 3 })]);
        assert_eq!(world.granted(10).1, total, "the next purchase presents the same total");
    }
}

/// What follows a complaint.
#[derive(Debug, PartialEq)]
enum Then {
    /// The same payment again, this many times; then a refusal.
    Same(u32),
    /// A payment that follows from the seller's total.
    Next,
    /// A payment from another channel.
    Elsewhere,
    /// A refusal, at once.
    End,
}

#[test]
fn each_hook_does_each_of_its_actions() {
    let (every, times, within) = (Duration::from_secs(5), 2, Duration::from_secs(60));
    let (retry, reopen) = (Retry::Retry { every, times, within }, Missing::Reopen { every, times, within });
    let again = Missing::Retry { every, times, within };
    let hooks = Hooks::default;
    for (complaint, is_gone, hooks, expected) in [
        (
            Complaint::InsufficientConfirmations,
            false,
            Hooks { insufficient_confirmations: retry.into(), ..hooks() },
            Then::Same(2),
        ),
        (
            Complaint::InsufficientConfirmations,
            false,
            Hooks { insufficient_confirmations: Retry::Abort.into(), ..hooks() },
            Then::End,
        ),
        (
            Complaint::InvalidBalanceProof,
            false,
            Hooks { invalid_balance_proof: retry.into(), ..hooks() },
            Then::Same(2),
        ),
        (
            Complaint::InvalidBalanceProof,
            false,
            Hooks { invalid_balance_proof: Retry::Abort.into(), ..hooks() },
            Then::End,
        ),
        (
            Complaint::InvalidAmount,
            false,
            Hooks { invalid_amount: Adopt::Adopt { times: 1 }.into(), ..hooks() },
            Then::Next,
        ),
        (
            Complaint::InvalidAmount,
            false,
            Hooks { invalid_amount: Adopt::Abort.into(), ..hooks() },
            Then::End,
        ),
        (
            Complaint::NonexistingChannel,
            false,
            Hooks { nonexisting_channel: again.into(), ..hooks() },
            Then::Same(2),
        ),
        (
            Complaint::NonexistingChannel,
            true,
            Hooks { nonexisting_channel: again.into(), ..hooks() },
            Then::Same(2),
        ),
        (
            Complaint::NonexistingChannel,
            false,
            Hooks { nonexisting_channel: reopen.into(), ..hooks() },
            Then::Same(2),
        ),
        (
            Complaint::NonexistingChannel,
            true,
            Hooks { nonexisting_channel: reopen.into(), ..hooks() },
            Then::Elsewhere,
        ),
        (
            Complaint::NonexistingChannel,
            true,
            Hooks { nonexisting_channel: Missing::Abort.into(), ..hooks() },
            Then::End,
        ),
    ] {
        // The rule's own hooks apply, not the defaults.
        let mut world = World::with(policy(), vec![(channel_id(7), channel(100, 20))]);
        world.hooks = Arc::new(hooks);
        let (id, total) = world.granted(10);
        if is_gone {
            world.vanish(7);
        }
        let answer = complain(complaint, world.state(0));
        let mut effects = world.rejected(id, answer.clone());
        let mut attempts = 0;
        while effects.is_empty() {
            effects = world.pass(every);
            assert_eq!(grant(&effects).unwrap().total, total);
            attempts += 1;
            effects = world.rejected(id, answer.clone());
        }
        let is_end = effects == [Effect::Refuse(id, Refusal::HookAborts { complaint })];
        let gave_up =
            matches!(refusal(&effects), Some(Refusal::HookGaveUp { .. } | Refusal::ChannelExists { .. }));
        let then = match (grant(&effects), submitted_op(&effects)) {
            (Some(draft), _) if draft.total == 10.into() && attempts == 0 => Then::Next,
            (None, Some(ChannelOp::Open { .. })) if attempts == 0 => Then::Elsewhere,
            _ if is_end && attempts == 0 => Then::End,
            _ if gave_up => Then::Same(attempts),
            _ => panic!("{complaint:?}: {effects:?} after {attempts}"),
        };
        assert_eq!(then, expected, "{complaint:?} {is_gone}");
    }
}

#[test]
fn a_seller_that_lags_behind_a_top_up_is_shown_the_same_payment() {
    let mut world = World::with_channel(100, 95);
    let (id, effects) = world.demand(ask(10));
    assert_eq!(submitted_op(&effects), Some(ChannelOp::TopUp { channel: channel_id(7), added: 45.into() }));
    let effects = world.when(Input::OpFinished(BOB, Ok(Some((channel_id(7), Some(on_chain(145)))))));
    assert_eq!(grant(&effects).unwrap().total, 105.into());
    let state = world.state(95);
    assert_eq!(world.rejected(id, microraiden::ChannelOffer { state, ..ask(10) }), []);
    assert_eq!(grant(&world.pass(Duration::from_secs(5))).unwrap().total, 105.into());
}

#[test]
fn answers_that_lead_nowhere_end_the_purchase() {
    let foreign = Some(SellerRecord { sender: Some(BOB), total: 5.into(), signature: None });
    for (answer, expected) in [
        (ask(10), Refusal::NotAccepted),
        (microraiden::ChannelOffer { receiver: CONTRACT, ..ask(10) }, Refusal::ReceiverChanged(CONTRACT)),
        (microraiden::ChannelOffer { contract: BOB, ..ask(10) }, Refusal::ContractChanged(BOB)),
        (complain(Complaint::InvalidAmount, foreign), Refusal::ForeignState),
        (
            complain(
                Complaint::InvalidAmount,
                Some(SellerRecord { sender: None, total: 20.into(), signature: None }),
            ),
            Refusal::NoProgress,
        ),
        (
            microraiden::ChannelOffer {
                receiver: CONTRACT,
                ..complain(
                    Complaint::InvalidAmount,
                    Some(SellerRecord { sender: None, total: 0.into(), signature: None }),
                )
            },
            Refusal::ReceiverChanged(CONTRACT),
        ),
    ] {
        let mut world = World::with_channel(100, 20);
        let (id, _) = world.granted(10);
        let effects = world.rejected(id, answer);
        assert_eq!(effects, [Effect::Refuse(id, expected)]);
        assert_eq!(world.channel().promised, 30.into());
    }
}

#[test]
fn deadlines_say_what_was_waited_for() {
    let mut world = World::with(policy(), Vec::new());
    let (id, _) = world.demand(ask(10));
    assert_eq!(world.engine.poll_timeout(), Some(world.now + Duration::from_secs(300)));
    let effects = world.pass(Duration::from_secs(300));
    assert_eq!(effects, [Effect::Refuse(id, Refusal::Deadline { waited_for: Awaited::Funding })]);
    assert_eq!(world.engine.poll_timeout(), None);

    let mut engine = Engine::new(Arc::new(policy()));
    let now = Instant::now();
    engine.handle(Input::Unready("the node is down".into()), now);
    let host = "bob.example".into();
    let limit = SpendLimit {
        host,
        max_price: 10.into(),
        receivers: Vec::new(),
        preference: Arc::default(),
        hooks: Arc::default(),
        budgets: Arc::default(),
        origin: Default::default(),
    };
    let offer = Offer::MicroRaiden(ask(10));
    let deadline = now + policy().pay_timeout;
    engine.handle(Input::Demand { purchase: id, offer, limit, deadline }, now);
    engine.handle(Input::Tick, now + Duration::from_secs(30));
    assert_eq!(engine.poll_effect(), Some(Effect::Refuse(id, Refusal::NotReady("the node is down".into()))));
}

#[test]
fn a_correction_that_comes_too_late_leads_to_no_further_payment() {
    for late in [Duration::from_millis(299_999), Duration::from_secs(300)] {
        let mut world = World::with_channel(100, 20);
        let (id, _) = world.granted(10);
        world.now += late;
        let answer = complain(Complaint::InvalidAmount, world.state(0));
        let effects = world.rejected(id, answer);
        let refused = refusal(&effects) == Some(&Refusal::Deadline { waited_for: Awaited::Seller });
        assert_eq!(refused, late == Duration::from_secs(300), "{effects:?}");
    }
}

#[test]
fn what_was_never_sent_is_not_unclear() {
    let mut world = World::with_channel(100, 20);
    let (id, _) = world.granted(10);
    world.when(Input::Withdraw(id));
    assert_eq!(world.channel().in_doubt, None);
    // Within the durable limit no record is needed: another price needs one.
    world.stalls = true;
    let (_, effects) = world.demand(ask(11));
    assert_eq!(grant(&effects), None);
    let effects = world.disk_fails();
    assert_eq!(refusal(&effects), Some(&Refusal::StoreFailed("disk full".into())));
    assert_eq!(world.channel().in_doubt, None);
}

#[test]
fn who_shows_what_was_never_sent_has_raised_by_it() {
    let channels = vec![(channel_id(7), channel(100, 20)), (channel_id(8), channel(38, 30))];
    let mut world = World::with(policy(), channels);
    let (first, total) = world.granted(10);
    world.when(Input::Withdraw(first));
    let (second, again) = world.granted(10);
    assert_eq!((total, again), (30.into(), 30.into()));
    // The other channel would suffice for the lower price, but the seller would have both: the same one pays.
    let state = world.state(20);
    let complaint = Some(Complaint::InvalidAmount);
    let effects = world.rejected(second, microraiden::ChannelOffer { complaint, state, ..ask(5) });
    assert_eq!(grant(&effects).map(|draft| (draft.channel, draft.total)), Some((channel_id(7), 25.into())));
    world.when(Input::Withdraw(second));
    // What was presented once is not raised again by a later presentation.
    let (third, total) = world.granted(10);
    assert_eq!(total, 30.into());
    world.when(Input::Answer(third, Outcome::Accepted));
    assert_eq!(world.granted(10).1, 40.into());
}

#[test]
fn a_journal_that_fails_refuses_all_who_wait_at_once() {
    let mut world = World::with_channel(100, 20);
    world.stalls = true;
    let (first, _) = world.demand(ask(10));
    let (second, _) = world.demand(ask(10));
    let (third, _) = world.demand(ask(10));
    let refused = |id| Effect::Refuse(id, Refusal::StoreFailed("disk full".into()));
    let effects = world.disk_fails();
    assert_eq!(effects, [refused(second), refused(third), refused(first)]);
    world.stalls = false;
    assert_eq!(world.granted(10).1, 30.into(), "the next one tries the disk again");
}

#[test]
fn a_withdrawn_demand_leaves_the_queue_and_lets_the_next_one_pass() {
    let mut world = World::with_channel(100, 0);
    let (first, _) = world.granted(10);
    let (second, effects) = world.demand(ask(10));
    assert_eq!(effects, []);
    let (third, _) = world.demand(ask(10));
    world.when(Input::Withdraw(second));
    let effects = world.when(Input::Answer(first, Outcome::Accepted));
    assert!(matches!(effects.last(), Some(Effect::Grant(id, _)) if *id == third));
}

#[test]
fn channels_that_close_or_vanish_pay_no_more() {
    let closing = OnChain { settle_block: 900, ..on_chain(100) };
    for on_chain in [Some(closing), None] {
        let mut world =
            World::synced(policy(), vec![(channel_id(7), channel(100, 20))], vec![(channel_id(7), on_chain)]);
        assert_ne!(world.channel().phase, Phase::Open);
        assert_eq!(world.channel().promised, 20.into(), "promises are not forgotten");
        assert!(matches!(submitted_op(&world.demand(ask(10)).1), Some(ChannelOp::Open { .. })));
    }
}

#[test]
fn what_the_receiver_took_out_was_promised() {
    let withdrawn = OnChain { withdrawn: 40.into(), ..on_chain(100) };
    let mut world = World::synced(policy(), Vec::new(), vec![(channel_id(7), Some(withdrawn))]);
    // The journal does not have the channel, so Bob is queried first.
    let (id, total) = world.granted(10);
    assert_eq!(total, 40.into());
    let state = world.state(40);
    let effects = world.rejected(id, microraiden::ChannelOffer { state, ..ask(10) });
    assert_eq!(grant(&effects).unwrap().total, 50.into());
}

#[test]
fn stopping_refuses_who_waits_and_lets_who_pays_finish() {
    let mut world = World::with_channel(100, 0);
    let (first, _) = world.granted(10);
    let (second, _) = world.demand(ask(10));
    let effects = world.when(Input::Stop);
    assert_eq!(effects, [Effect::Refuse(second, Refusal::ShuttingDown)]);
    world.when(Input::Answer(first, Outcome::Accepted));
    assert_eq!(recorded(&world.when(Input::Flush)), Some(channel(100, 10)));
}

#[test]
fn who_is_ready_after_the_end_puts_nothing_on_record() {
    let mut world = World::with_channel(100, 20);
    world.engine = Engine::new(Arc::new(policy()));
    world.when(Input::Stop);
    let account = Account { chain_id: 1, contract: CONTRACT, token: TOKEN, payer: world.alice.address() };
    let known = vec![(channel_id(7), channel(100, 20))];
    let synced = vec![(channel_id(7), Some(on_chain(100)))];
    assert_eq!(world.when(ready(account, known, synced)), []);
}

#[test]
fn a_second_crash_leaves_no_less_in_doubt() {
    let crashed = Channel { durable_limit: 30.into(), doubt: Some(70.into()), ..channel(200, 20) };
    assert_eq!(crashed.recover().doubt, Some(70.into()));
    let crashed = Channel { durable_limit: 90.into(), ..crashed };
    assert_eq!(crashed.recover().doubt, Some(90.into()));
}

#[test]
fn what_was_not_written_is_tried_again() {
    let mut world = World::with_channel(100, 20);
    let (id, _) = world.granted(10);
    world.when(Input::Answer(id, Outcome::Accepted));
    world.stalls = true;
    let written = world.when(Input::Idle);
    assert_eq!(recorded(&written), Some(channel(100, 30)));
    assert!(!world.engine.is_dirty());
    world.disk_fails();
    assert_eq!(recorded(&world.when(Input::Idle)), Some(channel(100, 30)));
}

#[test]
fn who_queues_opens_further_channels_one_after_the_other() {
    let deposit = Deposit { channels: 3, ..Deposit::default() };
    let mut world = World::with(Policy { deposit, ..policy() }, Vec::new());
    let ops =
        |effects: &[Effect]| effects.iter().filter(|effect| matches!(effect, Effect::Submit(_))).count();
    let mut opened = 0;
    for _ in 0..5 {
        opened += ops(&world.demand(ask(10)).1);
    }
    assert_eq!(opened, 1, "one at a time");
    for open_block in 1..=3 {
        let effects =
            world.when(Input::OpFinished(BOB, Ok(Some((channel_id(open_block), Some(on_chain(100)))))));
        assert_eq!(grant(&effects).map(|draft| draft.channel), Some(channel_id(open_block)));
        assert_eq!(ops(&effects), usize::from(open_block < 3), "at most three");
    }
    let effects = world.when(Input::Answer(PurchaseId(2), Outcome::Accepted));
    assert_eq!(grant(&effects).map(|draft| draft.channel), Some(channel_id(2)));
}

#[test]
fn a_deposit_that_was_read_before_a_top_up_lowers_nothing() {
    let mut world = World::with_channel(150, 95);
    let holding = |deposit| seen(7, Some(on_chain(deposit)), None);
    world.when(holding(100));
    assert_eq!(world.channel().deposit, 150.into());
    world.when(holding(150));
    world.when(holding(100));
    assert_eq!(world.channel().deposit, 150.into(), "not twice in a row");
    world.when(holding(100));
    assert_eq!(world.channel().deposit, 100.into(), "a reorganisation took the top up back");
}

#[test]
fn an_opening_under_way_is_not_taken_from_the_chain_before_it_is_deep_enough() {
    let mut world = World::with(policy(), Vec::new());
    assert!(submitted_op(&world.demand(ask(10)).1).is_some());
    let seen = seen(7, Some(on_chain(100)), None);
    assert_eq!(world.when(seen.clone()), []);
    let effects = world.when(Input::OpFinished(BOB, Ok(Some((channel_id(7), Some(on_chain(100)))))));
    assert_eq!(grant(&effects).unwrap().total, 10.into());
    assert_eq!(world.when(seen), []);
}

#[test]
fn a_held_channel_pays_nobody_until_it_is_released() {
    let deposit = Deposit { max_per_channel: 10.into(), ..Deposit::default() };
    let mut world = World::with(Policy { deposit, ..policy() }, vec![(channel_id(7), channel(100, 20))]);
    world.when(Input::Lock(channel_id(7)));
    let (_, effects) = world.demand(ask(10));
    assert_eq!(submitted_op(&effects), Some(ChannelOp::Open { receiver: BOB, deposit: 10.into() }));
    let effects = world.when(Input::Unlock(channel_id(7)));
    assert_eq!(grant(&effects).map(|draft| draft.channel), Some(channel_id(7)));
}

#[test]
fn a_settled_channel_is_gone_and_its_promises_stay() {
    let mut world = World::with_channel(100, 20);
    let settle = ChannelOp::Settle { channel: channel_id(7) };
    assert_eq!(world.engine.may_start(&settle), Ok(()));
    assert_eq!(world.when(Input::ChannelOp(settle)), [Effect::Submit(settle)]);
    assert_eq!(world.engine.may_start(&settle), Err(OpRefused::Busy(BOB)));
    world.when(Input::OpFinished(BOB, Ok(Some((channel_id(7), None)))));
    assert_eq!((world.channel().phase, world.channel().promised), (Phase::Gone, 20.into()));
    assert_eq!(world.engine.may_start(&settle), Ok(()));
}

#[test]
fn a_channel_whose_end_may_still_take_effect_pays_nobody() {
    let mut world = World::with_channel(100, 20);
    let close = ChannelOp::CloseAlone { channel: channel_id(7), total: 20.into() };
    let intent = Intent { op: close, moves: true, nonce: 0, hash: [9; 32], raw: vec![1], host: None };
    world.when(Input::ChannelOp(close));
    let (early, effects) = world.demand(ask(10));
    assert_eq!(grant(&effects), None, "before its transaction is known, too");
    world.when(Input::Withdraw(early));
    world.when(Input::Intent(intent.clone()));
    let failure = OpFailure { op: close, reason: "node is gone".into(), is_final: false, balance: None };
    world.when(Input::OpFinished(BOB, Err(failure)));
    assert_eq!(world.engine.may_start(&close), Err(OpRefused::Busy(BOB)));
    // The next purchase has it resolved first, after a pause.
    world.pass(Duration::from_secs(31));
    let (_, effects) = world.demand(ask(10));
    assert_eq!(effects, [Effect::Resume(BOB, vec![intent])]);
    assert_eq!(world.when(Input::Resume(BOB)), [], "once is enough");
    // It never took effect: the channel pays again.
    let effects = world.when(Input::OpFinished(BOB, Ok(None)));
    assert_eq!(grant(&effects).unwrap().channel, channel_id(7));
}

#[test]
fn a_channel_is_idle_since_its_last_payment_came_back_or_since_the_start() {
    let channels = vec![(channel_id(7), channel(100, 20)), (channel_id(8), channel(100, 10))];
    let known = channels.iter().map(|(id, _)| (*id, Some(on_chain(100)))).collect();
    let mut world = World::synced(policy(), channels, known);
    let minutes = |minutes: u64| Duration::from_secs(minutes * 60);
    let idle_channels = |world: &World| world.engine.idle_channels(world.now, minutes(10));

    world.pass(minutes(9));
    assert_eq!(idle_channels(&world), []);
    // The one with less left pays.
    let (paid, total) = world.granted(10);
    assert_eq!(total, 30.into());
    world.pass(minutes(1));
    assert_eq!(idle_channels(&world), [channel_id(8)], "the one that is lent stays");
    world.when(Input::Answer(paid, Outcome::Accepted));
    assert_eq!(idle_channels(&world), [channel_id(8)]);
    world.pass(minutes(9));
    assert_eq!(idle_channels(&world), [channel_id(8)], "it was used nine minutes ago");
    world.pass(minutes(1));
    assert_eq!(idle_channels(&world), [channel_id(7)], "both are idle: the one with most left is kept");
}

/// What the contract's token is shows only once the chain is read; a price in it is checked then.
#[test]
fn a_limit_with_a_symbol_is_checked_once_the_token_is_known() {
    let alice = Signer::new(&[0xa0; 32]).unwrap();
    let hooks = Arc::new(Hooks::default());
    for (chain_id, price, is_paid) in [(1, 100, true), (1, 101, false), (2, 1, false)] {
        let mut engine = Engine::new(Arc::new(policy()));
        let now = Instant::now();
        let known = KnownAsset::new("TKN", "eip155:1", TOKEN, 2, None);
        let max_price = PriceLimit::Tokens([(100.into(), known)].into());
        let (receivers, hooks) = (Vec::new(), Arc::clone(&hooks));
        let limit = SpendLimit {
            host: "bob.example".into(),
            max_price,
            receivers,
            preference: Arc::default(),
            hooks,
            budgets: Arc::default(),
            origin: Default::default(),
        };
        let (purchase, offer, deadline) =
            (PurchaseId(1), Offer::MicroRaiden(ask(price)), now + policy().pay_timeout);
        engine.handle(Input::Demand { purchase, offer, limit, deadline }, now);
        assert_eq!(engine.poll_effect(), None, "it is not known yet whether the token is allowed");
        let account = Account { chain_id, contract: CONTRACT, token: TOKEN, payer: alice.address() };
        engine.handle(ready(account, Vec::new(), Vec::new()), now);
        let effects: Vec<Effect> = std::iter::from_fn(|| engine.poll_effect()).collect();
        assert_eq!(submitted_op(&effects).is_some(), is_paid, "{chain_id} {price}: {effects:?}");
        let refused = refusal(&effects);
        let is_refused = matches!(refused, Some(Refusal::TooExpensive { .. } | Refusal::ForeignAsset { .. }));
        assert_eq!(is_refused, !is_paid, "{chain_id} {price}: {effects:?}");
    }
}

/// A request that asks for a payment late, or too late, is told that its time passed before.
#[test]
fn a_late_demand_is_told_where_its_time_went() {
    let mut world = World::with_channel(100, 0);
    world.granted(10);
    let late = Refusal::Deadline { waited_for: Awaited::Request };
    for left in [Duration::from_secs(10), Duration::ZERO] {
        world.next += 1;
        let purchase = PurchaseId(world.next);
        let (host, receivers, hooks) = ("bob.example".into(), Vec::new(), Arc::clone(&world.hooks));
        let limit = SpendLimit {
            host,
            max_price: 100.into(),
            receivers,
            preference: Arc::default(),
            hooks,
            budgets: Arc::default(),
            origin: Default::default(),
        };
        let (offer, deadline) = (Offer::MicroRaiden(ask(10)), world.now + left);
        let mut effects = world.when(Input::Demand { purchase, offer, limit, deadline });
        effects.extend(world.pass(left));
        assert_eq!(effects, [Effect::Refuse(purchase, late.clone())], "{left:?}");
    }
}
