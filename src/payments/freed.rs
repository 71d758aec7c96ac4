//! Authorizations that a chain has shown to be unused, so that reports stop counting them as unclear.

use std::collections::VecDeque;
use std::sync::Mutex;

use crate::mutex::lock;

/// How many are remembered, for reports that are made later; of more, the newest.
const MOST: usize = 4096;

/// The nonces of freed authorizations.
#[derive(Debug, Default)]
pub(super) struct FreedAuthorizations(Mutex<VecDeque<[u8; 32]>>);

impl FreedAuthorizations {
    pub(super) fn insert(&self, nonce: [u8; 32]) {
        let mut freed = lock(&self.0);
        if freed.len() == MOST {
            freed.pop_front();
        }
        freed.push_back(nonce);
    }

    /// Those among `nonces`.
    pub(super) fn among(&self, nonces: impl Iterator<Item = [u8; 32]>) -> Vec<[u8; 32]> {
        let freed = lock(&self.0);
        if freed.is_empty() { Vec::new() } else { nonces.filter(|nonce| freed.contains(nonce)).collect() }
    }
}
