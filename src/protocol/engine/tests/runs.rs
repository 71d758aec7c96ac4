//! Budgets of runs: they come and go, and what was signed stays counted in all others.

use crate::protocol::budget::{Budget, BudgetAmount, BudgetLimits, BudgetRef, BudgetUnit, Budgets};
use crate::protocol::engine::tests::*;

const MINUTE: u64 = 1_000_000;

fn reference(budget: Budget) -> BudgetRef {
    BudgetRef { budget: Arc::new(budget), host: None }
}

fn of_run(number: u64, most: u64) -> BudgetRef {
    reference(Budget::of_run(number, BudgetUnit::ChannelToken, BudgetAmount::ONE.of(most.into())))
}

fn daily(most: u64) -> BudgetRef {
    let total = Some(BudgetAmount::ONE.of(most.into()));
    let limits = BudgetLimits { total, ..BudgetLimits::default() };
    reference(Budget::new("daily", BudgetUnit::ChannelToken, limits))
}

impl World {
    /// Alice with a channel of 2000 units, of which the seller holds 20, a budget, and that of a run.
    fn in_run(sign_ahead: u64, run: &BudgetRef) -> Self {
        let mut world =
            Self::with(Policy { sign_ahead, ..policy() }, vec![(channel_id(7), channel(2000, 20))]);
        world.engine.set_time(MINUTE);
        world.budgets = [daily(1000), run.clone()].into();
        world.when(Input::BeginBudget(Arc::clone(&run.budget)));
        world
    }

    pub(super) fn accepted(&mut self, price: u64) {
        let (id, _) = self.granted(price);
        self.when(Input::Answer(id, Outcome::Accepted));
    }

    /// What is spent and held in each budget.
    fn shown(&self) -> Vec<(String, String, String)> {
        let views = self.engine.budgets().into_iter();
        views.map(|view| (view.name, view.windows[0].spent.clone(), view.windows[0].held.clone())).collect()
    }

    pub(super) fn refused(&mut self, price: u64) -> Option<String> {
        match self.demand(ask(price)).1.pop() {
            Some(Effect::Refuse(_, refusal)) => Some(refusal.to_string()),
            _ => None,
        }
    }
}

fn view(name: &str, spent: u64, held: u64) -> (String, String, String) {
    (name.to_owned(), spent.to_string(), held.to_string())
}

#[test]
fn a_run_has_a_budget_until_it_is_over_and_others_keep_what_was_signed() {
    let run = of_run(3, 25);
    let mut world = World::in_run(0, &run);
    world.accepted(10);
    world.accepted(15);
    assert_eq!(world.shown(), [view("run 3", 25, 0), view("daily", 25, 0)]);
    let told = world.refused(1).unwrap();
    assert!(told.contains("what is left of the budget run 3: 0 of --budget = 25; raise it"), "{told}");
    // One more is on its way when the run ends.
    world.budgets = [daily(1000)].into();
    let effects = world.when(Input::EndBudget(run.key()));
    assert_eq!(records(&effects), [Record::BudgetEnded(Box::new(run.key()))]);
    assert_eq!(world.shown(), [view("daily", 25, 0)]);
    // Once more, it means nothing.
    assert_eq!(records(&world.when(Input::EndBudget(run.key()))), []);
    world.accepted(10);
    assert_eq!(world.shown(), [view("daily", 35, 0)]);
    // The next run starts from 0, although it takes the place of the last one.
    let next = of_run(4, 5);
    world.budgets = [daily(1000), next.clone()].into();
    world.when(Input::BeginBudget(Arc::clone(&next.budget)));
    world.accepted(5);
    assert_eq!(world.shown(), [view("run 4", 5, 0), view("daily", 40, 0)]);
}

#[test]
fn a_payment_in_flight_keeps_the_budget_of_its_run() {
    for outcome in [Some(Outcome::Accepted), Some(Outcome::InDoubt), None] {
        let run = of_run(3, 100);
        let mut world = World::in_run(4, &run);
        let (id, _) = world.granted(10);
        assert_eq!(records(&world.when(Input::EndBudget(run.key()))), []);
        assert_eq!(world.shown().len(), 2);
        let spent = if outcome.is_some() { 10 } else { 0 };
        let effects = match outcome {
            Some(outcome) => world.when(Input::Answer(id, outcome)),
            None => world.when(Input::Withdraw(id)),
        };
        assert!(records(&effects).contains(&Record::BudgetEnded(Box::new(run.key()))), "{effects:?}");
        let [(name, counted, _)] = &world.shown()[..] else { panic!("{:?}", world.shown()) };
        assert_eq!((&**name, &**counted), ("daily", &*spent.to_string()));
        // The hold of the channel still serves the other budget, and no record has the run's.
        world.budgets = [daily(1000)].into();
        world.when(Input::Idle);
        let effects = world.demand(ask(10)).1;
        for record in records(&effects) {
            if let Record::Hold(_, hold) = record {
                assert!(hold.budgets.iter().all(|(key, _)| *key != run.key()), "{hold:?}");
                assert!(hold.covered.iter().all(|by| by.budget != run.key()), "{hold:?}");
            }
        }
    }
}

#[test]
fn after_a_crash_the_run_is_over_and_its_hold_counts_in_the_other_budgets() {
    let run = of_run(3, 100);
    let mut world = World::in_run(4, &run);
    let (_, effects) = world.demand(ask(10));
    let (mut rows, mut holds) = (BTreeMap::new(), Vec::new());
    for record in records(&effects) {
        match record {
            Record::Budget(row) => drop(rows.insert((row.key.clone(), row.window, row.start), *row)),
            Record::Hold(_, new) => holds = vec![*new],
            _ => {}
        }
    }
    let held = holds[0].upto.saturating_sub(holds[0].above);
    assert_eq!((holds[0].budgets.len(), held.is_zero()), (2, false), "{holds:?}");
    let (mut budgets, changed) = Budgets::restore(rows.into_values().collect(), &mut holds, MINUTE);
    budgets.define(&[daily(1000).budget]);
    let [spent] = &budgets.views()[..] else { panic!("{:?}", budgets.views()) };
    assert_eq!(spent.windows[0].spent, Amount::from(10).saturating_add(held).to_string());
    assert!(changed.iter().all(|row| row.key == daily(1000).key()), "{changed:?}");
    let names: Vec<_> = holds[0].budgets.iter().map(|(key, _)| key.clone()).collect();
    let covered: Vec<_> = holds[0].covered.iter().map(|by| by.budget.clone()).collect();
    assert_eq!((names, covered), (vec![daily(1000).key()], vec![daily(1000).key()]));
}
