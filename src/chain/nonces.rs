//! Assigns the account's nonces while several transactions are in flight.
//!
//! One transaction at a time is assigned its nonce, signed, journaled and submitted; that is a [`NonceTurn`]. Waiting for
//! confirmations happens outside it. The nonce is always the lowest that no known transaction has: an abandoned
//! transaction leaves no gap, and the next one takes its nonce, so that only one of the two can be mined.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex as SyncMutex, MutexGuard as SyncGuard};

use tokio::sync::{Mutex, MutexGuard};

use crate::mutex::lock;
use crate::protocol::{Address, Intent};

/// The queue for sending, and the transactions in flight.
#[derive(Default)]
pub(super) struct Nonces {
    turn: Mutex<()>,
    known: Arc<SyncMutex<Known>>,
}

#[derive(Default)]
struct Known {
    /// How many tasks wait for a transaction with this nonce.
    in_flight: BTreeMap<u64, usize>,
    /// Transactions of this journal that were signed, or that a signer was asked for, and not seen confirmed, by nonce, the newest last.
    signed: BTreeMap<u64, Vec<Intent>>,
    /// One above the highest of our nonces that was seen confirmed.
    floor: u64,
}

/// The exclusive right to choose a nonce and send.
pub(super) struct NonceTurn<'a> {
    nonces: &'a Nonces,
    _guard: MutexGuard<'a, ()>,
}

/// Reserves the nonce of a transaction in flight until dropped.
pub(super) struct InFlight {
    nonce: u64,
    known: Arc<SyncMutex<Known>>,
}

impl Nonces {
    pub async fn turn(&self) -> NonceTurn<'_> {
        NonceTurn { _guard: self.turn.lock().await, nonces: self }
    }

    /// Registers a transaction that was signed and journaled.
    pub fn signed(&self, intent: &Intent) {
        let mut known = self.known();
        let signed = known.signed.entry(intent.nonce).or_default();
        if intent.is_signed() {
            // An external signer has answered.
            signed.retain(|one| one.is_signed() || one.op != intent.op);
        }
        if signed.iter().all(|one| one.hash != intent.hash) {
            signed.push(intent.clone());
        }
    }

    /// Forgets a transaction that an external signer provably did not sign.
    pub fn not_signed(&self, intent: &Intent) {
        if let Some(signed) = self.known().signed.get_mut(&intent.nonce) {
            signed.retain(|one| one.hash != intent.hash);
        }
    }

    /// The transactions signed for a nonce, the newest first.
    pub fn signed_at(&self, nonce: u64) -> Vec<Intent> {
        self.known().signed.get(&nonce).into_iter().flatten().rev().cloned().collect()
    }

    /// The transactions that were signed to move money for a receiver and not seen confirmed.
    pub fn moving_for(&self, receiver: Address) -> Vec<Intent> {
        let known = self.known();
        let signed = known.signed.values().flatten();
        signed.filter(|one| one.moves && one.op.receiver() == receiver).cloned().collect()
    }

    /// Registers that the transaction with this nonce is confirmed.
    pub fn confirmed(&self, nonce: u64) {
        let mut known = self.known();
        known.floor = known.floor.max(nonce.saturating_add(1));
        known.signed = known.signed.split_off(&nonce.saturating_add(1));
    }

    /// The lowest unmined nonce below `end` that no transaction in flight has.
    pub fn missing(&self, mined: u64, end: u64) -> Option<u64> {
        let known = self.known();
        let free = first_free(&known, mined.max(known.floor));
        (free < end).then_some(free)
    }

    fn known(&self) -> SyncGuard<'_, Known> {
        lock(&self.known)
    }
}

impl NonceTurn<'_> {
    /// The lowest unmined nonce, not below `at_least`, that no transaction in flight has.
    pub fn first_free(&self, mined: u64, at_least: u64) -> u64 {
        let known = self.nonces.known();
        first_free(&known, mined.max(at_least).max(known.floor))
    }

    /// Whether the node counts fewer transactions than were seen confirmed.
    pub fn is_behind(&self, mined: u64) -> bool {
        mined < self.nonces.known().floor
    }

    /// Resets the floor to `nonce` after a reorganisation undid the transactions from there on.
    pub fn undone_from(&self, nonce: u64) {
        self.nonces.known().floor = nonce;
    }

    /// Reserves `nonce` until the result is dropped.
    pub fn take(&self, nonce: u64) -> InFlight {
        let known = Arc::clone(&self.nonces.known);
        *lock(&known).in_flight.entry(nonce).or_default() += 1;
        InFlight { nonce, known }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut known = lock(&self.known);
        if let Some(waits) = known.in_flight.get_mut(&self.nonce) {
            *waits -= 1;
            if *waits == 0 {
                known.in_flight.remove(&self.nonce);
            }
        }
    }
}

fn first_free(known: &Known, from: u64) -> u64 {
    let taken = known.in_flight.range(from..).map(|(nonce, _)| *nonce);
    // While they are consecutive, the n-th is `from` + n.
    let run = taken.zip(from..).take_while(|(taken, expected)| taken == expected).count();
    from.saturating_add(run as u64)
}

#[cfg(test)]
mod tests {
    use crate::chain::nonces::*;
    use crate::protocol::{Address, ChannelOp};

    #[tokio::test]
    async fn a_nonce_is_free_again_when_its_transaction_is_not_on_its_way() {
        let nonces = Nonces::default();
        let turn = nonces.turn().await;
        assert_eq!(turn.first_free(4, 0), 4);
        let (four, five, eight) = (turn.take(4), turn.take(5), turn.take(8));
        for (mined, at_least, expected) in [(4, 0, 6), (9, 0, 9), (4, 8, 9), (3, 0, 3)] {
            assert_eq!(turn.first_free(mined, at_least), expected);
        }
        assert_eq!(nonces.missing(4, 8), Some(6));
        assert_eq!(nonces.missing(4, 6), None);
        drop(four);
        assert_eq!(turn.first_free(4, 0), 4);
        drop((five, eight));
        assert_eq!(turn.first_free(5, 0), 5);
    }

    #[test]
    fn a_transaction_that_a_signer_was_asked_for_is_known_until_it_is_signed_or_refused() {
        let nonces = Nonces::default();
        let intent = |receiver: u8, hash: u8, raw: &[u8]| {
            let op = ChannelOp::Open { receiver: Address([receiver; 20]), deposit: 5.into() };
            Intent { op, moves: true, nonce: 4, hash: [hash; 32], raw: raw.to_vec(), host: None }
        };
        let hashes = || nonces.signed_at(4).iter().map(|one| one.hash[0]).collect::<Vec<_>>();
        let (asked, of_other) = (intent(7, 1, b"{}"), intent(8, 2, b"{}"));
        nonces.signed(&asked);
        nonces.signed(&of_other);
        assert_eq!(nonces.moving_for(Address([7; 20])), [asked]);
        nonces.signed(&intent(7, 3, &[2]));
        assert_eq!(hashes(), [3, 2], "the signed one has taken its place");
        nonces.not_signed(&of_other);
        assert_eq!(hashes(), [3]);
    }

    #[tokio::test]
    async fn a_confirmed_nonce_is_never_signed_again_even_if_the_node_lags() {
        let nonces = Nonces::default();
        let intent = |nonce: u64, hash| {
            let op = ChannelOp::Open { receiver: Address([7; 20]), deposit: 5.into() };
            Intent { op, moves: true, nonce, hash: [hash; 32], raw: vec![hash], host: None }
        };
        for (nonce, hash) in [(4, 1), (5, 2), (5, 3), (5, 3), (6, 4)] {
            nonces.signed(&intent(nonce, hash));
        }
        let hashes = |nonce| nonces.signed_at(nonce).iter().map(|one| one.hash[0]).collect::<Vec<_>>();
        assert_eq!(hashes(5), [3, 2]);
        nonces.confirmed(5);
        assert_eq!((hashes(4), hashes(5), hashes(6)), (vec![], vec![], vec![4]));
        assert_eq!(nonces.turn().await.first_free(3, 0), 6);
        assert_eq!(nonces.missing(3, 9), Some(6), "a node that lags shows no gap");
        // Unless a reorganisation undid it.
        nonces.turn().await.undone_from(4);
        assert_eq!(nonces.turn().await.first_free(3, 0), 4);
    }
}
