//! Chooses the total that a channel is closed on.

use super::error::OperationError;
use crate::payments::ChainContext;
use crate::protocol::{Amount, Channel, ChannelId, OnChain};

/// The channel's state in the contract.
pub(super) async fn on_chain(context: &ChainContext, id: ChannelId) -> Result<OnChain, OperationError> {
    context.chain.channel(id).await?.ok_or(OperationError::Settled(id))
}

/// True if it is certain that nothing was ever promised on the channel.
pub(super) fn is_unused(channel: &Channel) -> bool {
    channel.exposure().is_zero()
}

/// The total of a unilateral close.
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
        // The receiver has proven to the contract that this much was promised.
        None => known.promised.max(on_chain.withdrawn),
    };
    if total < on_chain.withdrawn {
        return Err(OperationError::LockUp { total, withdrawn: on_chain.withdrawn });
    }
    Ok(total)
}
