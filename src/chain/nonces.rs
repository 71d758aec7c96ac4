//! The account's nonces, when several transactions are on their way at once.
//!
//! One transaction at a time gets its nonce, is signed, journalled and handed to the node; that is a [`Turn`].
//! Waiting for confirmations happens outside of it. A nonce counts as taken only once its transaction was
//! handed over, so a failure before that gives it back by itself.

use std::sync::{Arc, Mutex as SyncMutex, PoisonError};

use tokio::sync::{Mutex, MutexGuard};

/// Who may send next, and what is on its way.
#[derive(Default)]
pub(super) struct Nonces {
    turn: Mutex<()>,
    in_flight: Arc<SyncMutex<Vec<u64>>>,
}

/// The right to choose a nonce and send.
pub(super) struct Turn<'a> {
    nonces: &'a Nonces,
    _guard: MutexGuard<'a, ()>,
}

/// A nonce whose transaction is on its way; nobody takes it again while this lives.
pub(super) struct InFlight {
    nonce: u64,
    in_flight: Arc<SyncMutex<Vec<u64>>>,
}

impl Nonces {
    /// Waits until it is our turn.
    pub async fn turn(&self) -> Turn<'_> {
        Turn { _guard: self.turn.lock().await, nonces: self }
    }
}

impl Turn<'_> {
    /// The nonce to use: the node's count of pending transactions or, where the node is behind, the one after
    /// our own last; and never below `at_least`.
    pub fn next(&self, pending: u64, at_least: u64) -> u64 {
        let in_flight = self.nonces.in_flight.lock().unwrap_or_else(PoisonError::into_inner);
        let after_ours = in_flight.iter().max().map_or(0, |last| last.saturating_add(1));
        pending.max(after_ours).max(at_least)
    }

    /// Marks `nonce` as taken for as long as the answer lives.
    pub fn take(&self, nonce: u64) -> InFlight {
        let in_flight = Arc::clone(&self.nonces.in_flight);
        in_flight.lock().unwrap_or_else(PoisonError::into_inner).push(nonce);
        InFlight { nonce, in_flight }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut in_flight = self.in_flight.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = in_flight.iter().position(|nonce| *nonce == self.nonce) {
            in_flight.swap_remove(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_nonce_is_free_again_when_its_transaction_is_not_on_its_way() {
        let nonces = Nonces::default();
        let turn = nonces.turn().await;
        assert_eq!(turn.next(4, 0), 4);
        let (four, five) = (turn.take(4), turn.take(5));
        for (pending, at_least, expected) in [(4, 0, 6), (9, 0, 9), (4, 8, 8)] {
            assert_eq!(turn.next(pending, at_least), expected);
        }
        drop(four);
        assert_eq!(turn.next(4, 0), 6);
        drop(five);
        assert_eq!(turn.next(4, 0), 4);
    }
}
