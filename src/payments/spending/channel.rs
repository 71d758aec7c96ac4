//! Accounts for payments on channels: one counts by how much it raises what the seller can redeem.

use std::sync::{Arc, Mutex};

use super::totals::{Delivery, Increase, SpendingTotals};
use crate::mutex::lock;
use crate::payments::report::Tally;
use crate::protocol::asset::AssetId;
use crate::protocol::channel::ChannelDraft;
use crate::protocol::{Address, Amount};

/// Accounts for payments on channels.
#[derive(Debug)]
pub(in crate::payments) struct ChannelGuard {
    totals: Arc<Mutex<SpendingTotals>>,
    host: Arc<str>,
    receiver: Address,
    /// The payment that is being sent, and the state to restore if it is not.
    sending: Option<(ChannelDraft, BeforeSending)>,
    /// True once a payment may have reached the seller.
    is_presented: bool,
    /// By how much this request raises what the seller can redeem.
    raise: Option<Increase>,
    /// How much of it counts as in flight.
    under_way: Option<Amount>,
}

/// The state to restore if a payment provably was not sent.
#[derive(Clone, Copy, Debug)]
struct BeforeSending {
    highest: Option<Amount>,
    is_presented: bool,
    raise: Option<Increase>,
}

impl ChannelGuard {
    /// Accounts for payments to `receiver` for a request to `host`.
    pub(super) fn new(totals: Arc<Mutex<SpendingTotals>>, host: Arc<str>, receiver: Address) -> Self {
        let (sending, raise, under_way) = (None, None, None);
        Self { totals, host, receiver, sending, is_presented: false, raise, under_way }
    }

    /// A payment is about to be sent.
    pub(super) fn begin(&mut self, draft: &ChannelDraft) {
        if self.sending.is_some() {
            return;
        }
        let totals = Arc::clone(&self.totals);
        let mut totals = lock(&totals);
        let ChannelDraft { channel, total, price, is_query } = *draft;
        // What the seller held before: this payment stands on it. A query presents just that.
        let base = if is_query { total } else { total.saturating_sub(price) };
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
        // An earlier total below the base turned out to be an older one. One of another channel is worth nothing any
        // more: otherwise the book would not have granted this payment.
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

    /// The seller has seen what was sent and asks again: it stays counted, whatever comes next.
    pub(super) fn answered(&mut self) {
        self.sending = None;
    }

    /// The seller has proven that it holds `total` of what was presented.
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

    /// Counts what was paid, and the rest of what the seller can redeem as in doubt.
    fn book(&mut self, totals: &mut SpendingTotals, paid: Option<Amount>) {
        self.count_under_way(totals, None);
        let raise = self.raise.take();
        if !std::mem::take(&mut self.is_presented) {
            return;
        }
        if let Some(paid) = paid {
            let spent = totals.spent(&AssetId::ChannelToken, &self.host, self.receiver);
            spent.paid = spent.paid.plus(&Tally::of(paid));
        }
        if let Some(rest) = raise.and_then(|raise| raise.without(paid.unwrap_or_default())) {
            totals.doubt(&self.host, rest);
        }
    }

    fn count_under_way(&mut self, totals: &mut SpendingTotals, now: Option<Increase>) {
        let now = now.map(|raise| raise.by);
        let before = std::mem::replace(&mut self.under_way, now);
        totals.count_under_way(&AssetId::ChannelToken, before, now);
    }
}

#[cfg(test)]
mod tests {
    use crate::payments::report::{Spending, SpendingReport, Tally};
    use crate::payments::spending::channel::*;
    use crate::payments::spending::totals::DOUBTS;
    use crate::protocol::ChannelId;

    const ALICE: Address = Address([1; 20]);
    const BOB: Address = Address([2; 20]);

    fn totals(most: usize) -> Arc<Mutex<SpendingTotals>> {
        Arc::new(Mutex::new(SpendingTotals::new(most, 7)))
    }

    /// A payment from a channel of its own.
    fn pay(totals: &Arc<Mutex<SpendingTotals>>, host: &str, receiver: Address, price: u64, how: Delivery) {
        let open_block = lock(totals).channels.len() as u32 + 1;
        let channel = ChannelId { receiver, open_block };
        let mut guard = guard(totals, host, receiver);
        let (total, price) = (price.into(), price.into());
        guard.begin(&ChannelDraft { channel, total, price, is_query: false });
        guard.end(how);
    }

    fn guard(totals: &Arc<Mutex<SpendingTotals>>, host: &str, receiver: Address) -> ChannelGuard {
        ChannelGuard::new(Arc::clone(totals), host.into(), receiver)
    }

    /// A guard of a request to one host, and what of one channel to Alice is presented for it.
    fn one(totals: &Arc<Mutex<SpendingTotals>>) -> ChannelGuard {
        guard(totals, "a.example", ALICE)
    }

    fn draft(total: u64, price: u64) -> ChannelDraft {
        let channel = ChannelId { receiver: ALICE, open_block: 7 };
        ChannelDraft { channel, total: total.into(), price: price.into(), is_query: false }
    }

    /// What stands on the report as paid and as unclear; nothing is under way any more.
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
        pay(&totals, "a.example", ALICE, 5, Delivery::Accepted);
        pay(&totals, "a.example", ALICE, 6, Delivery::Accepted);
        pay(&totals, "a.example", ALICE, 7, Delivery::InDoubt);
        pay(&totals, "a.example:8080", ALICE, 100, Delivery::Accepted);
        pay(&totals, "a.example", BOB, 1, Delivery::Accepted);
        pay(&totals, "never.example", BOB, 1, Delivery::NotSent);
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
            pay(&totals, &format!("{host}.example"), ALICE, 10, Delivery::Accepted);
        }
        // Who has a line keeps it.
        pay(&totals, "0.example", ALICE, 1, Delivery::Accepted);
        pay(&totals, "4.example", ALICE, 2, Delivery::InDoubt);
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
        // The client leaves before the next attempt.
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
            // The price rises: the second payment stands on the same base.
            (&[(5, 5), (35, 35)][..], Delivery::Accepted, sum(1, 35), Tally::default()),
            (&[(5, 5), (35, 35)], Delivery::InDoubt, Tally::default(), sum(1, 35)),
            // The second one never left: the seller has the first.
            (&[(5, 5), (35, 35)], Delivery::NotSent, Tally::default(), sum(1, 5)),
            // The price falls: the seller can still redeem what it was shown first.
            (&[(35, 35), (5, 5)], Delivery::Accepted, sum(1, 5), sum(1, 30)),
            (&[(35, 35), (5, 5)], Delivery::NotSent, Tally::default(), sum(1, 35)),
            // The seller has proven an older total, so the first payment was none.
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
    fn a_query_costs_nothing_and_the_payment_after_it_counts_in_full() {
        let query = ChannelDraft { is_query: true, ..draft(50, 5) };
        for how in [Delivery::InDoubt, Delivery::NotSent] {
            let totals = totals(10);
            let mut guard = one(&totals);
            guard.begin(&query);
            guard.end(how);
            assert_eq!(reported(&totals), (Tally::default(), Tally::default()), "{how:?}");
        }
        let totals = totals(10);
        let mut guard = one(&totals);
        guard.begin(&query);
        guard.answered();
        guard.begin(&draft(55, 5));
        guard.end(Delivery::Accepted);
        assert_eq!(reported(&totals), (sum(1, 5), Tally::default()));
    }

    #[test]
    fn a_lost_payment_that_is_taken_for_a_later_request_counts_once() {
        let totals = totals(10);
        let mut lost = guard(&totals, "b.example", ALICE);
        lost.begin(&draft(5, 5));
        lost.end(Delivery::InDoubt);
        assert_eq!(reported(&totals), (Tally::default(), sum(1, 5)));
        // The same total again, and once more without an answer: it raises nothing.
        let mut again = one(&totals);
        again.begin(&draft(5, 5));
        again.end(Delivery::InDoubt);
        assert_eq!(reported(&totals), (Tally::default(), sum(1, 5)));
        let mut taken = one(&totals);
        taken.begin(&draft(5, 5));
        taken.end(Delivery::Accepted);
        assert_eq!(reported(&totals), (sum(1, 5), Tally::default()));

        let mut newer = one(&totals);
        newer.begin(&draft(9, 4));
        newer.end(Delivery::InDoubt);
        assert_eq!(reported(&totals), (sum(1, 5), sum(1, 4)));
        // What was taken after all stays where it is, and the next payment stands on it.
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
    fn a_bill_goes_through_json() {
        let totals = totals(10);
        pay(&totals, "a.example:81", ALICE, 5, Delivery::Accepted);
        let report = lock(&totals).report();
        let text = serde_json::to_string(&report).unwrap();
        assert!(text.contains(r#""host":"a.example:81""#) && text.contains(r#""amount":"5""#), "{text}");
        assert_eq!(serde_json::from_str::<SpendingReport>(&text).unwrap(), report);
    }
}
