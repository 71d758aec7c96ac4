//! Checks the money rules against random events: demands, honest and dishonest sellers, lost responses, crashes,
//! failing chains and disks. The model tracks what was really signed, sent, written and mined, and judges the engine by
//! it.

mod authorizations;
mod budgets;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use ethers_core::types::U256;
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

use self::authorizations::{
    DiskAuthorizations, MOST_OPEN, ModelAuthorizations, RETRY_WINDOW, VALIDITY, extra_steps,
};
use self::budgets::{ModelBudgets, budget_limits};
use crate::chain::signer::Signer;
use crate::protocol::budget::{BudgetKey, BudgetUnit, Window};
use crate::protocol::channel::ChannelDraft;
use crate::protocol::engine::*;
use crate::protocol::policy::Complaint;
use crate::protocol::policy::{
    Adopt, AuthorizationLimits, Decision, Deposit, DepositSize, Hooks, Missing, Requested, Retry,
};
use crate::protocol::schemes::microraiden;
use crate::protocol::schemes::microraiden::{SellerRecord, proof};

const SELLERS: [Address; 2] = [Address([0xb0; 20]), Address([0xb1; 20])];
const CONTRACT: Address = Address([0xcc; 20]);
const TOKEN: Address = Address([0x70; 20]);
const MAX_PRICE: u64 = 100;
const CAP: u64 = 900;
/// What the channels to one seller, and all channels, may hold if deposits are scarce.
const RECEIVER_CAP: u64 = 120;
const TOTAL_CAP: u64 = 180;

/// The next event. Indices are taken modulo the number of candidates.
#[derive(Clone, Debug)]
enum ModelStep {
    Demand {
        host: usize,
        shares: bool,
        price: u64,
    },
    /// A granted payment ends.
    Answer(usize, How),
    Withdraw(usize),
    /// An approver decides about a purchase.
    Decides(usize, Approval),
    /// A chain job records its transaction, or ends.
    Intend(usize),
    JobEnds(usize, Job),
    /// This many of the oldest writes end together: they are durable, or have failed.
    Written {
        count: usize,
        good: bool,
    },
    /// This many of the oldest writes become durable, without the engine noticing yet.
    Reaches(usize),
    /// Writes end late, or at once again.
    Slow(bool),
    Pass {
        seconds: u64,
    },
    Idle,
    /// Callers get answers at once, but disk and chain effects are left pending, or are processed again.
    Lies(bool),
    /// A reorganisation moves the opening of a channel into another block, where it starts over.
    Reorganised(usize),
    /// A seller closes and settles a channel at a total that it holds, or that is in flight to it.
    Settled {
        which: usize,
        total: usize,
        seen: Seen,
    },
    /// The node does not show a channel, for a moment.
    Blinks(usize),
    /// A reading of every channel.
    Looks,
    /// The next write that ends at once fails.
    DiskFails,
    /// Everything in memory is lost. `written` is how many of the pending writes are on disk, `late` what of the rest
    /// still happened, `sent` whether granted payments were sent.
    Crash {
        written: usize,
        late: bool,
        sent: bool,
    },
    /// The payer's balance, if it was queried; `changed` if it differs from before.
    Weighed {
        changed: bool,
    },
    /// The user requests a sync.
    Syncs,
    Restart,
}

/// An approver's answer.
#[derive(Clone, Copy, Debug)]
enum Approval {
    Yes,
    No,
    Reopen,
    /// There is no approver.
    Absent,
}

/// What a reading shows of a settlement.
#[derive(Clone, Copy, Debug)]
enum Seen {
    Nothing,
    /// The events were read before it, the channel after it.
    Half,
    All,
}

#[derive(Clone, Debug)]
enum How {
    Honest,
    LostBefore,
    LostAfter,
    /// A response that seems to charge nothing.
    Accepted,
    Complains(Complaint),
    /// It has the channel settled, at this payment or another one, and claims that it does not exist.
    Robs {
        total: usize,
        seen: Seen,
    },
    /// A state of the seller's choice, and a price.
    Claims {
        claim: Claim,
        complains: bool,
        price: u64,
    },
}

#[derive(Clone, Debug)]
enum Claim {
    Nothing,
    /// A total that was really sent.
    Sent(usize),
    /// A total above everything signed, with another key's signature.
    Forged,
}

#[derive(Clone, Debug)]
enum Job {
    Done,
    /// The money arrived, but the node does not show it.
    Unseen,
    Failed,
    /// It is unknown whether the money moved.
    InDoubt {
        moved: bool,
    },
}

fn steps() -> impl Strategy<Value = Vec<ModelStep>> {
    let index = 0..8_usize;
    let claim = prop_oneof![
        2 => Just(Claim::Nothing),
        4 => index.clone().prop_map(Claim::Sent),
        1 => Just(Claim::Forged),
    ];
    let complaint = prop_oneof![
        Just(Complaint::InsufficientConfirmations),
        Just(Complaint::NonexistingChannel),
        Just(Complaint::InvalidBalanceProof),
        Just(Complaint::InvalidAmount),
    ];
    let price = prop_oneof![3 => Just(10), 2 => 1..=MAX_PRICE, 1 => Just(0), 1 => Just(MAX_PRICE + 1)];
    let seen = prop_oneof![Just(Seen::Nothing), Just(Seen::Half), Just(Seen::All)];
    let how = prop_oneof![
        8 => Just(How::Honest),
        1 => Just(How::LostBefore),
        1 => Just(How::LostAfter),
        1 => Just(How::Accepted),
        2 => complaint.prop_map(How::Complains),
        2 => (any::<usize>(), seen.clone()).prop_map(|(total, seen)| How::Robs { total, seen }),
        5 => (claim, any::<bool>(), price.clone())
            .prop_map(|(claim, complains, price)| How::Claims { claim, complains, price }),
    ];
    let job = prop_oneof![
        4 => Just(Job::Done),
        1 => Just(Job::Unseen),
        1 => Just(Job::Failed),
        1 => any::<bool>().prop_map(|moved| Job::InDoubt { moved }),
    ];
    let answers = prop_oneof![
        6 => Just(Approval::Yes),
        1 => Just(Approval::No),
        1 => Just(Approval::Reopen),
        1 => Just(Approval::Absent),
    ];
    let step = prop_oneof![
        8 => (0..4_usize, prop::bool::weighted(0.1), price)
            .prop_map(|(host, shares, price)| ModelStep::Demand { host, shares, price }),
        14 => (index.clone(), how).prop_map(|(which, how)| ModelStep::Answer(which, how)),
        2 => index.clone().prop_map(ModelStep::Withdraw),
        12 => (index.clone(), answers).prop_map(|(which, answers)| ModelStep::Decides(which, answers)),
        4 => index.clone().prop_map(ModelStep::Intend),
        6 => (index, job).prop_map(|(which, job)| ModelStep::JobEnds(which, job)),
        6 => (1..4_usize, prop::bool::weighted(0.8))
            .prop_map(|(count, good)| ModelStep::Written { count, good }),
        1 => (1..4_usize).prop_map(ModelStep::Reaches),
        2 => prop::bool::weighted(0.7).prop_map(ModelStep::Slow),
        3 => prop_oneof![Just(5), Just(31), Just(301)].prop_map(|seconds| ModelStep::Pass { seconds }),
        1 => Just(ModelStep::Idle),
        2 => any::<bool>().prop_map(ModelStep::Lies),
        1 => any::<usize>().prop_map(ModelStep::Reorganised),
        3 => (any::<usize>(), any::<usize>(), seen)
            .prop_map(|(which, total, seen)| ModelStep::Settled { which, total, seen }),
        1 => any::<usize>().prop_map(ModelStep::Blinks),
        3 => Just(ModelStep::Looks),
        1 => Just(ModelStep::DiskFails),
        1 => any::<(usize, bool, bool)>()
            .prop_map(|(written, late, sent)| ModelStep::Crash { written, late, sent }),
        1 => any::<bool>().prop_map(|changed| ModelStep::Weighed { changed }),
        1 => Just(ModelStep::Syncs),
        1 => Just(ModelStep::Restart),
    ];
    prop::collection::vec(step, 1..80)
}

/// `MODEL_COURSES` sets the number of courses. The seeds of past failures run first.
fn config() -> ProptestConfig {
    let cases = std::env::var("MODEL_COURSES").map_or(15_000, |courses| courses.parse().unwrap());
    let seeds = FileFailurePersistence::Direct("tests/data/model.seeds");
    ProptestConfig { cases, failure_persistence: Some(Box::new(seeds)), ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn no_course_of_events_breaks_the_money_rules(
        ahead in prop_oneof![0..4_u64, Just(256)],
        asks in prop::bool::weighted(0.2),
        steps in steps(),
        // Last, so that the recorded seeds lead to the same courses.
        are_deposits_scarce in prop::bool::weighted(0.3),
        limits in budget_limits(),
        // How much longer each pause is.
        pace in prop_oneof![2 => Just(1), 1 => Just(13)],
        mut extras in extra_steps(),
    ) {
        let mut model = Model::new(ahead, asks, are_deposits_scarce);
        (model.budgets, model.pace) = (ModelBudgets::new(limits, &model.account), pace);
        extras.sort_by_key(|(place, _)| *place);
        let mut extras = extras.into_iter().peekable();
        for (place, step) in steps.into_iter().enumerate() {
            model.step(step);
            while let Some((_, extra)) = extras.next_if(|(wanted, _)| *wanted <= place) {
                model.extra_step(extra);
            }
        }
        extras.for_each(|(_, extra)| model.extra_step(extra));
        model.end();
    }
}

/// Two payments in the place of one that was counted, and lost in a crash before it was sent.
#[test]
fn a_number_of_payments_is_kept_when_a_smaller_one_follows_a_crash() {
    let steps = [
        ModelStep::Demand { host: 2, shares: false, price: 20 },
        ModelStep::Intend(0),
        ModelStep::JobEnds(0, Job::Done),
        ModelStep::Crash { written: 0, late: false, sent: false },
        ModelStep::Demand { host: 2, shares: false, price: 10 },
        ModelStep::Answer(0, How::Honest),
        ModelStep::Answer(0, How::Honest),
        ModelStep::Demand { host: 2, shares: false, price: 10 },
    ];
    let limits = Some(([None, None, None, None, None, Some(1)], [None; 6], false));
    let mut model = Model::new(0, false, false);
    (model.budgets, model.pace) = (ModelBudgets::new(limits, &model.account), 1);
    steps.into_iter().for_each(|step| model.step(step));
    model.end();
}

/// The real state: the chain, the disk, the sellers, the clients. And the engine under test.
struct Model {
    engine: Engine,
    policy: Arc<Policy>,
    now: Instant,
    began: Instant,
    alice: Signer,
    account: Account,
    next: u64,
    clients: BTreeMap<PurchaseId, Client>,
    sellers: BTreeMap<ChannelId, Seller>,
    chain: BTreeMap<ChannelId, OnChain>,
    /// What the seller got from each settled channel.
    settled: BTreeMap<ChannelId, u64>,
    /// Channels that were missing at the last reading, without a settlement.
    missing: BTreeSet<ChannelId>,
    jobs: Vec<(ChannelOp, Option<Intent>, bool)>,
    /// Whether the money of a transaction moved, once that is decided.
    moved: BTreeMap<[u8; 32], Option<(ChannelId, OnChain)>>,
    disk: Disk,
    /// The pending writes in order, and whether each is on disk without the engine having noticed.
    writes: VecDeque<(Seq, Vec<Record>, bool)>,
    is_slow: bool,
    /// Transactions that may be sent.
    sendable: BTreeSet<[u8; 32]>,
    disk_fails: bool,
    /// Only answers are taken from the engine.
    lies: bool,
    /// The disk has failed in this run: what was not written then need not be written at the end.
    disk_failed: bool,
    /// The engine has queried the payer's balance.
    is_querying_balance: bool,
    /// The payer's balance.
    tokens: u64,
    /// The numbers of deposits and of client requests.
    ops: (usize, usize),
    /// The sum of one allowed price for each client request that was ever granted a payment.
    allowed: u64,
    /// Whether an opening was undone in this run, and is in another block now.
    was_reorganised: bool,
    /// Whether one was undone in an earlier run: the journal does not know that it may be mined again.
    was_reorganised_before: bool,
    budgets: ModelBudgets,
    /// How many times longer each pause is.
    pace: u64,
    /// Requests that are paid with an authorization.
    one_shots: BTreeMap<PurchaseId, OneShotRequest>,
    authorizations: ModelAuthorizations,
    /// Those of them that an approver is asked about.
    shot_questions: Vec<PurchaseId>,
}

#[derive(Default)]
struct Disk {
    authorizations: DiskAuthorizations,
    is_frozen: bool,
    budgets: BTreeMap<(BudgetKey, Window, u64), BudgetRow>,
    holds: BTreeMap<ChannelId, Hold>,
    channels: BTreeMap<ChannelId, Channel>,
    hosts: BTreeMap<ChannelId, HostName>,
    intents: Vec<Intent>,
    deposits: Vec<(Address, HostName, Instant)>,
}

/// One client request.
struct Client {
    host: HostName,
    shares: bool,
    offer: microraiden::ChannelOffer,
    granted: Option<ChannelDraft>,
    /// The price that it is asked about, and whether that is the question.
    question: Option<(u64, bool)>,
    /// The latest price that its seller asked for.
    asked: u64,
    /// The highest price that an approver has approved.
    approved: Option<u64>,
    /// The highest price that the rule allowed.
    highest: u64,
    /// By how much its payments raised what the seller was presented, on each channel whose opening was not undone.
    raised: BTreeMap<ChannelId, Vec<(u64, u64)>>,
    ended: bool,
}

/// A client request that is paid with an authorization.
struct OneShotRequest {
    price: u64,
    is_granted: bool,
    ended: bool,
}

/// One seller's state of a channel.
#[derive(Default)]
struct Seller {
    registered: u64,
    sent: BTreeSet<u64>,
    /// The highest total ever signed.
    signed: u64,
    /// A crash left in doubt what was signed, and the seller has ended that with one of our own signatures: higher
    /// totals that it also holds are no longer known.
    left_in_doubt: bool,
}

fn units(amount: Amount) -> u64 {
    U256::from(amount).as_u64()
}

impl Model {
    /// `asks` if prices need approval; `are_deposits_scarce` if limits keep channels from what they would hold.
    fn new(sign_ahead: u64, asks: bool, are_deposits_scarce: bool) -> Self {
        let (every, times, within) = (Duration::from_secs(5), 3, Duration::from_secs(60));
        let retry = Retry::Retry { every, times, within };
        let requested = if asks { Requested::Ask } else { Requested::Pay };
        let hooks = Arc::new(Hooks {
            payment_requested: requested.into(),
            insufficient_confirmations: retry.into(),
            nonexisting_channel: Missing::Reopen { every, times, within }.into(),
            invalid_balance_proof: retry.into(),
            invalid_amount: Adopt::Adopt { times: 3 }.into(),
            ..Hooks::default()
        });
        let policy = Arc::new(Policy {
            version: 0,
            clients: Arc::default(),
            distinguishes_clients: false,
            budgets: Vec::new(),
            rules: Vec::new(),
            deposit: Deposit {
                initial: DepositSize::Times(3),
                top_up: DepositSize::Times(2),
                channels: 2,
                max_per_channel: CAP.into(),
                max_per_receiver: are_deposits_scarce.then_some(RECEIVER_CAP.into()),
                max_total: are_deposits_scarce.then_some(TOTAL_CAP.into()),
                ..Deposit::default()
            },
            hooks: Arc::clone(&hooks),
            max_attempts: 8,
            sign_ahead,
            ready_timeout: Duration::from_secs(30),
            pay_timeout: Duration::from_secs(300),
            authorizations: AuthorizationLimits {
                retry_window: Duration::from_secs(RETRY_WINDOW),
                unclear_repeats: 2,
                open: MOST_OPEN,
                ahead_validity: Duration::from_secs(VALIDITY),
                ..AuthorizationLimits::default()
            },
        });
        let alice = Signer::new(&[0xa0; 32]).unwrap();
        let account = Account { chain_id: 1, contract: CONTRACT, token: TOKEN, payer: alice.address() };
        let now = Instant::now();
        let mut model = Self {
            engine: Engine::new(Arc::clone(&policy)),
            policy,
            now,
            began: now,
            alice,
            account,
            next: 0,
            clients: BTreeMap::new(),
            sellers: BTreeMap::new(),
            chain: BTreeMap::new(),
            settled: BTreeMap::new(),
            missing: BTreeSet::new(),
            jobs: Vec::new(),
            moved: BTreeMap::new(),
            disk: Disk::default(),
            writes: VecDeque::new(),
            is_slow: false,
            sendable: BTreeSet::new(),
            disk_fails: false,
            lies: false,
            disk_failed: false,
            is_querying_balance: false,
            tokens: 0,
            ops: (0, 0),
            allowed: 0,
            was_reorganised: false,
            was_reorganised_before: false,
            budgets: ModelBudgets::default(),
            pace: 1,
            one_shots: BTreeMap::new(),
            authorizations: ModelAuthorizations::default(),
            shot_questions: Vec::new(),
        };
        model.start();
        model
    }

    fn step(&mut self, step: ModelStep) {
        let promised = self.promises();
        match step {
            ModelStep::Demand { host, shares, price } => self.demand(host, shares, price),
            ModelStep::Answer(which, how) => self.answer(which, how),
            ModelStep::Withdraw(which) => {
                let open: Vec<_> = self.clients.iter().filter(|(_, c)| !c.ended).map(|(id, _)| *id).collect();
                if let Some(id) = pick(&open, which) {
                    let was_sent = self.clients[&id].granted.is_some() && self.budgets.is_on_its_way(id);
                    self.budgets.unsent(id);
                    self.ended(id);
                    self.handle(if was_sent {
                        Input::Answer(id, Outcome::InDoubt)
                    } else {
                        Input::Withdraw(id)
                    });
                }
                self.withdraw_one_shot(which);
            }
            ModelStep::Decides(which, answers) => self.decides(which, answers),
            ModelStep::Intend(which) => self.intend(which),
            ModelStep::JobEnds(which, job) => self.job_ends(which, job),
            ModelStep::Written { count, good } => self.writes_end(count, good),
            ModelStep::Reaches(count) => self.reach_disk(count),
            ModelStep::Slow(is_slow) => {
                self.is_slow = is_slow;
                self.do_all(self.lies);
            }
            ModelStep::Pass { seconds } => {
                self.now += Duration::from_secs(seconds * self.pace);
                self.tell_time();
                self.handle(Input::Tick);
                let late = self.engine.poll_timeout().is_some_and(|due| due <= self.now);
                assert!(!late, "something is due and did not happen");
            }
            ModelStep::Idle => self.handle(Input::Idle),
            ModelStep::Lies(lies) => {
                self.lies = lies;
                self.do_all(lies);
            }
            ModelStep::Reorganised(which) => self.reorganised(which),
            ModelStep::Settled { which, total, seen } => self.settled(which, total, seen),
            ModelStep::Blinks(which) => {
                let there: Vec<ChannelId> = self.chain.keys().copied().collect();
                // Twice in a row would not be momentary.
                if let Some(id) = pick(&there, which).filter(|id| self.missing.insert(*id)) {
                    self.look(vec![(id, None)], false);
                }
            }
            ModelStep::Looks => self.look_at_all(false),
            ModelStep::Syncs => self.look_at_all(true),
            ModelStep::Weighed { changed } => {
                self.tokens += u64::from(changed);
                self.balance_known();
            }
            ModelStep::DiskFails => (self.disk_fails, self.disk_failed) = (true, true),
            ModelStep::Crash { written, late, sent } => return self.crash(written, late, sent),
            ModelStep::Restart => return self.restart(),
        }
        for (id, before) in promised {
            assert!(self.engine.view().channel(id).promised >= before, "the promise of {id} fell");
        }
        self.check();
    }

    fn promises(&self) -> Vec<(ChannelId, Amount)> {
        self.engine.view().channels().map(|(id, channel)| (id, channel.promised)).collect()
    }

    fn check(&self) {
        for (id, channel) in self.engine.view().channels() {
            assert!(channel.acknowledged <= channel.presented, "{id}: {channel:?}");
            assert!(channel.presented <= channel.promised, "{id}: {channel:?}");
            let Some(seller) = self.sellers.get(&id) else { continue };
            if !seller.left_in_doubt {
                assert!(Amount::from(seller.signed) <= channel.exposure(), "{id}: a total is forgotten");
            }
            // What was presented on a channel whose opening was undone is dropped.
            if !self.chain.contains_key(&id) {
                continue;
            }
            let shown = seller.sent.last().copied().unwrap_or_default();
            assert!(channel.presented <= shown.into(), "{id} was not shown {}", channel.presented);
        }
        assert!(self.ops.0 <= self.ops.1, "more than one transaction for a request");
        for (id, draft) in self.engine.view().drafts() {
            assert_eq!(self.engine.view().lease(draft.channel), Some(id), "a payment without its channel");
        }
        assert!(self.engine.view().leases().all(|(_, id)| self.engine.view().knows(id)));
        let there = self.sellers.iter().filter(|(id, _)| self.chain.contains_key(id));
        let redeemable: u64 = there.filter_map(|(_, seller)| seller.sent.last()).sum();
        let redeemed: u64 = self.settled.values().sum();
        assert!(redeemed + redeemable <= self.allowed, "{redeemed} + {redeemable} > {}", self.allowed);
        self.check_budgets();
    }

    fn demand(&mut self, host: usize, shares: bool, price: u64) {
        // Two hosts name each receiver.
        let receiver = SELLERS[host % SELLERS.len()];
        let number = host;
        let host: HostName = format!("host{host}").into();
        if self.budgets.has_one_shots && number == 3 {
            return self.demand_one_shot(host, price);
        }
        self.ops.1 += 1;
        self.next += 1;
        let purchase = PurchaseId(self.next);
        let offer = microraiden::ChannelOffer {
            price: price.into(),
            contract: CONTRACT,
            receiver,
            token: Some(TOKEN),
            gateway: None,
            complaint: None,
            state: None,
        };
        let highest = if price <= MAX_PRICE { price } else { 0 };
        let client = Client {
            host: Arc::clone(&host),
            shares,
            offer: offer.clone(),
            granted: None,
            question: None,
            asked: price,
            approved: None,
            highest,
            raised: BTreeMap::new(),
            ended: false,
        };
        self.clients.insert(purchase, client);
        self.allowed += highest;
        let limit = SpendLimit {
            host,
            max_price: MAX_PRICE.into(),
            receivers: if shares { vec![receiver] } else { Vec::new() },
            preference: Arc::default(),
            hooks: Arc::clone(&self.policy.hooks),
            budgets: self.budgets.of(number),
            origin: Default::default(),
        };
        self.budgets.demands.insert(purchase, limit.budgets.clone());
        let offer = Offer::MicroRaiden(offer);
        let deadline = self.now + self.policy.pay_timeout;
        self.handle(Input::Demand { purchase, offer, limit, deadline });
    }

    fn answer(&mut self, which: usize, how: How) {
        self.answer_one_shot(which, &how);
        let granted: Vec<_> = self.clients.iter().filter_map(|(id, c)| Some((*id, c.granted?))).collect();
        let Some((id, draft)) = pick(&granted, which) else { return };
        let (total, price) = (units(draft.total), units(draft.price));
        let doubt = self.engine.view().channel(draft.channel).has_doubt();
        self.shown(id, draft);
        if let How::Robs { total: which, seen } = how {
            self.settle(draft.channel, which, seen);
        }
        self.budgets.on_their_way.remove(&id);
        let seller = self.sellers.entry(draft.channel).or_default();
        let is_right = total == seller.registered + price;
        let outcome = match how {
            How::LostBefore => None,
            How::LostAfter => {
                if is_right {
                    seller.registered = total;
                }
                None
            }
            How::Honest if is_right => {
                seller.registered = total;
                Some(Ok(()))
            }
            How::Honest => {
                seller.left_in_doubt |= doubt && seller.registered > 0;
                let (held, complains) = (seller.registered, total != seller.registered);
                Some(Err((Some(held), complains.then_some(Complaint::InvalidAmount), price, false)))
            }
            How::Accepted => Some(Ok(())),
            How::Robs { .. } => Some(Err((None, Some(Complaint::NonexistingChannel), price, false))),
            How::Complains(complaint) => Some(Err((None, Some(complaint), price, false))),
            How::Claims { claim, complains, price } => {
                let sent: Vec<u64> = seller.sent.iter().copied().collect();
                let (held, forged) = match claim {
                    Claim::Nothing => (0, false),
                    Claim::Sent(which) => (pick(&sent, which).unwrap_or_default(), false),
                    Claim::Forged => (seller.signed + 1, true),
                };
                // The proven total may be an old one.
                seller.left_in_doubt |= doubt && held > 0 && !forged;
                Some(Err((Some(held), complains.then_some(Complaint::InvalidAmount), price, forged)))
            }
        };
        self.clients.get_mut(&id).unwrap().granted = None;
        let outcome = match outcome {
            None => Outcome::InDoubt,
            Some(Ok(())) => Outcome::Accepted,
            Some(Err((held, complaint, price, forged))) => {
                let state = held.map(|held| self.state(draft.channel, held, forged));
                let client = self.clients.get_mut(&id).unwrap();
                let offer = microraiden::ChannelOffer {
                    complaint,
                    state,
                    price: price.into(),
                    ..client.offer.clone()
                };
                client.asked = price;
                if price <= MAX_PRICE && price > client.highest {
                    self.allowed += price - client.highest;
                    client.highest = price;
                }
                Outcome::Rejected(Box::new(Offer::MicroRaiden(offer)))
            }
        };
        if !matches!(outcome, Outcome::Rejected(_)) {
            self.ended(id);
        }
        self.handle(Input::Answer(id, outcome));
    }

    fn decides(&mut self, which: usize, answers: Approval) {
        if !self.shot_questions.is_empty() {
            let id = self.shot_questions.remove(which % self.shot_questions.len());
            self.handle(Input::Consulted(id, Some(Decision::Pay)));
        }
        let asked: Vec<_> =
            self.clients.iter().filter_map(|(id, client)| Some((*id, client.question?))).collect();
        let Some((id, (price, is_about_price))) = pick(&asked, which) else { return };
        let client = self.clients.get_mut(&id).unwrap();
        client.question = None;
        let decision = match answers {
            Approval::Yes => Some(Decision::Pay),
            Approval::No => Some(Decision::Abort { reason: "no".into() }),
            Approval::Reopen => Some(Decision::Reopen),
            Approval::Absent => None,
        };
        if is_about_price && matches!(answers, Approval::Yes | Approval::Reopen) {
            client.approved = client.approved.max(Some(price));
        }
        self.handle(Input::Consulted(id, decision));
    }

    /// A payment reaches its seller.
    fn shown(&mut self, id: PurchaseId, draft: ChannelDraft) {
        self.budgets.sent(id);
        let seller = self.sellers.entry(draft.channel).or_default();
        let total = units(draft.total);
        let before = seller.sent.last().copied().unwrap_or_default();
        seller.sent.insert(total);
        // Nothing can be redeemed on a channel whose opening was undone.
        let is_real = self.chain.contains_key(&draft.channel) || self.settled.contains_key(&draft.channel);
        let client = self.clients.get_mut(&id).unwrap();
        if is_real && total > before {
            client.raised.entry(draft.channel).or_default().push((before, total));
        }
        let most = |id| self.settled.get(id).copied().unwrap_or(u64::MAX);
        let raises =
            client.raised.iter().flat_map(|(id, raises)| raises.iter().map(move |raise| (id, raise)));
        let raised: u64 = raises.map(|(id, (from, to))| to.min(&most(id)) - from.min(&most(id))).sum();
        assert!(raised <= client.highest, "{raised} for {}", client.highest);
    }

    fn state(&self, channel: ChannelId, held: u64, forged: bool) -> SellerRecord {
        let digest = proof::balance_digest(channel, held.into(), CONTRACT);
        let stranger = Signer::new(&[0x66; 32]).unwrap();
        let signer = if forged { &stranger } else { &self.alice };
        let signature = (held > 0).then(|| signer.sign(digest).unwrap());
        SellerRecord { sender: Some(self.account.payer), total: held.into(), signature }
    }

    fn ended(&mut self, id: PurchaseId) {
        let client = self.clients.get_mut(&id).unwrap();
        assert!(!std::mem::replace(&mut client.ended, true), "{id:?} ends twice");
        (client.granted, client.question) = (None, None);
    }

    /// Submits an input to the engine and executes its effects, like the actor does.
    fn handle(&mut self, input: Input) {
        // Inputs from the chain, the disk or the clock also process everything pending.
        let is_of_purchase = matches!(
            input,
            Input::Demand { .. } | Input::Answer(..) | Input::Withdraw(_) | Input::Consulted(..)
        );
        self.engine.handle(input, self.now);
        self.do_all(self.lies && is_of_purchase);
    }

    fn do_all(&mut self, only_answers: bool) {
        while let Some((id, reply)) = self.engine.poll_reply() {
            let effect = match reply {
                PurchaseReply::Granted(draft) => Effect::Grant(id, draft),
                PurchaseReply::Refused(refusal) => Effect::Refuse(id, refusal),
                PurchaseReply::Consult(question) => Effect::Consult(id, question),
            };
            self.execute(effect);
        }
        if only_answers {
            return;
        }
        loop {
            while let Some(effect) = self.engine.poll_effect() {
                self.execute(effect);
            }
            if self.is_slow || self.writes.is_empty() {
                return;
            }
            let good = !std::mem::take(&mut self.disk_fails);
            self.write_oldest(self.writes.len(), good);
        }
    }

    fn writes_end(&mut self, count: usize, good: bool) {
        self.disk_failed |= !good;
        self.write_oldest(count, good);
        self.do_all(self.lies);
    }

    /// This many of the oldest writes end in one transaction.
    fn write_oldest(&mut self, count: usize, good: bool) {
        let count = count.min(self.writes.len());
        // What is on disk can no longer fail.
        let good = good || self.writes.iter().take(count).any(|(.., is_on_disk)| *is_on_disk);
        if good {
            self.reach_disk(count);
        }
        let Some((seq, ..)) = self.writes.drain(..count).next_back() else { return };
        let input = if good { Input::Durable(seq) } else { Input::NotRecorded(seq, "disk full".into()) };
        self.engine.handle(input, self.now);
    }

    fn reach_disk(&mut self, count: usize) {
        let mut reached = Vec::new();
        for (_, records, is_on_disk) in self.writes.iter_mut().take(count) {
            if !std::mem::replace(is_on_disk, true) {
                reached.extend(records.iter().cloned());
            }
        }
        reached.iter().for_each(|record| self.write(record));
    }

    fn execute(&mut self, effect: Effect) {
        match effect {
            Effect::Persist(seq, records) => {
                let newest = self.writes.back().map_or(Seq(0), |(seq, ..)| *seq);
                assert!(newest < seq, "writes out of order");
                self.writes.push_back((seq, records, false));
            }
            Effect::Grant(id, draft) if self.is_buyer(id) => self.granted_authorization(id, &draft),
            Effect::Refuse(id, _) if self.is_buyer(id) => self.buyer_ended(id),
            Effect::Consult(id, _) if self.is_buyer(id) => self.shot_questions.push(id),
            Effect::Grant(id, _) if self.one_shots.contains_key(&id) => self.granted_one_shot(id),
            Effect::Refuse(id, _) if self.one_shots.contains_key(&id) => {
                self.one_shots.get_mut(&id).unwrap().ended = true;
            }
            Effect::Consult(id, _) if self.one_shots.contains_key(&id) => self.shot_questions.push(id),
            Effect::Grant(id, draft) => self.granted(id, *draft.on_channel().unwrap()),
            Effect::Refuse(id, _) => self.ended(id),
            Effect::Consult(id, Question { hook, .. }) => {
                assert_eq!(self.engine.due(id), None, "time alone would end a question");
                let client = self.clients.get_mut(&id).unwrap();
                assert!(!client.ended && client.granted.is_none() && client.question.is_none());
                client.question = Some((client.asked, hook == "payment_requested"));
            }
            Effect::Submit(op) => {
                self.ops.0 += 1;
                self.jobs.push((op, None, true));
            }
            Effect::QueryBalance => {
                assert!(!std::mem::replace(&mut self.is_querying_balance, true), "asked twice");
            }
            Effect::Resume(_, intents) => {
                let intent = intents.last().unwrap().clone();
                let is_on_disk = self.disk.intents.iter().any(|known| known.hash == intent.hash);
                assert!(is_on_disk, "sent again without a record");
                self.jobs.push((intent.op, Some(intent), false));
            }
            Effect::Discard(hash, reason) => {
                let job = self
                    .jobs
                    .iter()
                    .position(|(_, intent, _)| intent.as_ref().is_some_and(|intent| intent.hash == hash));
                let (op, ..) = self.jobs.remove(job.unwrap());
                let failure = OpFailure { op, reason, is_final: true, balance: None };
                self.engine.handle(Input::OpFinished(op.receiver(), Err(failure)), self.now);
            }
            Effect::Send(hash) => {
                let is_on_disk = self.disk.intents.iter().any(|intent| intent.hash == hash);
                assert!(is_on_disk, "sent ahead of the record");
                self.sendable.insert(hash);
            }
        }
    }

    fn granted(&mut self, id: PurchaseId, draft: ChannelDraft) {
        assert!(!self.authorizations.is_frozen, "signed while it is frozen");
        let on_disk =
            self.disk.channels.get(&draft.channel).map_or(Amount::ZERO, |channel| channel.durable_limit);
        assert!(on_disk >= draft.total, "signed ahead of the record: {draft:?} {on_disk}");
        // A payment of a channel that is gone may still be presented to a seller that denies it.
        if let Some(OnChain { deposit, .. }) = self.chain.get(&draft.channel) {
            assert!(draft.total <= *deposit, "{draft:?} of {deposit}");
        }
        let host = self.disk.hosts.get(&draft.channel);
        assert_eq!(host, self.engine.view().host(draft.channel), "signed ahead of the record of the host");
        let client = self.clients.get_mut(&id).unwrap();
        assert!(!client.ended && units(draft.price) <= MAX_PRICE, "{draft:?}");
        assert!(client.question.is_none(), "signed before the approver has decided");
        let must_ask = self.policy.hooks.payment_requested.action == Requested::Ask;
        let approved = client.approved.is_some_and(|price| units(draft.price) <= price);
        assert!(!must_ask || approved, "{draft:?} was not approved");
        let owner = self.engine.view().host(draft.channel).unwrap();
        assert!(client.shares || *owner == client.host, "a channel of {owner} pays for {}", client.host);
        let seller = self.sellers.entry(draft.channel).or_default();
        seller.signed = seller.signed.max(units(draft.total));
        client.granted = Some(draft);
        let (total, price) = (units(draft.total), units(draft.price));
        // A total that the seller already holds only queries it.
        if !self.engine.view().channel(draft.channel).is_query(draft.total) {
            self.budgets.signed(id, Some(draft.channel), (total - price, total), self.now);
        }
    }

    fn write(&mut self, record: &Record) {
        match record {
            Record::Hold(id, hold) => {
                self.disk.holds.insert(*id, Hold::clone(hold));
            }
            Record::Budget(row) => {
                let key = (row.key.clone(), row.window, row.start);
                self.disk.budgets.insert(key, BudgetRow::clone(row));
            }
            Record::BudgetEnded(key) => self.disk.budgets.retain(|(other, ..), _| *other != **key),
            Record::Authorization(_)
            | Record::AuthorizationEnded(_)
            | Record::AuthorizationTaken(..)
            | Record::AuthorizationUnneeded(_)
            | Record::AuthorizationUsed(..)
            | Record::AuthorizationServed(_)
            | Record::AuthorizationConfirmed(_)
            | Record::AuthorizationUnused(_) => {
                let now = self.wall();
                self.disk.authorizations.write(record, now);
            }
            Record::Frozen(_) => {}
            Record::Channel(id, channel) => {
                self.disk.channels.insert(*id, *channel);
            }
            Record::Intent(intent) => self.disk.intents.push(intent.clone()),
            Record::IntentsResolved(receiver) => {
                self.disk.intents.retain(|intent| intent.op.receiver() != *receiver);
            }
            Record::Host(id, host) => {
                self.disk.hosts.insert(*id, Arc::clone(host));
            }
            Record::Deposit(receiver, host) => {
                self.disk.deposits.push((*receiver, Arc::clone(host), self.now));
            }
            Record::Cursor(_) | Record::Price(..) | Record::Gateway(..) | Record::Consent(..) => {}
        }
    }

    fn intend(&mut self, which: usize) {
        let count = self.jobs.len();
        let Some((op, intent @ None, true)) = self.jobs.get_mut(which % count.max(1)) else { return };
        self.next += 1;
        let mut hash = [0; 32];
        hash[..8].copy_from_slice(&self.next.to_be_bytes());
        let new = Intent { op: *op, moves: true, nonce: self.next, hash, raw: Vec::new(), host: None };
        *intent = Some(new.clone());
        self.handle(Input::Intent(new));
    }

    fn job_ends(&mut self, which: usize, job: Job) {
        if self.jobs.is_empty() {
            return;
        }
        let place = which % self.jobs.len();
        // It waits for its record.
        if matches!(&self.jobs[place], (_, Some(intent), true) if !self.sendable.contains(&intent.hash)) {
            return;
        }
        let (op, intent, _) = self.jobs.remove(place);
        let receiver = op.receiver();
        let balance = Some(Balance { wei: 1, tokens: self.tokens.into() });
        let failed = |is_final| OpFailure { op, reason: "so it is".into(), is_final, balance };
        let Some(intent) = intent else {
            return self.handle(Input::OpFinished(receiver, Err(failed(true))));
        };
        let known = self.moved.get(&intent.hash).copied();
        let result = match (known, job) {
            (Some(moved), _) => Ok(moved.map(|(id, _)| (id, self.chain.get(&id).copied()))),
            (None, Job::Done) => Ok(self.mine(&intent, true).map(|(id, on_chain)| (id, Some(on_chain)))),
            (None, Job::Unseen) => {
                let before = match op {
                    ChannelOp::TopUp { channel, .. } => self.chain.get(&channel).copied(),
                    _ => None,
                };
                Ok(self.mine(&intent, true).map(|(id, _)| (id, before)))
            }
            (None, Job::Failed) => {
                self.mine(&intent, false);
                Err(failed(true))
            }
            (None, Job::InDoubt { moved }) => {
                self.mine(&intent, moved);
                Err(failed(false))
            }
        };
        self.handle(Input::OpFinished(receiver, result));
    }

    /// What was signed on a channel that is gone cannot be redeemed.
    fn reorganised(&mut self, which: usize) {
        let ids: Vec<ChannelId> = self.chain.keys().copied().collect();
        let Some(old) = pick(&ids, which) else { return };
        let Some(on_chain) = self.chain.remove(&old) else { return };
        self.next += 1;
        let new = ChannelId { open_block: 1_000_000 + self.next as u32, ..old };
        self.chain.insert(new, on_chain);
        self.was_reorganised = true;
        self.sellers.remove(&old);
        for client in self.clients.values_mut() {
            client.raised.remove(&old);
        }
        self.missing.insert(old);
        self.look(vec![(old, None), (new, Some(on_chain))], true);
    }

    /// A seller settles a channel by itself.
    fn settled(&mut self, which: usize, total: usize, seen: Seen) {
        let there: Vec<ChannelId> = self.chain.keys().copied().collect();
        if let Some(id) = pick(&there, which) {
            self.settle(id, total, seen);
        }
    }

    /// What was signed above the total can no longer be redeemed.
    fn settle(&mut self, id: ChannelId, total: usize, seen: Seen) {
        if !self.chain.contains_key(&id) {
            return;
        }
        let on_its_way: Vec<(PurchaseId, ChannelDraft)> =
            self.clients.iter().filter_map(|(id, client)| Some((*id, client.granted?))).collect();
        for (client, draft) in on_its_way.into_iter().filter(|(_, draft)| draft.channel == id) {
            self.shown(client, draft);
            self.budgets.on_their_way.insert(client);
        }
        let seller = self.sellers.entry(id).or_default();
        let sent: Vec<u64> = seller.sent.iter().copied().collect();
        let Some(total) = pick(&sent, total) else { return };
        self.chain.remove(&id);
        self.settled.insert(id, total);
        match seen {
            Seen::Nothing => {}
            Seen::Half if !self.missing.insert(id) => {}
            Seen::Half => self.look(vec![(id, None)], false),
            Seen::All => self.look(vec![(id, None)], true),
        }
    }

    /// Submits the payer's balance, if the engine has queried it.
    fn balance_known(&mut self) {
        if std::mem::take(&mut self.is_querying_balance) {
            self.handle(Input::Balance(Some(Balance { wei: 1, tokens: self.tokens.into() })));
        }
    }

    fn look_at_all(&mut self, by_user: bool) {
        self.missing.clear();
        let known = self.engine.view().channels().map(|(id, _)| (id, self.chain.get(&id).copied())).collect();
        self.show(known, true, by_user);
    }

    /// The chain's state of some channels, with or without their settlements.
    fn look(&mut self, channels: Vec<(ChannelId, Option<OnChain>)>, with_settlements: bool) {
        self.show(channels, with_settlements, false);
    }

    fn show(&mut self, channels: Vec<(ChannelId, Option<OnChain>)>, with_settlements: bool, by_user: bool) {
        let total = |id: &ChannelId| self.settled.get(id).map(|total| (*id, Amount::from(*total)));
        let settled = channels.iter().filter(|_| with_settlements).filter_map(|(id, _)| total(id)).collect();
        self.handle(Input::Chain { channels, settled, cursor: 0, by_user });
    }

    /// Decides the outcome of a transaction.
    fn mine(&mut self, intent: &Intent, moves: bool) -> Option<(ChannelId, OnChain)> {
        let is_there = match intent.op {
            ChannelOp::TopUp { channel, .. } => self.chain.contains_key(&channel),
            _ => true,
        };
        let moved = (moves && is_there).then(|| {
            let (id, added) = match intent.op {
                ChannelOp::Open { receiver, deposit } => {
                    (ChannelId { receiver, open_block: intent.nonce as u32 }, deposit)
                }
                ChannelOp::TopUp { channel, added } => (channel, added),
                ChannelOp::CloseTogether { .. } | ChannelOp::CloseAlone { .. } | ChannelOp::Settle { .. } => {
                    unreachable!("the engine closes nothing by itself")
                }
            };
            let on_chain = self.chain.entry(id).or_insert(OnChain {
                deposit: Amount::ZERO,
                settle_block: 0,
                closing_balance: Amount::ZERO,
                withdrawn: Amount::ZERO,
            });
            on_chain.deposit = on_chain.deposit.saturating_add(added);
            assert!(on_chain.deposit <= CAP.into(), "more than a channel may hold");
            let on_chain = *on_chain;
            let held = |only: Option<Address>| -> u64 {
                let counted = self.chain.iter().filter(|(id, _)| only.is_none_or(|only| only == id.receiver));
                counted.map(|(_, channel)| units(channel.deposit)).sum()
            };
            let Deposit { max_per_receiver, max_total, .. } = self.policy.deposit;
            let fits = |held: u64, limit: Option<Amount>| limit.is_none_or(|limit| held <= units(limit));
            if !self.was_reorganised_before {
                assert!(
                    fits(held(Some(id.receiver)), max_per_receiver),
                    "more than a receiver's channels may hold"
                );
                assert!(fits(held(None), max_total), "more than all channels may hold");
            }
            (id, on_chain)
        });
        self.moved.insert(intent.hash, moved);
        moved
    }

    fn crash(&mut self, written: usize, late: bool, sent: bool) {
        let under_way = self.writes.len();
        self.reach_disk(written % (under_way + 1));
        // Granted payments may have been sent, and registered.
        let granted: Vec<(PurchaseId, ChannelDraft)> =
            self.clients.iter_mut().filter_map(|(id, c)| Some((*id, c.granted.take()?))).collect();
        let shots = self.one_shots.iter().filter(|(_, shot)| shot.is_granted && !shot.ended);
        for id in shots.map(|(id, _)| *id).chain(granted.iter().map(|(id, _)| *id)).collect::<Vec<_>>() {
            if sent { self.budgets.sent(id) } else { self.budgets.unsent(id) }
        }
        self.one_shots.values_mut().for_each(|shot| shot.ended = true);
        self.authorizations_crash(sent);
        for (id, draft) in granted.into_iter().filter(|_| sent) {
            self.shown(id, draft);
            let seller = self.sellers.entry(draft.channel).or_default();
            if late && units(draft.total) == seller.registered + units(draft.price) {
                seller.registered = units(draft.total);
            }
        }
        for (_, intent, is_new) in std::mem::take(&mut self.jobs) {
            let is_sent = |intent: &Intent| !is_new || self.sendable.contains(&intent.hash);
            if let Some(intent) =
                intent.filter(|intent| is_sent(intent) && !self.moved.contains_key(&intent.hash))
            {
                self.mine(&intent, late);
            }
        }
        self.start();
    }

    fn restart(&mut self) {
        (self.disk_fails, self.lies, self.is_slow) = (false, false, false);
        self.do_all(false);
        self.handle(Input::Stop);
        while self.clients.values().any(|client| client.granted.is_some() || client.question.is_some())
            || self.one_shots.values().any(|shot| shot.is_granted && !shot.ended)
            || self.has_buyers()
            || !self.shot_questions.is_empty()
        {
            self.buyers_end();
            self.answer(0, How::LostBefore);
            self.decides(0, Approval::Yes);
        }
        assert!(!self.engine.has_leases(), "a channel is not given back");
        self.handle(Input::Flush);
        let (before, disk_failed) = (self.doubts(), self.disk_failed);
        let known: BTreeSet<ChannelId> = self.engine.view().channels().map(|(id, _)| id).collect();
        assert!(!self.engine.is_writing() && !self.engine.is_dirty(), "something is not written");
        self.crash(0, true, true);
        // A channel on the chain that the journal never had is in doubt anyway.
        let after: Vec<ChannelId> = self.doubts().into_iter().filter(|id| known.contains(id)).collect();
        assert!(disk_failed || before == after, "an orderly end leaves no doubt");
    }

    fn doubts(&self) -> Vec<ChannelId> {
        self.engine.view().channels().filter(|(_, channel)| channel.has_doubt()).map(|(id, _)| id).collect()
    }

    /// A new run, from the disk and the chain.
    fn start(&mut self) {
        for client in self.clients.values_mut() {
            (client.ended, client.question) = (true, None);
        }
        self.writes.clear();
        self.shot_questions.clear();
        self.was_reorganised_before |= std::mem::take(&mut self.was_reorganised);
        self.is_slow = false;
        self.sendable.clear();
        self.missing.clear();
        (self.disk_fails, self.disk_failed, self.lies, self.is_querying_balance) =
            (false, false, false, false);
        let rows = self.disk.budgets.values().cloned().collect();
        let mut holds: Vec<Hold> = self.disk.holds.values().cloned().collect();
        let (budgets, changed) = Budgets::restore(rows, &mut holds, self.minute());
        self.disk.holds.values_mut().zip(holds).for_each(|(stored, hold)| *stored = hold);
        changed.into_iter().for_each(|row| self.write(&Record::Budget(Box::new(row))));
        let open = self.authorizations_of_disk();
        self.engine = Engine::new(Arc::clone(&self.policy))
            .with_budgets(budgets)
            .with_open_authorizations(&open, self.authorization_time())
            .frozen(self.disk.is_frozen);
        self.tell_time();
        self.handle(Input::Unlocked { payer: Address::default(), has_chain: true });
        self.handle(Input::Holds(self.disk.holds.iter().map(|(id, hold)| (*id, hold.clone())).collect()));
        let known = self.disk.channels.keys().chain(self.chain.keys()).copied().collect::<BTreeSet<_>>();
        let ago = |(receiver, host, at): &(Address, HostName, Instant)| {
            (*receiver, Arc::clone(host), self.now.duration_since(*at))
        };
        let ready = Input::Ready {
            account: self.account,
            channels: self.disk.channels.iter().map(|(id, channel)| (*id, *channel)).collect(),
            hosts: self.disk.hosts.iter().map(|(id, host)| (*id, Arc::clone(host))).collect(),
            intents: self.disk.intents.clone(),
            deposits: self.disk.deposits.iter().map(ago).collect(),
            on_chain: known.into_iter().map(|id| (id, self.chain.get(&id).copied())).collect(),
            cursor: 0,
        };
        self.handle(ready);
        self.check();
    }

    /// Whatever happened, everyone gets an answer by the deadline.
    fn end(&mut self) {
        // However long the disk hangs, no purchase waits beyond its deadline.
        self.lies = false;
        self.is_slow = true;
        for _ in 0..100 {
            self.buyers_end();
            self.answer(0, How::LostBefore);
            self.decides(0, Approval::No);
            self.now += Duration::from_secs(301);
            self.tell_time();
            self.handle(Input::Tick);
        }
        let waiting: Vec<_> = self.clients.iter().filter(|(_, c)| !c.ended).map(|(id, _)| id).collect();
        assert!(waiting.is_empty(), "no end: {waiting:?}");
        assert!(self.engine.view().is_at_rest());
        self.writes_end(usize::MAX, true);
        assert_eq!(self.engine.poll_timeout(), None);
        self.check();
        (self.is_slow, self.disk_fails) = (false, false);
        self.handle(Input::Flush);
        self.check_authorizations_ended();
        for budget in self.engine.budgets() {
            let held = budget.windows.iter().find(|window| window.held != "0 T");
            assert!(held.is_none(), "held for ever: {held:?}");
        }
    }
}

fn pick<T: Clone>(from: &[T], which: usize) -> Option<T> {
    from.get(which % from.len().max(1)).cloned()
}
