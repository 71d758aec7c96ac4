//! Errors of the node, with the messages and codes that clients know from other nodes.

use ethers_core::types::{Bytes, H160, U256};
use jsonrpsee::types::ErrorObjectOwned;

/// A rejected call or transaction.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    #[error("already known")]
    AlreadyKnown,
    #[error("nonce too low: next nonce {next}, tx nonce {given}")]
    NonceTooLow { next: u64, given: u64 },
    #[error("insufficient funds for gas * price + value: balance {balance}, tx cost {cost}")]
    InsufficientFunds { balance: U256, cost: U256 },
    #[error("replacement transaction underpriced")]
    Underpriced,
    #[error("txpool is full")]
    PoolFull,
    #[error("exceeds block gas limit")]
    GasLimit,
    #[error("invalid chain id for signer: have {given} want {want}")]
    ChainId { given: U256, want: u64 },
    #[error("transaction type not supported")]
    TransactionType,
    #[error("invalid sender: {0}")]
    Sender(String),
    #[error("{0}")]
    Malformed(String),
    #[error("execution reverted")]
    Reverted(Bytes),
    #[error("{0}")]
    Halted(String),
    #[error("unknown account {0:?}: only the development accounts are unlocked")]
    UnknownAccount(H160),
    #[error("state of block {0} is not kept, only the latest")]
    OldState(u64),
    #[error("header not found")]
    UnknownBlock,
    #[error("block range extends beyond current head block {head}")]
    AboveHead { head: u64 },
    #[error("query exceeds max block range {0}")]
    WideRange(u64),
    #[error("query returned more than {0} results")]
    ManyLogs(usize),
    #[error("at most {0} blocks can be mined at once")]
    ManyBlocks(u64),
}

impl From<Fault> for ErrorObjectOwned {
    fn from(fault: Fault) -> Self {
        let code = match &fault {
            Fault::Reverted(_) => 3,
            Fault::Malformed(_) | Fault::AboveHead { .. } | Fault::ManyBlocks(_) => -32602,
            Fault::WideRange(_) | Fault::ManyLogs(_) => -32005,
            _ => -32000,
        };
        let data = if let Fault::Reverted(output) = &fault { Some(output.clone()) } else { None };
        Self::owned(code, fault.to_string(), data)
    }
}
