//! Why an operation on the chain failed, or is refused.

use crate::protocol::{Address, Amount, ChannelOp};

/// What the payer can spend, to tell whether it has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Balance {
    /// Ether, in wei, as far as it fits.
    pub wei: u128,
    /// Tokens, in base units.
    pub tokens: Amount,
}

/// Why an order came to nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpFailure {
    /// What was ordered.
    pub op: ChannelOp,
    /// What went wrong and what to do.
    pub reason: String,
    /// True when none of its transactions can still take effect.
    pub is_final: bool,
    /// What the payer had afterwards, if the node says.
    pub balance: Option<Balance>,
}

/// Why an order of the user's is not taken now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpRefused {
    /// The key or the chain is not there yet.
    #[error("not ready: the key is not unlocked or the chain not synced yet")]
    NotReady,
    /// Another transaction for the receiver is under way.
    #[error("another transaction for {0} is under way; wait for it, then try again")]
    Busy(Address),
    /// No amount is given.
    #[error(
        "the amount must be more than 0: a channel without a deposit cannot pay, and its transaction costs a fee"
    )]
    Nothing,
    /// The channel would hold more than the user allows.
    #[error("the channel would hold {deposit}, more than deposit.max_per_channel allows ({cap})")]
    AboveCap {
        /// What it would hold.
        deposit: Amount,
        /// The most that a channel may hold.
        cap: Amount,
    },
}
