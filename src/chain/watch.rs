//! Watching the chain: waits for a new block, then says what became of our channels. Keeps in memory only.

use std::collections::BTreeMap;

use ethers_core::types::H256;
use tokio::time::Interval;

use crate::chain::Chain;
use crate::chain::confirm::poll;
use crate::chain::error::ChainError;
use crate::chain::sync::{Events, REORG_MARGIN, Synced};
use crate::protocol::ChannelId;

/// Looks for new blocks every [`Settings::poll_every`](crate::chain::Settings::poll_every).
#[derive(Debug)]
pub struct Watcher {
    chain: Chain,
    poll: Interval,
    cursor: u64,
    /// The newest block when the chain was read last: its hash tells one that took its place.
    newest: Option<H256>,
    /// Channels whose event may be undone by a reorganisation, and up to which head they are looked at again.
    fresh: BTreeMap<ChannelId, u64>,
}

impl Chain {
    /// A watch on the payer's channels that begins with what has happened since the block `cursor`.
    pub fn watch(&self, cursor: u64) -> Watcher {
        let poll = poll(self.0.settings.poll_every);
        Watcher { chain: self.clone(), poll, cursor, newest: None, fresh: BTreeMap::new() }
    }
}

impl Watcher {
    /// Waits until there is another newest block than before (the first time: at once), then reads each channel
    /// that had an event since, or that had one so recently that it may be undone, or that is in `recheck`.
    ///
    /// An error is that of one look; the next call looks again after the same pause and misses nothing. The
    /// answer may be waited for in a `select!`: what a dropped call had begun is begun anew, so a caller that
    /// drops it faster than the node answers never gets to the end.
    pub async fn next(&mut self, recheck: &[ChannelId]) -> Result<Synced, ChainError> {
        loop {
            self.poll.tick().await;
            let block = self.chain.0.rpc.latest_block().await?;
            if self.newest != Some(block.hash) {
                return self.read(block.number.as_u64(), block.hash, recheck).await;
            }
        }
    }

    /// Changes itself only after the last wait, so that a failed or dropped look leaves nothing behind.
    async fn read(&mut self, head: u64, newest: H256, recheck: &[ChannelId]) -> Result<Synced, ChainError> {
        // On another chain all channels would be gone.
        self.chain.chain_id().await?;
        let head = self.chain.likely_head(self.cursor, head).await?;
        let margin = head.saturating_sub(REORG_MARGIN);
        // After a reorganisation the head may be below the cursor.
        let Events { ids: events, settled } = self.chain.events(self.cursor.min(margin), head).await?;
        let ids = events.iter().chain(self.fresh.keys()).chain(recheck).copied().collect();
        let channels = self.chain.channels(ids, head).await?;
        self.fresh.retain(|_, until| *until >= head);
        // Events come back in each look until they are as old as the margin.
        self.fresh.extend(events.into_iter().map(|id| (id, head + REORG_MARGIN)));
        self.cursor = margin.max(self.chain.0.settings.start_block);
        self.newest = Some(newest);
        Ok(Synced { channels, settled, cursor: self.cursor, head })
    }
}
