//! Closing the channels that a seller needs no more, together with it: several are opened when requests queue, and one
//! is enough when they no longer do. What keeps the clock is elsewhere.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::Manager;
use super::operate::Trouble;
use crate::protocol::ChannelId;

/// Closes surplus channels, one at a time.
#[derive(Debug)]
pub struct Surplus {
    manager: Manager,
    within: Duration,
    /// Channels that could not be closed, and until when they are left alone.
    put_off: BTreeMap<ChannelId, Instant>,
}

impl Surplus {
    /// For the channels that carry no payment for as long as `within`.
    pub fn new(manager: Manager, within: Duration) -> Self {
        Self { manager, within, put_off: BTreeMap::new() }
    }

    /// Closes the next surplus channel and says in the log what became of it; `false` when there is none. One that is
    /// not closed is left alone for another such time, and where the policy says to stop there, all of its seller are.
    pub async fn close_next(&mut self) -> bool {
        let now = Instant::now();
        self.put_off.retain(|_, until| *until > now);
        let surplus = self.manager.engine.lock().engine.idle_channels(now, self.within);
        let Some(id) = surplus.iter().find(|id| !self.put_off.contains_key(id)).copied() else {
            return false;
        };
        let trouble = match self.manager.close_if_surplus(id, self.within).await {
            Ok(true) => {
                tracing::info!(channel = %id, "it was idle, and the seller has another one: closed");
                return true;
            }
            Ok(false) => {
                self.put_off(id);
                return true;
            }
            Err(trouble) => trouble,
        };
        tracing::warn!(channel = %id, reason = %trouble, "a channel that is not needed stays open");
        self.put_off(id);
        if matches!(trouble, Trouble::Denied(_)) {
            surplus.into_iter().filter(|other| other.receiver == id.receiver).for_each(|id| self.put_off(id));
        }
        true
    }

    fn put_off(&mut self, id: ChannelId) {
        self.put_off.insert(id, Instant::now() + self.within);
    }
}

impl Manager {
    /// Closes a channel together with its seller; `false` when it was needed once more before it could be held.
    async fn close_if_surplus(&self, id: ChannelId, within: Duration) -> Result<bool, Trouble> {
        let means = self.means().await?;
        let (_hold, held) = self.hold(id).await?;
        if !self.engine.lock().engine.is_still_idle(&id, Instant::now(), within) {
            return Ok(false);
        }
        self.close_held(&means, id, held, None).await?;
        Ok(true)
    }
}
