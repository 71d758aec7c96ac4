//! A policy that changes while purchases wait, and while channels hold money.

use crate::protocol::budget::{Budget, BudgetAmount, BudgetLimits, BudgetRef, BudgetUnit};
use crate::protocol::engine::tests::*;
use crate::protocol::policy::{ClientKind, KnownClients, ProvenClient, ProxyClient, Requested, SpendOrigin};

const MINUTE: u64 = 1_000_000;

/// The same budget of every payment.
fn of_all(mut budget: Budget) -> Arc<Budget> {
    budget.scope.wallet = true;
    Arc::new(budget)
}

/// A budget of every payment.
fn wallet(name: &str, most: u64) -> Arc<Budget> {
    let total = Some(BudgetAmount::ONE.of(most.into()));
    let limits = BudgetLimits { total, ..BudgetLimits::default() };
    of_all(Budget::new(name, BudgetUnit::ChannelToken, limits))
}

fn laptop() -> Arc<ProxyClient> {
    let (name, kind, rules, budgets) = ("laptop".to_owned(), ClientKind::Any, None, Vec::new());
    Arc::new(ProxyClient { name, kind, rules, budgets })
}

impl World {
    /// Alice with a channel of 2000 units and these budgets of every payment.
    fn of_policy(sign_ahead: u64, budgets: &[Arc<Budget>]) -> Self {
        let policy = Policy { sign_ahead, budgets: budgets.to_vec(), ..policy() };
        let mut world = Self::with(policy, vec![(channel_id(7), channel(2000, 20))]);
        world.engine.set_time(MINUTE);
        world.budgets =
            budgets.iter().map(|budget| BudgetRef { budget: Arc::clone(budget), host: None }).collect();
        world
    }

    /// Another policy with these budgets and clients; her requests are still judged by the first one.
    fn reload(&mut self, budgets: &[Arc<Budget>], clients: &[Arc<ProxyClient>]) -> Vec<Effect> {
        let version = self.engine.policy().version + 1;
        let clients = Arc::new(KnownClients::new(clients.iter().map(|client| (Arc::clone(client), [1; 32]))));
        let policy = Policy { version, clients, budgets: budgets.to_vec(), ..Policy::clone(&self.policy) };
        self.when(Input::Policy(Arc::new(policy)))
    }

    fn told(&mut self, price: u64) -> String {
        self.refused(price).expect("a refusal")
    }

    /// What is spent of each budget.
    fn all_spent(&self) -> Vec<(String, String)> {
        let views = self.engine.budgets().into_iter();
        views.map(|view| (view.name, view.windows[0].spent.clone())).collect()
    }
}

fn spent(name: &str, units: u64) -> (String, String) {
    (name.to_owned(), units.to_string())
}

#[test]
fn a_budget_keeps_what_was_spent_through_all_definitions() {
    for sign_ahead in [0, 20] {
        let mut world = World::of_policy(sign_ahead, &[wallet("all", 100)]);
        world.accepted(10);
        world.accepted(10);
        // Nothing is recorded: the sums are as before.
        assert_eq!(world.reload(&[wallet("all", 15)], &[]), []);
        assert_eq!(world.all_spent(), [spent("all", 20)]);
        assert!(world.told(1).contains("0 of total = 15"));
        world.reload(&[], &[]);
        assert_eq!(world.all_spent(), []);
        world.accepted(10);
        world.reload(&[wallet("all", 30)], &[]);
        assert_eq!(world.all_spent(), [spent("all", 20)]);
        world.accepted(10);
        assert!(world.told(1).contains("0 of total = 30"));
        // In another unit it is another one.
        let limits = BudgetLimits { payments: Some(1), ..BudgetLimits::default() };
        world.reload(&[of_all(Budget::new("all", BudgetUnit::Payments, limits))], &[]);
        world.accepted(10);
        assert!(world.told(1).contains("all"));
        world.reload(&[wallet("all", 30)], &[]);
        assert!(world.told(1).contains("0 of total = 30"));
    }
}

#[test]
fn a_request_of_an_earlier_policy_counts_in_the_budgets_of_this_one() {
    let mut world = World::of_policy(20, &[]);
    world.accepted(10);
    world.reload(&[wallet("new", 25)], &[]);
    // The channel may sign more without a record, but not for this budget.
    let (id, effects) = world.demand(ask(10));
    assert!(records(&effects).iter().any(|record| matches!(record, Record::Hold(..))), "{effects:?}");
    world.when(Input::Answer(id, Outcome::Accepted));
    assert_eq!(world.all_spent(), [spent("new", 10)]);
    world.accepted(10);
    assert!(world.told(10).contains("of total = 25"));
    // One that it named, and that is gone, limits nothing.
    world.reload(&[], &[]);
    world.accepted(10);
}

#[test]
fn purchases_that_wait_are_judged_by_the_new_budgets() {
    let mut world = World::of_policy(0, &[wallet("all", 100)]);
    let (first, _) = world.granted(10);
    // It waits for the channel.
    let (second, effects) = world.demand(ask(10));
    assert_eq!(effects, []);
    let effects = world.reload(&[wallet("all", 15)], &[]);
    assert_eq!(effects, [], "the one in flight stays counted, and the other still waits");
    let effects = world.when(Input::Answer(first, Outcome::Accepted));
    let over = matches!(&effects[..], [.., Effect::Refuse(id, Refusal::OverBudget(_))] if *id == second);
    assert!(over, "{effects:?}");
    assert_eq!(world.all_spent(), [spent("all", 10)]);
}

#[test]
fn a_payment_that_was_never_sent_is_uncounted_in_a_budget_that_is_gone() {
    let mut world = World::of_policy(0, &[wallet("all", 100)]);
    let (first, _) = world.granted(10);
    world.reload(&[], &[]);
    world.when(Input::Withdraw(first));
    world.reload(&[wallet("all", 10)], &[]);
    assert_eq!(world.all_spent(), [spent("all", 0)]);
    world.accepted(10);
}

#[test]
fn a_client_that_is_gone_gets_no_further_payment() {
    let known = [laptop()];
    for is_removed in [true, false] {
        let mut world = World::of_policy(0, &[]);
        world.origin = SpendOrigin {
            client: Some(ProvenClient { client: laptop(), digest: [1; 32] }),
            ..SpendOrigin::default()
        };
        let (first, _) = world.granted(10);
        let (queued, _) = world.demand(ask(10));
        world.is_asked = true;
        let hooks = Hooks { payment_requested: Requested::Ask.into(), ..Hooks::clone(&world.hooks) };
        let asking = std::mem::replace(&mut world.hooks, Arc::new(hooks));
        let (asked, effects) = world.demand(ask(10));
        assert!(matches!(effects[..], [Effect::Consult(..)]), "{effects:?}");
        world.hooks = asking;
        let effects = world.reload(&[], if is_removed { &[] } else { &known });
        let gone = |effects: &[Effect], purchase: PurchaseId| {
            effects.iter().any(|effect| {
                matches!(effect, Effect::Refuse(id, Refusal::ClientRemoved { .. }) if *id == purchase)
            })
        };
        assert_eq!(gone(&effects, queued), is_removed, "{effects:?}");
        // The one in flight ends as it would, but is not presented again.
        let effects = world.rejected(first, complain(Complaint::InsufficientConfirmations, None));
        assert!(matches!(effects[..], [Effect::Consult(..)]), "{effects:?}");
        let effects = world.when(Input::Consulted(first, Some(Decision::Pay)));
        assert_eq!(gone(&effects, first), is_removed, "{effects:?}");
        if !is_removed {
            world.when(Input::Withdraw(first));
        }
        let effects = world.when(Input::Consulted(asked, Some(Decision::Pay)));
        assert_eq!(gone(&effects, asked), is_removed, "{effects:?}");
        let (next, effects) = world.demand(ask(10));
        assert_eq!(gone(&effects, next), is_removed, "{effects:?}");
    }
}
