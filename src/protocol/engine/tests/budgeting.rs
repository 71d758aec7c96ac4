//! Budgets: what counts, when it is free again, and how the last of it is spent.

use crate::protocol::budget::{
    Budget, BudgetAmount, BudgetLimits, BudgetRef, BudgetRow, BudgetUnit, Budgets, Change, OverBudget,
};
use crate::protocol::engine::tests::*;

const MINUTE: u64 = 1_000_000;

fn cost(units: u64) -> Option<BudgetAmount> {
    Some(BudgetAmount::ONE.of(units.into()))
}

fn limited(limits: BudgetLimits) -> BudgetSet {
    named("daily", limits)
}

fn named(name: &str, limits: BudgetLimits) -> BudgetSet {
    let budget = Arc::new(Budget::new(name, BudgetUnit::ChannelToken, limits));
    [BudgetRef { budget, host: None }].into()
}

fn per_hour(units: u64) -> BudgetLimits {
    BudgetLimits { per_hour: cost(units), ..BudgetLimits::default() }
}

impl World {
    /// Alice with channels of 2000 units, of which the sellers hold 20, and a budget.
    fn on_budget(sign_ahead: u64, channels: u32, limits: BudgetLimits) -> Self {
        let channels = (0..channels).map(|place| (channel_id(7 + place), channel(2000, 20))).collect();
        let mut world = Self::with(Policy { sign_ahead, ..policy() }, channels);
        world.budgets = limited(limits);
        world.engine.set_time(MINUTE);
        world
    }

    fn pay(&mut self, price: u64) {
        let (id, _) = self.granted(price);
        self.when(Input::Answer(id, Outcome::Accepted));
    }

    fn over(&mut self, price: u64) -> OverBudget {
        let (_, effects) = self.demand(ask(price));
        match effects.last() {
            Some(Effect::Refuse(_, Refusal::OverBudget(over))) => OverBudget::clone(over),
            _ => panic!("{effects:?}"),
        }
    }

    /// What is spent and held in the first window of the first budget.
    fn spent(&self) -> (String, String) {
        let window = &self.engine.budgets()[0].windows[0];
        (window.spent.clone(), window.held.clone())
    }
}

fn shown(spent: u64, held: u64) -> (String, String) {
    (spent.to_string(), held.to_string())
}

#[test]
fn what_is_spent_is_free_again_after_its_window_and_not_before() {
    let mut world = World::on_budget(0, 1, per_hour(30));
    world.pay(10);
    world.engine.set_time(MINUTE + 20);
    world.pay(20);
    let over = world.over(10);
    assert_eq!(over.free_in(), Some(Duration::from_secs(41 * 60)), "{over}");
    let text = over.to_string();
    assert!(text.contains("daily: 0 of per_hour = 30; enough is free in 41m"), "{text}");
    // For 11, both must have left.
    assert_eq!(world.over(11).free_in(), Some(Duration::from_secs(61 * 60)));
    // More than the limit is never free.
    assert_eq!(world.over(31).free_in(), None);
    world.engine.set_time(MINUTE + 60);
    world.over(10);
    // Setting the clock back changes nothing.
    world.engine.set_time(MINUTE);
    world.over(10);
    world.engine.set_time(MINUTE + 61);
    world.pay(10);
    world.over(1);
}

#[test]
fn a_limit_of_zero_allows_nothing_and_of_payments_that_many() {
    let mut world = World::on_budget(4, 1, per_hour(0));
    world.over(1);
    let payments = Some(2);
    let mut world = World::on_budget(4, 1, BudgetLimits { payments, ..BudgetLimits::default() });
    world.pay(10);
    world.pay(10);
    assert!(matches!(world.over(10), OverBudget::Payments { limit: 2, .. }));
}

#[test]
fn a_payment_that_was_never_sent_does_not_count() {
    let mut world = World::on_budget(0, 1, per_hour(10));
    let (id, _) = world.granted(10);
    world.when(Input::Withdraw(id));
    assert_eq!(world.spent(), shown(0, 0));
    // One in doubt counts.
    let (id, _) = world.granted(10);
    world.when(Input::Answer(id, Outcome::InDoubt));
    assert_eq!(world.spent(), shown(10, 0));
    // The same total is presented again by the next request, which costs nothing more.
    world.pay(10);
    world.over(10);
}

#[test]
fn a_failed_record_costs_nothing() {
    let mut world = World::on_budget(0, 1, per_hour(10));
    world.stalls = true;
    world.demand(ask(10));
    assert_eq!(world.spent(), shown(10, 0), "reserved");
    world.disk_fails();
    assert_eq!(world.spent(), shown(0, 0));
    world.stalls = false;
    world.when(Input::Idle);
    world.pay(10);
}

/// What channels keep ready is taken back when the budget runs short: every unit of it is paid.
#[test]
fn the_last_of_a_budget_is_spent_whatever_other_channels_hold() {
    for channels in [1, 2, 8] {
        let mut world = World::on_budget(4, channels, per_hour(200));
        let mut ids = Vec::new();
        for _ in 0..channels {
            ids.push(world.granted(10).0);
        }
        for id in ids {
            world.when(Input::Answer(id, Outcome::Accepted));
        }
        for _ in channels..20 {
            world.pay(10);
        }
        // One channel alone has been used up at some point.
        assert_eq!(world.spent(), shown(200, 0), "{channels} channels");
        world.over(10);
        world.over(1);
    }
}

/// Lowering a channel for one purchase frees money in another budget, too: what is paid from that relies on the same write.
#[test]
fn what_fits_only_after_a_pending_write_is_not_granted_if_that_fails() {
    for is_written in [true, false] {
        let mut world = World::on_budget(4, 3, per_hour(22));
        let (first, second) = (world.budgets.clone(), named("other", per_hour(22)));
        world.budgets = first.iter().chain(second.iter()).cloned().collect();
        // This channel holds so much of both that too little is left for another payment.
        world.granted(10);
        world.stalls = true;
        let answers = |effects: &[Effect]| -> Vec<(PurchaseId, bool)> {
            let answer = |effect: &Effect| match effect {
                Effect::Grant(id, _) => Some((*id, true)),
                Effect::Refuse(id, _) => Some((*id, false)),
                _ => None,
            };
            effects.iter().filter_map(answer).collect()
        };
        world.budgets = first;
        let (lowers, effects) = world.demand(ask(10));
        assert_eq!(answers(&effects), []);
        let lowered = world.newest;
        world.budgets = second;
        let (relies, effects) = world.demand(ask(10));
        assert_eq!((answers(&effects), world.newest), (vec![], Seq(lowered.0 + 1)), "a write of its own");
        let effects = world.when(match is_written {
            true => Input::Durable(lowered),
            false => Input::NotRecorded(lowered, "disk full".into()),
        });
        let refused = vec![(lowers, false), (relies, false)];
        assert_eq!(answers(&effects), if is_written { vec![(lowers, true)] } else { refused });
        let effects = world.disk_writes();
        assert_eq!(answers(&effects), if is_written { vec![(relies, true)] } else { vec![] });
    }
}

#[test]
fn nothing_is_deposited_for_a_payment_that_no_budget_allows() {
    let mut world = World::with(policy(), Vec::new());
    world.budgets = limited(per_hour(5));
    let (_, effects) = world.demand(ask(10));
    assert!(matches!(&effects[..], [Effect::Refuse(_, Refusal::OverBudget(_))]), "{effects:?}");
}

#[test]
fn payments_count_in_their_own_budgets_only() {
    let mut world = World::on_budget(4, 1, per_hour(15));
    let (first, second) = (world.budgets.clone(), named("other", per_hour(15)));
    world.pay(10);
    world.budgets = second.clone();
    world.pay(10);
    world.over(10);
    world.budgets = first;
    world.over(10);
    world.budgets = BudgetSet::default();
    world.pay(10);
    for view in world.engine.budgets() {
        assert_eq!(view.windows[0].spent, "10", "{view:?}");
    }
}

/// What a channel may sign ahead belongs to the budgets of its record: a payment with others needs a record of its own.
#[test]
fn a_payment_with_other_budgets_waits_for_a_record_of_its_own() {
    let mut world = World::on_budget(4, 1, per_hour(200));
    world.pay(10);
    world.stalls = true;
    let first = world.budgets.clone();
    world.budgets = named("other", per_hour(200));
    let (id, effects) = world.demand(ask(10));
    assert_eq!(grant(&effects), None, "{effects:?}");
    let holds = records(&effects).into_iter().filter_map(|record| match record {
        Record::Hold(_, hold) => {
            Some(hold.budgets.into_iter().map(|(key, _)| key.name.to_string()).collect())
        }
        _ => None,
    });
    assert_eq!(holds.collect::<Vec<Vec<String>>>(), [["other"]]);
    assert!(grant(&world.disk_writes()).is_some());
    world.when(Input::Answer(id, Outcome::Accepted));
    // Those that are in the record's budgets do not wait.
    let (id, effects) = world.demand(ask(10));
    assert!(grant(&effects).is_some(), "{effects:?}");
    world.when(Input::Answer(id, Outcome::Accepted));
    world.budgets = first;
    assert_eq!(grant(&world.demand(ask(10)).1), None);
}

#[test]
fn an_asset_that_a_budget_cannot_count_is_not_paid() {
    let mut world = World::on_budget(0, 1, per_hour(5));
    let limits = BudgetLimits { total: cost(u64::MAX), ..BudgetLimits::default() };
    let budget = Arc::new(Budget::new("dollars", BudgetUnit::Usd([].into()), limits));
    world.budgets = [BudgetRef { budget, host: None }].into();
    assert!(matches!(world.over(1), OverBudget::Asset { is_usd: true, .. }));
}

/// After a crash, all that may have been signed counts, once: payments within it cost nothing more.
#[test]
fn what_a_crash_leaves_unknown_counts_once() {
    let mut world = World::on_budget(4, 1, per_hour(100));
    let (id, effects) = world.demand(ask(10));
    world.when(Input::Answer(id, Outcome::Accepted));
    let (mut rows, mut hold, mut stored) = (BTreeMap::new(), None, None);
    for record in records(&effects) {
        match record {
            Record::Budget(row) => drop(rows.insert((row.window, row.start), *row)),
            Record::Hold(_, new) => hold = Some(*new),
            Record::Channel(_, channel) => stored = Some(channel),
            _ => {}
        }
    }
    // This payment uses what the record allows.
    assert_eq!(world.granted(10).1, 40.into());
    let (hold, stored) = (hold.unwrap(), stored.unwrap());
    assert_eq!((hold.above, hold.upto, stored.durable_limit), (30.into(), 52.into(), 52.into()));
    let mut holds = vec![hold];
    let (mut budgets, _) = Budgets::restore(rows.into_values().collect(), &mut holds, MINUTE + 5);
    budgets.define(&[Arc::clone(&world.budgets[0].budget)]);
    let account = *world.engine.account().unwrap();
    world.engine = Engine::new(Arc::clone(&world.policy)).with_budgets(budgets);
    world.when(Input::Holds(vec![(channel_id(7), holds.remove(0))]));
    world.engine.set_time(MINUTE + 5);
    world.when(ready(account, vec![(channel_id(7), stored)], Vec::new()));
    let spent = |world: &World| world.engine.budgets()[0].windows[0].spent.clone();
    assert_eq!(spent(&world), "32");
    // The seller proves what it holds; the next payment is within what was counted.
    world.when(Input::SellerTotal(channel_id(7), 40.into(), true));
    world.pay(10);
    assert_eq!(spent(&world), "32");
    world.pay(10);
    assert_eq!(spent(&world), "40", "up to 52 was counted before");
}

#[test]
fn a_settlement_gives_back_what_was_signed_above_it() {
    let mut world = World::on_budget(0, 1, per_hour(100));
    let (id, _) = world.granted(10);
    world.when(Input::Answer(id, Outcome::InDoubt));
    assert_eq!(world.spent(), shown(10, 0));
    let settled = BTreeMap::from([(channel_id(7), Amount::from(25))]);
    let channels = vec![(channel_id(7), None)];
    world.when(Input::Chain { channels, settled, cursor: 0, by_user: false });
    assert_eq!(world.spent(), shown(5, 0));
    // A reorganisation undoes that.
    let shown_again = on_chain(2000);
    let channels = vec![(channel_id(7), Some(shown_again))];
    world.when(Input::Chain { channels, settled: BTreeMap::new(), cursor: 0, by_user: false });
    assert_eq!(world.spent(), shown(10, 0));
}

#[test]
fn while_it_is_frozen_nothing_is_granted() {
    let mut world = World::on_budget(0, 1, per_hour(100));
    let (first, _) = world.granted(10);
    let (second, _) = world.demand(ask(10));
    let effects = world.when(Input::Freeze(true));
    assert!(effects.contains(&Effect::Refuse(second, Refusal::Frozen)), "{effects:?}");
    // A payment on its way ends as usual.
    world.when(Input::Answer(first, Outcome::Accepted));
    let (_, effects) = world.demand(ask(10));
    assert!(matches!(&effects[..], [Effect::Refuse(_, Refusal::Frozen)]), "{effects:?}");
    assert_eq!(world.engine.may_start(&ChannelOp::Settle { channel: channel_id(7) }), Err(OpRefused::Frozen));
    world.when(Input::Freeze(false));
    world.pay(10);
}

#[test]
fn the_user_is_told_of_each_threshold_once_in_a_window() {
    let mut world = World::on_budget(0, 1, per_hour(100));
    let told = |world: &mut World| -> Vec<u64> {
        world.engine.take_budget_notices().into_iter().map(|notice| notice.percent).collect()
    };
    world.pay(70);
    assert_eq!(told(&mut world), [] as [u64; 0]);
    world.pay(10);
    assert_eq!(told(&mut world), [80]);
    world.pay(10);
    assert_eq!(told(&mut world), [] as [u64; 0]);
    world.pay(10);
    assert_eq!(told(&mut world), [100]);
    world.engine.set_time(MINUTE + 61);
    world.pay(90);
    assert_eq!(told(&mut world), [80]);
}

/// What the user is told of, in percent.
fn told(budgets: &mut Budgets) -> Vec<u64> {
    budgets.take_notices().into_iter().map(|notice| notice.percent).collect()
}

#[test]
fn a_limit_that_was_changed_is_told_of_anew_and_a_restart_repeats_nothing() {
    let hourly = |units| [Arc::clone(&limited(per_hour(units))[0].budget)];
    let mut budgets = Budgets::default();
    budgets.set_time(MINUTE);
    budgets.define(&hourly(100));
    let index = budgets.open(&limited(per_hour(100))[0]);
    let change = |units| Change { plus: cost(units).unwrap(), ..Change::default() };
    budgets.charge(index, cost(85).unwrap());
    let mut rows = budgets.record(&[(index, MINUTE, change(85))]);
    assert_eq!(told(&mut budgets), [80]);
    budgets.redefine(&hourly(100));
    assert_eq!(told(&mut budgets), [0_u64; 0], "it is the same limit");
    budgets.redefine(&hourly(200));
    assert_eq!(told(&mut budgets), [0_u64; 0], "less than that is spent");
    budgets.charge(index, cost(75).unwrap());
    rows.extend(budgets.record(&[(index, MINUTE, change(75))]));
    assert_eq!(told(&mut budgets), [80]);
    budgets.redefine(&hourly(150));
    assert_eq!(told(&mut budgets), [100], "it is spent already");

    let rows: Vec<_> = rows.into_iter().map(|row| budgets.row(row)).collect();
    let restore = |rows: &[BudgetRow]| Budgets::restore(rows.to_vec(), &mut [], MINUTE + 5).0;
    let mut budgets = restore(&rows);
    budgets.define(&hourly(200));
    let index = budgets.open(&limited(per_hour(200))[0]);
    budgets.charge(index, cost(1).unwrap());
    assert_eq!(told(&mut budgets), [0_u64; 0], "an earlier process has told of it");
    budgets.charge(index, cost(39).unwrap());
    assert_eq!(told(&mut budgets), [100]);
    budgets.set_time(MINUTE + 200);
    budgets.charge(index, cost(170).unwrap());
    assert_eq!(told(&mut budgets), [80], "another hour");
}

#[test]
fn the_budget_of_a_single_host_is_shown_after_a_restart_and_without_a_proxy() {
    let mut each = Budget::new("each", BudgetUnit::ChannelToken, per_hour(100));
    each.scope.each = true;
    let each = Arc::new(each);
    let mut budgets = Budgets::default();
    budgets.set_time(MINUTE);
    let index = budgets.open(&BudgetRef { budget: Arc::clone(&each), host: Some("a.example".into()) });
    budgets.charge(index, cost(5).unwrap());
    let changes = [(index, MINUTE, Change { plus: cost(5).unwrap(), ..Change::default() })];
    let rows: Vec<_> = budgets.record(&changes).into_iter().map(|row| budgets.row(row)).collect();
    let mut budgets = Budgets::restore(rows, &mut [], MINUTE).0;
    assert!(budgets.views().is_empty());
    budgets.define(&[each]);
    let views = budgets.views();
    let [view] = &views[..] else { panic!("{views:?}") };
    assert_eq!((view.host.as_deref(), view.windows[0].spent.as_str()), (Some("a.example"), "5"));
    budgets.redefine(&[]);
    assert!(budgets.views().is_empty());
}
