//! What a chain shows about authorizations frees their money once, or never, also after a crash.

use std::collections::{BTreeMap, BTreeSet};

use http::{HeaderMap, StatusCode};

use crate::protocol::budget::{
    Budget, BudgetAmount, BudgetLimits, BudgetRef, BudgetRow, BudgetUnit, Budgets, Window,
};
use crate::protocol::engine::tests::*;
use crate::protocol::policy::{AuthorizationLimits, TokenDomain};
use crate::protocol::{Answer, AssetId, Money, schemes};

const PAYER: Address = Address([0xa1; 20]);
/// When each authorization is drawn, in seconds since 1970; it is valid for 100 seconds.
const DRAWN: u64 = 60_000;
const PRICE: u64 = 5;

type Row = (BudgetKey, Window, u64);

/// What the journal has.
#[derive(Clone, Default)]
struct WrittenJournal {
    budgets: BTreeMap<Row, BudgetRow>,
    open: BTreeMap<[u8; 32], KnownAuthorization>,
}

impl WrittenJournal {
    fn write(&mut self, records: &[Record]) {
        for record in records {
            match record {
                Record::Budget(row) => {
                    self.budgets.insert((row.key.clone(), row.window, row.start), BudgetRow::clone(row));
                }
                Record::Authorization(authorization) => {
                    let (authorization, since) = (Authorization::clone(authorization), DRAWN);
                    let nonce = authorization.nonce;
                    let known = KnownAuthorization {
                        authorization,
                        since,
                        taken_until: None,
                        is_used: false,
                        is_served: false,
                    };
                    self.open.insert(nonce, known);
                }
                Record::AuthorizationEnded(nonce)
                | Record::AuthorizationConfirmed(nonce)
                | Record::AuthorizationUnused(nonce) => {
                    self.open.remove(nonce);
                }
                Record::AuthorizationServed(nonce) => self.open.get_mut(nonce).unwrap().is_served = true,
                Record::AuthorizationUsed(nonce, until) => {
                    let known = self.open.get_mut(nonce).unwrap();
                    (known.taken_until, known.is_used) = (Some(*until), true);
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

/// Purchases under a budget of two prices.
struct Story {
    engine: Engine,
    now: Instant,
    budget: Arc<Budget>,
    run: Option<Arc<Budget>>,
}

fn toy() -> KnownAsset {
    let domain = TokenDomain { name: "Toy".to_owned(), version: "2".to_owned() };
    KnownAsset::new("TOY", "eip155:1", Address([7; 20]), 0, None).with_domain(Some(domain))
}

fn unit() -> BudgetUnit {
    BudgetUnit::Tokens { symbol: "TOY".into(), tokens: [toy()].into() }
}

fn cost(units: u64) -> BudgetAmount {
    let price =
        Money { amount: units.into(), asset: AssetId::token("eip155:1", Address([7; 20]).to_string()) };
    unit().cost(&price, None).unwrap()
}

fn offer() -> Offer {
    let body = format!(
        r#"{{"x402Version": 1, "accepts": [{{"scheme": "exact", "network": "eip155:1", "maxAmountRequired": "{PRICE}",
            "asset": "{}", "payTo": "{}", "maxTimeoutSeconds": 100}}]}}"#,
        Address([7; 20]),
        Address([8; 20])
    );
    let headers = HeaderMap::new();
    let answer =
        Answer { status: StatusCode::PAYMENT_REQUIRED, headers: &headers, body: Some(body.as_bytes()) };
    schemes::read(&answer).unwrap().remove(0)
}

impl Story {
    fn of(disk: &WrittenJournal) -> Self {
        Self::with(disk, AuthorizationLimits::default())
    }

    fn with(disk: &WrittenJournal, authorizations: AuthorizationLimits) -> Self {
        let limits = BudgetLimits { per_hour: Some(cost(2 * PRICE)), ..BudgetLimits::default() };
        let budget = Arc::new(Budget::new("daily", unit(), limits));
        let mut policy = policy();
        policy.authorizations = authorizations;
        policy.budgets = vec![Arc::clone(&budget)];
        let rows = disk.budgets.values().cloned().collect();
        let (budgets, _) = Budgets::restore(rows, &mut [], DRAWN / 60);
        let open: Vec<KnownAuthorization> = disk.open.values().cloned().collect();
        let time = AuthorizationTime { wall: DRAWN, running: 0 };
        let mut engine =
            Engine::new(Arc::new(policy)).with_budgets(budgets).with_open_authorizations(&open, time);
        engine.set_chains([1].into());
        engine.set_authorization_time(time);
        let mut story = Self { engine, now: Instant::now(), budget, run: None };
        story.when(Input::Unlocked { payer: PAYER, has_chain: false });
        story
    }

    fn when(&mut self, input: Input) -> Vec<Effect> {
        self.engine.handle(input, self.now);
        std::iter::from_fn(|| self.engine.poll_effect()).collect()
    }

    fn at(&mut self, second: u64) {
        self.engine.set_authorization_time(AuthorizationTime { wall: second, running: second - DRAWN });
    }

    fn buys(&mut self, number: u8) -> Vec<Effect> {
        let refs = std::iter::once(&self.budget).chain(&self.run);
        let limit = SpendLimit {
            host: "bob.example".into(),
            max_price: PriceLimit::Tokens([(100.into(), toy())].into()),
            receivers: Vec::new(),
            preference: Arc::default(),
            hooks: Arc::<Hooks>::default(),
            budgets: refs.map(|budget| BudgetRef { budget: Arc::clone(budget), host: None }).collect(),
            origin: Default::default(),
        };
        self.when(Input::DemandOneShot {
            purchase: PurchaseId(number.into()),
            offer: offer(),
            limit,
            deadline: self.now + Duration::from_secs(300),
            nonce: [number; 32],
            key: Some(PurchaseKey([number; 32])),
            occasion: Occasion::Asked,
        })
    }

    /// Pays, and the outcome stays unclear.
    fn doubts(&mut self, number: u8, disk: &mut WrittenJournal) {
        self.pays(number, disk);
        self.when(Input::Answer(PurchaseId(number.into()), Outcome::InDoubt));
    }

    fn pays(&mut self, number: u8, disk: &mut WrittenJournal) {
        let (seq, records) = written(&self.buys(number));
        disk.write(&records);
        let effects = self.when(Input::Durable(seq));
        assert!(matches!(effects.as_slice(), [Effect::Grant(..)]), "{effects:?}");
    }

    /// Pays, and gets the response.
    fn is_served(&mut self, number: u8, disk: &mut WrittenJournal) -> Vec<Record> {
        self.pays(number, disk);
        assert_eq!(self.when(Input::Answer(PurchaseId(number.into()), Outcome::Accepted)), []);
        let (seq, records) = written(&self.when(Input::Delivered([number; 32])));
        disk.write(&records);
        self.when(Input::Durable(seq));
        records
    }

    /// The served payments that the chain is asked about, and whether they have expired.
    fn asks(&self) -> Vec<(u8, bool)> {
        let asked = self.engine.served(1, 10, |_, _| true);
        asked.iter().map(|asked| (asked.nonce[0], asked.has_expired)).collect()
    }

    fn shown(&mut self, number: u8, is_used: bool, block_time: u64) -> Vec<Effect> {
        self.when(Input::UsageShown { nonce: [number; 32], is_used, block_time })
    }

    /// How much of the budget is spent, in prices.
    fn spent(&self) -> u64 {
        let spent = &self.engine.budgets()[0].windows[0].spent;
        spent.split(' ').next().unwrap().parse::<u64>().unwrap() / PRICE
    }
}

/// The only write.
fn written(effects: &[Effect]) -> (Seq, Vec<Record>) {
    let [Effect::Persist(seq, records)] = effects else { panic!("{effects:?}") };
    (*seq, records.clone())
}

fn is_unused(record: &Record) -> bool {
    matches!(record, Record::AuthorizationUnused(_))
}

#[test]
fn what_expired_unused_is_free_again_at_once_and_in_one_write() {
    let mut disk = WrittenJournal::default();
    let mut story = Story::of(&disk);
    story.doubts(1, &mut disk);
    story.doubts(2, &mut disk);
    assert!(matches!(story.buys(3).as_slice(), [Effect::Refuse(_, Refusal::OverBudget(_))]));
    assert_eq!(story.shown(1, false, DRAWN + 101), [], "it may still be used");
    story.at(DRAWN + 101);
    assert_eq!(story.spent(), 2);
    let (seq, records) = written(&story.shown(1, false, DRAWN + 101));
    assert!(records.iter().any(is_unused), "{records:?}");
    assert!(records.iter().any(|record| matches!(record, Record::Budget(_))), "{records:?}");
    assert_eq!(story.spent(), 1);
    // Whatever uses the money makes sure that it was freed.
    let (next, records) = written(&story.buys(4));
    assert!(records.iter().any(is_unused), "{records:?}");
    assert_eq!(story.when(Input::Durable(seq)), []);
    assert!(matches!(story.when(Input::Durable(next)).as_slice(), [Effect::Grant(..)]));
    // Nothing frees it again.
    assert_eq!(story.shown(1, false, DRAWN + 200), []);
    assert_eq!(story.spent(), 2);
}

#[test]
fn what_was_used_stays_spent() {
    let mut disk = WrittenJournal::default();
    let mut story = Story::of(&disk);
    story.doubts(1, &mut disk);
    let (_, records) = written(&story.shown(1, true, 0));
    assert_eq!(records, [Record::AuthorizationUsed([1; 32], DRAWN + 60)]);
    disk.write(&records);
    story.at(DRAWN + 300);
    assert_eq!(story.shown(1, false, DRAWN + 300), []);
    assert_eq!(story.spent(), 1);
    // The chain is not asked again after a restart.
    let mut story = Story::of(&disk);
    assert_eq!((story.engine.doubts(1), story.spent()), (Vec::new(), 1));
}

/// Of the write that frees the money and the one that spends it again, any may fail, and the process may end after any.
#[test]
fn a_crash_frees_the_money_once() {
    for (first, second) in [(false, false), (true, false), (false, true), (true, true)] {
        let mut disk = WrittenJournal::default();
        let mut story = Story::of(&disk);
        story.doubts(1, &mut disk);
        story.doubts(2, &mut disk);
        story.at(DRAWN + 101);
        let (_, frees) = written(&story.shown(1, false, DRAWN + 101));
        let (_, spends) = written(&story.buys(3));
        if first {
            disk.write(&frees);
        }
        if second {
            disk.write(&spends);
        }
        // After a restart, the chain shows the same.
        let mut story = Story::of(&disk);
        story.at(DRAWN + 101);
        let open = disk.open.len() as u64;
        assert_eq!(story.spent(), open, "{first} {second}");
        story.shown(1, false, DRAWN + 101);
        story.shown(2, false, DRAWN + 101);
        assert_eq!(story.spent(), u64::from(second), "{first} {second}: only the third one");
    }
}

#[test]
fn a_failed_write_is_made_up_for_by_the_next() {
    let mut disk = WrittenJournal::default();
    let mut story = Story::of(&disk);
    story.doubts(1, &mut disk);
    story.at(DRAWN + 101);
    let (seq, _) = written(&story.shown(1, false, DRAWN + 101));
    story.when(Input::NotRecorded(seq, "the disk is full".to_owned()));
    let (seq, records) = written(&story.buys(2));
    assert!(records.iter().any(is_unused), "{records:?}");
    disk.write(&records);
    story.when(Input::Durable(seq));
    assert_eq!((story.spent(), Story::of(&disk).spent(), disk.open.len()), (1, 1, 1));
    let (_, records) = written(&story.buys(3));
    assert!(!records.iter().any(is_unused), "{records:?}");
}

/// The same holds for what was never sent: if its end is not on disk, nothing else may say that its money is free.
#[test]
fn what_was_never_sent_is_freed_once() {
    let mut disk = WrittenJournal::default();
    let mut story = Story::of(&disk);
    let (seq, records) = written(&story.buys(1));
    disk.write(&records);
    story.when(Input::Durable(seq));
    // This write is lost.
    written(&story.when(Input::Withdraw(PurchaseId(1))));
    let (_, records) = written(&story.buys(2));
    disk.write(&records);
    assert_eq!((disk.open.len(), Story::of(&disk).spent()), (1, 1));
}

#[test]
fn what_stays_unclear_is_told_once() {
    let mut disk = WrittenJournal::default();
    let mut story = Story::of(&disk);
    story.doubts(1, &mut disk);
    story.doubts(2, &mut disk);
    story.shown(2, true, 0);
    let asked = DRAWN + 100 + AuthorizationLimits::default().ask_chain_for.as_secs();
    story.at(asked - 1);
    assert_eq!((story.engine.doubts(1).len(), story.engine.take_given_up(1)), (1, vec![]));
    story.at(asked);
    assert_eq!((story.engine.doubts(1), story.engine.take_given_up(2)), (vec![], vec![]));
    let told = story.engine.take_given_up(1);
    assert_eq!((told.len(), told[0].valid_before, &*told[0].host), (1, DRAWN + 100, "bob.example"));
    assert_eq!((story.engine.take_given_up(1), story.spent()), (vec![], 2), "it stays spent");
}

#[test]
fn the_chain_confirms_what_was_served() {
    let mut disk = WrittenJournal::default();
    let mut story = Story::of(&disk);
    assert_eq!(story.is_served(1, &mut disk), [Record::AuthorizationServed([1; 32])]);
    assert_eq!((story.engine.doubts(1), story.asks(), story.spent()), (Vec::new(), vec![(1, false)], 1));
    assert_eq!(story.engine.served(2, 10, |_, _| true), [], "another chain");
    assert_eq!(story.engine.served(1, 10, |_, has_expired| has_expired), []);
    assert_eq!(story.shown(1, false, DRAWN + 50), [], "the seller has time");
    // After a restart, it is still no doubt, and no later request continues it.
    let mut story = Story::of(&disk);
    assert_eq!((story.engine.doubts(1), story.asks(), story.spent()), (Vec::new(), vec![(1, false)], 1));
    assert!(!story.engine.has_purchases_in_doubt() && story.engine.holds(story.now).is_empty());
    let (_, records) = written(&story.shown(1, true, 0));
    assert_eq!(records, [Record::AuthorizationConfirmed([1; 32])]);
    disk.write(&records);
    story.at(DRAWN + 300);
    assert_eq!(
        (story.shown(1, false, DRAWN + 300), story.asks(), story.spent()),
        (Vec::new(), Vec::new(), 1)
    );
    assert!(disk.open.is_empty());
}

#[test]
fn what_was_served_and_never_taken_is_free_again_once_it_has_expired() {
    let mut disk = WrittenJournal::default();
    let mut story = Story::of(&disk);
    story.is_served(1, &mut disk);
    story.is_served(2, &mut disk);
    assert!(matches!(story.buys(3).as_slice(), [Effect::Refuse(_, Refusal::OverBudget(_))]));
    // A block from the future, one in which it could still be used, and a wall clock that was set forward.
    assert_eq!(story.shown(1, false, DRAWN + 200), []);
    story.at(DRAWN + 101);
    assert_eq!(story.shown(1, false, DRAWN + 100), []);
    story.engine.set_authorization_time(AuthorizationTime { wall: DRAWN + 101, running: 99 });
    assert_eq!(story.shown(1, false, DRAWN + 101), []);
    assert_eq!((story.spent(), story.asks()), (2, vec![(1, false), (2, false)]));
    story.at(DRAWN + 101);
    assert_eq!(story.asks(), [(1, true), (2, true)]);
    let (_, frees) = written(&story.shown(1, false, DRAWN + 101));
    assert!(frees.iter().any(is_unused), "{frees:?}");
    assert_eq!((story.spent(), story.shown(1, false, DRAWN + 101)), (1, Vec::new()));
    let (_, spends) = written(&story.buys(3));
    // The write that spends the money again has its end, too, in case that the other one is lost.
    disk.write(&spends);
    let mut story = Story::of(&disk);
    story.at(DRAWN + 101);
    assert_eq!((story.spent(), story.asks()), (2, vec![(2, true)]));
}

#[test]
fn few_served_payments_are_remembered_and_none_if_none_is_asked_about() {
    let mut disk = WrittenJournal::default();
    let few = AuthorizationLimits { open: 1, ..AuthorizationLimits::default() };
    let mut story = Story::with(&disk, few);
    story.is_served(1, &mut disk);
    let records = story.is_served(2, &mut disk);
    assert_eq!(
        records,
        [Record::AuthorizationServed([2; 32]), Record::AuthorizationEnded([1; 32])],
        "the oldest gives way"
    );
    assert_eq!((story.asks(), disk.open.len()), (vec![(2, false)], 1));
    let none = AuthorizationLimits { served_checks: 0, ..AuthorizationLimits::default() };
    let mut disk = WrittenJournal { budgets: BTreeMap::new(), ..disk };
    let mut story = Story::with(&disk, none);
    let records = story.is_served(3, &mut disk);
    assert_eq!(records, [Record::AuthorizationEnded([3; 32]), Record::AuthorizationEnded([2; 32])]);
    assert_eq!((story.asks(), disk.open.len()), (Vec::new(), 0));
    // Nor is a chain without a node, or one that has been asked for long enough.
    let mut story = Story::of(&WrittenJournal::default());
    let mut disk = WrittenJournal::default();
    story.is_served(4, &mut disk);
    let day = AuthorizationLimits::default().ask_chain_for.as_secs();
    story.at(DRAWN + 100 + day);
    story.pays(5, &mut disk);
    story.when(Input::Answer(PurchaseId(5), Outcome::Accepted));
    let (_, records) = written(&story.when(Input::Delivered([5; 32])));
    assert_eq!(records, [Record::AuthorizationServed([5; 32]), Record::AuthorizationEnded([4; 32])]);
    let mut story = Story::of(&WrittenJournal::default());
    story.is_served(6, &mut disk);
    story.engine.set_chains(BTreeSet::new());
    let records = story.is_served(7, &mut disk);
    assert_eq!(records, [Record::AuthorizationEnded([7; 32]), Record::AuthorizationEnded([6; 32])]);
}

#[test]
fn the_budget_of_a_run_that_is_over_is_left_alone() {
    let mut disk = WrittenJournal::default();
    let mut story = Story::of(&disk);
    let run = Arc::new(Budget::of_run(1, unit(), cost(2 * PRICE)));
    story.when(Input::BeginBudget(Arc::clone(&run)));
    story.run = Some(Arc::clone(&run));
    story.doubts(1, &mut disk);
    story.run = None;
    let key = BudgetRef { budget: run, host: None }.key();
    story.when(Input::EndBudget(key));
    story.at(DRAWN + 101);
    story.shown(1, false, DRAWN + 101);
    assert_eq!((story.spent(), story.engine.budgets().len()), (0, 1));
}
