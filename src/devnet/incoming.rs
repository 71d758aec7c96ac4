//! Decodes raw signed transactions.

use ethers_core::types::{H256, Transaction, U64, U256};
use ethers_core::utils::{keccak256, rlp};

use super::fault::Fault;

/// The largest transaction, in bytes, as in other nodes.
const MAX_TRANSACTION: usize = 128 * 1024;

/// Decodes a signed transaction and recovers its sender.
pub(super) fn decode(raw: &[u8]) -> Result<Transaction, Fault> {
    let malformed = |error: String| Fault::Malformed(format!("rlp: {error}"));
    if raw.is_empty() {
        return Err(malformed("empty transaction data".to_owned()));
    }
    if raw.len() > MAX_TRANSACTION {
        return Err(Fault::Malformed(format!("oversized data: at most {MAX_TRANSACTION} bytes")));
    }
    let mut transaction: Transaction = rlp::decode(raw).map_err(|error| malformed(error.to_string()))?;
    if *transaction.rlp() != *raw {
        return Err(malformed("not a canonically encoded transaction".to_owned()));
    }
    // A high s: the malleable counterpart of a signature, invalid since 2016 (EIP-2).
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

#[cfg(test)]
mod tests {
    use ethers_core::types::transaction::eip2718::TypedTransaction;
    use ethers_core::types::{
        Eip1559TransactionRequest, Eip2930TransactionRequest, H160, TransactionRequest,
    };

    use crate::devnet::accounts;
    use crate::devnet::incoming::*;

    fn signed() -> [Vec<u8>; 3] {
        let legacy =
            TransactionRequest::new().to(H160::repeat_byte(7)).nonce(1).gas(21000).gas_price(9).data([1]);
        let kinds: [TypedTransaction; 3] = [
            legacy.clone().into(),
            Eip2930TransactionRequest::new(legacy, Default::default()).into(),
            Eip1559TransactionRequest::new().nonce(1).gas(60000).max_fee_per_gas(9).data([1]).into(),
        ];
        kinds.map(|mut transaction| {
            transaction.set_chain_id(31337u64);
            let signature = accounts::wallets()[0].sign_transaction(&transaction, 31337).unwrap();
            transaction.rlp_signed(&signature).to_vec()
        })
    }

    #[test]
    fn every_kind_of_transaction_names_its_sender() {
        for (kind, raw) in signed().iter().enumerate() {
            let transaction = decode(raw).unwrap();
            assert_eq!(transaction.from, accounts::addresses()[0]);
            assert_eq!(transaction.transaction_type, Some(kind.into()));
            assert_eq!(transaction.chain_id, Some(31337.into()));
        }
    }

    #[test]
    fn damaged_transactions_are_refused_or_another_senders() {
        for raw in signed() {
            for length in 0..raw.len() {
                assert!(decode(&raw[..length]).is_err());
            }
            for (place, bit) in (0..raw.len()).flat_map(|place| (0..8).map(move |bit| (place, bit))) {
                let mut damaged = raw.clone();
                damaged[place] ^= 1 << bit;
                assert!(decode(&damaged).map_or(true, |read| read.from != accounts::addresses()[0]));
            }
        }
    }
}
