//! What was paid to whom since the process started, in memory. The journal stores channels and totals; only this module
//! knows for which host a payment was made.
//!
//! Returned leases update it, so it counts what the engine counts. A payment counts by how much it raises what the
//! seller can redeem: presenting the same total again adds nothing, and what was presented stays counted, whatever the
//! result of the next attempt.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use http::Uri;
use serde::{Deserialize, Serialize};

use crate::mutex::lock;
use crate::protocol::channel::ChannelDraft;
use crate::protocol::{Account, Address, Amount, ChannelId};

/// How many payments in doubt to remember per channel, so that a later payment can confirm them. The rest stays in
/// doubt.
const DOUBTS: usize = 64;

/// How the payment of a lease ended.
#[derive(Clone, Copy, Debug)]
pub(super) enum Delivery {
    /// It provably was not sent.
    NotSent,
    /// The seller may have it.
    InDoubt,
    /// The seller took it.
    Accepted,
}

/// What was paid to whom since the process started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpendingReport {
    /// When the process started, in milliseconds since 1970; it tells the reports of two processes apart.
    pub since: u64,
    /// The paying account and its token, once they are known.
    pub from: Option<Account>,
    /// One entry for each host and receiver, the most expensive first.
    pub payees: Vec<PayeeSpending>,
    /// The sum for payees beyond `limits.report_payees`.
    pub others: Spending,
    /// Payments in flight, whose outcome is unknown.
    pub under_way: Tally,
}

/// What was paid to one receiver for one host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PayeeSpending {
    /// The host, with its port unless it is the scheme's default.
    pub host: String,
    /// The receiver.
    pub receiver: Address,
    /// What was paid.
    #[serde(flatten)]
    pub spent: Spending,
}

/// Sums of signed payments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spending {
    /// What the seller took.
    pub paid: Tally,
    /// What the seller may have taken: the response was lost or an error, or the seller sent another 402.
    pub unclear: Tally,
    /// What was in doubt until a later payment was accepted instead; part of `paid`.
    #[serde(default, skip_serializing_if = "Tally::is_nothing")]
    pub cleared: Tally,
}

/// A number of requests and their total price.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// The number of requests.
    pub requests: u64,
    /// Their price, in base units.
    pub amount: Amount,
}

impl SpendingReport {
    /// What was paid since an earlier report of the same process. Payments in flight are those of now.
    #[must_use]
    pub fn since(mut self, earlier: &Self) -> Self {
        let before: HashMap<_, _> =
            earlier.payees.iter().map(|payee| ((payee.host.as_str(), payee.receiver), payee.spent)).collect();
        for PayeeSpending { host, receiver, spent } in &mut self.payees {
            if let Some(before) = before.get(&(host.as_str(), *receiver)) {
                *spent = spent.since(before);
            }
        }
        self.payees.retain(|payee| payee.spent != Spending::default());
        self.others = self.others.since(&earlier.others);
        self.sorted()
    }

    /// The sum over all payees.
    #[must_use]
    pub fn total(&self) -> Spending {
        self.payees.iter().fold(self.others, |total, payee| total.plus(&payee.spent))
    }

    fn sorted(mut self) -> Self {
        self.payees.sort_by(|one, other| {
            let price = |payee: &PayeeSpending| (payee.spent.paid.amount, payee.spent.unclear.amount);
            let by_name = || (&one.host, one.receiver).cmp(&(&other.host, other.receiver));
            price(other).cmp(&price(one)).then_with(by_name)
        });
        self
    }
}

impl Spending {
    fn plus(&self, more: &Self) -> Self {
        Self {
            paid: self.paid.plus(&more.paid),
            unclear: self.unclear.plus(&more.unclear),
            cleared: self.cleared.plus(&more.cleared),
        }
    }

    fn since(&self, before: &Self) -> Self {
        let (all, all_before) = (self.unclear.plus(&self.cleared), before.unclear.plus(&before.cleared));
        // Older payments are confirmed first, so that they hide none of the newer ones in doubt.
        let unclear = all.minus(&all_before.max(&self.cleared));
        Self { paid: self.paid.minus(&before.paid), unclear, cleared: Tally::default() }
    }
}

impl Tally {
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

/// The counters of all payees, bounded in number.
#[derive(Debug)]
pub(super) struct SpendingTotals {
    since: u64,
    most: usize,
    count: usize,
    hosts: HashMap<String, HashMap<Address, Spending>>,
    others: Spending,
    under_way: Tally,
    /// What was presented to the seller of each channel since the start.
    channels: HashMap<ChannelId, PresentedTotals>,
}

/// What was presented to the seller of a channel.
#[derive(Debug, Default)]
struct PresentedTotals {
    /// The highest total.
    highest: Amount,
    /// Payments that may have been taken.
    doubts: Vec<DoubtfulPayment>,
}

/// A payment that the seller may have taken, with the host it counts for.
#[derive(Debug)]
struct DoubtfulPayment {
    host: String,
    raise: Increase,
}

/// By how much a payment raises what a seller can redeem on a channel: at most `by`, between the totals `above` and
/// `to`.
#[derive(Clone, Copy, Debug)]
struct Increase {
    channel: ChannelId,
    above: Amount,
    to: Amount,
    by: Amount,
}

impl Increase {
    /// The most of it at or below `total`.
    fn up_to(&self, total: Amount) -> Amount {
        self.between(self.above, total)
    }

    /// The most of it between two totals.
    fn between(&self, base: Amount, total: Amount) -> Amount {
        self.by.min(total.min(self.to).saturating_sub(base.max(self.above)))
    }

    /// The increase without its lowest part.
    fn without(self, part: Amount) -> Option<Self> {
        let above = self.above.saturating_add(part);
        Some(Self { above, by: self.by.saturating_sub(part), ..self }).filter(|rest| !rest.by.is_zero())
    }
}

impl SpendingTotals {
    /// Counts up to `most` payees separately; `since` is in milliseconds since 1970.
    pub(super) fn new(most: usize, since: u64) -> Self {
        let (hosts, others, under_way) = (HashMap::new(), Spending::default(), Tally::default());
        Self { since, most, count: 0, hosts, others, under_way, channels: HashMap::new() }
    }

    pub(super) fn report(&self) -> SpendingReport {
        let payees = self.hosts.iter().flat_map(|(host, receivers)| {
            let payee = |(receiver, spent): (&Address, &Spending)| PayeeSpending {
                host: host.clone(),
                receiver: *receiver,
                spent: *spent,
            };
            receivers.iter().map(payee)
        });
        let payees = payees.collect();
        SpendingReport {
            since: self.since,
            from: None,
            payees,
            others: self.others,
            under_way: self.under_way,
        }
        .sorted()
    }

    /// The counters of a payee, or the shared ones beyond the limit.
    fn spent(&mut self, host: &str, receiver: Address) -> &mut Spending {
        let is_known = self.hosts.get(host).is_some_and(|receivers| receivers.contains_key(&receiver));
        if !is_known {
            if self.count >= self.most {
                return &mut self.others;
            }
            self.count += 1;
        }
        self.hosts.entry(host.to_owned()).or_default().entry(receiver).or_default()
    }

    /// Counts a payment in doubt.
    fn doubt(&mut self, host: &str, raise: Increase) {
        let spent = self.spent(host, raise.channel.receiver);
        spent.unclear = spent.unclear.plus(&Tally::of(raise.by));
        let doubts = &mut self.channels.entry(raise.channel).or_default().doubts;
        if doubts.len() == DOUBTS {
            doubts.remove(0);
        }
        doubts.push(DoubtfulPayment { host: host.to_owned(), raise });
    }

    /// Confirms earlier payments: a payment was accepted that raised the total by `missing` less than its price, so
    /// that much had been in doubt and was taken now. Returns how much of it is known here.
    fn clear(&mut self, draft: &ChannelDraft, mut missing: Amount) -> Amount {
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
        doubts.retain_mut(|DoubtfulPayment { host, raise }| {
            let amount = raise.between(base, draft.total).min(missing);
            if amount.is_zero() {
                return true;
            }
            (missing, cleared) = (missing.saturating_sub(amount), cleared.saturating_add(amount));
            raise.by = raise.by.saturating_sub(amount);
            let is_over = raise.by.is_zero();
            let sum = Tally { requests: is_over.into(), amount };
            let spent = self.spent(host, draft.channel.receiver);
            (spent.unclear, spent.cleared) = (spent.unclear.minus(&sum), spent.cleared.plus(&sum));
            !is_over
        });
        if let Some(shown) = self.channels.get_mut(&draft.channel) {
            shown.doubts = doubts;
        }
        cleared
    }

    /// Undoes a payment that provably was not sent.
    fn take_back(&mut self, draft: &ChannelDraft, highest: Option<Amount>) {
        match (highest, self.channels.get_mut(&draft.channel)) {
            (Some(highest), Some(shown)) => shown.highest = highest,
            (None, Some(_)) => drop(self.channels.remove(&draft.channel)),
            (_, None) => {}
        }
    }
}

/// Accounts for the payments of one client request.
#[derive(Debug)]
pub(super) struct PaymentGuard {
    totals: Arc<Mutex<SpendingTotals>>,
    host: String,
    receiver: Address,
    /// The payment that is being sent, and the state to restore if it is not.
    sending: Option<(ChannelDraft, BeforeSending)>,
    /// True once a payment may have reached the seller.
    is_presented: bool,
    /// By how much this request raises what the seller can redeem.
    raise: Option<Increase>,
    /// How much of that counts as in flight.
    under_way: Option<Amount>,
}

/// The state to restore if a payment provably was not sent.
#[derive(Clone, Copy, Debug)]
struct BeforeSending {
    highest: Option<Amount>,
    is_presented: bool,
    raise: Option<Increase>,
}

impl PaymentGuard {
    /// Accounts for payments to `receiver` for a request to the origin of `url`.
    pub(super) fn new(totals: Arc<Mutex<SpendingTotals>>, url: &Uri, receiver: Address) -> Self {
        let (host, sending, raise, under_way) = (host(url), None, None, None);
        Self { totals, host, receiver, sending, is_presented: false, raise, under_way }
    }

    /// Records that a payment is about to be sent.
    pub(super) fn begin(&mut self, draft: &ChannelDraft) {
        if self.sending.is_some() {
            return;
        }
        let totals = Arc::clone(&self.totals);
        let mut totals = lock(&totals);
        let ChannelDraft { channel, total, price } = *draft;
        // The total that the seller held before, to which this payment adds its price.
        let base = total.saturating_sub(price);
        let highest = totals.channels.get(&channel).map(|shown| shown.highest);
        let before = BeforeSending { highest, is_presented: self.is_presented, raise: self.raise };
        self.sending = Some((*draft, before));
        self.is_presented = true;
        let above = highest.unwrap_or(base).max(base);
        let by = total.saturating_sub(above);
        if !by.is_zero() {
            totals.channels.entry(channel).or_default().highest = total;
        }
        let new = Increase { channel, above, to: total, by };
        // An earlier total below the base has turned out to be older. One of another channel is void: otherwise the
        // engine would not have granted this payment.
        self.raise = match self.raise.filter(|earlier| earlier.channel == channel && earlier.to > base) {
            Some(earlier) => Some(Increase {
                above: earlier.above,
                to: earlier.to.max(total),
                by: earlier.by.saturating_add(by),
                channel,
            }),
            None => Some(new).filter(|new| !new.by.is_zero()),
        };
        self.count_under_way(&mut totals, self.raise);
    }

    /// Records that the seller has seen the payment and sent another 402: it stays counted, whatever comes next.
    pub(super) fn answered(&mut self) {
        self.sending = None;
    }

    /// Records that the seller has proven that it holds `total`.
    pub(super) fn registered(&mut self, total: Amount) {
        let paid = self.raise.map_or(Amount::ZERO, |raise| raise.up_to(total));
        let totals = Arc::clone(&self.totals);
        self.book(&mut lock(&totals), Some(paid));
    }

    /// Records the outcome of the last payment; no-op if none was presented.
    pub(super) fn end(&mut self, how: Delivery) {
        let totals = Arc::clone(&self.totals);
        let mut totals = lock(&totals);
        let sent = self.sending.take();
        let paid = match (how, sent) {
            (Delivery::Accepted, Some((draft, _))) => {
                let own = self.raise.map_or(Amount::ZERO, |raise| raise.by.min(draft.price));
                Some(own.saturating_add(totals.clear(&draft, draft.price.saturating_sub(own))))
            }
            (Delivery::NotSent, Some((draft, before))) => {
                totals.take_back(&draft, before.highest);
                (self.is_presented, self.raise) = (before.is_presented, before.raise);
                None
            }
            (Delivery::Accepted | Delivery::InDoubt, _) | (Delivery::NotSent, None) => None,
        };
        self.book(&mut totals, paid);
    }

    /// Counts what was paid, and the rest of the increase as in doubt.
    fn book(&mut self, totals: &mut SpendingTotals, paid: Option<Amount>) {
        self.count_under_way(totals, None);
        let raise = self.raise.take();
        if !std::mem::take(&mut self.is_presented) {
            return;
        }
        if let Some(paid) = paid {
            let spent = totals.spent(&self.host, self.receiver);
            spent.paid = spent.paid.plus(&Tally::of(paid));
        }
        if let Some(rest) = raise.and_then(|raise| raise.without(paid.unwrap_or_default())) {
            totals.doubt(&self.host, rest);
        }
    }

    fn count_under_way(&mut self, totals: &mut SpendingTotals, now: Option<Increase>) {
        let now = now.map(|raise| raise.by);
        if let Some(before) = std::mem::replace(&mut self.under_way, now) {
            totals.under_way = totals.under_way.minus(&Tally::of(before));
        }
        if let Some(now) = now {
            totals.under_way = totals.under_way.plus(&Tally::of(now));
        }
    }
}

/// The host of a URL, with its port unless it is the scheme's default; without user info.
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

    fn totals(most: usize) -> Arc<Mutex<SpendingTotals>> {
        Arc::new(Mutex::new(SpendingTotals::new(most, 7)))
    }

    /// A payment from a separate channel.
    fn pay(totals: &Arc<Mutex<SpendingTotals>>, url: &str, receiver: Address, price: u64, how: Delivery) {
        let open_block = lock(totals).channels.len() as u32 + 1;
        let channel = ChannelId { receiver, open_block };
        let mut guard = guard(totals, url, receiver);
        guard.begin(&ChannelDraft { channel, total: price.into(), price: price.into() });
        guard.end(how);
    }

    fn guard(totals: &Arc<Mutex<SpendingTotals>>, url: &str, receiver: Address) -> PaymentGuard {
        PaymentGuard::new(Arc::clone(totals), &url.parse().unwrap(), receiver)
    }

    /// A guard for a request to one host, paid from one channel to Alice.
    fn one(totals: &Arc<Mutex<SpendingTotals>>) -> PaymentGuard {
        guard(totals, "http://a.example/", ALICE)
    }

    fn draft(total: u64, price: u64) -> ChannelDraft {
        let channel = ChannelId { receiver: ALICE, open_block: 7 };
        ChannelDraft { channel, total: total.into(), price: price.into() }
    }

    /// The paid and unclear sums of the report; nothing is in flight any more.
    fn reported(totals: &Arc<Mutex<SpendingTotals>>) -> (Tally, Tally) {
        let report = lock(totals).report();
        assert_eq!(report.under_way, Tally::default());
        (report.total().paid, report.total().unclear)
    }

    fn sum(requests: u64, amount: u64) -> Tally {
        Tally { requests, amount: amount.into() }
    }

    #[test]
    fn each_payee_has_a_line_the_most_expensive_first() {
        let totals = totals(10);
        pay(&totals, "http://a.example/x", ALICE, 5, Delivery::Accepted);
        pay(&totals, "http://me:hush@A.example:80/y", ALICE, 6, Delivery::Accepted);
        pay(&totals, "https://a.example:443/", ALICE, 7, Delivery::InDoubt);
        pay(&totals, "http://a.example:8080/", ALICE, 100, Delivery::Accepted);
        pay(&totals, "http://a.example/", BOB, 1, Delivery::Accepted);
        pay(&totals, "http://never.example/", BOB, 1, Delivery::NotSent);
        let report = lock(&totals).report();
        let lines: Vec<_> = report
            .payees
            .iter()
            .map(|payee| (payee.host.as_str(), payee.receiver, payee.spent.paid, payee.spent.unclear))
            .collect();
        let none = Tally::default();
        assert_eq!(
            lines,
            [
                ("a.example:8080", ALICE, sum(1, 100), none),
                ("a.example", ALICE, sum(2, 11), sum(1, 7)),
                ("a.example", BOB, sum(1, 1), none),
            ]
        );
        assert_eq!(report.total(), Spending { paid: sum(4, 112), unclear: sum(1, 7), ..Spending::default() });
        assert_eq!(
            (report.since, report.from, report.others, report.under_way),
            (7, None, Spending::default(), none)
        );
    }

    #[test]
    fn beyond_the_limit_the_sums_stay_right() {
        let totals = totals(2);
        for host in 0..5 {
            pay(&totals, &format!("http://{host}.example/"), ALICE, 10, Delivery::Accepted);
        }
        // A payee with an entry keeps it.
        pay(&totals, "http://0.example/", ALICE, 1, Delivery::Accepted);
        pay(&totals, "http://4.example/", ALICE, 2, Delivery::InDoubt);
        let report = lock(&totals).report();
        assert_eq!(report.payees.len(), 2);
        assert_eq!(report.payees[0].spent.paid, sum(2, 11));
        assert_eq!(report.others, Spending { paid: sum(3, 30), unclear: sum(1, 2), ..Spending::default() });
        assert_eq!(report.total(), Spending { paid: sum(6, 51), unclear: sum(1, 2), ..Spending::default() });
    }

    #[test]
    fn a_payment_is_under_way_until_it_is_back_and_counts_once() {
        let totals = totals(10);
        let mut guard = one(&totals);
        guard.end(Delivery::Accepted);
        guard.begin(&draft(5, 5));
        guard.begin(&draft(5, 5));
        assert_eq!(lock(&totals).report().under_way, sum(1, 5));
        assert!(lock(&totals).report().payees.is_empty());
        guard.end(Delivery::Accepted);
        guard.end(Delivery::Accepted);
        let report = lock(&totals).report();
        assert_eq!((report.under_way, report.total().paid), (Tally::default(), sum(1, 5)));
    }

    #[test]
    fn what_was_presented_once_is_not_undone_by_an_attempt_that_never_left() {
        for how in [Delivery::NotSent, Delivery::InDoubt, Delivery::Accepted] {
            let totals = totals(10);
            let mut guard = one(&totals);
            guard.begin(&draft(5, 5));
            guard.answered();
            assert_eq!(lock(&totals).report().under_way, sum(1, 5), "it may yet be taken");
            guard.begin(&draft(5, 5));
            assert_eq!(lock(&totals).report().under_way, sum(1, 5), "the same payment again counts once");
            guard.end(how);
            let paid = matches!(how, Delivery::Accepted);
            let (all, none) = (sum(1, 5), Tally::default());
            assert_eq!(reported(&totals), if paid { (all, none) } else { (none, all) }, "{how:?}");
        }
        // The client disconnects before the next attempt.
        let totals = totals(10);
        let mut guard = one(&totals);
        guard.begin(&draft(5, 5));
        guard.answered();
        guard.end(Delivery::NotSent);
        assert_eq!(reported(&totals), (Tally::default(), sum(1, 5)));
    }

    #[test]
    fn what_never_left_costs_nothing_and_the_next_payment_counts_in_full() {
        let totals = totals(10);
        let mut guard = one(&totals);
        guard.begin(&draft(5, 5));
        guard.end(Delivery::NotSent);
        assert_eq!(reported(&totals), (Tally::default(), Tally::default()));
        let mut guard = one(&totals);
        guard.begin(&draft(5, 5));
        guard.end(Delivery::Accepted);
        let mut guard = one(&totals);
        guard.begin(&draft(12, 7));
        guard.end(Delivery::NotSent);
        assert_eq!(reported(&totals), (sum(1, 5), Tally::default()));
    }

    #[test]
    fn all_totals_that_one_request_presented_are_counted_by_what_they_raise() {
        for (presented, how, paid, unclear) in [
            // The price rises: the second payment has the same base.
            (&[(5, 5), (35, 35)][..], Delivery::Accepted, sum(1, 35), Tally::default()),
            (&[(5, 5), (35, 35)], Delivery::InDoubt, Tally::default(), sum(1, 35)),
            // The second one was never sent: the seller has the first.
            (&[(5, 5), (35, 35)], Delivery::NotSent, Tally::default(), sum(1, 5)),
            // The price falls: the seller can still redeem the first payment.
            (&[(35, 35), (5, 5)], Delivery::Accepted, sum(1, 5), sum(1, 30)),
            (&[(35, 35), (5, 5)], Delivery::NotSent, Tally::default(), sum(1, 35)),
            // The seller has proven an older total, so the first payment was void.
            (&[(5, 5), (105, 5)], Delivery::Accepted, sum(1, 5), Tally::default()),
        ] {
            let totals = totals(10);
            let mut guard = one(&totals);
            for (total, price) in presented {
                guard.answered();
                guard.begin(&draft(*total, *price));
            }
            guard.end(how);
            assert_eq!(reported(&totals), (paid, unclear), "{presented:?} {how:?}");
        }
    }

    #[test]
    fn another_channel_takes_the_place_of_one_that_is_gone() {
        let other = ChannelDraft { channel: ChannelId { receiver: ALICE, open_block: 8 }, ..draft(5, 5) };
        for (how, paid, unclear) in [
            (Delivery::Accepted, sum(1, 5), Tally::default()),
            (Delivery::InDoubt, Tally::default(), sum(1, 5)),
            (Delivery::NotSent, Tally::default(), sum(1, 5)),
        ] {
            let totals = totals(10);
            let mut guard = one(&totals);
            guard.begin(&draft(5, 5));
            guard.answered();
            guard.begin(&other);
            guard.end(how);
            assert_eq!(reported(&totals), (paid, unclear), "{how:?}");
        }
    }

    #[test]
    fn of_what_a_seller_proves_to_hold_only_that_is_paid() {
        for (total, paid, unclear) in [(35, sum(1, 35), Tally::default()), (5, sum(1, 5), sum(1, 30))] {
            let totals = totals(10);
            let mut guard = one(&totals);
            guard.begin(&draft(5, 5));
            guard.answered();
            guard.begin(&draft(35, 35));
            guard.answered();
            guard.registered(total.into());
            guard.end(Delivery::NotSent);
            assert_eq!(reported(&totals), (paid, unclear), "{total}");
        }
    }

    #[test]
    fn a_lost_payment_that_is_taken_for_a_later_request_counts_once() {
        let totals = totals(10);
        let mut lost = guard(&totals, "http://b.example/", ALICE);
        lost.begin(&draft(5, 5));
        lost.end(Delivery::InDoubt);
        assert_eq!(reported(&totals), (Tally::default(), sum(1, 5)));
        let before = lock(&totals).report();
        // The same total again, and once more without a response: it raises nothing.
        let mut again = one(&totals);
        again.begin(&draft(5, 5));
        again.end(Delivery::InDoubt);
        assert_eq!(reported(&totals), (Tally::default(), sum(1, 5)));
        let mut taken = one(&totals);
        taken.begin(&draft(5, 5));
        taken.end(Delivery::Accepted);
        assert_eq!(reported(&totals), (sum(1, 5), Tally::default()));

        // Confirming earlier payments hides nothing that came between two reports.
        let mut newer = one(&totals);
        newer.begin(&draft(9, 4));
        newer.end(Delivery::InDoubt);
        let total = lock(&totals).report().since(&before).total();
        assert_eq!((total.paid, total.unclear), (sum(1, 5), sum(1, 4)));
        // A payment that was accepted after all stays counted, and the next one builds on it.
        let mut next = one(&totals);
        next.begin(&draft(13, 4));
        next.end(Delivery::Accepted);
        assert_eq!(reported(&totals), (sum(2, 9), sum(1, 4)));
    }

    #[test]
    fn payments_that_stay_unclear_are_remembered_up_to_a_limit() {
        let totals = totals(10);
        let rounds = 3 * DOUBTS as u64;
        for round in 1..=rounds {
            let mut guard = one(&totals);
            guard.begin(&draft(round, 1));
            guard.end(Delivery::InDoubt);
        }
        assert_eq!(reported(&totals), (Tally::default(), sum(rounds, rounds)));
        assert_eq!(lock(&totals).channels[&draft(1, 1).channel].doubts.len(), DOUBTS);
    }

    #[test]
    fn the_difference_of_two_bills_is_what_came_between() {
        let totals = totals(2);
        pay(&totals, "http://a.example/", ALICE, 10, Delivery::Accepted);
        pay(&totals, "http://b.example/", ALICE, 10, Delivery::Accepted);
        pay(&totals, "http://c.example/", ALICE, 10, Delivery::Accepted);
        let before = lock(&totals).report();
        pay(&totals, "http://b.example/", ALICE, 3, Delivery::Accepted);
        pay(&totals, "http://c.example/", ALICE, 4, Delivery::InDoubt);
        let between = lock(&totals).report().since(&before);
        let [payee] = &between.payees[..] else { panic!("{between:?}") };
        assert_eq!((payee.host.as_str(), payee.spent.paid), ("b.example", sum(1, 3)));
        assert_eq!(between.others, Spending { unclear: sum(1, 4), ..Spending::default() });
        let again = lock(&totals).report();
        assert_eq!(again.clone().since(&again).total(), Spending::default());
    }

    #[test]
    fn a_bill_goes_through_json() {
        let totals = totals(10);
        pay(&totals, "http://a.example:81/", ALICE, 5, Delivery::Accepted);
        let report = lock(&totals).report();
        let text = serde_json::to_string(&report).unwrap();
        assert!(text.contains(r#""host":"a.example:81""#) && text.contains(r#""amount":"5""#), "{text}");
        assert_eq!(serde_json::from_str::<SpendingReport>(&text).unwrap(), report);
    }
}
