//! Executes channel operations: check, send, confirm, prove the effect. Resumes what a crash interrupted.

use std::time::Duration;

use ethers_core::types::U256;

use crate::chain::Chain;
use crate::chain::confirm::SEARCHED_BLOCKS;
use crate::chain::error::{ChainError, OpError, TransactionHash};
use crate::chain::fees::{Caps, Fees};
use crate::chain::microraiden::contracts;
use crate::chain::microraiden::contracts::OpKind;
use crate::chain::recorder::TransactionRecorder;
use crate::chain::send::TransactionStep;
use crate::chain::sent::{ConfirmedTx, SentTx};
use crate::protocol::schemes::microraiden::contract;
use crate::protocol::{ChannelId, ChannelOp, Intent, OnChain};

/// A completed operation, backed by positive proof:
///
/// - for an opening or a top-up, the contract shows the channel open with at least the requested deposit, in the state
///   of a block no older than the one that confirmed the transaction; or the contract's event (`ChannelCreated` for
///   this payer, receiver and deposit; `ChannelToppedUp` for this channel and amount) is in the receipt or the logs;
/// - for an end, the contract shows the channel in the state that the operation leaves it in.
///
/// A receipt that reports success is not such a proof, nor is one without a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpResult {
    /// The channel that was opened, topped up or ended.
    pub channel: ChannelId,
    /// The channel's state; `None` once it is settled, never after an opening or a top-up. If only the event proves one
    /// of these, this is the last state read within `retry_timeout`: the deposit may be lower than what was sent, even
    /// 0, or the channel may be closing.
    pub on_chain: Option<OnChain>,
    /// The transaction that completed the operation; `None` if another one ended the channel.
    pub transaction: Option<TransactionHash>,
    /// The fee in wei of the transactions that were confirmed. `None` if the node does not report it, or if another
    /// transaction ended the channel.
    pub fee: Option<U256>,
}

/// What became of the intents of one operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "it is taken apart at once")]
pub enum Resolution {
    /// The operation is complete.
    Done(OpResult),
    /// Only approvals were in flight; the operation may be started again.
    NothingMoved,
}

/// The cost of an operation, apart from the money it moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// The most gas that its transactions can use.
    pub gas: u64,
    /// The most that they can cost, in wei.
    pub wei: U256,
}

/// Above the gas that a cooperative close was seen to use: 75,000 to 97,000.
const GAS_TO_CLOSE_TOGETHER: u64 = 130_000;

impl Chain {
    /// Executes `op` and waits until it is confirmed. Operations for one receiver must run one after the other, since
    /// two openings in one block revert.
    ///
    /// # Errors
    /// If [`OpError::is_unclear`], [`Chain::resume`] must settle the recorded intents before the operation is repeated.
    pub async fn execute(
        &self,
        op: &ChannelOp,
        recorder: &impl TransactionRecorder,
    ) -> Result<OpResult, OpError> {
        let pinned = self.pinned().await?;
        let (sent, fee) = match contracts::op_kind(op) {
            OpKind::Fund(amount) => self.fund(op, amount, pinned, recorder).await?,
            OpKind::End(channel, data) => {
                let request = self.end_request(op, channel, data).await?;
                let step = TransactionStep { request, moves: true, before: None };
                (self.send(op, step, pinned, recorder).await?, Some(U256::zero()))
            }
        };
        let error = match self.finish(&sent, fee, recorder).await {
            Err(error) if !error.is_unclear() && !sent.earlier.is_empty() => error,
            outcome => return outcome,
        };
        // An abandoned attempt may still have moved the money.
        match self.resume(&sent.earlier, recorder).await {
            Ok(Resolution::Done(done)) => Ok(done),
            Err(unclear) if unclear.is_unclear() => Err(unclear),
            Ok(Resolution::NothingMoved) | Err(_) => Err(error),
        }
    }

    /// The most that `op` can cost at current prices.
    ///
    /// # Errors
    /// Those of [`Self::execute`].
    pub async fn estimate(&self, op: &ChannelOp) -> Result<Cost, OpError> {
        let gas = match contracts::op_kind(op) {
            OpKind::Fund(amount) => self.gas_to_fund(op, amount, self.pinned().await?).await?,
            OpKind::End(channel, data) => {
                self.gas_limit(op, &self.end_request(op, channel, data).await?).await?
            }
        };
        let wei = self.worst_fee(gas).await?;
        Ok(Cost { gas: u64::try_from(gas).unwrap_or(u64::MAX), wei })
    }

    /// The most that a cooperative close can cost, in wei; the receiver's signature is not known beforehand.
    pub async fn fee_to_close_together(&self) -> Result<U256, ChainError> {
        self.worst_fee(GAS_TO_CLOSE_TOGETHER.into()).await
    }

    async fn worst_fee(&self, gas: U256) -> Result<U256, ChainError> {
        Ok(Fees::current(&self.0.rpc, Caps::of(&self.0.settings), gas).await?.worst(gas))
    }

    /// Resumes the recorded intents of one operation after a restart: confirms what is mined, resubmits the rest
    /// unchanged and waits for it. The intents may be in any order. If several would move the money, the operation is
    /// done once one of them did, and has failed only once all of them are known to have failed.
    pub async fn resume(
        &self,
        intents: &[Intent],
        recorder: &impl TransactionRecorder,
    ) -> Result<Resolution, OpError> {
        self.remember(intents);
        let is_answered = |asked: &Intent| {
            intents.iter().any(|one| one.is_signed() && one.moves && one.nonce == asked.nonce)
        };
        let mut intents: Vec<&Intent> =
            intents.iter().filter(|one| one.is_signed() || !is_answered(one)).collect();
        intents.sort_by_key(|intent| intent.nonce);
        let (moving, others): (Vec<&Intent>, Vec<&Intent>) =
            intents.into_iter().partition(|intent| intent.moves);
        let (mut undecided, mut failed, mut pending) = (Vec::new(), None, None);
        for intent in &moving {
            if !self.has_trace(intent).await.map_err(|error| unclear(intent, error))? {
                undecided.push(*intent);
                continue;
            }
            match self.resume_one(intent, moving.len() == 1, recorder).await {
                Err(error) if error.is_unclear() => pending = Some(error),
                Err(error) => failed = Some(error),
                done => return done,
            }
        }
        if let Some(error) = pending {
            return Err(error);
        }
        if undecided.is_empty()
            && let Some(error) = failed
        {
            return Err(error);
        }
        for intent in others {
            match self.resume_one(intent, true, recorder).await {
                // An approval that failed or was replaced moves nothing, and the next operation sets its own.
                Ok(_) | Err(OpError::TransactionFailed { .. } | OpError::Replaced { .. }) => {}
                // This does not affect the transactions that move the money.
                Err(error) if !moving.is_empty() => {
                    tracing::warn!(%error, "an approval may still be mined");
                }
                Err(error) => return Err(error),
            }
        }
        let Some(last) = undecided.last() else { return Ok(Resolution::NothingMoved) };
        // Ending a channel that has already ended would only cost the fee.
        if let Some(done) = self.ended(&last.op).await.map_err(|error| unclear(last, error))? {
            return Ok(Resolution::Done(done));
        }
        // All but the last were refused when they were first sent: resubmitting them could move the money twice.
        let mut may_resend = true;
        while let Some(intent) = undecided.pop() {
            match self.resume_one(intent, may_resend || undecided.is_empty(), recorder).await {
                Err(error) if !error.is_unclear() => failed = Some(error),
                outcome => return outcome,
            }
            may_resend = false;
        }
        failed.map_or(Ok(Resolution::NothingMoved), Err)
    }

    /// Whether the node has any trace of a transaction: its receipt, its hash, or its effect in one of the newest
    /// blocks.
    async fn has_trace(&self, intent: &Intent) -> Result<bool, ChainError> {
        let rpc = &self.0.rpc;
        if rpc.receipt(intent.hash).await?.is_some() || rpc.transaction(intent.hash).await?.is_some() {
            return Ok(true);
        }
        let head = rpc.head().await?;
        let from = head.saturating_sub(SEARCHED_BLOCKS);
        Ok(self.trace(&intent.op, intent.hash, from, head).await?.is_some())
    }

    async fn resume_one(
        &self,
        intent: &Intent,
        may_resend: bool,
        recorder: &impl TransactionRecorder,
    ) -> Result<Resolution, OpError> {
        let turn = self.0.nonces.turn().await;
        let in_flight = turn.take(intent.nonce);
        drop(turn);
        let intent = match intent.is_signed() {
            true => intent.clone(),
            false => self.ask_again(intent, recorder).await?,
        };
        let (moves, may_resend) = (intent.moves, may_resend && intent.is_signed());
        // Unknown so far: the wait searches for it first, and submits it if it is not mined.
        let sent = SentTx {
            intent,
            is_known: false,
            before: None,
            may_resend,
            earlier: Vec::new(),
            _in_flight: in_flight,
        };
        if moves {
            return self.finish(&sent, Some(U256::zero()), recorder).await.map(Resolution::Done);
        }
        let mined = self.confirm(&sent, 1, recorder).await?;
        self.succeeded(&sent, &mined).await?;
        Ok(Resolution::NothingMoved)
    }

    /// Waits for the transaction that completes the operation and reads the channel. `fee` is that of the transactions
    /// before it.
    async fn finish(
        &self,
        sent: &SentTx,
        fee: Option<U256>,
        recorder: &impl TransactionRecorder,
    ) -> Result<OpResult, OpError> {
        let op = &sent.intent.op;
        let confirmed = async {
            let mined = self.confirm(sent, self.0.settings.confirmations, recorder).await?;
            self.succeeded(sent, &mined).await?;
            Ok(mined)
        };
        let mined = match confirmed.await {
            Ok(mined) => mined,
            // The seller or an earlier attempt of ours may have ended the channel already.
            Err(error @ (OpError::TransactionFailed { .. } | OpError::Replaced { .. })) => {
                return self.ended(op).await.ok().flatten().ok_or(error);
            }
            Err(error) => return Err(error),
        };
        let channel = match *op {
            ChannelOp::Open { receiver, .. } => ChannelId { receiver, open_block: self.block_of(&mined)? },
            ChannelOp::TopUp { channel, .. }
            | ChannelOp::CloseTogether { channel, .. }
            | ChannelOp::CloseAlone { channel, .. }
            | ChannelOp::Settle { channel } => channel,
        };
        let on_chain = self.proven(sent, channel, &mined).await?;
        let transaction = Some(sent.hash());
        Ok(OpResult { channel, on_chain, transaction, fee: both(fee, mined.fee(&sent.intent)) })
    }

    /// The result of `op` if it ends a channel and the channel has already ended that way.
    pub(in crate::chain) async fn ended(&self, op: &ChannelOp) -> Result<Option<OpResult>, ChainError> {
        let OpKind::End(channel, _) = contracts::op_kind(op) else { return Ok(None) };
        // A node that does not have the opening yet cannot prove an end.
        let Some(on_chain) = self.channel_since(channel, channel.open_block.into()).await? else {
            return Ok(None);
        };
        let ended = OpResult { channel, on_chain, transaction: None, fee: None };
        Ok(contract::is_reached(op, None, on_chain).then_some(ended))
    }

    pub(in crate::chain) async fn succeeded(
        &self,
        sent: &SentTx,
        mined: &ConfirmedTx,
    ) -> Result<(), OpError> {
        if mined.receipt.status.is_some_and(|status| status.is_zero()) {
            let Intent { op, moves, hash, .. } = &sent.intent;
            let block = mined.receipt.block_number.as_u64();
            if *moves && matches!(self.trace(op, *hash, block, block).await, Ok(Some(_))) {
                tracing::warn!(
                    transaction = %sent.hash(), operation = %op,
                    "the node reports that the transaction failed but returns its event: counted as successful"
                );
                return Ok(());
            }
            let why = self.why_failed(&sent.intent, mined).await;
            return Err(OpError::TransactionFailed { hash: sent.hash(), why });
        }
        Ok(())
    }

    /// The open block of a channel: 32 bits in the contract.
    fn block_of(&self, mined: &ConfirmedTx) -> Result<u32, ChainError> {
        u32::try_from(mined.receipt.block_number.as_u64()).map_err(|_| ChainError::NotUnderstood {
            node: self.0.rpc.shown().into(),
            method: "eth_getTransactionReceipt",
            why: format!("block {} does not fit the contract's 32 bits", mined.receipt.block_number),
        })
    }
}

/// The sum of two fees, if both are known.
pub(in crate::chain) fn both(one: Option<U256>, other: Option<U256>) -> Option<U256> {
    Some(one?.saturating_add(other?))
}

/// The error if the state of `intent` is unknown because the request to the node failed.
fn unclear(intent: &Intent, error: ChainError) -> OpError {
    OpError::StillPending {
        hash: TransactionHash(intent.hash),
        waited: Duration::ZERO,
        last: Some(Box::new(error)),
    }
}
