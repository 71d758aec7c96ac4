//! Why an operation on the chain failed, or is refused.

use crate::protocol::policy::DepositLimit;
use crate::protocol::{Address, Amount, ChannelOp};

/// The payer's balance, to detect changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Balance {
    /// Ether, in wei; saturated.
    pub wei: u128,
    /// Tokens, in base units.
    pub tokens: Amount,
}

/// Why an operation failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpFailure {
    /// The operation.
    pub op: ChannelOp,
    /// The reason and the remedy.
    pub reason: String,
    /// True if none of its transactions can still take effect.
    pub is_final: bool,
    /// The payer's balance afterwards, if the node reports it.
    pub balance: Option<Balance>,
}

/// Why a user operation cannot start now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpRefused {
    /// The key or the chain is not ready yet.
    #[error("not ready: the key is not unlocked or the chain not synced yet")]
    NotReady,
    /// The user wants nothing to be signed.
    #[error("tollpass is frozen and signs nothing; run `tollpass thaw`")]
    Frozen,
    /// There is no chain that could hold a channel.
    #[error("no [chain] is configured, so there are no channels")]
    NoChain,
    /// Another transaction for the receiver is pending.
    #[error("another transaction for {0} is pending; wait for it, then try again")]
    Busy(Address),
    /// The amount is 0.
    #[error(
        "the amount must be more than 0: a channel without a deposit cannot pay, and its transaction costs a fee"
    )]
    Nothing,
    /// The channel would exceed the user's limit.
    #[error("the channel would hold {deposit}, more than deposit.max_per_channel allows ({cap})")]
    AboveCap {
        /// The resulting deposit.
        deposit: Amount,
        /// The limit.
        cap: Amount,
    },
    /// All channels together would exceed the user's limit.
    #[error("a deposit of {amount} is not possible: {limit}")]
    AboveLimit {
        /// The deposit.
        amount: Amount,
        /// The limit.
        limit: DepositLimit,
    },
}
