//! Sentences about operations on channels, for their plans and results. The caller says how it shows amounts.

use super::operate::{ClosingTotal, OperationOutcome, PlannedAction};
use crate::protocol::Amount;

impl PlannedAction {
    /// Describes what an operation will do.
    #[must_use]
    pub fn describe(&self, show: impl Fn(Amount) -> String) -> String {
        match self {
            Self::Open { receiver, deposit } => {
                format!("open a channel to {receiver} and lock up {}", show(*deposit))
            }
            Self::TopUp { channel, added } => format!("lock up {} more in {channel}", show(*added)),
            Self::CloseUnused { channel, deposit } => format!(
                "nothing was ever paid on {channel}: request a unilateral close at 0; after the challenge period it can be \
                 settled, which returns all of {}",
                show(*deposit)
            ),
            Self::CloseTogether { channel, deposit, total } => {
                let ask =
                    format!("ask the seller for its closing signature and close {channel} immediately at");
                match total {
                    ClosingTotal::Exactly(total) => {
                        let (rest, total) = (show(deposit.saturating_sub(*total)), show(*total));
                        format!("{ask} {total}, which returns {rest} of the deposit of {}", show(*deposit))
                    }
                    ClosingTotal::AtMost(most) => format!(
                        "{ask} the total that the seller can prove, at most {}, which returns the rest of {}",
                        show(*most),
                        show(*deposit)
                    ),
                }
            }
            Self::CloseAlone { channel, deposit, total } => format!(
                "request a unilateral close of {channel} at {} of {}; the seller may dispute it until the challenge period \
                 is over, then it can be settled",
                show(*total),
                show(*deposit)
            ),
            Self::Settle { channel } => format!("settle {channel}, which returns the rest of the deposit"),
            Self::Sync => "read all channels from the chain again".to_owned(),
        }
    }
}

impl OperationOutcome {
    /// Describes what an operation did.
    #[must_use]
    pub fn describe(&self, show: impl Fn(Amount) -> String) -> String {
        match self {
            Self::Synced { channels: 1, head } => format!("read 1 channel up to block {head}"),
            Self::Synced { channels, head } => format!("read {channels} channels up to block {head}"),
            Self::Ended(channel) => format!("{channel} is closed and paid out"),
            Self::Closing { channel, settle_block } => {
                let id = channel.id();
                format!("{id} is closing; run `tollpass channels settle` after block {settle_block}")
            }
            Self::Funded(channel) => format!("{} holds {}", channel.id(), show(channel.deposit)),
        }
    }
}
