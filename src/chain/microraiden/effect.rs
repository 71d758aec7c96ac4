//! Proves that a confirmed transaction had its effect.

use tokio::time::Instant;

use crate::chain::Chain;
use crate::chain::confirm::poll;
use crate::chain::error::OpError;
use crate::chain::sent::{ConfirmedTx, SentTx};
use crate::protocol::schemes::microraiden::contract;
use crate::protocol::{Amount, ChannelId, OnChain};

impl Chain {
    /// Returns the state of the channel that `mined` worked on, once its effect is proven by the contract's state in a
    /// block no older than `mined`, or by the contract's event. Transient errors are retried within
    /// [`Self::retry_window`].
    pub(in crate::chain) async fn proven(
        &self,
        sent: &SentTx,
        channel: ChannelId,
        mined: &ConfirmedTx,
    ) -> Result<Option<OnChain>, OpError> {
        let op = &sent.intent.op;
        let until = Instant::now() + self.retry_window();
        let mut has_event = self.has_event(op, &mined.receipt.logs, |_| true);
        let mut shows = None;
        let mut poll = poll(self.0.settings.poll_every);
        loop {
            poll.tick().await;
            match self.channel_since(channel, mined.head).await {
                Ok(Some(on_chain)) if contract::is_reached(op, sent.before, on_chain) => {
                    return Ok(on_chain);
                }
                // For a top-up that was resumed, `before` is unknown, so the event must prove the amount added.
                Ok(Some(on_chain))
                    if has_event
                        && sent.before.is_none()
                        && contract::is_reached(op, Some(Amount::ZERO), on_chain) =>
                {
                    return Ok(on_chain);
                }
                Ok(Some(on_chain)) => shows = Some(on_chain),
                Ok(None) => tracing::debug!(%channel, "the node is behind"),
                Err(error) => tracing::debug!(%channel, %error, "the channel cannot be read yet"),
            }
            if !has_event {
                let block = mined.receipt.block_number.as_u64();
                has_event = matches!(self.trace(op, sent.intent.hash, block, block).await, Ok(Some(_)));
            }
            if Instant::now() >= until {
                break;
            }
        }
        match shows {
            Some(Some(on_chain)) if has_event => {
                tracing::warn!(
                    transaction = %sent.hash(), %channel, operation = %op, ?on_chain,
                    "the contract's event proves the transaction, but the node's state does not show its effect yet"
                );
                Ok(Some(on_chain))
            }
            shows => Err(OpError::Unseen { hash: sent.hash(), channel, shows: shows.map(Box::new) }),
        }
    }
}
