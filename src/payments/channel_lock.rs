//! The lock that keeps requests from using a channel during an operation.

use tokio::sync::mpsc;

use super::message::{LockId, Message};
use crate::protocol::ChannelId;

/// A locked channel: no request pays from it until this is dropped.
#[must_use]
pub(crate) struct ChannelLock {
    channel: ChannelId,
    id: LockId,
    /// A reserved slot in the mailbox, so that the lock can be released without waiting.
    permit: Option<mpsc::OwnedPermit<Message>>,
}

impl ChannelLock {
    pub(super) fn new(channel: ChannelId, id: LockId, permit: mpsc::OwnedPermit<Message>) -> Self {
        Self { channel, id, permit: Some(permit) }
    }
}

impl Drop for ChannelLock {
    fn drop(&mut self) {
        if let Some(permit) = self.permit.take() {
            permit.send(Message::Unlock { channel: self.channel, lock: self.id });
        }
    }
}
