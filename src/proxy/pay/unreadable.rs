//! Requests that were paid but whose responses cannot be parsed: they are not paid again.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, MutexGuard};

use crate::mutex::lock;

/// The most entries; the oldest is dropped first. Each entry costs a payment, so it cannot be flooded cheaply.
const MAX_ENTRIES: usize = 4096;

/// Keyed hashes of methods and URLs, in memory only.
#[derive(Debug, Default)]
pub(super) struct Unreadable {
    hasher: RandomState,
    hashes: Mutex<VecDeque<u64>>,
}

impl Unreadable {
    pub(super) fn add(&self, name: &str) {
        let hash = self.hasher.hash_one(name);
        let mut hashes = self.lock();
        if hashes.contains(&hash) {
            return;
        }
        if hashes.len() == MAX_ENTRIES {
            hashes.pop_front();
        }
        hashes.push_back(hash);
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        let hashes = self.lock();
        !hashes.is_empty() && hashes.contains(&self.hasher.hash_one(name))
    }

    // No code that holds this lock can panic half-way through a change.
    fn lock(&self) -> MutexGuard<'_, VecDeque<u64>> {
        lock(&self.hashes)
    }
}

#[cfg(test)]
mod tests {
    use crate::proxy::pay::unreadable::*;

    #[test]
    fn the_oldest_is_forgotten_first() {
        let unreadable = Unreadable::default();
        let name = |number: usize| format!("GET https://bob.example/{number}");
        for number in 0..=MAX_ENTRIES {
            unreadable.add(&name(number));
            unreadable.add(&name(number));
        }
        assert_eq!(unreadable.lock().len(), MAX_ENTRIES);
        assert!(!unreadable.contains(&name(0)));
        assert!(unreadable.contains(&name(1)) && unreadable.contains(&name(MAX_ENTRIES)));
    }
}
