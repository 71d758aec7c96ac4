//! Blocks in the format of JSON-RPC.

use ethers_core::types::{Bloom, H64, H160, H256, U64, U256};
use ethers_core::utils::keccak256;
use serde_json::{Value, json};

use super::block::Block;
use super::node::BLOCK_GAS_LIMIT;

/// A block as JSON, with full transactions or only their hashes.
pub(super) fn block(block: &Block, is_full: bool) -> Value {
    let transactions: Vec<Value> = block
        .transactions
        .iter()
        .map(|mined| if is_full { json!(mined.transaction) } else { json!(mined.transaction.hash) })
        .collect();
    let bloom = block.transactions.iter().fold(Bloom::zero(), |all, mined| all | mined.receipt.logs_bloom);
    let nothing = H256(keccak256([0x80]));
    let mut view = json!({
        "number": U64::from(block.number),
        "hash": block.hash,
        "parentHash": block.parent_hash,
        "timestamp": U64::from(block.timestamp),
        "gasLimit": U64::from(BLOCK_GAS_LIMIT),
        "gasUsed": U64::from(block.gas_used),
        "miner": H160::zero(),
        "difficulty": U256::zero(),
        "totalDifficulty": U256::zero(),
        "extraData": "0x",
        "nonce": H64::zero(),
        "mixHash": H256::zero(),
        "sha3Uncles": H256(keccak256([0xc0])),
        "stateRoot": nothing,
        "transactionsRoot": nothing,
        "receiptsRoot": nothing,
        "logsBloom": bloom,
        "size": U64::zero(),
        "uncles": [],
        "transactions": transactions,
    });
    if let Some(base_fee) = block.base_fee {
        view["baseFeePerGas"] = json!(U64::from(base_fee));
    }
    view
}
