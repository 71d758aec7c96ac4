//! Waits until a transaction that was sent is confirmed.
//!
//! Absence is never a verdict. Load-balanced nodes may disagree: one may report a transaction that another has not
//! indexed yet. So a used nonce without a receipt only raises a doubt. The doubt ends when the receipt, the
//! transaction's effect or another transaction with the same nonce is found, or, if the node has no trace of our
//! transaction, after many blocks and a long time.

use std::time::Duration;

use ethers_core::types::U256;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::chain::Chain;
use crate::chain::error::{ChainError, OpError, TransactionHash};
use crate::chain::fees::Caps;
use crate::chain::gap::Gaps;
use crate::chain::recorder::TransactionRecorder;
use crate::chain::refusal;
use crate::chain::refusal::SendRefusal;
use crate::chain::rpc::{At, Rpc};
use crate::chain::rpc::{Transaction, TxReceipt};
use crate::chain::sent::{ConfirmedTx, SentTx};
use crate::failpoint;
use crate::protocol::{ChannelId, Intent, OnChain};

enum TxStatus {
    /// Mined, with enough confirmations.
    Confirmed(ConfirmedTx),
    /// Mined, without enough confirmations.
    Mined,
    /// Not mined. `mined` is the account's count of mined transactions.
    Waiting { mined: u64 },
    /// The nonce is used, but the transaction has no receipt.
    Doubtful(Doubtful),
}

/// The state of a transaction whose nonce is used but that has no receipt.
#[derive(Clone, Copy)]
struct Doubtful {
    head: u64,
    /// Whether the node knows its hash.
    is_known: bool,
}

/// When a transaction's outcome became doubtful.
struct Doubt {
    poll: u32,
    began: Instant,
    head: u64,
}

/// Send a transaction that is not mined again once in this many polls.
const RESEND_EVERY: u32 = 10;
/// After this many consecutive rejections, resend a transaction that the node does not have only every `RESEND_EVERY`
/// polls.
const REFUSALS: u32 = 5;
/// Investigate a doubtful transaction once in this many polls.
const DOUBT_POLLS: u32 = 3;
/// A used nonce without a trace of our transaction counts as replaced only after this many further blocks.
const DOUBT_BLOCKS: u64 = 12;
/// It must also last this long, or a quarter of `confirm_timeout` if that is less.
const DOUBT_WITHIN: Duration = Duration::from_secs(120);
/// How often to retry a read at the newest block, whose state a node may drop meanwhile.
const STATE_ATTEMPTS: usize = 5;
/// How many of the newest blocks to search for a transaction.
pub(super) const SEARCHED_BLOCKS: u64 = 64;

impl Chain {
    /// Waits until `sent` has `confirmations`, whether it succeeded or not. Returns the last receipt seen, read after
    /// the head so that a reorganisation in between is followed.
    pub(super) async fn confirm(
        &self,
        sent: &SentTx,
        confirmations: u32,
        recorder: &impl TransactionRecorder,
    ) -> Result<ConfirmedTx, OpError> {
        let waited = self.0.settings.confirm_timeout;
        let mut last = None;
        match timeout(waited, self.wait(sent, confirmations, recorder, &mut last)).await {
            Ok(outcome) => {
                failpoint::point("transaction confirmed");
                outcome
            }
            Err(_) => Err(OpError::StillPending { hash: sent.hash(), waited, last: last.map(Box::new) }),
        }
    }

    /// See [`submit`].
    pub(super) async fn submit(&self, raw: &[u8]) -> Result<bool, (SendRefusal, ChainError)> {
        submit(&self.0.rpc, raw).await
    }

    /// The channel's state at the head; `None` if the node does not have block `seen` yet.
    pub(super) async fn channel_since(
        &self,
        channel: ChannelId,
        seen: u64,
    ) -> Result<Option<Option<OnChain>>, ChainError> {
        let poll_rpc = &self.0.poll_rpc;
        let head = poll_rpc.head().await?;
        if head < seen {
            return Ok(None);
        }
        // By number rather than "latest", about which load-balanced nodes may disagree. Always the newest block,
        // because some nodes keep no older state.
        self.channel_by(poll_rpc, channel, At::Block(head)).await.map(Some)
    }

    /// Like [`Self::channel_since`], with retries: nodes that keep only the newest state drop it with each block.
    pub(super) async fn channel_for_certain(
        &self,
        channel: ChannelId,
        seen: u64,
    ) -> Result<Option<Option<OnChain>>, ChainError> {
        let mut result = self.channel_since(channel, seen).await;
        for _ in 1..STATE_ATTEMPTS {
            if result.is_ok() {
                break;
            }
            result = self.channel_since(channel, seen).await;
        }
        result
    }

    /// Searches the newest blocks for this account's transaction with `nonce`.
    pub(super) async fn holder(&self, nonce: u64) -> Result<Option<Transaction>, ChainError> {
        let rpc = &self.0.rpc;
        let head = rpc.head().await?;
        for number in (head.saturating_sub(SEARCHED_BLOCKS - 1)..=head).rev() {
            let Some(block) = rpc.full_block(number).await? else { continue };
            let mut is_older = false;
            for found in block.of(self.payer().into()) {
                if found.nonce == U256::from(nonce) {
                    return Ok(Some(Transaction { block_number: Some(number.into()), ..found }));
                }
                is_older |= found.nonce < U256::from(nonce);
            }
            if is_older {
                break;
            }
        }
        Ok(None)
    }

    async fn wait(
        &self,
        sent: &SentTx,
        confirmations: u32,
        recorder: &impl TransactionRecorder,
        last: &mut Option<ChainError>,
    ) -> Result<ConfirmedTx, OpError> {
        let mut poll = poll(self.0.settings.poll_every);
        let (mut is_known, mut unseen, mut refused) = (sent.is_known, 0u32, 0);
        let (mut doubt, mut gaps) = (None, Gaps::default());
        loop {
            poll.tick().await;
            let status = match self.status(&sent.intent, confirmations).await {
                Ok(status) => status,
                Err(error) => {
                    *last = Some(error);
                    continue;
                }
            };
            // An error of a resend is kept until the node accepts one.
            if !matches!(status, TxStatus::Waiting { .. }) {
                *last = None;
            }
            match status {
                TxStatus::Confirmed(mined) => {
                    self.0.nonces.confirmed(sent.intent.nonce);
                    return Ok(mined);
                }
                TxStatus::Mined => (doubt, unseen, refused) = (None, 0, 0),
                TxStatus::Doubtful(seen) => {
                    let doubt = doubt.get_or_insert_with(|| Doubt {
                        poll: 0,
                        began: Instant::now(),
                        head: seen.head,
                    });
                    doubt.poll += 1;
                    if doubt.poll.is_multiple_of(DOUBT_POLLS) {
                        match self.investigate(doubt, seen, sent, confirmations).await {
                            Ok(Some(mined)) => {
                                self.0.nonces.confirmed(sent.intent.nonce);
                                return Ok(mined);
                            }
                            Ok(None) => {}
                            Err(OpError::Chain(error)) => *last = Some(error),
                            Err(error) => return Err(error),
                        }
                    }
                }
                TxStatus::Waiting { mined } => {
                    (doubt, unseen) = (None, unseen.wrapping_add(1));
                    let is_due = unseen.is_multiple_of(RESEND_EVERY) || !is_known && refused < REFUSALS;
                    if is_due && sent.may_resend {
                        // Not a verdict: another node may have it, or this node may have received it another way.
                        match self.submit_again(&sent.intent.raw).await {
                            Ok(known) => (is_known, refused, *last) = (is_known | known, 0, None),
                            Err((_, error)) => (refused, *last) = (refused + 1, Some(error)),
                        }
                    }
                    self.close_gap(sent, mined, &mut gaps, recorder).await;
                }
            }
        }
    }

    async fn submit_again(&self, raw: &[u8]) -> Result<bool, (SendRefusal, ChainError)> {
        Caps::of(&self.0.settings).allow(raw).map_err(|error| (SendRefusal::Unclear, error))?;
        let known = match self.submit(raw).await {
            // A transport error: submitting the same bytes again is harmless.
            Ok(false) => self.submit(raw).await,
            known => known,
        };
        failpoint::point("transaction sent again");
        known
    }

    async fn status(&self, intent: &Intent, confirmations: u32) -> Result<TxStatus, ChainError> {
        let rpc = &self.0.poll_rpc;
        let head = rpc.head().await?;
        let Some(receipt) = rpc.receipt(intent.hash).await? else {
            let mined = rpc.mined_of(self.payer().into()).await?;
            if mined <= intent.nonce {
                return Ok(TxStatus::Waiting { mined });
            }
            let is_known = rpc.transaction(intent.hash).await?.is_some();
            return Ok(TxStatus::Doubtful(Doubtful { head, is_known }));
        };
        Ok(match confirmed_at(receipt, head, confirmations) {
            Some(mined) => TxStatus::Confirmed(mined),
            None => TxStatus::Mined,
        })
    }

    /// Investigates a transaction whose nonce is used but that has no receipt: searches for its effect, or for another
    /// transaction that took its nonce.
    async fn investigate(
        &self,
        doubt: &Doubt,
        seen: Doubtful,
        sent: &SentTx,
        confirmations: u32,
    ) -> Result<Option<ConfirmedTx>, OpError> {
        let Intent { op, moves, nonce, hash, .. } = sent.intent;
        let replaced = |by| OpError::Replaced { hash: sent.hash(), nonce, by };
        let head = seen.head;
        if moves {
            let from = doubt.head.saturating_sub(SEARCHED_BLOCKS);
            if let Some(receipt) = self.trace(&op, hash, from, head).await? {
                return Ok(confirmed_at(receipt, head, confirmations));
            }
            if self.ended(&op).await?.is_some() {
                return Err(replaced(None));
            }
        }
        match self.holder(nonce).await? {
            // Mined: its receipt will follow.
            Some(holder) if holder.hash.0 == hash => Ok(None),
            Some(holder) => {
                let block = holder.block_number.map_or(head, |block| block.as_u64());
                // The user's wallet may have sent the same call again with a higher fee.
                if moves && let Some(receipt) = self.trace(&op, holder.hash.0, block, block).await? {
                    return Ok(confirmed_at(receipt, head, confirmations));
                }
                let is_deep = head.saturating_sub(block) + 1 >= u64::from(confirmations);
                if is_deep { Err(replaced(Some(TransactionHash(holder.hash.0)))) } else { Ok(None) }
            }
            None => {
                let lasts = DOUBT_WITHIN.min(self.0.settings.confirm_timeout / 4);
                let is_old =
                    doubt.began.elapsed() >= lasts && head >= doubt.head.saturating_add(DOUBT_BLOCKS);
                if !is_old || seen.is_known {
                    return Ok(None);
                }
                if !sent.may_resend {
                    let is_used = self.0.rpc.mined_of(self.payer().into()).await? > nonce;
                    return if is_used { Err(replaced(None)) } else { Ok(None) };
                }
                // A node that has it after all reports that now.
                let refusal = self.submit_again(&sent.intent.raw).await;
                let is_used = matches!(refusal, Err((SendRefusal::NonceTooLow, _)));
                if is_used { Err(replaced(None)) } else { Ok(None) }
            }
        }
    }

    /// How long to retry transient node errors.
    pub(super) fn retry_window(&self) -> Duration {
        self.0.settings.retry_timeout.min(self.0.settings.confirm_timeout)
    }
}

/// Submits a signed transaction: true if the node has it, false if that is unknown.
///
/// # Errors
/// The node refused it; the error includes the kind of refusal.
pub(super) async fn submit(rpc: &Rpc, raw: &[u8]) -> Result<bool, (SendRefusal, ChainError)> {
    match rpc.send(raw).await {
        Ok(_) => Ok(true),
        // Development nodes that mine instantly report the revert of a transaction that they have mined.
        Err(ChainError::Reverted { .. }) => Ok(true),
        Err(ChainError::NodeRefused { node, method, code, message }) => match refusal::of_send(&message) {
            SendRefusal::AlreadyKnown => Ok(true),
            kind => Err((kind, ChainError::NodeRefused { node, method, code, message })),
        },
        Err(_) => Ok(false),
    }
}

/// The receipt as a [`ConfirmedTx`], if it has enough confirmations at `head`.
fn confirmed_at(receipt: TxReceipt, head: u64, confirmations: u32) -> Option<ConfirmedTx> {
    let block = receipt.block_number.as_u64();
    let head = head.max(block);
    (head - block + 1 >= u64::from(confirmations)).then_some(ConfirmedTx { receipt, head })
}

/// A timer that keeps its interval after a late tick.
pub(super) fn poll(every: Duration) -> tokio::time::Interval {
    let mut poll = interval(every);
    poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
    poll
}
