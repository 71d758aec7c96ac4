//! A map of bounded size that forgets what was not asked for the longest. Holds no lock.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::sync::Arc;

/// The most recently used entries.
#[derive(Debug)]
pub(super) struct Recent<K, V> {
    entries: HashMap<Arc<K>, (u64, V)>,
    /// By when they were last asked for.
    order: BTreeMap<u64, Arc<K>>,
    turn: u64,
    capacity: usize,
}

impl<K: Eq + Hash, V: Clone> Recent<K, V> {
    /// Holds at most `capacity` entries, and one at least.
    pub(super) fn new(capacity: usize) -> Self {
        Self { entries: HashMap::new(), order: BTreeMap::new(), turn: 0, capacity: capacity.max(1) }
    }

    /// The value of `key`, where it is there and `good`; else what `make` gives is put there.
    pub(super) fn entry(&mut self, key: K, good: impl Fn(&V) -> bool, make: impl FnOnce() -> V) -> V {
        self.turn += 1;
        if let Some((last, value)) = self.entries.get_mut(&key)
            && let Some(key) = self.order.remove(last)
        {
            *last = self.turn;
            self.order.insert(self.turn, key);
            if !good(value) {
                *value = make();
            }
            return value.clone();
        }
        if self.entries.len() >= self.capacity
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.entries.remove(&oldest);
        }
        let (key, value) = (Arc::new(key), make());
        self.order.insert(self.turn, Arc::clone(&key));
        self.entries.insert(key, (self.turn, value.clone()));
        value
    }

    /// How many entries there are.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use crate::tls::recent::*;

    #[test]
    fn forgets_what_was_not_asked_for_the_longest() {
        let mut recent = Recent::new(2);
        let mut made = Vec::new();
        for key in ["a", "b", "a", "c", "a", "b"] {
            recent.entry(key, |_| true, || made.push(key));
            assert!(recent.len() <= 2 && recent.order.len() == recent.len());
        }
        assert_eq!(made, ["a", "b", "c", "b"]);
    }

    #[test]
    fn replaces_what_is_no_longer_good() {
        let mut recent = Recent::new(2);
        assert_eq!(recent.entry("a", |_| true, || 1), 1);
        assert_eq!(recent.entry("a", |value| *value > 1, || 2), 2);
        assert_eq!(recent.entry("a", |value| *value > 1, || 3), 2);
        assert_eq!(recent.len(), 1);
    }
}
