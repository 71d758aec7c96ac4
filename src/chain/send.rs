//! Prices, signs, journals and submits one transaction.

use std::time::{Duration, Instant};

use ethers_core::types::U256;
use ethers_core::types::transaction::eip2718::TypedTransaction;
use ethers_core::utils::keccak256;

use crate::chain::Chain;
use crate::chain::client::ContractConstants;
use crate::chain::error::{ChainError, OpError, TransactionHash, Underfunded};
use crate::chain::fees;
use crate::chain::fees::{Caps, Fees};
use crate::chain::free_nonce::NonceView;
use crate::chain::nonces::NonceTurn;
use crate::chain::recorder::TransactionRecorder;
use crate::chain::refusal::SendRefusal;
use crate::chain::rpc::{CallRequest, Transaction};
use crate::chain::sent::SentTx;
use crate::chain::signer::NotSigned;
use crate::chain::transaction;
use crate::failpoint;
use crate::protocol::{Amount, ChannelOp, Intent};

/// One transaction of an operation.
pub(super) struct TransactionStep {
    pub request: CallRequest,
    /// See [`Intent::moves`].
    pub moves: bool,
    /// For a top-up: the deposit before it.
    pub before: Option<Amount>,
}

/// How often a transaction is signed again because its nonce was taken.
const NONCE_ATTEMPTS: usize = 8;

impl Chain {
    /// Signs, journals and sends one step, holding the [`NonceTurn`] so that nonces are consecutive.
    pub(super) async fn send(
        &self,
        op: &ChannelOp,
        step: TransactionStep,
        pinned: ContractConstants,
        recorder: &impl TransactionRecorder,
    ) -> Result<SentTx, OpError> {
        let mut earlier = Vec::new();
        let error = match self.attempt(op, step, pinned, recorder, &mut earlier).await {
            Ok(sent) => return Ok(SentTx { earlier, ..sent }),
            Err(error) => error,
        };
        let Some(left) = earlier.last() else { return Err(error) };
        if error.is_unclear() {
            return Err(error);
        }
        // The error of the last attempt decides nothing about the earlier ones.
        tracing::warn!(%error, "not resending the transaction: an earlier attempt may still be mined");
        let last = if let OpError::Chain(error) = error { Some(Box::new(error)) } else { None };
        Err(OpError::StillPending { hash: TransactionHash(left.hash), waited: Duration::ZERO, last })
    }

    /// Sends one step. `earlier` collects the attempts to move the money that are abandoned for one with a higher
    /// nonce.
    async fn attempt(
        &self,
        op: &ChannelOp,
        step: TransactionStep,
        pinned: ContractConstants,
        recorder: &impl TransactionRecorder,
        earlier: &mut Vec<Intent>,
    ) -> Result<SentTx, OpError> {
        let TransactionStep { request, moves, before } = step;
        let turn = self.0.nonces.turn().await;
        let (mut at_least, mut attempt) = (0, 1);
        loop {
            let nonce = self.free_nonce(&turn, at_least).await?;
            if moves && let Some(other) = self.undecided(op, nonce, earlier).await? {
                return Err(keep_following(other, recorder).await);
            }
            let (transaction, cost) = self.prepare(op, &request, pinned.chain_id, nonce).await?;
            let raw = self.signed((*op, moves, nonce), &transaction, recorder).await?;
            let intent = Intent { op: *op, moves, nonce, hash: keccak256(&raw), raw, host: None };
            recorder.record(intent.clone()).await?;
            self.0.nonces.signed(&intent);
            failpoint::point("transaction about to be sent");
            let sent = |is_known| SentTx {
                intent: intent.clone(),
                is_known,
                before,
                may_resend: true,
                earlier: Vec::new(),
                _in_flight: turn.take(nonce),
            };
            let (kind, error) = match self.submit(&intent.raw).await {
                Ok(is_known) => {
                    failpoint::point("transaction sent");
                    return Ok(sent(is_known));
                }
                Err(refusal) => refusal,
            };
            match kind {
                SendRefusal::InsufficientFunds => return Err(self.too_little_ether(cost, error).await?),
                SendRefusal::NonceTooLow | SendRefusal::Underpriced => {
                    let same = |one: &Intent| one.moves && one.op.receiver() == op.receiver();
                    let other = self.0.nonces.signed_at(nonce).into_iter();
                    if moves && let Some(other) = other.filter(same).find(|one| one.hash != intent.hash) {
                        return Err(keep_following(other, recorder).await);
                    }
                    // A gateway may have submitted it twice and returned the error of the copy.
                    if self.knows(&intent).await || !self.is_held_by_another(&intent).await {
                        tracing::warn!(%error, "the node may have the transaction that it rejected; waiting for it");
                        return Ok(sent(false));
                    }
                    if attempt == NONCE_ATTEMPTS && moves {
                        earlier.push(intent);
                        return Err(error.into());
                    }
                    if attempt == NONCE_ATTEMPTS {
                        return Err(error.into());
                    }
                    if moves {
                        earlier.push(intent);
                    }
                    (at_least, attempt) = (nonce.saturating_add(1), attempt + 1);
                }
                // The node, or one behind it, may have accepted it.
                SendRefusal::Unclear => {
                    tracing::warn!(%error, "the node may have the transaction that it rejected; waiting for it");
                    return Ok(sent(false));
                }
                SendRefusal::Invalid | SendRefusal::AlreadyKnown => return Err(error.into()),
            }
        }
    }

    /// See [`NonceView::free`].
    async fn free_nonce(&self, turn: &NonceTurn<'_>, at_least: u64) -> Result<u64, ChainError> {
        self.nonce_view().free(turn, at_least).await
    }

    pub(super) fn nonce_view(&self) -> NonceView<'_> {
        let poll_every = self.0.settings.poll_every;
        NonceView { rpc: &self.0.rpc, nonces: &self.0.nonces, payer: self.payer().into(), poll_every }
    }

    /// A transaction that was signed to move money for the same receiver with another nonce and that the node still
    /// has: both could be mined.
    async fn undecided(
        &self,
        op: &ChannelOp,
        nonce: u64,
        earlier: &[Intent],
    ) -> Result<Option<Intent>, ChainError> {
        for signed in self.0.nonces.moving_for(op.receiver()) {
            let is_other = signed.nonce != nonce && earlier.iter().all(|one| one.hash != signed.hash);
            let may_be_mined = async || match signed.is_signed() {
                true => Ok(self.0.rpc.transaction(signed.hash).await?.is_some()),
                // Its hash is not known. Only its nonce shows that it can no longer be mined.
                false => Ok::<_, ChainError>(self.0.rpc.mined_of(self.payer().into()).await? <= signed.nonce),
            };
            if is_other && may_be_mined().await? {
                return Ok(Some(signed));
            }
        }
        Ok(None)
    }

    /// Whether the node has the transaction; true if it does not answer.
    async fn knows(&self, intent: &Intent) -> bool {
        !matches!(self.0.rpc.transaction(intent.hash).await, Ok(None))
            || !matches!(self.0.rpc.receipt(intent.hash).await, Ok(None))
    }

    /// Whether another transaction has the nonce of `intent`, in a block or in the pending block.
    async fn is_held_by_another(&self, intent: &Intent) -> bool {
        let is_other = |one: &Transaction| one.nonce == intent.nonce.into() && one.hash.0 != intent.hash;
        let pending = self.0.rpc.pending_block().await.ok().flatten();
        pending.is_some_and(|block| block.of(self.payer().into()).any(|one| is_other(&one)))
            || matches!(self.holder(intent.nonce).await, Ok(Some(holder)) if is_other(&holder))
    }

    /// Signs a transaction. An external signer may take long and give no clear answer, so that one that moves money is
    /// recorded before it is asked.
    ///
    /// # Errors
    /// [`OpError::UnclearSignature`] if it moves money and may have been signed.
    async fn signed(
        &self,
        (op, moves, nonce): (ChannelOp, bool, u64),
        transaction: &TypedTransaction,
        recorder: &impl TransactionRecorder,
    ) -> Result<Vec<u8>, OpError> {
        let signer = &self.0.signer;
        if !moves || !signer.is_external() {
            return Ok(signer.sign_transaction(transaction).await.map_err(ChainError::from)?.to_vec());
        }
        let raw = transaction::to_json(transaction)
            .map_err(|error| ChainError::from(NotSigned::Failed(error.to_string())))?
            .to_string()
            .into_bytes();
        let asked = Intent { op, moves, nonce, hash: transaction.sighash().0, raw, host: None };
        recorder.record(asked.clone()).await?;
        self.0.nonces.signed(&asked);
        failpoint::point("external signer about to be asked");
        match signer.sign_transaction(transaction).await {
            Ok(raw) => Ok(raw.to_vec()),
            Err(why) if why.is_certain() => {
                self.0.nonces.not_signed(&asked);
                Err(ChainError::from(why).into())
            }
            Err(why) => Err(OpError::UnclearSignature { nonce, why }),
        }
    }

    /// Asks an external signer once more for the same transaction, unless its nonce is used: then, whatever used it decides.
    /// Two signatures of one transaction cannot both be mined.
    ///
    /// # Errors
    /// The signer refused; or [`OpError::UnclearSignature`].
    pub(super) async fn ask_again(
        &self,
        asked: &Intent,
        recorder: &impl TransactionRecorder,
    ) -> Result<Intent, OpError> {
        let unclear =
            |why: String| OpError::UnclearSignature { nonce: asked.nonce, why: NotSigned::Unclear(why) };
        let checked = async {
            let is_used = self.0.rpc.mined_of(self.payer().into()).await? > asked.nonce;
            if !is_used {
                self.verify().await?;
                Caps::of(&self.0.settings).allow(&asked.raw)?;
            }
            Ok::<_, ChainError>(is_used)
        };
        if checked.await.map_err(|error| unclear(error.to_string()))? {
            return Ok(asked.clone());
        }
        let transaction = transaction::decode(&asked.raw)
            .ok_or_else(|| unclear("the journal does not contain what it was asked for".to_owned()))?;
        let raw = match self.0.signer.sign_transaction(&transaction).await {
            Ok(raw) => raw.to_vec(),
            // It was asked for this very transaction, and says no.
            Err(why @ NotSigned::Refused(_)) => return Err(ChainError::from(why).into()),
            Err(why) => return Err(OpError::UnclearSignature { nonce: asked.nonce, why }),
        };
        let intent = Intent { hash: keccak256(&raw), raw, ..asked.clone() };
        recorder.record(intent.clone()).await.map_err(|error| unclear(error.to_string()))?;
        self.0.nonces.signed(&intent);
        failpoint::point("transaction about to be sent");
        Ok(intent)
    }

    /// The transaction of a step, and the most that it can cost in wei, which counts as spent today. Chain ID and token are
    /// verified first.
    pub(super) async fn prepare(
        &self,
        op: &ChannelOp,
        request: &CallRequest,
        chain_id: u64,
        nonce: u64,
    ) -> Result<(TypedTransaction, U256), OpError> {
        let gas = self.gas_limit(op, request).await?;
        let fees = Fees::current(&self.0.rpc, Caps::of(&self.0.settings), gas).await?;
        let cost = fees.worst(gas);
        let has = self.0.rpc.ether_of(request.from).await?;
        if has < cost {
            return Err(self.underfunded(has, cost));
        }
        self.verify().await?;
        self.0.daily_fees.count(cost, Instant::now())?;
        Ok((fees.transaction(request, chain_id, nonce, gas), cost))
    }

    /// The gas limit for a step of `op`.
    ///
    /// # Errors
    /// Also if the contract would reject the call now.
    pub(super) async fn gas_limit(&self, op: &ChannelOp, request: &CallRequest) -> Result<U256, OpError> {
        match self.0.rpc.estimate_gas(request).await {
            Ok(estimate) => Ok(fees::with_margin(estimate)),
            Err(ChainError::Reverted { message }) => {
                Err(OpError::WouldFail { why: self.why_refused(op, &message).await })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Interprets the node's "insufficient funds", which also counts pending transactions.
    async fn too_little_ether(&self, needs: U256, refusal: ChainError) -> Result<OpError, ChainError> {
        let has = self.0.rpc.ether_of(self.payer().into()).await?;
        Ok(if has < needs { self.underfunded(has, needs) } else { refusal.into() })
    }

    fn underfunded(&self, has: U256, needs: U256) -> OpError {
        OpError::Underfunded(Box::new(Underfunded::Ether { payer: self.payer(), has, needs }))
    }
}

/// Records a transaction again whose operation had ended, because the node still has it: its outcome must be known
/// before anything else moves money for its receiver.
async fn keep_following(intent: Intent, recorder: &impl TransactionRecorder) -> OpError {
    let hash = TransactionHash(intent.hash);
    match recorder.record(intent).await {
        Ok(()) => OpError::StillPending { hash, waited: Duration::ZERO, last: None },
        Err(error) => error.into(),
    }
}
