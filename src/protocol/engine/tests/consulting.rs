//! Questions to an approver: what is asked when, what a purchase holds meanwhile, and what the decision changes.

use crate::protocol::engine::tests::*;
use crate::protocol::policy::{Decision, Requested};

const PRICE_HOOK: &str = "payment_requested";

impl World {
    /// Alice with a channel, who is asked about each price.
    fn asking(deposit: u64) -> Self {
        let mut world = Self::with_channel(deposit, 0);
        world.hooks = Arc::new(Hooks { payment_requested: Requested::Ask.into(), ..(*world.hooks).clone() });
        world.is_asked = true;
        world
    }

    fn decides(&mut self, id: PurchaseId, decision: Decision) -> Vec<Effect> {
        self.when(Input::Consulted(id, Some(decision)))
    }
}

fn question(id: PurchaseId, hook: &'static str) -> Effect {
    Effect::Consult(id, Question { hook, webhook: None })
}

fn no() -> Decision {
    Decision::Abort { reason: "no".into() }
}

#[test]
fn a_price_is_asked_about_before_anything_is_held() {
    let mut world = World::asking(100);
    let (id, effects) = world.demand(ask(10));
    assert_eq!(effects, [question(id, PRICE_HOOK)]);
    assert_eq!(world.engine.view().lease(channel_id(7)), None);
    // Another request, whose price was approved before, uses the channel.
    let (other, effects) = world.demand(ask(20));
    assert_eq!(effects, [question(other, PRICE_HOOK)]);
    assert_eq!(grant(&world.decides(other, Decision::Pay)).map(|draft| draft.total), Some(20.into()));
    world.when(Input::Answer(other, Outcome::Accepted));
    assert_eq!(grant(&world.decides(id, Decision::Pay)).map(|draft| draft.total), Some(30.into()));
}

#[test]
fn without_approval_nothing_is_signed() {
    let refused = |reply: Option<Decision>| {
        let mut world = World::asking(100);
        let (id, _) = world.demand(ask(10));
        let effects = world.when(Input::Consulted(id, reply));
        assert_eq!(world.channel().promised, 0.into());
        assert!(world.engine.view().is_at_rest());
        let [Effect::Refuse(refused, refusal)] = &effects[..] else { panic!("{effects:?}") };
        assert_eq!(*refused, id);
        refusal.clone()
    };
    let reason = "no".to_owned();
    assert_eq!(refused(Some(no())), Refusal::ApproverRefused { hook: PRICE_HOOK, reason });
    assert_eq!(refused(None), Refusal::NoApprover { hook: PRICE_HOOK });
}

#[test]
fn a_policy_that_wants_no_payment_asks_nothing() {
    let mut world = World::asking(100);
    world.hooks = Arc::new(Hooks { payment_requested: Requested::Abort.into(), ..Hooks::default() });
    let (id, effects) = world.demand(ask(10));
    assert_eq!(effects, [Effect::Refuse(id, Refusal::NotWanted)]);
}

#[test]
fn what_the_rule_forbids_is_not_asked_about() {
    let mut world = World::asking(100);
    let (id, effects) = world.demand(ask(101));
    let expected = Refusal::TooExpensive { price: "101".into(), max_price: "100".into() };
    assert_eq!(effects, [Effect::Refuse(id, expected)]);
}

#[test]
fn approval_of_one_price_does_not_extend_to_a_higher_one() {
    // The rule allows 100 at most.
    for (price, asks) in [(10, false), (9, false), (11, true), (100, true), (101, false)] {
        let mut world = World::asking(100);
        let (id, _) = world.demand(ask(10));
        assert!(grant(&world.decides(id, Decision::Pay)).is_some());
        let effects = world.rejected(id, ask(price));
        let is_asked = effects.first() == Some(&question(id, PRICE_HOOK));
        assert_eq!(is_asked, asks, "{price}: {effects:?}");
        if asks {
            // Refused: the payment that the seller has seen stays in doubt.
            let effects = world.decides(id, no());
            assert!(
                matches!(effects[..], [Effect::Refuse(_, Refusal::ApproverRefused { .. })]),
                "{effects:?}"
            );
            assert!(world.channel().in_doubt.is_some());
            assert_eq!(world.engine.view().lease(channel_id(7)), None);
        }
    }
}

#[test]
fn a_complaint_is_asked_about_unless_the_policy_stops_anyway() {
    let mut world = World::with_channel(100, 0);
    world.is_asked = true;
    let (id, _) = world.granted(10);
    let complaint = Complaint::InsufficientConfirmations;
    assert_eq!(world.rejected(id, complain(complaint, None)), [question(id, "insufficient_confirmations")]);
    // The channel stays leased, and time alone changes nothing.
    assert_eq!(world.engine.view().lease(channel_id(7)), Some(id));
    assert_eq!(world.pass(Duration::from_secs(20)), []);
    assert_eq!(world.decides(id, Decision::Retry), []);
    assert_eq!(grant(&world.pass(Duration::from_secs(5))).map(|draft| draft.total), Some(10.into()));

    world.hooks = Arc::new(Hooks { insufficient_confirmations: Retry::Abort.into(), ..Hooks::default() });
    world.when(Input::Answer(id, Outcome::Accepted));
    let (id, _) = world.granted(10);
    let effects = world.rejected(id, complain(complaint, None));
    assert_eq!(effects, [Effect::Refuse(id, Refusal::HookAborts { complaint })]);
}

#[test]
fn a_client_that_leaves_during_a_question_leaves_no_trace_or_a_doubt() {
    let mut world = World::asking(100);
    let (id, _) = world.demand(ask(10));
    world.when(Input::Withdraw(id));
    assert!(world.engine.view().is_at_rest() && world.channel().in_doubt.is_none());
    // A late decision is refused.
    assert_eq!(world.decides(id, Decision::Pay), [Effect::Refuse(id, Refusal::ShuttingDown)]);

    let (id, _) = world.demand(ask(10));
    world.decides(id, Decision::Pay);
    world.rejected(id, complain(Complaint::InsufficientConfirmations, None));
    world.when(Input::Withdraw(id));
    assert!(world.engine.view().is_at_rest() && world.channel().in_doubt.is_some());
    assert_eq!(world.channel().promised, 10.into());
}

#[test]
fn a_decision_after_the_deadline_or_the_end_is_too_late() {
    let mut world = World::asking(100);
    let (id, _) = world.demand(ask(10));
    world.pass(policy().pay_timeout);
    let late = Refusal::Deadline { waited_for: Awaited::Request };
    assert_eq!(world.decides(id, Decision::Pay), [Effect::Refuse(id, late)]);

    let mut world = World::asking(100);
    let (id, _) = world.demand(ask(10));
    assert_eq!(world.when(Input::Stop), []);
    assert!(!world.engine.has_leases());
    assert_eq!(world.decides(id, Decision::Pay), [Effect::Refuse(id, Refusal::ShuttingDown)]);
}
