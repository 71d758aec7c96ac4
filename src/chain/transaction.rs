//! Transactions as external signers get them and as the journal keeps them: unsigned as the JSON object of
//! `eth_signTransaction`, signed in RLP.

use ethers_core::types::transaction::eip2718::TypedTransaction;
use ethers_core::utils::rlp::Rlp;
use serde_json::Value;

/// An unsigned transaction.
pub(super) fn to_json(transaction: &TypedTransaction) -> serde_json::Result<Value> {
    let mut fields = serde_json::to_value(transaction)?;
    // As quantities are written, without leading zeros.
    let kind = if matches!(transaction, TypedTransaction::Legacy(_)) { "0x0" } else { "0x2" };
    fields["type"] = kind.into();
    if let Some(chain_id) = transaction.chain_id() {
        fields["chainId"] = serde_json::to_value(chain_id)?;
    }
    Ok(fields)
}

/// The transaction of an [`Intent`](crate::protocol::Intent), signed or not.
pub(super) fn decode(raw: &[u8]) -> Option<TypedTransaction> {
    match raw.first() {
        Some(b'{') => serde_json::from_slice(raw).ok(),
        _ => TypedTransaction::decode_signed(&Rlp::new(raw)).ok().map(|(transaction, _)| transaction),
    }
}

#[cfg(test)]
mod tests {
    use ethers_core::types::{Eip1559TransactionRequest, H160, TransactionRequest};

    use crate::chain::signer::Signer;
    use crate::chain::transaction::*;

    #[test]
    fn a_transaction_is_the_same_before_and_after_it_was_recorded_and_signed() {
        let (from, to) = (H160([1; 20]), H160([2; 20]));
        let new = Eip1559TransactionRequest::new().from(from).to(to).data(vec![1]).value(0).chain_id(31337);
        let old = TransactionRequest::new().from(from).to(to).data(vec![1]).value(0).chain_id(1);
        let transactions: [TypedTransaction; 2] = [
            new.nonce(0).gas(30_000).max_fee_per_gas(200).max_priority_fee_per_gas(7).into(),
            old.nonce(7).gas(30_000).gas_price(200).into(),
        ];
        for transaction in transactions {
            let asked = decode(to_json(&transaction).unwrap().to_string().as_bytes()).unwrap();
            assert_eq!((asked.sighash(), &asked), (transaction.sighash(), &transaction));
            let raw = Signer::new(&[7; 32]).unwrap().sign_transaction(&asked).unwrap();
            assert_eq!(decode(&raw).unwrap().sighash(), transaction.sighash());
        }
    }
}
