//! Watches the chain: waits for a new block, then reports the state of the payer's channels. Its state is in memory
//! only.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use ethers_core::types::H256;
use tokio::time::Interval;

use crate::chain::Chain;
use crate::chain::confirm::poll;
use crate::chain::error::ChainError;
use crate::chain::microraiden::sync::{Events, REORG_MARGIN, Synced};
use crate::protocol::ChannelId;

/// Polls for new blocks every [`Settings::poll_every`](crate::chain::ChainSettings::poll_every).
#[derive(Debug)]
pub struct BlockWatcher {
    chain: Chain,
    poll: Interval,
    cursor: u64,
    /// The hash of the newest block at the last read, to detect a replacement.
    newest: Option<H256>,
    /// Channels whose event a reorganisation may undo, with the head until which they are read again.
    fresh: BTreeMap<ChannelId, u64>,
}

impl Chain {
    /// Watches the payer's channels, starting with the events since block `cursor`.
    pub fn watch(&self, cursor: u64) -> BlockWatcher {
        let poll = poll(self.0.settings.poll_every);
        BlockWatcher { chain: self.clone(), poll, cursor, newest: None, fresh: BTreeMap::new() }
    }
}

impl BlockWatcher {
    /// Waits until the newest block changes (the first time: returns at once), then reads each channel that had an
    /// event since, whose last event a reorganisation may still undo, or that is in `recheck`.
    ///
    /// Cancel safe: a call that follows a dropped one starts over and misses nothing, so a caller that drops it faster
    /// than the node responds makes no progress.
    ///
    /// # Errors
    /// Those of one read. The next call reads again after the same pause and misses nothing.
    pub async fn next(&mut self, recheck: &[ChannelId]) -> Result<Synced, ChainError> {
        loop {
            self.poll.tick().await;
            let block = self.chain.0.rpc.latest_block().await;
            let ended = match block {
                Ok(block) if self.newest == Some(block.hash) => None,
                Ok(block) => Some(self.read(block.number.as_u64(), block.hash, recheck).await),
                Err(error) => Some(Err(error)),
            };
            let has_failed = ended.as_ref().is_some_and(Result::is_err);
            self.chain.0.is_unwatched.store(has_failed, Ordering::Relaxed);
            if let Some(ended) = ended {
                return ended;
            }
        }
    }

    /// Updates the state only after the last await, so that a failed or dropped read changes nothing.
    async fn read(&mut self, head: u64, newest: H256, recheck: &[ChannelId]) -> Result<Synced, ChainError> {
        // On another chain, no channel would exist.
        self.chain.chain_id().await?;
        let head = self.chain.likely_head(self.cursor, head).await?;
        let margin = head.saturating_sub(REORG_MARGIN);
        // After a reorganisation, the head may be below the cursor.
        let Events { ids: events, settled } = self.chain.events(self.cursor.min(margin), head).await?;
        let ids = events.iter().chain(self.fresh.keys()).chain(recheck).copied().collect();
        let channels = self.chain.channels(ids, head).await?;
        self.fresh.retain(|_, until| *until >= head);
        // Events are read again until they are older than the margin.
        self.fresh.extend(events.into_iter().map(|id| (id, head + REORG_MARGIN)));
        self.cursor = margin.max(self.chain.0.settings.start_block);
        self.newest = Some(newest);
        Ok(Synced { channels, settled, cursor: self.cursor, head })
    }
}
