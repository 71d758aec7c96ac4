//! Preconditions of the operations that end a channel.

use crate::protocol::{Amount, ChannelId};

/// Why a channel cannot be ended as ordered. Nothing was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnmetPrecondition {
    /// The contract does not know it.
    #[error("channel {channel} not found on chain: it is settled already, or its opening is not mined")]
    NotThere {
        /// The channel.
        channel: ChannelId,
    },
    /// To be settled, but nobody asked to close it.
    #[error(
        "channel {channel} is not closing, so it cannot be settled: close it first, with its \
         receiver or alone"
    )]
    NotClosing {
        /// The channel.
        channel: ChannelId,
    },
    /// To be settled within the challenge period.
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
    /// To be closed alone a second time.
    #[error(
        "channel {channel} is being closed already, on {closing_balance}: settle it after block {settle_block}, \
         or close it together with its receiver"
    )]
    ClosingAlready {
        /// The channel.
        channel: ChannelId,
        /// The last block of the challenge period.
        settle_block: u32,
        /// On what it is being closed.
        closing_balance: Amount,
    },
    /// To be closed on more than is locked up.
    #[error(
        "channel {channel} holds {deposit} and cannot be closed on {total}: close it on {deposit} at most"
    )]
    AboveDeposit {
        /// The channel.
        channel: ChannelId,
        /// The total that was asked for.
        total: Amount,
        /// What is locked up.
        deposit: Amount,
    },
    /// To be closed on less than the receiver has taken out: alone, that would lock the deposit up.
    #[error(
        "the receiver has withdrawn {withdrawn} from channel {channel}, so it cannot be closed on {total}: use \
         {withdrawn} at least. A channel that was closed alone on less can never be settled; only a cooperative \
         close on {withdrawn} or more frees it then"
    )]
    BelowWithdrawn {
        /// The channel.
        channel: ChannelId,
        /// The total that was asked for.
        total: Amount,
        /// What the receiver has taken out.
        withdrawn: Amount,
    },
    /// To be settled, but it was closed alone on less than the receiver had taken out.
    #[error(
        "channel {channel} was closed alone on {closing_balance}, less than the {withdrawn} that its receiver had \
         withdrawn, and can never be settled: ask the receiver for a cooperative close on {withdrawn} or more"
    )]
    LockedUp {
        /// The channel.
        channel: ChannelId,
        /// On what it was closed.
        closing_balance: Amount,
        /// What the receiver has taken out.
        withdrawn: Amount,
    },
}

impl UnmetPrecondition {
    /// How many blocks must be mined before it is gone; 0 where blocks do not help.
    pub fn blocks_left(&self) -> u64 {
        match self {
            Self::TooEarly { settle_block, head, .. } => (u64::from(*settle_block) + 1).saturating_sub(*head),
            _ => 0,
        }
    }
}
