//! How much each payment on a channel adds to what the payee can redeem.
//!
//! A payee can redeem the highest total that it was presented, so the rows of a channel must add up to that total, not
//! to the sum of prices: after a lost response, the same total is presented again.

use super::signed_amount::SignedAmount;
use crate::protocol::Amount;

/// How many payments in doubt are remembered per channel, so that a later payment can take their place.
const MAX_DOUBTS: usize = 64;

/// What the rows of one channel add up to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ChannelCounts {
    /// The sum of all its rows: the highest total that the payee may hold.
    pub(super) high: Amount,
    /// The latest part of it that belongs to no known payment: above the first total, up to the second.
    unknown: Option<(Amount, Amount)>,
    /// True once the chain has paid out the final total.
    pub(super) is_settled: bool,
    doubts: Vec<DoubtedRange>,
}

/// A payment in doubt, and the part of the channel's total that counts for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct DoubtedRange {
    payment: u64,
    above: Amount,
    upto: Amount,
}

/// How a payment counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Counted {
    /// What lost rows counted: the seller holds more than all rows before add up to.
    pub(super) gap: Amount,
    /// How much the payment counts.
    pub(super) counts: Amount,
    /// How much of that raises the highest total.
    pub(super) new: Amount,
    /// Payments in doubt that it takes the place of, and what they no longer count.
    pub(super) replaced: Vec<(u64, Amount)>,
    /// What of it was counted without a known payment before.
    pub(super) reclaimed: Amount,
}

impl ChannelCounts {
    /// A channel whose rows add up to `high`.
    pub(super) fn new(high: Amount, is_settled: bool) -> Self {
        Self { high, is_settled, ..Self::default() }
    }

    /// Counts the payment of `price` that raises the seller's total to `total`. Only one that the seller took takes the
    /// place of what was counted before: what else presents such a total may be a query, which pays nothing.
    pub(super) fn present(&mut self, total: Amount, price: Amount, is_taken: bool) -> Counted {
        if self.is_settled {
            return Counted::default();
        }
        let base = total.saturating_sub(price);
        let gap = self.recover(base);
        let new = total.saturating_sub(self.high);
        self.high = self.high.max(total);
        if !is_taken {
            return Counted { gap, counts: new, new, ..Counted::default() };
        }
        let mut reclaimed = Amount::ZERO;
        if let Some((above, upto)) = &mut self.unknown {
            reclaimed = overlap((*above, *upto), (base, total));
            if !reclaimed.is_zero() {
                *above = total.min(*upto);
            }
        }
        let mut replaced = Vec::new();
        self.doubts.retain_mut(|doubt| {
            let taken = overlap((doubt.above, doubt.upto), (base, total));
            if !taken.is_zero() {
                replaced.push((doubt.payment, taken));
                // What lies above stays in doubt; a rest below can no longer be told from what was replaced.
                doubt.above = total.min(doubt.upto);
            }
            doubt.above < doubt.upto
        });
        let others = replaced.iter().fold(Amount::ZERO, |sum, (_, taken)| sum.saturating_add(*taken));
        let counts = new.saturating_add(reclaimed).saturating_add(others);
        Counted { gap, counts, new, replaced, reclaimed }
    }

    /// Counts totals up to `total` that no row has; returns how much that is.
    pub(super) fn recover(&mut self, total: Amount) -> Amount {
        let gap = total.saturating_sub(self.high);
        if self.is_settled || gap.is_zero() {
            return Amount::ZERO;
        }
        let above = match self.unknown {
            Some((above, upto)) if upto == self.high => above,
            _ => self.high,
        };
        self.unknown = Some((above, total));
        self.high = total;
        gap
    }

    /// A payment with `total` ends in doubt: a later one may take its place.
    pub(super) fn doubt(&mut self, payment: u64, total: Amount, counts: Amount) {
        if self.doubts.len() == MAX_DOUBTS {
            self.doubts.remove(0);
        }
        self.doubts.push(DoubtedRange { payment, above: total.saturating_sub(counts), upto: total });
    }

    /// A counted payment was provably never sent; `new` is by how much it raised the highest total. Returns the correction
    /// for the part that it had taken over.
    pub(super) fn withdraw(&mut self, counts: Amount, new: Amount) -> SignedAmount {
        self.high = self.high.saturating_sub(new);
        counts.saturating_sub(new).into()
    }

    /// The chain paid out `total`: returns the correction.
    pub(super) fn settle(&mut self, total: Amount) -> SignedAmount {
        let correction = SignedAmount::difference(total, self.high);
        *self = Self::new(total, true);
        correction
    }
}

/// The common part of two ranges of totals.
fn overlap((above, upto): (Amount, Amount), (base, total): (Amount, Amount)) -> Amount {
    upto.min(total).saturating_sub(above.max(base))
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use crate::payments::ledger::counts::*;

    fn of(units: u64) -> Amount {
        units.into()
    }

    #[test]
    fn what_is_presented_again_counts_once_for_the_payment_that_was_taken() {
        let mut channel = ChannelCounts::default();
        assert_eq!(channel.present(of(10), of(10), false).counts, of(10));
        channel.doubt(1, of(10), of(10));
        let again = channel.present(of(10), of(10), true);
        assert_eq!((again.counts, again.new, &again.replaced[..]), (of(10), of(0), &[(1, of(10))][..]));
        // A query presents what the seller holds.
        assert_eq!(channel.present(of(10), of(7), false), Counted::default());
        assert_eq!(channel.high, of(10));
    }

    #[test]
    fn what_a_crash_left_unknown_belongs_to_the_payments_that_come_there() {
        let mut channel = ChannelCounts::new(of(100), false);
        assert_eq!(channel.recover(of(160)), of(60));
        assert_eq!(channel.present(of(110), of(10), false), Counted::default(), "a query");
        let next = channel.present(of(110), of(10), true);
        assert_eq!((next.counts, next.reclaimed, next.gap, channel.high), (of(10), of(10), of(0), of(160)));
        // The seller held a part of it.
        let later = channel.present(of(170), of(20), true);
        assert_eq!((later.counts, later.reclaimed, later.new), (of(20), of(10), of(10)));
        assert_eq!(channel.settle(of(165)), SignedAmount::difference(of(165), of(170)));
        assert_eq!(channel.present(of(400), of(10), true), Counted::default());
    }

    #[test]
    fn a_lost_row_is_found_by_the_next_one() {
        let mut channel = ChannelCounts::default();
        let counted = channel.present(of(30), of(10), true);
        assert_eq!((counted.gap, counted.counts, channel.high), (of(20), of(10), of(30)));
        assert_eq!(channel.withdraw(of(10), of(10)), SignedAmount::default());
        assert_eq!(channel.high, of(20));
    }

    proptest! {
        /// In any course, what the rows add up to is the highest total presented, and nothing counts more than its price.
        #[test]
        fn rows_add_up_to_the_highest_total(steps in vec((0u64..50, 1u64..20, any::<bool>(), any::<bool>()), 1..60)) {
            let mut channel = ChannelCounts::default();
            let mut sum = SignedAmount::default();
            let mut highest = 0;
            for (payment, (base, price, ends_in_doubt, is_lost)) in (0u64..).zip(steps) {
                let total = base + price;
                highest = highest.max(total);
                if is_lost {
                    sum = sum.plus(channel.recover(of(total)).into());
                } else {
                    let Counted { gap, counts, reclaimed, replaced, .. } = channel.present(of(total), of(price), !ends_in_doubt);
                    prop_assert!(counts <= of(price));
                    let taken = replaced.iter().fold(Amount::ZERO, |sum, (_, taken)| sum.saturating_add(*taken));
                    sum = sum.plus(gap.into()).plus(counts.into());
                    sum = sum.plus(SignedAmount::difference(Amount::ZERO, reclaimed.saturating_add(taken)));
                    if ends_in_doubt {
                        channel.doubt(payment, of(total), counts);
                    }
                }
                prop_assert_eq!(sum, SignedAmount::from(channel.high));
                prop_assert_eq!(channel.high, of(highest));
            }
            prop_assert_eq!(sum.plus(channel.settle(of(7))), SignedAmount::from(of(7)));
        }
    }
}
