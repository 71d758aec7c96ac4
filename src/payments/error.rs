//! Why the payment service cannot act on a channel.

use crate::protocol::ChannelId;
use crate::protocol::engine::OpRefused;

/// Why an operation on a channel could not begin, or came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum ChannelAccessError {
    /// The engine cannot take the order now.
    #[error(transparent)]
    OpRefused(#[from] OpRefused),
    /// There is no such channel.
    #[error("channel {0} not found: see `tollpass channels`")]
    Unknown(ChannelId),
    /// Another operation holds the channel's lock.
    #[error("channel {0} is being closed already; wait for that")]
    Locked(ChannelId),
    /// The order was tried and came to nothing.
    #[error("{0}")]
    Failed(String),
    /// The service has stopped.
    #[error("tollpass is shutting down")]
    ShuttingDown,
}
