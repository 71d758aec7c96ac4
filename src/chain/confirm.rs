//! From a transaction that was sent to one that counts.

use std::time::Duration;

use ethers_core::types::U256;
use ethers_core::types::transaction::eip2718::TypedTransaction;
use ethers_core::utils::rlp::Rlp;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::chain::error::{ChainError, OrderError, TransactionHash};
use crate::chain::nonces::InFlight;
use crate::chain::refusal::{self, SendRefusal};
use crate::chain::rpc::Receipt;
use crate::chain::{At, Chain, end};
use crate::fault;
use crate::protocol::{ChannelId, Intent, OnChain};

/// A transaction that the node has, or may have.
pub(super) struct Sent {
    pub intent: Intent,
    /// False when nobody knows whether the node took it.
    pub is_known: bool,
    /// Keeps its nonce taken while it is waited for.
    pub _in_flight: InFlight,
}

/// A transaction in a block, deep enough.
pub(super) struct Mined {
    pub receipt: Receipt,
    /// The newest block when that was seen.
    pub head: u64,
}

enum Sight {
    /// Deep enough.
    Confirmed(Mined),
    /// In a block, not deep enough.
    Mined,
    /// In no block.
    Waiting,
    /// In no block, and its nonce is used.
    Overtaken,
}

/// A transaction in no block is sent again every so many looks.
const RESEND_EVERY: u32 = 10;
/// So many looks in a row must find the nonce used by another before that is believed: nodes behind one
/// address are not always of one mind.
const OVERTAKEN_LOOKS: u32 = 3;

impl Chain {
    /// Waits until `sent` is `confirmations` deep, whether it succeeded or not. The receipt is the last one seen,
    /// read after the head: a reorganisation on the way is followed.
    pub(super) async fn confirm(&self, sent: &Sent, confirmations: u32) -> Result<Mined, OrderError> {
        let waited = self.0.settings.confirm_within;
        let mut last = None;
        match timeout(waited, self.wait(sent, confirmations, &mut last)).await {
            Ok(outcome) => {
                fault::point("transaction confirmed");
                outcome
            }
            Err(_) => Err(OrderError::StillPending { hash: sent.hash(), waited, last: last.map(Box::new) }),
        }
    }

    /// Hands bytes to the node: true when it has them, an error when it may not. It says what a refusal means.
    pub(super) async fn submit(&self, raw: &[u8]) -> Result<bool, (SendRefusal, ChainError)> {
        match self.0.rpc.send(raw).await {
            Ok(_) => Ok(true),
            // Development nodes that mine at once answer with the revert of a transaction that they have mined.
            Err(ChainError::Reverted { .. }) => Ok(true),
            Err(ChainError::NodeRefused { node, method, code, message }) => {
                match refusal::of_send(&message) {
                    SendRefusal::AlreadyKnown => Ok(true),
                    kind => Err((kind, ChainError::NodeRefused { node, method, code, message })),
                }
            }
            Err(_) => Ok(false),
        }
    }

    /// Reads a channel as it is at the node's head, as soon as the node has the block `seen` and shows what `sent`
    /// did: one that is behind would show the channel as it was.
    pub(super) async fn read_back(
        &self,
        sent: &Sent,
        channel: ChannelId,
        seen: u64,
    ) -> Result<Option<OnChain>, OrderError> {
        let order = &sent.intent.order;
        let mut looks = looks(self.0.settings.poll_every);
        let reading = async {
            loop {
                looks.tick().await;
                match self.channel_since(channel, seen).await {
                    Ok(Some(on_chain)) if end::is_reached(order, on_chain) => return on_chain,
                    Ok(_) => tracing::debug!(%channel, ?order, "the node does not show what was done yet"),
                    Err(error) => tracing::debug!(%channel, %error, "the channel cannot be read yet"),
                }
            }
        };
        let waited = self.0.settings.confirm_within;
        timeout(waited, reading).await.map_err(|_| OrderError::Unseen { hash: sent.hash(), channel })
    }

    /// What the contract says of a channel at the head; nothing where the node does not have the block `seen`.
    pub(super) async fn channel_since(
        &self,
        channel: ChannelId,
        seen: u64,
    ) -> Result<Option<Option<OnChain>>, ChainError> {
        let head = self.head().await?;
        if head < seen {
            return Ok(None);
        }
        // By number and not "latest": several nodes behind one address need not agree on what that is. Each
        // look asks for the newest, as some nodes keep no older state.
        self.channel_at(channel, At::Block(head)).await.map(Some)
    }

    async fn wait(
        &self,
        sent: &Sent,
        confirmations: u32,
        last: &mut Option<ChainError>,
    ) -> Result<Mined, OrderError> {
        let mut looks = looks(self.0.settings.poll_every);
        let (mut is_known, mut overtaken, mut unseen) = (sent.is_known, 0, 0u32);
        loop {
            looks.tick().await;
            match self.look(&sent.intent, confirmations).await {
                Ok(Sight::Confirmed(mined)) => return Ok(mined),
                Ok(Sight::Mined) => (overtaken, unseen, *last) = (0, 0, None),
                Ok(Sight::Overtaken) => {
                    overtaken += 1;
                    if overtaken == OVERTAKEN_LOOKS {
                        return Err(OrderError::Replaced { hash: sent.hash(), nonce: sent.intent.nonce });
                    }
                }
                Ok(Sight::Waiting) => {
                    (overtaken, unseen, *last) = (0, unseen.wrapping_add(1), None);
                    if !is_known || unseen.is_multiple_of(RESEND_EVERY) {
                        match self.submit(&sent.intent.raw).await {
                            Ok(known) => {
                                fault::point("transaction sent again");
                                is_known |= known;
                            }
                            Err((_, error)) => *last = Some(error),
                        }
                    }
                }
                Err(error) => *last = Some(error),
            }
        }
    }

    async fn look(&self, intent: &Intent, confirmations: u32) -> Result<Sight, ChainError> {
        let rpc = &self.0.rpc;
        let head = rpc.head().await?;
        let Some(receipt) = rpc.receipt(intent.hash).await? else {
            let used = rpc.nonce_of(self.payer().into(), false).await?;
            return Ok(if used > intent.nonce { Sight::Overtaken } else { Sight::Waiting });
        };
        let block = receipt.block_number.as_u64();
        let head = head.max(block);
        let is_deep = head - block + 1 >= u64::from(confirmations);
        Ok(if is_deep { Sight::Confirmed(Mined { receipt, head }) } else { Sight::Mined })
    }
}

impl Mined {
    /// What it cost in wei, if the node says or the transaction itself does.
    pub fn fee(&self, intent: &Intent) -> Option<U256> {
        let price = self.receipt.effective_gas_price.or_else(|| {
            match TypedTransaction::decode_signed(&Rlp::new(&intent.raw)).ok()?.0 {
                TypedTransaction::Legacy(transaction) => transaction.gas_price,
                _ => None,
            }
        })?;
        Some(price.saturating_mul(self.receipt.gas_used))
    }
}

impl Sent {
    pub fn hash(&self) -> TransactionHash {
        TransactionHash(self.intent.hash)
    }
}

/// A timer whose ticks keep their distance when one comes late.
pub(super) fn looks(every: Duration) -> tokio::time::Interval {
    let mut looks = interval(every);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    looks
}
