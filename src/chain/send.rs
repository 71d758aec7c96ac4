//! One transaction: priced, signed, journalled and handed to the node.

use ethers_core::types::U256;
use ethers_core::utils::keccak256;

use crate::chain::confirm::Sent;
use crate::chain::error::{ChainError, OrderError, Underfunded};
use crate::chain::fees::{self, Fees};
use crate::chain::order::Journal;
use crate::chain::refusal::SendRefusal;
use crate::chain::rpc::CallRequest;
use crate::chain::{Chain, Ground};
use crate::fault;
use crate::protocol::{Intent, Order};

/// One call on the way to an order's end.
pub(super) struct Step {
    pub request: CallRequest,
    /// See [`Intent::moves`].
    pub moves: bool,
}

/// How often a transaction is made anew because its nonce was taken in between.
const NONCE_ATTEMPTS: usize = 3;

impl Chain {
    /// Signs, journals and sends one step; alone, so that nonces follow each other.
    pub(super) async fn send(
        &self,
        order: &Order,
        step: Step,
        ground: Ground,
        journal: &impl Journal,
    ) -> Result<Sent, OrderError> {
        let Step { request, moves } = step;
        let turn = self.0.nonces.turn().await;
        let (mut at_least, mut attempt) = (0, 1);
        loop {
            let nonce = turn.next(self.0.rpc.nonce_of(request.from, true).await?, at_least);
            let (raw, cost) = self.sign(order, &request, ground.chain_id, nonce).await?;
            let intent = Intent { order: *order, moves, nonce, hash: keccak256(&raw), raw, host: None };
            journal.record(intent.clone()).await?;
            fault::point("transaction about to be sent");
            let (kind, error) = match self.submit(&intent.raw).await {
                Ok(is_known) => {
                    fault::point("transaction sent");
                    return Ok(Sent { intent, is_known, _in_flight: turn.take(nonce) });
                }
                Err(refusal) => refusal,
            };
            match kind {
                SendRefusal::InsufficientFunds => return Err(self.too_little_ether(cost, error).await?),
                SendRefusal::NonceTooLow | SendRefusal::Underpriced if attempt < NONCE_ATTEMPTS => {
                    (at_least, attempt) = (nonce.saturating_add(1), attempt + 1);
                }
                // A gateway may say so of what the node behind it has taken.
                SendRefusal::Other if self.may_have(&intent).await => {
                    tracing::warn!(%error, "the node may have the transaction that it refused: waiting for it");
                    return Ok(Sent { intent, is_known: false, _in_flight: turn.take(nonce) });
                }
                _ => return Err(error.into()),
            }
        }
    }

    /// Whether the node has the transaction, or another one with its nonce, or does not say.
    async fn may_have(&self, intent: &Intent) -> bool {
        let payer = self.payer().into();
        !matches!(self.0.rpc.receipt(intent.hash).await, Ok(None))
            || !self.0.rpc.nonce_of(payer, true).await.is_ok_and(|next| next <= intent.nonce)
    }

    /// The signed bytes of a step, and the most that it can cost in wei.
    async fn sign(
        &self,
        order: &Order,
        request: &CallRequest,
        chain_id: u64,
        nonce: u64,
    ) -> Result<(Vec<u8>, U256), OrderError> {
        let gas = self.gas_limit(order, request).await?;
        let fees = Fees::current(&self.0.rpc).await?;
        let cost = fees.worst(gas);
        let has = self.0.rpc.ether_of(request.from).await?;
        if has < cost {
            return Err(self.underfunded(has, cost));
        }
        let transaction = fees.transaction(request, chain_id, nonce, gas);
        let raw = self.0.signer.sign_transaction(&transaction).map_err(ChainError::from)?;
        Ok((raw.to_vec(), cost))
    }

    /// The most gas that a step of `order` is given; an error where the contract would refuse it now.
    pub(super) async fn gas_limit(&self, order: &Order, request: &CallRequest) -> Result<U256, OrderError> {
        match self.0.rpc.estimate_gas(request).await {
            Ok(estimate) => Ok(fees::with_margin(estimate)),
            Err(ChainError::Reverted { message }) => {
                Err(OrderError::WouldFail { why: self.why_refused(order, &message).await })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// What the node's refusal for want of ether means: it counts what waits to be mined as well.
    async fn too_little_ether(&self, needs: U256, refusal: ChainError) -> Result<OrderError, ChainError> {
        let has = self.0.rpc.ether_of(self.payer().into()).await?;
        Ok(if has < needs { self.underfunded(has, needs) } else { refusal.into() })
    }

    fn underfunded(&self, has: U256, needs: U256) -> OrderError {
        OrderError::Underfunded(Box::new(Underfunded::Ether { payer: self.payer(), has, needs }))
    }
}
