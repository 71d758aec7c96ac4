//! Pending transactions, ordered by sender and nonce, with room for nonces that are not next.

use std::collections::BTreeMap;

use ethers_core::types::{H160, H256, Transaction, U256};

use super::evm::{Call, EvmState};
use super::fault::Fault;

/// The most pending transactions.
const MAX_WAITING: usize = 1024;

/// The pending transactions.
#[derive(Clone, Default)]
pub(super) struct TransactionPool {
    senders: BTreeMap<H160, BTreeMap<u64, Waiting>>,
    arrivals: u64,
}

/// A pending transaction and its order of arrival.
#[derive(Clone)]
pub(super) struct Waiting {
    pub transaction: Transaction,
    pub call: Call,
    arrival: u64,
}

impl TransactionPool {
    /// Adds a transaction. One with the same nonce is replaced if the new one pays at least a tenth more.
    pub fn insert(&mut self, transaction: Transaction) -> Result<(), Fault> {
        let call = Call::from(&transaction);
        let replaced = self.senders.get(&call.from).and_then(|nonces| nonces.get(&call.nonce));
        match replaced {
            Some(old) if !outbids(&call, &old.call) => return Err(Fault::Underpriced),
            None if self.transactions().count() >= MAX_WAITING => return Err(Fault::PoolFull),
            _ => {}
        }
        self.arrivals += 1;
        let waiting = Waiting { transaction, arrival: self.arrivals, call };
        self.senders.entry(waiting.call.from).or_default().insert(waiting.call.nonce, waiting);
        Ok(())
    }

    /// The transaction to execute next. Its nonce is the sender's next, it pays the base fee and fits the remaining
    /// gas; among those, the highest tip wins, then the earliest.
    pub fn best(&self, world: &EvmState, base_fee: Option<u64>, gas_left: u64) -> Option<&Waiting> {
        let base_fee = u128::from(base_fee.unwrap_or(0));
        self.senders
            .iter()
            .filter_map(|(sender, nonces)| nonces.get(&world.nonce(*sender)))
            .filter(|waiting| waiting.call.price >= base_fee && waiting.call.gas <= gas_left)
            .max_by_key(|waiting| (tip(&waiting.call, base_fee), std::cmp::Reverse(waiting.arrival)))
    }

    /// Removes the transaction with this sender and nonce.
    pub fn remove(&mut self, sender: H160, nonce: u64) {
        if let Some(nonces) = self.senders.get_mut(&sender) {
            nonces.remove(&nonce);
            if nonces.is_empty() {
                self.senders.remove(&sender);
            }
        }
    }

    /// The pending transaction with this hash.
    pub fn find(&self, hash: H256) -> Option<&Transaction> {
        self.transactions().find(|transaction| transaction.hash == hash)
    }

    /// The next nonce after those that are used or pending without a gap.
    pub fn next_nonce(&self, world: &EvmState, sender: H160) -> u64 {
        let next = world.nonce(sender);
        let Some(nonces) = self.senders.get(&sender) else { return next };
        let consecutive = (next..).zip(nonces.range(next..)).take_while(|(nonce, (have, _))| nonce == *have);
        next + consecutive.count() as u64
    }

    fn transactions(&self) -> impl Iterator<Item = &Transaction> {
        self.senders.values().flat_map(|nonces| nonces.values().map(|waiting| &waiting.transaction))
    }
}

/// The tip per unit of gas.
pub(super) fn tip(call: &Call, base_fee: u128) -> u128 {
    let rest = call.price.saturating_sub(base_fee);
    call.tip.map_or(rest, |tip| tip.min(rest))
}

/// The most that a transaction can cost, in wei.
pub(super) fn max_cost(call: &Call) -> U256 {
    // 64 bits times 128 bits fit; the sum with the value may not.
    (U256::from(call.gas) * U256::from(call.price)).saturating_add(call.value)
}

fn outbids(new: &Call, old: &Call) -> bool {
    let tenth_more = |old: u128| old.saturating_add((old / 10).max(1));
    new.price >= tenth_more(old.price)
        && new.tip.unwrap_or(new.price) >= tenth_more(old.tip.unwrap_or(old.price))
}

#[cfg(test)]
mod tests {
    use crate::devnet::pool::*;

    fn transaction(sender: u64, nonce: u64, price: u64) -> Transaction {
        Transaction {
            from: H160::from_low_u64_be(sender),
            nonce: nonce.into(),
            gas_price: Some(price.into()),
            ..Transaction::default()
        }
    }

    #[test]
    fn a_replacement_pays_a_tenth_more() {
        let mut pool = TransactionPool::default();
        pool.insert(transaction(1, 0, 100)).unwrap();
        assert_eq!(pool.insert(transaction(1, 0, 109)), Err(Fault::Underpriced));
        pool.insert(transaction(1, 0, 110)).unwrap();
        assert_eq!(pool.transactions().count(), 1);
    }

    #[test]
    fn the_next_is_a_sender_s_next_that_pays_most() {
        let world = EvmState::new(1, true);
        let mut pool = TransactionPool::default();
        for (sender, nonce, price) in [(1, 1, 900), (2, 0, 50), (3, 0, 70), (4, 0, 70), (5, 0, 9)] {
            pool.insert(transaction(sender, nonce, price)).unwrap();
        }
        let best = |pool: &TransactionPool| {
            pool.best(&world, Some(10), 0).map(|waiting| waiting.call.from.to_low_u64_be())
        };
        for expected in [Some(3), Some(4), Some(2), None] {
            assert_eq!(best(&pool), expected);
            expected.iter().for_each(|sender| pool.remove(H160::from_low_u64_be(*sender), 0));
        }
    }

    #[test]
    fn a_full_pool_takes_only_replacements() {
        let mut pool = TransactionPool::default();
        for nonce in 0..MAX_WAITING as u64 {
            pool.insert(transaction(1, nonce, 100)).unwrap();
        }
        assert_eq!(pool.insert(transaction(2, 0, 100)), Err(Fault::PoolFull));
        pool.insert(transaction(1, 0, 200)).unwrap();
        let world = EvmState::new(1, true);
        assert_eq!(pool.next_nonce(&world, H160::from_low_u64_be(1)), MAX_WAITING as u64);
    }
}
