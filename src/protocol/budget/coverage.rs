//! Which totals of a channel a budget has counted, and when.

use serde::{Deserialize, Serialize};

use crate::protocol::Amount;

/// The most ranges of one channel that are remembered; a payment in an older one is counted again.
const MOST: usize = 32;

/// A range of totals that a budget has counted: from `above`, exclusive, to `upto`, inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(Amount, Amount, u64)", into = "(Amount, Amount, u64)")]
pub struct Covered {
    /// The total that it starts above.
    pub above: Amount,
    /// Its highest total.
    pub upto: Amount,
    /// When it was counted, in minutes since 1970.
    pub at: u64,
}

impl From<(Amount, Amount, u64)> for Covered {
    fn from((above, upto, at): (Amount, Amount, u64)) -> Self {
        Self { above, upto, at }
    }
}

impl From<Covered> for (Amount, Amount, u64) {
    fn from(Covered { above, upto, at }: Covered) -> Self {
        (above, upto, at)
    }
}

impl Covered {
    /// How many base units it contains.
    pub fn size(&self) -> Amount {
        self.upto.saturating_sub(self.above)
    }

    /// The part of it within a range.
    fn within(&self, above: Amount, upto: Amount) -> Option<Self> {
        let part = Self { above: self.above.max(above), upto: self.upto.min(upto), at: self.at };
        (part.above < part.upto).then_some(part)
    }
}

/// The totals of a channel that a budget has counted: disjoint ranges, the lowest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coverage(Vec<Covered>);

impl Coverage {
    /// The ranges, in order.
    pub fn ranges(&self) -> &[Covered] {
        &self.0
    }

    /// Whether nothing is covered.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How much of a range is not covered by something counted at a time that `counts`.
    pub fn uncovered(&self, above: Amount, upto: Amount, counts: impl Fn(u64) -> bool) -> Amount {
        let parts = self.0.iter().filter(|covered| counts(covered.at));
        let covered = parts.filter_map(|covered| covered.within(above, upto)).map(|part| part.size());
        covered.fold(upto.saturating_sub(above), Amount::saturating_sub)
    }

    /// The parts of a range that are not covered.
    pub fn gaps(&self, above: Amount, upto: Amount) -> Vec<(Amount, Amount)> {
        let (mut gaps, mut from) = (Vec::new(), above);
        for part in self.0.iter().filter_map(|covered| covered.within(above, upto)) {
            if from < part.above {
                gaps.push((from, part.above));
            }
            from = part.upto;
        }
        if from < upto {
            gaps.push((from, upto));
        }
        gaps
    }

    /// Whether a payment of this range may be one that was counted. Not if it ends within what was: after a crash, two payments can
    /// take the place of one that was never sent.
    pub fn has_payment(&self, above: Amount, upto: Amount) -> bool {
        self.gaps(above, upto).is_empty() && self.0.iter().any(|covered| covered.upto == upto)
    }

    /// Counts what was counted later than this minute at this minute.
    pub fn count_by(&mut self, minute: u64) {
        for covered in &mut self.0 {
            covered.at = covered.at.min(minute);
        }
    }

    /// Removes a range; returns what was covered of it.
    pub fn cut(&mut self, above: Amount, upto: Amount) -> Vec<Covered> {
        let mut removed = Vec::new();
        if self.0.iter().all(|covered| covered.within(above, upto).is_none()) {
            return removed;
        }
        let mut kept = Vec::with_capacity(self.0.len() + 1);
        for covered in std::mem::take(&mut self.0) {
            removed.extend(covered.within(above, upto));
            kept.extend(covered.within(Amount::ZERO, above));
            kept.extend(covered.within(upto, Amount::MAX));
        }
        self.0 = kept;
        removed
    }

    /// Covers a range at this time; returns what was covered of it earlier.
    pub fn cover(&mut self, above: Amount, upto: Amount, at: u64) -> Vec<Covered> {
        if above >= upto {
            return Vec::new();
        }
        let removed = self.cut(above, upto);
        let place = self.0.partition_point(|covered| covered.above < above);
        self.0.insert(place, Covered { above, upto, at });
        self.0.dedup_by(|next, previous| {
            let joins = previous.upto == next.above && previous.at == next.at;
            if joins {
                previous.upto = next.upto;
            }
            joins
        });
        // Later payments have higher totals, as a rule.
        let surplus = self.0.len().saturating_sub(MOST);
        self.0.drain(..surplus);
        removed
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::protocol::budget::coverage::*;

    proptest! {
        #[test]
        fn it_agrees_with_a_map_from_each_unit_to_its_time(
            steps in prop::collection::vec((0..40_u64, 1..12_u64, any::<bool>()), 0..20),
        ) {
            let (mut coverage, mut units) = (Coverage::default(), [None; 64]);
            for (at, (above, size, covers)) in steps.into_iter().enumerate() {
                let at = at as u64;
                let upto = above + size;
                let range = above as usize..upto as usize;
                let before: Vec<u64> = units[range.clone()].iter().flatten().copied().collect();
                let gaps: u64 = coverage
                    .gaps(above.into(), upto.into())
                    .iter()
                    .map(|(from, to)| to.saturating_sub(*from).to_string().parse::<u64>().unwrap())
                    .sum();
                prop_assert_eq!(gaps as usize, size as usize - before.len());
                let uncovered = coverage.uncovered(above.into(), upto.into(), |at| at % 2 == 0);
                let even = before.iter().filter(|at| *at % 2 == 0).count();
                prop_assert_eq!(uncovered, Amount::from(size - even as u64));
                let removed = if covers {
                    coverage.cover(above.into(), upto.into(), at)
                } else {
                    coverage.cut(above.into(), upto.into())
                };
                let mut times = Vec::new();
                for part in &removed {
                    let count = part.size().to_string().parse::<usize>().unwrap();
                    times.extend(std::iter::repeat_n(part.at, count));
                }
                prop_assert_eq!(times, before);
                units[range].fill(covers.then_some(at));
            }
            for (unit, at) in units.iter().enumerate() {
                let found = coverage
                    .ranges()
                    .iter()
                    .find(|covered| covered.above <= (unit as u64).into() && covered.upto > (unit as u64).into());
                prop_assert_eq!(found.map(|covered| covered.at), *at);
            }
        }
    }

    #[test]
    fn it_is_bounded_and_forgets_the_lowest() {
        let mut coverage = Coverage::default();
        for place in 0..100_u64 {
            coverage.cover((place * 10).into(), (place * 10 + 5).into(), 1);
        }
        assert_eq!(coverage.ranges().len(), MOST);
        assert_eq!(coverage.ranges()[MOST - 1].upto, 995.into());
    }
}
