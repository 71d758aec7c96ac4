//! Closes idle channels, together with the seller, if there is another channel to the same seller: several are opened
//! while requests queue, and afterwards one is enough.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::error::OperationError;
use super::service::Channels;
use crate::protocol::ChannelId;

/// Closes idle channels, one per call.
#[derive(Debug)]
pub struct IdleChannelReaper {
    channels: Channels,
    idle_after: Duration,
    /// Channels that could not be closed, and when to retry.
    retry_at: BTreeMap<ChannelId, Instant>,
}

impl IdleChannelReaper {
    /// Closes channels without a payment for `idle_after`.
    pub fn new(channels: Channels, idle_after: Duration) -> Self {
        Self { channels, idle_after, retry_at: BTreeMap::new() }
    }

    /// Closes the next idle channel and logs the outcome; `false` if there is none. A channel that could not be closed
    /// is retried after `idle_after`, as are all channels of its seller if the policy says to stop there.
    pub async fn close_next(&mut self) -> bool {
        let now = Instant::now();
        self.retry_at.retain(|_, at| *at > now);
        let idle = self.channels.payments.idle_channels(self.idle_after);
        let Some(id) = idle.iter().find(|id| !self.retry_at.contains_key(id)).copied() else {
            return false;
        };
        let error = match self.channels.close_if_idle(id, self.idle_after).await {
            Ok(true) => {
                tracing::info!(channel = %id, "closed an idle channel: its seller has another one");
                return true;
            }
            Ok(false) => {
                self.postpone(id);
                return true;
            }
            Err(error) => error,
        };
        tracing::warn!(channel = %id, reason = %error, "closing an idle channel failed");
        self.postpone(id);
        if matches!(error, OperationError::Denied(_)) {
            idle.into_iter().filter(|other| other.receiver == id.receiver).for_each(|id| self.postpone(id));
        }
        true
    }

    fn postpone(&mut self, id: ChannelId) {
        self.retry_at.insert(id, Instant::now() + self.idle_after);
    }
}

impl Channels {
    /// Closes a channel together with its seller; `false` if it was used before it could be locked.
    async fn close_if_idle(&self, id: ChannelId, idle_after: Duration) -> Result<bool, OperationError> {
        let context = self.payments.chain_context().await?;
        let (_lock, locked) = self.payments.lock_channel(id).await?;
        if !self.payments.is_still_idle(&id, idle_after) {
            return Ok(false);
        }
        self.close_locked(&context, id, locked, None).await?;
        Ok(true)
    }
}
