//! Why the payment service cannot act on a channel.

use crate::protocol::ChannelId;
use crate::protocol::engine::OpRefused;

/// Why an operation on a channel could not begin, or failed.
#[derive(Debug, thiserror::Error)]
pub enum ChannelAccessError {
    /// The engine cannot start the operation now.
    #[error(transparent)]
    OpRefused(#[from] OpRefused),
    /// There is no such channel.
    #[error("channel {0} not found: see `tollpass channels`")]
    Unknown(ChannelId),
    /// Another operation holds the channel's lock.
    #[error("channel {0} is already being closed; wait until that is done")]
    Locked(ChannelId),
    /// The operation was attempted and failed.
    #[error("{0}")]
    Failed(String),
    /// The service has stopped.
    #[error("tollpass is shutting down")]
    ShuttingDown,
}
