//! What a channel is closed on.

use super::error::OperationError;
use crate::payments::ChainContext;
use crate::protocol::{Amount, Channel, ChannelId, OnChain};

/// The channel as the contract has it.
pub(super) async fn on_chain(context: &ChainContext, id: ChannelId) -> Result<OnChain, OperationError> {
    context.chain.channel(id).await?.ok_or(OperationError::Settled(id))
}

/// True if certainly nothing was ever promised on the channel.
pub(super) fn is_unused(channel: &Channel) -> bool {
    channel.exposure().is_zero()
}

/// The total to close on without the seller.
pub(super) fn unilateral_total(
    known: &Channel,
    on_chain: &OnChain,
    given: Option<Amount>,
    below_promised: bool,
) -> Result<Amount, OperationError> {
    let total = match given {
        Some(total) if total < known.exposure() && !below_promised => {
            return Err(OperationError::BelowPromised { total, promised: known.exposure() });
        }
        Some(total) => total,
        None if known.exposure() > known.promised => {
            return Err(OperationError::InDoubt { least: known.promised, most: known.exposure() });
        }
        // What the receiver has withdrawn, the contract has seen promised.
        None => known.promised.max(on_chain.withdrawn),
    };
    if total < on_chain.withdrawn {
        return Err(OperationError::LockUp { total, withdrawn: on_chain.withdrawn });
    }
    Ok(total)
}
