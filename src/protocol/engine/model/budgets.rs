//! Budgets in the model: what was really signed for each, and what sellers can redeem of it.

use proptest::prelude::*;

use super::*;
use crate::protocol::AssetId;
use crate::protocol::budget::{Budget, BudgetLimits, BudgetRef, BudgetSet, BudgetUnit};
use crate::protocol::engine::Occasion;
use crate::protocol::policy::KnownAsset;
use crate::protocol::schemes::test_token::{self, TokenOffer};

/// The limits of the budget that everything counts in, and of one that some hosts share; and whether some requests are
/// paid with authorizations.
type Limits = Option<([Option<u64>; 6], [Option<u64>; 6], bool)>;

/// The first minute of a course: late in the evening, in UTC.
const START: u64 = 1_000_700;
/// The length of a day, in minutes.
const DAY: u64 = 24 * 60;

pub(super) fn budget_limits() -> impl Strategy<Value = Limits> {
    let amount = |most: u64| prop::option::weighted(0.6, 0..=most);
    let limits = || {
        let payments = prop::option::weighted(0.3, 0..12_u64);
        (amount(250), amount(400), amount(600), amount(400), amount(900), payments)
            .prop_map(|(hour, day, month, today, total, payments)| [hour, day, month, today, total, payments])
    };
    prop::option::weighted(0.6, (limits(), limits(), any::<bool>()))
}

/// A payment that was signed for a request.
#[derive(Clone, Debug)]
struct SignedPayment {
    id: PurchaseId,
    budgets: Vec<Arc<str>>,
    /// `None`: an authorization.
    channel: Option<ChannelId>,
    above: u64,
    upto: u64,
    /// When it was first signed.
    at: Instant,
    was_sent: bool,
}

#[derive(Default)]
pub(super) struct ModelBudgets {
    all: Option<Arc<Budget>>,
    some: Option<Arc<Budget>>,
    /// Those of all runs so far.
    pub(super) runs: Vec<Arc<Budget>>,
    pub(super) has_one_shots: bool,
    pub(super) demands: BTreeMap<PurchaseId, BudgetSet>,
    signed: Vec<SignedPayment>,
    /// Requests whose payment has reached its seller although its outcome is open.
    pub(super) on_their_way: BTreeSet<PurchaseId>,
}

impl ModelBudgets {
    pub(super) fn new(limits: Limits, account: &Account) -> Self {
        let Some((all, some, has_one_shots)) = limits else { return Self::default() };
        let token = |asset: AssetId| KnownAsset {
            symbol: "T".into(),
            network: "any".into(),
            asset,
            decimals: 0,
            usd: None,
            domain: None,
        };
        let unit = BudgetUnit::Tokens {
            symbol: "T".into(),
            tokens: [
                token(account.token_asset()),
                token(test_token::asset()),
                super::authorizations::dollar(),
            ]
            .into(),
        };
        let budget = |name: &str, [hour, day, month, today, total, payments]: [Option<u64>; 6]| {
            let cost = |units: Option<u64>| BudgetUnit::cost_of_units(units?.into(), 0);
            let limits = BudgetLimits {
                per_hour: cost(hour),
                per_day: cost(day),
                per_30_days: cost(month),
                per_calendar_day: cost(today),
                total: cost(total),
                payments,
                ..BudgetLimits::default()
            };
            Some(Arc::new(Budget::new(name, unit.clone(), limits)))
        };
        Self { all: budget("all", all), some: budget("some", some), has_one_shots, ..Self::default() }
    }

    /// What the budgets count, if there are any.
    pub(super) fn unit(&self) -> Option<BudgetUnit> {
        Some(self.all.as_ref()?.unit.clone())
    }

    /// The budgets of a host: all share one, two share another, one for each receiver.
    pub(super) fn of(&self, host: usize) -> BudgetSet {
        let some = self.some.iter().filter(|_| host < 2);
        let reference = |budget: &Arc<Budget>| BudgetRef { budget: Arc::clone(budget), host: None };
        self.all.iter().chain(some).map(reference).collect()
    }

    /// A payment was signed, or the same one once more.
    pub(super) fn signed(
        &mut self,
        id: PurchaseId,
        channel: Option<ChannelId>,
        (above, upto): (u64, u64),
        at: Instant,
    ) {
        let is_same =
            |signed: &SignedPayment| signed.id == id && signed.channel == channel && signed.upto == upto;
        if self.signed.last().is_some_and(is_same) || self.signed.iter().any(is_same) {
            return;
        }
        let budgets = self.demands.get(&id).into_iter().flat_map(|set| set.iter());
        let budgets = budgets.map(|budget| Arc::clone(&budget.budget.name)).collect();
        self.signed.push(SignedPayment { id, budgets, channel, above, upto, at, was_sent: false });
    }

    pub(super) fn sent(&mut self, id: PurchaseId) {
        self.signed.iter_mut().filter(|signed| signed.id == id).for_each(|signed| signed.was_sent = true);
    }

    /// Whether the payment of a request has reached its seller, which has not answered.
    pub(super) fn is_on_its_way(&self, id: PurchaseId) -> bool {
        self.on_their_way.contains(&id)
    }

    /// What was signed for the request and never sent is lost.
    pub(super) fn unsent(&mut self, id: PurchaseId) {
        self.signed.retain(|signed| signed.id != id || signed.was_sent);
    }
}

/// How many units disjoint or overlapping ranges contain together.
fn union(mut ranges: Vec<(u64, u64)>) -> u64 {
    ranges.sort_unstable();
    let (mut sum, mut end) = (0, 0);
    for (above, upto) in ranges {
        sum += upto.saturating_sub(above.max(end));
        end = end.max(upto);
    }
    sum
}

impl Model {
    pub(super) fn minute(&self) -> u64 {
        START + self.now.duration_since(self.began).as_secs() / 60
    }

    pub(super) fn tell_time(&mut self) {
        self.engine.set_time(self.minute());
        self.engine.set_authorization_time(self.authorization_time());
    }

    /// What sellers can redeem of each budget is within its limits.
    pub(super) fn check_budgets(&self) {
        for budget in self.budgets.all.iter().chain(&self.budgets.some).chain(&self.budgets.runs) {
            for window in Window::ALL {
                let Some(limit) = budget.limits.within(window) else { continue };
                // Until it is signed, a payment may wait for its record.
                let minutes = match window {
                    Window::Hour => 60 - 5,
                    Window::Day => 24 * 60 - 5,
                    Window::ThirtyDays => 30 * 24 * 60 - 5,
                    Window::CalendarDay => (self.minute() % DAY).saturating_sub(5),
                    Window::CalendarWeek | Window::CalendarMonth => unreachable!("no limit"),
                    Window::Total => u64::MAX / 60,
                };
                let mut ranges: BTreeMap<ChannelId, Vec<(u64, u64)>> = BTreeMap::new();
                let mut redeemable = 0;
                for signed in &self.budgets.signed {
                    let age = self.now.duration_since(signed.at).as_secs();
                    if !signed.budgets.contains(&budget.name) || age >= minutes * 60 {
                        continue;
                    }
                    match signed.channel {
                        None => redeemable += signed.upto - signed.above,
                        Some(id) => {
                            let most = match self.settled.get(&id) {
                                Some(total) => *total,
                                None if self.chain.contains_key(&id) => u64::MAX,
                                // Its opening was undone.
                                None => 0,
                            };
                            let range = (signed.above.min(most), signed.upto.min(most));
                            ranges.entry(id).or_default().push(range);
                        }
                    }
                }
                redeemable += ranges.into_values().map(union).sum::<u64>();
                let limit: Amount = limit.buys(BudgetUnit::cost_of_units(1.into(), 0).unwrap());
                assert!(
                    Amount::from(redeemable) <= limit,
                    "{redeemable} of {limit} {} in {}: {:?}",
                    window.key(),
                    budget.name,
                    self.budgets.signed
                );
            }
            let mut known: BTreeMap<ChannelId, Vec<(u64, u64)>> = BTreeMap::new();
            let mut payments = 0;
            for signed in self.budgets.signed.iter().filter(|signed| signed.budgets.contains(&budget.name)) {
                let ranges = signed.channel.map(|id| known.entry(id).or_default());
                let is_new = ranges.is_none_or(|ranges| {
                    let before = union(ranges.clone());
                    ranges.push((signed.above, signed.upto));
                    union(ranges.clone()) > before
                });
                payments += u64::from(is_new);
            }
            assert!(
                budget.limits.payments.is_none_or(|most| payments <= most),
                "{payments} payments in {}",
                budget.name
            );
        }
    }

    pub(super) fn demand_one_shot(&mut self, host: HostName, price: u64) {
        self.next += 1;
        let purchase = PurchaseId(self.next);
        self.one_shots.insert(purchase, OneShotRequest { price, is_granted: false, ended: false });
        let limit = SpendLimit {
            host,
            max_price: test_token::at_most(MAX_PRICE),
            receivers: Vec::new(),
            preference: Arc::default(),
            hooks: Arc::clone(&self.policy.hooks),
            budgets: self.budgets.of(3),
            origin: Default::default(),
        };
        self.budgets.demands.insert(purchase, limit.budgets.clone());
        let mut nonce = [0; 32];
        nonce[..8].copy_from_slice(&self.next.to_be_bytes());
        let deadline = self.now + self.policy.pay_timeout;
        let offer = Offer::TestToken(TokenOffer { price: price.into(), payee: SELLERS[0], is_later: false });
        self.handle(Input::DemandOneShot {
            purchase,
            offer,
            limit,
            deadline,
            nonce,
            key: None,
            occasion: Occasion::Asked,
        });
    }

    pub(super) fn granted_one_shot(&mut self, id: PurchaseId) {
        assert!(!self.authorizations.is_frozen, "signed while it is frozen");
        let shot = self.one_shots.get_mut(&id).unwrap();
        assert!(!shot.ended && shot.price <= MAX_PRICE);
        shot.is_granted = true;
        let price = shot.price;
        self.budgets.signed(id, None, (0, price), self.now);
    }

    fn in_flight(&self, which: usize) -> Option<PurchaseId> {
        let flying = self.one_shots.iter().filter(|(_, shot)| shot.is_granted && !shot.ended);
        pick(&flying.map(|(id, _)| *id).collect::<Vec<_>>(), which)
    }

    pub(super) fn answer_one_shot(&mut self, which: usize, how: &How) {
        let Some(id) = self.in_flight(which) else { return };
        self.budgets.sent(id);
        let shot = self.one_shots.get_mut(&id).unwrap();
        let price = shot.price;
        let outcome = match how {
            How::LostBefore | How::LostAfter | How::Robs { .. } => Outcome::InDoubt,
            How::Honest | How::Accepted => Outcome::Accepted,
            How::Complains(_) | How::Claims { .. } => {
                let is_later = matches!(how, How::Complains(_));
                let offer = TokenOffer { price: price.into(), payee: SELLERS[0], is_later };
                Outcome::Rejected(Box::new(Offer::TestToken(offer)))
            }
        };
        // A later presentation of the same payment is granted again.
        shot.is_granted = false;
        shot.ended |= !matches!(outcome, Outcome::Rejected(_));
        self.handle(Input::Answer(id, outcome));
    }

    pub(super) fn withdraw_one_shot(&mut self, which: usize) {
        let open: Vec<_> = self.one_shots.iter().filter(|(_, shot)| !shot.ended).map(|(id, _)| *id).collect();
        let Some(id) = pick(&open, which) else { return };
        self.budgets.unsent(id);
        self.one_shots.get_mut(&id).unwrap().ended = true;
        self.shot_questions.retain(|asked| *asked != id);
        self.handle(Input::Withdraw(id));
    }
}
