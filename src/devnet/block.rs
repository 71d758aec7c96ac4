//! Mined blocks and their receipts.

use ethers_core::abi::ethereum_types::BloomInput;
use ethers_core::types::{H256, Log, Transaction, TransactionReceipt, U64, U256};

use super::evm::{Call, ExecutedTx, ExecutionStatus, Site};
use super::pool;

/// A block with the results of its transactions.
#[derive(Debug)]
pub(super) struct Block {
    pub number: u64,
    pub hash: H256,
    pub parent_hash: H256,
    pub timestamp: u64,
    pub base_fee: Option<u64>,
    pub gas_used: u64,
    pub transactions: Vec<MinedTx>,
}

/// A transaction in a block, and its receipt.
#[derive(Debug)]
pub(super) struct MinedTx {
    pub transaction: Transaction,
    pub receipt: TransactionReceipt,
}

/// The receipt of an executed transaction. Also sets the transaction's effective gas price.
pub(super) fn receipt(
    transaction: &mut Transaction,
    call: &Call,
    outcome: ExecutedTx,
    site: &Site,
    gas_before: u64,
    logs_before: usize,
) -> TransactionReceipt {
    let base_fee = u128::from(site.base_fee.unwrap_or(0));
    let price = U256::from(base_fee + pool::tip(call, base_fee));
    transaction.gas_price = Some(price);
    let mut receipt = TransactionReceipt {
        transaction_hash: transaction.hash,
        transaction_index: transaction.transaction_index.unwrap_or_default(),
        block_hash: transaction.block_hash,
        block_number: transaction.block_number,
        from: transaction.from,
        to: transaction.to,
        cumulative_gas_used: (gas_before + outcome.gas_used).into(),
        gas_used: Some(outcome.gas_used.into()),
        contract_address: outcome.created,
        status: Some(U64::from(u8::from(outcome.ending == ExecutionStatus::Success))),
        transaction_type: Some(call.kind.into()),
        effective_gas_price: Some(price),
        ..TransactionReceipt::default()
    };
    for (index, (address, topics, data)) in outcome.logs.into_iter().enumerate() {
        receipt.logs_bloom.accrue(BloomInput::Raw(address.as_bytes()));
        topics.iter().for_each(|topic| receipt.logs_bloom.accrue(BloomInput::Raw(topic.as_bytes())));
        receipt.logs.push(Log {
            address,
            topics,
            data,
            block_hash: transaction.block_hash,
            block_number: transaction.block_number,
            transaction_hash: Some(transaction.hash),
            transaction_index: transaction.transaction_index,
            log_index: Some((logs_before + index).into()),
            removed: Some(false),
            ..Log::default()
        });
    }
    receipt
}
