//! Carrying out an order, whatever it is: check, send, wait, look. And taking up what a crash interrupted.

use std::time::Duration;

use ethers_core::types::U256;

use crate::chain::Chain;
use crate::chain::confirm::{Mined, SEARCHED_BLOCKS, Sent};
use crate::chain::contracts;
use crate::chain::contracts::OpKind;
use crate::chain::error::{ChainError, OpError, TransactionHash};
use crate::chain::fees::{Caps, Fees};
use crate::chain::recorder::TransactionRecorder;
use crate::chain::send::Step;
use crate::protocol::schemes::microraiden::contract;
use crate::protocol::{ChannelId, ChannelOp, Intent, OnChain};

/// An order that was carried out, which rests on a positive proof:
///
/// - of an opening or a top up, the contract shows the channel open with at least the ordered deposit, in the state of a
///   block no older than the one that confirmed the transaction; or the contract's event (`ChannelCreated` for this payer,
///   receiver and deposit; `ChannelToppedUp` for this channel and amount) is in the receipt or the logs;
/// - of an end, the contract shows the channel as the order leaves it.
///
/// A receipt that says success is no such proof, and neither is one that says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpResult {
    /// The channel that was opened, topped up or ended.
    pub channel: ChannelId,
    /// What the contract says of it; `None` once it is settled. Never `None` after an opening or a top up. Where only the
    /// event proves one of these, this is what the node showed last within `retry_timeout`: the deposit may be lower than
    /// what was sent, 0 even, or the channel may be closing.
    pub on_chain: Option<OnChain>,
    /// The fee in wei of the transactions that were waited for. `None` where the node does not say, and where
    /// the channel was found ended by another transaction.
    pub fee: Option<U256>,
}

/// What became of the intents of one order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// The order was carried out.
    Done(OpResult),
    /// Only approvals were on their way; the order may be given anew.
    NothingMoved,
}

/// What an order can cost beside what it moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// The most gas that its transactions can use.
    pub gas: u64,
    /// The most that they can cost, in wei.
    pub wei: U256,
}

/// Above what a cooperative close was seen to take: 75,000 to 97,000.
const GAS_TO_CLOSE_TOGETHER: u64 = 130_000;

impl Chain {
    /// Carries out `order` and waits until it is confirmed. Orders to one receiver must come one after the other:
    /// two openings in one block revert. On an error that [`OpError::is_unclear`], [`Chain::resume`] must
    /// settle the recorded intents first.
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
                let step = Step { request, moves: true, before: None };
                (self.send(op, step, pinned, recorder).await?, Some(U256::zero()))
            }
        };
        let error = match self.finish(&sent, fee, recorder).await {
            Err(error) if !error.is_unclear() && !sent.earlier.is_empty() => error,
            outcome => return outcome,
        };
        // One that was left behind may have moved the money all the same.
        match self.resume(&sent.earlier, recorder).await {
            Ok(Resolution::Done(done)) => Ok(done),
            Err(unclear) if unclear.is_unclear() => Err(unclear),
            Ok(Resolution::NothingMoved) | Err(_) => Err(error),
        }
    }

    /// What `order` can cost at most, as things are now; the errors are those of carrying it out.
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

    /// What closing together with the receiver can cost at most, in wei: its signature is not known beforehand.
    pub async fn fee_to_close_together(&self) -> Result<U256, ChainError> {
        self.worst_fee(GAS_TO_CLOSE_TOGETHER.into()).await
    }

    async fn worst_fee(&self, gas: U256) -> Result<U256, ChainError> {
        Ok(Fees::current(&self.0.rpc, Caps::of(&self.0.settings), gas).await?.worst(gas))
    }

    /// Takes up the recorded intents of one order after a restart: what is mined is confirmed, what is not is
    /// sent again, byte by byte, and waited for. The intents may come in any order. Of several that would move the money,
    /// it is done when one of them did, and failed for good only when each of them is known to have failed.
    pub async fn resume(
        &self,
        intents: &[Intent],
        recorder: &impl TransactionRecorder,
    ) -> Result<Resolution, OpError> {
        self.remember(intents);
        let mut intents: Vec<&Intent> = intents.iter().collect();
        intents.sort_by_key(|intent| intent.nonce);
        let (moving, others): (Vec<&Intent>, Vec<&Intent>) =
            intents.into_iter().partition(|intent| intent.moves);
        let (mut undecided, mut failed, mut pending) = (Vec::new(), None, None);
        for intent in &moving {
            if !self.is_there(intent).await.map_err(|error| unclear(intent, error))? {
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
                // An approval that failed or lost its place moves nothing, and the next order sets its own.
                Ok(_) | Err(OpError::TransactionFailed { .. } | OpError::Replaced { .. }) => {}
                // It says nothing of the transactions that move the money.
                Err(error) if !moving.is_empty() => {
                    tracing::warn!(%error, "an approval may still be mined");
                }
                Err(error) => return Err(error),
            }
        }
        let Some(last) = undecided.last() else { return Ok(Resolution::NothingMoved) };
        // To end a channel that has ended would only cost its fee.
        if let Some(done) = self.ended(&last.op).await.map_err(|error| unclear(last, error))? {
            return Ok(Resolution::Done(done));
        }
        // All but the last were refused when they were made: sending them again could move the money twice.
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

    /// Whether there is a trace of a transaction: a receipt, its hash, or its effect in one of the newest blocks.
    async fn is_there(&self, intent: &Intent) -> Result<bool, ChainError> {
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
        // Not known yet: the wait looks for it first, and sends it where it is in no block.
        let sent = Sent {
            intent: intent.clone(),
            is_known: false,
            before: None,
            may_resend,
            earlier: Vec::new(),
            _in_flight: in_flight,
        };
        drop(turn);
        if intent.moves {
            return self.finish(&sent, Some(U256::zero()), recorder).await.map(Resolution::Done);
        }
        let mined = self.confirm(&sent, 1, recorder).await?;
        self.succeeded(&sent, &mined).await?;
        Ok(Resolution::NothingMoved)
    }

    /// Waits for the transaction that carries out the order, and reads the channel. `fee` is that of the
    /// transactions before it.
    async fn finish(
        &self,
        sent: &Sent,
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
            // The seller may have been faster, or an earlier attempt of ours: what was wanted has come about.
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
        Ok(OpResult { channel, on_chain, fee: both(fee, mined.fee(&sent.intent)) })
    }

    /// The end of a channel, where the end that `order` asks for has come about already.
    pub(super) async fn ended(&self, op: &ChannelOp) -> Result<Option<OpResult>, ChainError> {
        let OpKind::End(channel, _) = contracts::op_kind(op) else { return Ok(None) };
        // A node that does not have the opening yet knows nothing of an end.
        let Some(on_chain) = self.channel_since(channel, channel.open_block.into()).await? else {
            return Ok(None);
        };
        Ok(contract::is_reached(op, None, on_chain).then_some(OpResult { channel, on_chain, fee: None }))
    }

    pub(super) async fn succeeded(&self, sent: &Sent, mined: &Mined) -> Result<(), OpError> {
        if mined.receipt.status.is_some_and(|status| status.is_zero()) {
            let Intent { op, moves, hash, .. } = &sent.intent;
            let block = mined.receipt.block_number.as_u64();
            if *moves && matches!(self.trace(op, *hash, block, block).await, Ok(Some(_))) {
                tracing::warn!(
                    transaction = %sent.hash(), ?op,
                    "the node says that the transaction failed, but shows its event: it counts as done"
                );
                return Ok(());
            }
            let why = self.why_failed(&sent.intent, mined).await;
            return Err(OpError::TransactionFailed { hash: sent.hash(), why });
        }
        Ok(())
    }

    /// Block numbers are 32 bits in the contract.
    fn block_of(&self, mined: &Mined) -> Result<u32, ChainError> {
        u32::try_from(mined.receipt.block_number.as_u64()).map_err(|_| ChainError::NotUnderstood {
            node: self.0.rpc.shown().into(),
            method: "eth_getTransactionReceipt",
            why: format!("block {} does not fit the contract's 32 bits", mined.receipt.block_number),
        })
    }
}

/// The sum of two fees, if both are known.
pub(super) fn both(one: Option<U256>, other: Option<U256>) -> Option<U256> {
    Some(one?.saturating_add(other?))
}

/// Nothing is known of `intent`, because the node could not be asked.
fn unclear(intent: &Intent, error: ChainError) -> OpError {
    OpError::StillPending {
        hash: TransactionHash(intent.hash),
        waited: Duration::ZERO,
        last: Some(Box::new(error)),
    }
}
