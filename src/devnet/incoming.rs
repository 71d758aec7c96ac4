//! Signed transactions as they come over the wire.

use ethers_core::types::{H256, Transaction, U64, U256};
use ethers_core::utils::{keccak256, rlp};

use super::fault::Fault;

/// Reads a signed transaction and recovers its sender.
pub(super) fn decode(raw: &[u8]) -> Result<Transaction, Fault> {
    let malformed = |error: String| Fault::Malformed(format!("rlp: {error}"));
    if raw.is_empty() {
        return Err(malformed("empty transaction data".to_owned()));
    }
    let mut transaction: Transaction = rlp::decode(raw).map_err(|error| malformed(error.to_string()))?;
    if *transaction.rlp() != *raw {
        return Err(malformed("not the canonical form of a transaction".to_owned()));
    }
    // Above half the order of the curve: the twin of a signature, valid only before 2016 (EIP-2).
    let half_order = U256([0xdfe9_2f46_681b_20a0, 0x5d57_6e73_57a4_501d, u64::MAX, u64::MAX >> 1]);
    if transaction.s > half_order {
        return Err(Fault::Sender("high s".to_owned()));
    }
    let is_too_large =
        [transaction.gas_price, transaction.max_fee_per_gas, transaction.max_priority_fee_per_gas]
            .into_iter()
            .flatten()
            .any(|fee| fee > U256::from(u128::MAX));
    if is_too_large || transaction.gas > u64::MAX.into() || transaction.nonce >= u64::MAX.into() {
        return Err(malformed("a fee, the gas or the nonce is too large".to_owned()));
    }
    transaction.from = transaction.recover_from().map_err(|error| Fault::Sender(error.to_string()))?;
    transaction.hash = H256(keccak256(raw));
    transaction.transaction_type.get_or_insert(U64::zero());
    Ok(transaction)
}
