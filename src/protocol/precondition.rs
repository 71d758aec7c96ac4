//! Preconditions of the operations that end a channel.

use crate::protocol::{Amount, ChannelId};

/// Why a channel cannot be ended this way. Nothing was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnmetPrecondition {
    /// The contract does not have it.
    #[error("channel {channel} not found on chain: it is settled already, or its opening is not mined")]
    NotThere {
        /// The channel.
        channel: ChannelId,
    },
    /// Settle: no close was requested.
    #[error(
        "channel {channel} is not closing, so it cannot be settled: close it first, with its \
         receiver or alone"
    )]
    NotClosing {
        /// The channel.
        channel: ChannelId,
    },
    /// Settle: the challenge period is not over.
    #[error(
        "channel {channel} cannot be settled yet: settle needs a block number greater than the settle block \
         {settle_block}, and the newest block is {head}; try again in {} blocks", self.blocks_left()
    )]
    TooEarly {
        /// The channel.
        channel: ChannelId,
        /// The last block of the challenge period.
        settle_block: u32,
        /// The newest block.
        head: u64,
    },
    /// Unilateral close: one was already requested.
    #[error(
        "channel {channel} is being closed already, on {closing_balance}: settle it after block {settle_block}, \
         or close it together with its receiver"
    )]
    ClosingAlready {
        /// The channel.
        channel: ChannelId,
        /// The last block of the challenge period.
        settle_block: u32,
        /// The total that it is being closed at.
        closing_balance: Amount,
    },
    /// Close: the total exceeds the deposit.
    #[error(
        "channel {channel} holds {deposit} and cannot be closed on {total}: close it on {deposit} at most"
    )]
    AboveDeposit {
        /// The channel.
        channel: ChannelId,
        /// The requested total.
        total: Amount,
        /// The deposit.
        deposit: Amount,
    },
    /// Close: the total is less than the receiver has withdrawn, which would lock the deposit in a unilateral close.
    #[error(
        "the receiver has withdrawn {withdrawn} from channel {channel}, so it cannot be closed on {total}: use \
         {withdrawn} at least. A channel that was closed alone on less can never be settled; only a cooperative \
         close on {withdrawn} or more frees it then"
    )]
    BelowWithdrawn {
        /// The channel.
        channel: ChannelId,
        /// The requested total.
        total: Amount,
        /// The total withdrawn.
        withdrawn: Amount,
    },
    /// Settle: it was closed unilaterally at less than the receiver had withdrawn.
    #[error(
        "channel {channel} was closed alone on {closing_balance}, less than the {withdrawn} that its receiver had \
         withdrawn, and can never be settled: ask the receiver for a cooperative close on {withdrawn} or more"
    )]
    LockedUp {
        /// The channel.
        channel: ChannelId,
        /// The total that it was closed at.
        closing_balance: Amount,
        /// The total withdrawn.
        withdrawn: Amount,
    },
}

impl UnmetPrecondition {
    /// How many more blocks are needed; 0 if blocks do not help.
    pub fn blocks_left(&self) -> u64 {
        match self {
            Self::TooEarly { settle_block, head, .. } => (u64::from(*settle_block) + 1).saturating_sub(*head),
            _ => 0,
        }
    }
}
