//! The ledger of this life: what was paid to whom, in memory. The journal on disk knows channels and totals; only here
//! stands for which host a payment was made, so that a bill can be written.
//!
//! Filled by leases as they come back, so that it counts what the book counts. A payment is counted by how much it
//! raises what the seller can redeem: the same total presented again adds nothing, and one that was presented stays
//! counted, whatever becomes of the next attempt.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use http::Uri;
use serde::{Deserialize, Serialize};

use super::{Returned, lock};
use crate::protocol::{Address, Amount, ChannelId, Draft};

/// How many payments of one channel whose fate is not known are remembered, so that they can be cleared up. More stay
/// unclear.
const DOUBTS: usize = 64;

/// What was paid to whom since the proxy began.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bill {
    /// When the proxy began, in milliseconds since 1970: two bills with the same beginning are of the same proxy.
    pub since: u64,
    /// Who pays, and in which token, once that is known.
    pub from: Option<PaidFrom>,
    /// One entry for each host and receiver, the most expensive first.
    pub payees: Vec<Payee>,
    /// What went to payees beyond `limits.report_payees`.
    pub others: Spent,
    /// Payments that are on their way: what they come to is not known yet.
    pub under_way: Sum,
}

/// Who pays, and in which token. The same for a whole life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PaidFrom {
    /// The id of the chain.
    pub chain_id: u64,
    /// The channel contract.
    pub contract: Address,
    /// The token that amounts are base units of.
    pub token: Address,
    /// Who pays.
    pub payer: Address,
}

/// What one host, by one receiver, was paid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payee {
    /// The host, with its port where that is not the scheme's own.
    pub host: String,
    /// Who got the money.
    pub receiver: Address,
    /// How much.
    #[serde(flatten)]
    pub spent: Spent,
}

/// Money that was signed away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spent {
    /// What the seller took.
    pub paid: Sum,
    /// What was promised and may have been taken: the answer was lost or an error, or the seller asked again.
    pub unclear: Sum,
    /// What was unclear until a later payment was taken in its place: it is part of `paid` now.
    #[serde(default, skip_serializing_if = "Sum::is_nothing")]
    pub cleared: Sum,
}

/// A number of requests and what they cost together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sum {
    /// How many.
    pub requests: u64,
    /// How much, in base units.
    pub amount: Amount,
}

impl Bill {
    /// What this bill has more than an earlier one of the same proxy. What is under way now stays.
    #[must_use]
    pub fn since(mut self, earlier: &Self) -> Self {
        let before: HashMap<_, _> =
            earlier.payees.iter().map(|payee| ((payee.host.as_str(), payee.receiver), payee.spent)).collect();
        for Payee { host, receiver, spent } in &mut self.payees {
            if let Some(before) = before.get(&(host.as_str(), *receiver)) {
                *spent = spent.since(before);
            }
        }
        self.payees.retain(|payee| payee.spent != Spent::default());
        self.others = self.others.since(&earlier.others);
        self.sorted()
    }

    /// All of it in one sum.
    #[must_use]
    pub fn total(&self) -> Spent {
        self.payees.iter().fold(self.others, |total, payee| total.plus(&payee.spent))
    }

    fn sorted(mut self) -> Self {
        self.payees.sort_by(|one, other| {
            let price = |payee: &Payee| (payee.spent.paid.amount, payee.spent.unclear.amount);
            let by_name = || (&one.host, one.receiver).cmp(&(&other.host, other.receiver));
            price(other).cmp(&price(one)).then_with(by_name)
        });
        self
    }
}

impl Spent {
    fn plus(&self, more: &Self) -> Self {
        Self {
            paid: self.paid.plus(&more.paid),
            unclear: self.unclear.plus(&more.unclear),
            cleared: self.cleared.plus(&more.cleared),
        }
    }

    fn since(&self, before: &Self) -> Self {
        let (all, all_before) = (self.unclear.plus(&self.cleared), before.unclear.plus(&before.cleared));
        // What was cleared up is older payments first. None of the newer ones that are still unclear is hidden by it.
        let unclear = all.minus(&all_before.max(&self.cleared));
        Self { paid: self.paid.minus(&before.paid), unclear, cleared: Sum::default() }
    }
}

impl Sum {
    fn of(amount: Amount) -> Self {
        Self { requests: 1, amount }
    }

    fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    fn max(&self, other: &Self) -> Self {
        Self { requests: self.requests.max(other.requests), amount: self.amount.max(other.amount) }
    }

    fn plus(&self, more: &Self) -> Self {
        Self {
            requests: self.requests.saturating_add(more.requests),
            amount: self.amount.saturating_add(more.amount),
        }
    }

    fn minus(&self, less: &Self) -> Self {
        Self {
            requests: self.requests.saturating_sub(less.requests),
            amount: self.amount.saturating_sub(less.amount),
        }
    }
}

/// The counters, bounded in number.
#[derive(Debug)]
pub(super) struct Ledger {
    since: u64,
    most: usize,
    count: usize,
    hosts: HashMap<String, HashMap<Address, Spent>>,
    others: Spent,
    under_way: Sum,
    /// Of each channel, what its seller was shown in this life.
    channels: HashMap<ChannelId, Shown>,
}

/// What the seller of a channel was shown.
#[derive(Debug, Default)]
struct Shown {
    /// The highest total.
    highest: Amount,
    /// Payments that may have been taken.
    doubts: Vec<Doubt>,
}

/// A payment that may have been taken: so much of what lies between two totals, and whom it is counted for.
#[derive(Debug)]
struct Doubt {
    host: String,
    raise: Raise,
}

/// By how much the seller can redeem more of a channel than before.
#[derive(Clone, Copy, Debug)]
struct Raise {
    channel: ChannelId,
    above: Amount,
    to: Amount,
    by: Amount,
}

impl Raise {
    /// How much of it lies at or below `total`, at most.
    fn up_to(&self, total: Amount) -> Amount {
        self.between(self.above, total)
    }

    /// How much of it lies between two totals, at most.
    fn between(&self, base: Amount, total: Amount) -> Amount {
        self.by.min(total.min(self.to).saturating_sub(base.max(self.above)))
    }

    /// Without the lowest part of it.
    fn without(self, part: Amount) -> Option<Self> {
        let above = self.above.saturating_add(part);
        Some(Self { above, by: self.by.saturating_sub(part), ..self }).filter(|rest| !rest.by.is_zero())
    }
}

impl Ledger {
    /// Tells at most `most` payees apart; `since` is in milliseconds since 1970.
    pub(super) fn new(most: usize, since: u64) -> Self {
        let (hosts, others, under_way) = (HashMap::new(), Spent::default(), Sum::default());
        Self { since, most, count: 0, hosts, others, under_way, channels: HashMap::new() }
    }

    pub(super) fn bill(&self) -> Bill {
        let payees = self.hosts.iter().flat_map(|(host, receivers)| {
            let payee = |(receiver, spent): (&Address, &Spent)| Payee {
                host: host.clone(),
                receiver: *receiver,
                spent: *spent,
            };
            receivers.iter().map(payee)
        });
        let payees = payees.collect();
        Bill { since: self.since, from: None, payees, others: self.others, under_way: self.under_way }
            .sorted()
    }

    /// The counters of a payee; those of all others where there are too many.
    fn spent(&mut self, host: &str, receiver: Address) -> &mut Spent {
        let is_known = self.hosts.get(host).is_some_and(|receivers| receivers.contains_key(&receiver));
        if !is_known {
            if self.count >= self.most {
                return &mut self.others;
            }
            self.count += 1;
        }
        self.hosts.entry(host.to_owned()).or_default().entry(receiver).or_default()
    }

    /// Counts what may have been taken.
    fn doubt(&mut self, host: &str, raise: Raise) {
        let spent = self.spent(host, raise.channel.receiver);
        spent.unclear = spent.unclear.plus(&Sum::of(raise.by));
        let doubts = &mut self.channels.entry(raise.channel).or_default().doubts;
        if doubts.len() == DOUBTS {
            doubts.remove(0);
        }
        doubts.push(Doubt { host: host.to_owned(), raise });
    }

    /// A payment was taken that raised the total by `missing` less than its price: so much of what was in doubt was not
    /// taken before. Says how much of that is known here.
    fn clear(&mut self, draft: &Draft, mut missing: Amount) -> Amount {
        let mut cleared = Amount::ZERO;
        if missing.is_zero() {
            return cleared;
        }
        let mut doubts = self
            .channels
            .get_mut(&draft.channel)
            .map(|shown| std::mem::take(&mut shown.doubts))
            .unwrap_or_default();
        let base = draft.total.saturating_sub(draft.price);
        doubts.retain_mut(|Doubt { host, raise }| {
            let amount = raise.between(base, draft.total).min(missing);
            if amount.is_zero() {
                return true;
            }
            (missing, cleared) = (missing.saturating_sub(amount), cleared.saturating_add(amount));
            raise.by = raise.by.saturating_sub(amount);
            let is_over = raise.by.is_zero();
            let sum = Sum { requests: is_over.into(), amount };
            let spent = self.spent(host, draft.channel.receiver);
            (spent.unclear, spent.cleared) = (spent.unclear.minus(&sum), spent.cleared.plus(&sum));
            !is_over
        });
        if let Some(shown) = self.channels.get_mut(&draft.channel) {
            shown.doubts = doubts;
        }
        cleared
    }

    /// A payment provably never left: the seller was shown no more than before.
    fn take_back(&mut self, draft: &Draft, highest: Option<Amount>) {
        match (highest, self.channels.get_mut(&draft.channel)) {
            (Some(highest), Some(shown)) => shown.highest = highest,
            (None, Some(_)) => drop(self.channels.remove(&draft.channel)),
            (_, None) => {}
        }
    }
}

/// What a lease writes into the ledger when it comes back.
#[derive(Debug)]
pub(super) struct Tab {
    ledger: Arc<Mutex<Ledger>>,
    host: String,
    receiver: Address,
    /// The payment that is being sent, and what was so before.
    sending: Option<(Draft, Before)>,
    /// True once a payment may have reached the seller.
    is_presented: bool,
    /// By how much this request raised what the seller can redeem.
    raise: Option<Raise>,
    /// What of it is counted as under way.
    under_way: Option<Amount>,
}

/// What is so again when a payment provably never left.
#[derive(Clone, Copy, Debug)]
struct Before {
    highest: Option<Amount>,
    is_presented: bool,
    raise: Option<Raise>,
}

impl Tab {
    /// A tab for payments to `receiver` that are made for requests to the origin of `url`.
    pub(super) fn new(ledger: Arc<Mutex<Ledger>>, url: &Uri, receiver: Address) -> Self {
        let (host, sending, raise, under_way) = (host(url), None, None, None);
        Self { ledger, host, receiver, sending, is_presented: false, raise, under_way }
    }

    /// A payment is about to be sent.
    pub(super) fn begin(&mut self, draft: &Draft) {
        if self.sending.is_some() {
            return;
        }
        let ledger = Arc::clone(&self.ledger);
        let mut ledger = lock(&ledger);
        let Draft { channel, total, price } = *draft;
        // What the seller held before: this payment stands on it.
        let base = total.saturating_sub(price);
        let highest = ledger.channels.get(&channel).map(|shown| shown.highest);
        let before = Before { highest, is_presented: self.is_presented, raise: self.raise };
        self.sending = Some((*draft, before));
        self.is_presented = true;
        let above = highest.unwrap_or(base).max(base);
        let by = total.saturating_sub(above);
        if !by.is_zero() {
            ledger.channels.entry(channel).or_default().highest = total;
        }
        let new = Raise { channel, above, to: total, by };
        // An earlier total below the base turned out to be an older one. One of another channel is worth nothing any
        // more: otherwise the book would not have granted this payment.
        self.raise = match self.raise.filter(|earlier| earlier.channel == channel && earlier.to > base) {
            Some(earlier) => Some(Raise {
                above: earlier.above,
                to: earlier.to.max(total),
                by: earlier.by.saturating_add(by),
                channel,
            }),
            None => Some(new).filter(|new| !new.by.is_zero()),
        };
        self.count_under_way(&mut ledger, self.raise);
    }

    /// The seller has seen what was sent, and asks again: that stays on the tab, whatever comes next.
    pub(super) fn answered(&mut self) {
        self.sending = None;
    }

    /// The seller has proven that it holds `total` of what was presented.
    pub(super) fn registered(&mut self, total: Amount) {
        let paid = self.raise.map_or(Amount::ZERO, |raise| raise.up_to(total));
        let ledger = Arc::clone(&self.ledger);
        self.settle(&mut lock(&ledger), Some(paid));
    }

    /// The request is over, and this is what became of the last payment. Says nothing where none was presented.
    pub(super) fn end(&mut self, how: Returned) {
        let ledger = Arc::clone(&self.ledger);
        let mut ledger = lock(&ledger);
        let sent = self.sending.take();
        let paid = match (how, sent) {
            (Returned::Accepted, Some((draft, _))) => {
                let own = self.raise.map_or(Amount::ZERO, |raise| raise.by.min(draft.price));
                Some(own.saturating_add(ledger.clear(&draft, draft.price.saturating_sub(own))))
            }
            (Returned::Unsent, Some((draft, before))) => {
                ledger.take_back(&draft, before.highest);
                (self.is_presented, self.raise) = (before.is_presented, before.raise);
                None
            }
            (Returned::Accepted | Returned::InDoubt, _) | (Returned::Unsent, None) => None,
        };
        self.settle(&mut ledger, paid);
    }

    /// Writes down what was paid, and the rest of what the seller can redeem as unclear.
    fn settle(&mut self, ledger: &mut Ledger, paid: Option<Amount>) {
        self.count_under_way(ledger, None);
        let raise = self.raise.take();
        if !std::mem::take(&mut self.is_presented) {
            return;
        }
        if let Some(paid) = paid {
            let spent = ledger.spent(&self.host, self.receiver);
            spent.paid = spent.paid.plus(&Sum::of(paid));
        }
        if let Some(rest) = raise.and_then(|raise| raise.without(paid.unwrap_or_default())) {
            ledger.doubt(&self.host, rest);
        }
    }

    fn count_under_way(&mut self, ledger: &mut Ledger, now: Option<Raise>) {
        let now = now.map(|raise| raise.by);
        if let Some(before) = std::mem::replace(&mut self.under_way, now) {
            ledger.under_way = ledger.under_way.minus(&Sum::of(before));
        }
        if let Some(now) = now {
            ledger.under_way = ledger.under_way.plus(&Sum::of(now));
        }
    }
}

/// The host of a URL and, where it is not the scheme's own, its port; without a user name and password.
fn host(url: &Uri) -> String {
    let host = url.host().unwrap_or_default().to_ascii_lowercase();
    let own = if url.scheme() == Some(&http::uri::Scheme::HTTPS) { 443 } else { 80 };
    match url.port_u16() {
        Some(port) if port != own => format!("{host}:{port}"),
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use crate::payments::report::*;

    const ALICE: Address = Address([1; 20]);
    const BOB: Address = Address([2; 20]);

    fn ledger(most: usize) -> Arc<Mutex<Ledger>> {
        Arc::new(Mutex::new(Ledger::new(most, 7)))
    }

    /// A payment from a channel of its own.
    fn pay(ledger: &Arc<Mutex<Ledger>>, url: &str, receiver: Address, price: u64, how: Returned) {
        let open_block = lock(ledger).channels.len() as u32 + 1;
        let channel = ChannelId { receiver, open_block };
        let mut tab = tab(ledger, url, receiver);
        tab.begin(&Draft { channel, total: price.into(), price: price.into() });
        tab.end(how);
    }

    fn tab(ledger: &Arc<Mutex<Ledger>>, url: &str, receiver: Address) -> Tab {
        Tab::new(Arc::clone(ledger), &url.parse().unwrap(), receiver)
    }

    /// A tab of a request to one host, and what of one channel to Alice is presented for it.
    fn one(ledger: &Arc<Mutex<Ledger>>) -> Tab {
        tab(ledger, "http://a.example/", ALICE)
    }

    fn draft(total: u64, price: u64) -> Draft {
        let channel = ChannelId { receiver: ALICE, open_block: 7 };
        Draft { channel, total: total.into(), price: price.into() }
    }

    /// What stands on the bill as paid and as unclear; nothing is under way any more.
    fn billed(ledger: &Arc<Mutex<Ledger>>) -> (Sum, Sum) {
        let bill = lock(ledger).bill();
        assert_eq!(bill.under_way, Sum::default());
        (bill.total().paid, bill.total().unclear)
    }

    fn sum(requests: u64, amount: u64) -> Sum {
        Sum { requests, amount: amount.into() }
    }

    #[test]
    fn each_payee_has_a_line_the_most_expensive_first() {
        let ledger = ledger(10);
        pay(&ledger, "http://a.example/x", ALICE, 5, Returned::Accepted);
        pay(&ledger, "http://me:hush@A.example:80/y", ALICE, 6, Returned::Accepted);
        pay(&ledger, "https://a.example:443/", ALICE, 7, Returned::InDoubt);
        pay(&ledger, "http://a.example:8080/", ALICE, 100, Returned::Accepted);
        pay(&ledger, "http://a.example/", BOB, 1, Returned::Accepted);
        pay(&ledger, "http://never.example/", BOB, 1, Returned::Unsent);
        let bill = lock(&ledger).bill();
        let lines: Vec<_> = bill
            .payees
            .iter()
            .map(|payee| (payee.host.as_str(), payee.receiver, payee.spent.paid, payee.spent.unclear))
            .collect();
        let none = Sum::default();
        assert_eq!(
            lines,
            [
                ("a.example:8080", ALICE, sum(1, 100), none),
                ("a.example", ALICE, sum(2, 11), sum(1, 7)),
                ("a.example", BOB, sum(1, 1), none),
            ]
        );
        assert_eq!(bill.total(), Spent { paid: sum(4, 112), unclear: sum(1, 7), ..Spent::default() });
        assert_eq!((bill.since, bill.from, bill.others, bill.under_way), (7, None, Spent::default(), none));
    }

    #[test]
    fn beyond_the_limit_the_sums_stay_right() {
        let ledger = ledger(2);
        for host in 0..5 {
            pay(&ledger, &format!("http://{host}.example/"), ALICE, 10, Returned::Accepted);
        }
        // Who has a line keeps it.
        pay(&ledger, "http://0.example/", ALICE, 1, Returned::Accepted);
        pay(&ledger, "http://4.example/", ALICE, 2, Returned::InDoubt);
        let bill = lock(&ledger).bill();
        assert_eq!(bill.payees.len(), 2);
        assert_eq!(bill.payees[0].spent.paid, sum(2, 11));
        assert_eq!(bill.others, Spent { paid: sum(3, 30), unclear: sum(1, 2), ..Spent::default() });
        assert_eq!(bill.total(), Spent { paid: sum(6, 51), unclear: sum(1, 2), ..Spent::default() });
    }

    #[test]
    fn a_payment_is_under_way_until_it_is_back_and_counts_once() {
        let ledger = ledger(10);
        let mut tab = one(&ledger);
        tab.end(Returned::Accepted);
        tab.begin(&draft(5, 5));
        tab.begin(&draft(5, 5));
        assert_eq!(lock(&ledger).bill().under_way, sum(1, 5));
        assert!(lock(&ledger).bill().payees.is_empty());
        tab.end(Returned::Accepted);
        tab.end(Returned::Accepted);
        let bill = lock(&ledger).bill();
        assert_eq!((bill.under_way, bill.total().paid), (Sum::default(), sum(1, 5)));
    }

    #[test]
    fn what_was_presented_once_is_not_undone_by_an_attempt_that_never_left() {
        for how in [Returned::Unsent, Returned::InDoubt, Returned::Accepted] {
            let ledger = ledger(10);
            let mut tab = one(&ledger);
            tab.begin(&draft(5, 5));
            tab.answered();
            assert_eq!(lock(&ledger).bill().under_way, sum(1, 5), "it may yet be taken");
            tab.begin(&draft(5, 5));
            assert_eq!(lock(&ledger).bill().under_way, sum(1, 5), "the same payment again counts once");
            tab.end(how);
            let paid = matches!(how, Returned::Accepted);
            let (all, none) = (sum(1, 5), Sum::default());
            assert_eq!(billed(&ledger), if paid { (all, none) } else { (none, all) }, "{how:?}");
        }
        // The client leaves before the next attempt.
        let ledger = ledger(10);
        let mut tab = one(&ledger);
        tab.begin(&draft(5, 5));
        tab.answered();
        tab.end(Returned::Unsent);
        assert_eq!(billed(&ledger), (Sum::default(), sum(1, 5)));
    }

    #[test]
    fn what_never_left_costs_nothing_and_the_next_payment_counts_in_full() {
        let ledger = ledger(10);
        let mut tab = one(&ledger);
        tab.begin(&draft(5, 5));
        tab.end(Returned::Unsent);
        assert_eq!(billed(&ledger), (Sum::default(), Sum::default()));
        let mut tab = one(&ledger);
        tab.begin(&draft(5, 5));
        tab.end(Returned::Accepted);
        let mut tab = one(&ledger);
        tab.begin(&draft(12, 7));
        tab.end(Returned::Unsent);
        assert_eq!(billed(&ledger), (sum(1, 5), Sum::default()));
    }

    #[test]
    fn all_totals_that_one_request_presented_are_counted_by_what_they_raise() {
        for (totals, how, paid, unclear) in [
            // The price rises: the second payment stands on the same base.
            (&[(5, 5), (35, 35)][..], Returned::Accepted, sum(1, 35), Sum::default()),
            (&[(5, 5), (35, 35)], Returned::InDoubt, Sum::default(), sum(1, 35)),
            // The second one never left: the seller has the first.
            (&[(5, 5), (35, 35)], Returned::Unsent, Sum::default(), sum(1, 5)),
            // The price falls: the seller can still redeem what it was shown first.
            (&[(35, 35), (5, 5)], Returned::Accepted, sum(1, 5), sum(1, 30)),
            (&[(35, 35), (5, 5)], Returned::Unsent, Sum::default(), sum(1, 35)),
            // The seller has proven an older total, so the first payment was none.
            (&[(5, 5), (105, 5)], Returned::Accepted, sum(1, 5), Sum::default()),
        ] {
            let ledger = ledger(10);
            let mut tab = one(&ledger);
            for (total, price) in totals {
                tab.answered();
                tab.begin(&draft(*total, *price));
            }
            tab.end(how);
            assert_eq!(billed(&ledger), (paid, unclear), "{totals:?} {how:?}");
        }
    }

    #[test]
    fn another_channel_takes_the_place_of_one_that_is_gone() {
        let other = Draft { channel: ChannelId { receiver: ALICE, open_block: 8 }, ..draft(5, 5) };
        for (how, paid, unclear) in [
            (Returned::Accepted, sum(1, 5), Sum::default()),
            (Returned::InDoubt, Sum::default(), sum(1, 5)),
            (Returned::Unsent, Sum::default(), sum(1, 5)),
        ] {
            let ledger = ledger(10);
            let mut tab = one(&ledger);
            tab.begin(&draft(5, 5));
            tab.answered();
            tab.begin(&other);
            tab.end(how);
            assert_eq!(billed(&ledger), (paid, unclear), "{how:?}");
        }
    }

    #[test]
    fn of_what_a_seller_proves_to_hold_only_that_is_paid() {
        for (total, paid, unclear) in [(35, sum(1, 35), Sum::default()), (5, sum(1, 5), sum(1, 30))] {
            let ledger = ledger(10);
            let mut tab = one(&ledger);
            tab.begin(&draft(5, 5));
            tab.answered();
            tab.begin(&draft(35, 35));
            tab.answered();
            tab.registered(total.into());
            tab.end(Returned::Unsent);
            assert_eq!(billed(&ledger), (paid, unclear), "{total}");
        }
    }

    #[test]
    fn a_lost_payment_that_is_taken_for_a_later_request_counts_once() {
        let ledger = ledger(10);
        let mut lost = tab(&ledger, "http://b.example/", ALICE);
        lost.begin(&draft(5, 5));
        lost.end(Returned::InDoubt);
        assert_eq!(billed(&ledger), (Sum::default(), sum(1, 5)));
        let before = lock(&ledger).bill();
        // The same total again, and once more without an answer: it raises nothing.
        let mut again = one(&ledger);
        again.begin(&draft(5, 5));
        again.end(Returned::InDoubt);
        assert_eq!(billed(&ledger), (Sum::default(), sum(1, 5)));
        let mut taken = one(&ledger);
        taken.begin(&draft(5, 5));
        taken.end(Returned::Accepted);
        assert_eq!(billed(&ledger), (sum(1, 5), Sum::default()));

        // Of what came between two bills nothing is hidden by what was cleared up of an earlier one.
        let mut newer = one(&ledger);
        newer.begin(&draft(9, 4));
        newer.end(Returned::InDoubt);
        let total = lock(&ledger).bill().since(&before).total();
        assert_eq!((total.paid, total.unclear), (sum(1, 5), sum(1, 4)));
        // What was taken after all stays where it is, and the next payment stands on it.
        let mut next = one(&ledger);
        next.begin(&draft(13, 4));
        next.end(Returned::Accepted);
        assert_eq!(billed(&ledger), (sum(2, 9), sum(1, 4)));
    }

    #[test]
    fn payments_that_stay_unclear_are_remembered_up_to_a_limit() {
        let ledger = ledger(10);
        let rounds = 3 * DOUBTS as u64;
        for round in 1..=rounds {
            let mut tab = one(&ledger);
            tab.begin(&draft(round, 1));
            tab.end(Returned::InDoubt);
        }
        assert_eq!(billed(&ledger), (Sum::default(), sum(rounds, rounds)));
        assert_eq!(lock(&ledger).channels[&draft(1, 1).channel].doubts.len(), DOUBTS);
    }

    #[test]
    fn the_difference_of_two_bills_is_what_came_between() {
        let ledger = ledger(2);
        pay(&ledger, "http://a.example/", ALICE, 10, Returned::Accepted);
        pay(&ledger, "http://b.example/", ALICE, 10, Returned::Accepted);
        pay(&ledger, "http://c.example/", ALICE, 10, Returned::Accepted);
        let before = lock(&ledger).bill();
        pay(&ledger, "http://b.example/", ALICE, 3, Returned::Accepted);
        pay(&ledger, "http://c.example/", ALICE, 4, Returned::InDoubt);
        let between = lock(&ledger).bill().since(&before);
        let [payee] = &between.payees[..] else { panic!("{between:?}") };
        assert_eq!((payee.host.as_str(), payee.spent.paid), ("b.example", sum(1, 3)));
        assert_eq!(between.others, Spent { unclear: sum(1, 4), ..Spent::default() });
        let again = lock(&ledger).bill();
        assert_eq!(again.clone().since(&again).total(), Spent::default());
    }

    #[test]
    fn a_bill_goes_through_json() {
        let ledger = ledger(10);
        pay(&ledger, "http://a.example:81/", ALICE, 5, Returned::Accepted);
        let bill = lock(&ledger).bill();
        let text = serde_json::to_string(&bill).unwrap();
        assert!(text.contains(r#""host":"a.example:81""#) && text.contains(r#""amount":"5""#), "{text}");
        assert_eq!(serde_json::from_str::<Bill>(&text).unwrap(), bill);
    }
}
