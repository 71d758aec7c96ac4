//! How often sellers made offers that cannot be paid, in memory since the start.

use std::collections::BTreeMap;
use std::sync::Mutex;

use serde::{Deserialize, Serialize};

use crate::mutex::lock;

/// How many kinds of offers are counted apart; sellers choose their names.
const MOST_KINDS: usize = 64;
/// What counts the others.
const OTHERS: &str = "others";

/// Offers of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnsupportedOffers {
    /// Scheme and network, and why they cannot be paid.
    pub offer: String,
    /// How often they came.
    pub count: u64,
}

/// Counts offers that cannot be paid.
#[derive(Debug, Default)]
pub(super) struct UnsupportedCounts(Mutex<BTreeMap<String, u64>>);

impl UnsupportedCounts {
    pub(super) fn add(&self, offers: Vec<String>) {
        let mut counts = lock(&self.0);
        for offer in offers {
            let is_full = counts.len() >= MOST_KINDS && !counts.contains_key(&offer);
            let count = counts.entry(if is_full { OTHERS.to_owned() } else { offer }).or_default();
            *count = count.saturating_add(1);
        }
    }

    /// The most frequent ones first.
    pub(super) fn list(&self) -> Vec<UnsupportedOffers> {
        let counts = lock(&self.0).clone().into_iter();
        let mut list: Vec<_> = counts.map(|(offer, count)| UnsupportedOffers { offer, count }).collect();
        list.sort_by_key(|kind| std::cmp::Reverse(kind.count));
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seller_with_many_names_fills_no_memory() {
        let counts = UnsupportedCounts::default();
        counts.add(vec!["upto on eip155:1".to_owned(); 3]);
        counts.add((0..1000).map(|number| format!("{number} on eip155:1")).collect());
        counts.add(vec!["upto on eip155:1".to_owned()]);
        let list = counts.list();
        assert_eq!((list[0].offer.as_str(), list[0].count), (OTHERS, 1000 - 63));
        assert_eq!((list[1].offer.as_str(), list[1].count), ("upto on eip155:1", 4));
        assert_eq!((list.len(), list[2].count), (MOST_KINDS + 1, 1));
    }
}
