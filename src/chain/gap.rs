//! Nonce gaps: a transaction whose nonce is not the next one waits forever, and so do all later ones. A gap is filled
//! with a zero-value transfer to the payer itself, never with recorded bytes that move money: their operation may have
//! ended, or may have another transaction by now.

use std::collections::BTreeSet;
use std::fmt;
use std::time::{Duration, Instant};

use ethers_core::types::transaction::eip2718::TypedTransaction;
use ethers_core::types::{Bytes, H160, U256};
use ethers_core::utils::keccak256;
use ethers_core::utils::rlp::Rlp;

use crate::chain::Chain;
use crate::chain::error::{ChainError, OpError, TransactionHash};
use crate::chain::fees::Caps;
use crate::chain::nonces::InFlight;
use crate::chain::recorder::TransactionRecorder;
use crate::chain::refusal::SendRefusal;
use crate::chain::rpc::CallRequest;
use crate::chain::sent::SentTx;
use crate::protocol::Intent;

/// How many consecutive polls must see the same gap: a node may be behind, or a transaction still propagating.
const GAP_POLLS: u32 = 3;
/// How many attempts to fill gaps one wait makes.
const MAX_ATTEMPTS: usize = 16;
/// How many filler transactions one wait signs; each costs a fee.
const MAX_FILLERS: usize = 4;

/// The gaps seen while waiting for one transaction.
#[derive(Default)]
pub(super) struct Gaps {
    nonce: Option<u64>,
    poll: u32,
    tried: usize,
    filled: usize,
    fillers: Vec<InFlight>,
}

/// A transaction that cannot be mined because an earlier nonce is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The nonce that is missing.
    pub missing: u64,
    /// The waiting transaction.
    pub waits: TransactionHash,
    /// Its nonce.
    pub nonce: u64,
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { missing, waits, nonce } = self;
        write!(
            f,
            "transaction {waits} with nonce {nonce} can never be mined: nonce {missing} is missing. \
             The node counted too many, or dropped one. tollpass fills the gap when it waits for the transaction \
             again, at the next payment or operation for its receiver"
        )
    }
}

impl Chain {
    /// Registers recorded transactions, so that their nonces are not reused while a node has them, and fillers among
    /// them can be sent again.
    pub fn remember(&self, intents: &[Intent]) {
        intents.iter().for_each(|intent| self.0.nonces.signed(intent));
    }

    /// Counts the fees of transactions that were signed before this start, by their age.
    pub fn remember_fees(&self, earlier: &[(Duration, U256)]) {
        self.0.daily_fees.restore(earlier, Instant::now());
    }

    /// The gap before one of the recorded transactions, if there is one.
    pub async fn gap(&self, intents: &[Intent]) -> Result<Option<Gap>, ChainError> {
        if intents.is_empty() {
            return Ok(None);
        }
        let mined = self.0.rpc.mined_of(self.payer().into()).await?;
        let waiting: BTreeSet<u64> =
            intents.iter().map(|intent| intent.nonce).filter(|n| *n >= mined).collect();
        let missing = (mined..).find(|nonce| !waiting.contains(nonce));
        let behind =
            missing.and_then(|missing| waiting.range(missing..).next().map(|nonce| (missing, *nonce)));
        let Some((missing, nonce)) = behind else { return Ok(None) };
        if self.may_be_pending(missing).await {
            return Ok(None);
        }
        let waits = intents.iter().rfind(|intent| intent.nonce == nonce);
        Ok(waits.map(|intent| Gap { missing, waits: TransactionHash(intent.hash), nonce }))
    }

    /// Searches for a gap before `sent`, which is not mined while the account has `mined` mined transactions, and fills
    /// the gap once enough polls have seen it.
    pub(super) async fn close_gap(
        &self,
        sent: &SentTx,
        mined: u64,
        gaps: &mut Gaps,
        recorder: &impl TransactionRecorder,
    ) {
        let missing = self.0.nonces.missing(mined, sent.intent.nonce);
        if missing != gaps.nonce {
            (gaps.nonce, gaps.poll) = (missing, 0);
        }
        let Some(missing) = missing else { return };
        gaps.poll += 1;
        if gaps.poll < GAP_POLLS || gaps.tried == MAX_ATTEMPTS {
            return;
        }
        (gaps.poll, gaps.tried) = (0, gaps.tried + 1);
        if let Err(error) = self.fill(missing, sent, gaps, recorder).await {
            tracing::warn!(%error, nonce = missing, "filling a nonce gap failed");
        }
    }

    async fn fill(
        &self,
        nonce: u64,
        sent: &SentTx,
        gaps: &mut Gaps,
        recorder: &impl TransactionRecorder,
    ) -> Result<(), OpError> {
        let turn = self.0.nonces.turn().await;
        let payer = H160::from(self.payer());
        let mined = self.0.rpc.mined_of(payer).await?;
        if self.0.nonces.missing(mined, sent.intent.nonce) != Some(nonce) {
            return Ok(());
        }
        let recorded = self.0.nonces.signed_at(nonce);
        if let Some(filler) = recorded.iter().find(|one| is_filler(one, payer))
            && Caps::of(&self.0.settings).allow(&filler.raw).is_ok()
        {
            let answer = self.submit(&filler.raw).await;
            let transaction = TransactionHash(filler.hash);
            match answer {
                // Another transaction has taken the nonce: the gap is closed.
                Ok(_) | Err((SendRefusal::NonceTooLow | SendRefusal::Underpriced, _)) => {
                    tracing::info!(nonce, %transaction, "resent a filler before a later transaction");
                    return Ok(());
                }
                // Its fee may be too low by now.
                Err((_, error)) => tracing::warn!(nonce, %transaction, %error, "the node refused a filler"),
            }
        }
        if gaps.filled == MAX_FILLERS
            || self.nonce_view().knows_any(nonce).await
            || self.may_be_pending(nonce).await
        {
            return Ok(());
        }
        tracing::warn!(
            waiting = %sent.hash(),
            nonce = sent.intent.nonce,
            missing = nonce,
            "nonce missing before a waiting transaction; filling the gap with a zero-value transfer to this account"
        );
        let chain_id = self.pinned().await?.chain_id;
        let request = CallRequest { from: payer, to: payer, data: Bytes::new() };
        let (transaction, _) = self.prepare(&sent.intent.op, &request, chain_id, nonce).await?;
        let raw = self.0.signer.sign_transaction(&transaction).await.map_err(ChainError::from)?.to_vec();
        let hash = keccak256(&raw);
        let filler = Intent { op: sent.intent.op, moves: false, nonce, hash, raw, host: None };
        gaps.filled += 1;
        recorder.record(filler.clone()).await?;
        self.0.nonces.signed(&filler);
        match self.submit(&filler.raw).await {
            Ok(_) => gaps.fillers.push(turn.take(nonce)),
            Err((_, error)) => return Err(error.into()),
        }
        Ok(())
    }

    /// Whether the node may have a pending transaction of this account with `nonce`; true if the node does not answer.
    async fn may_be_pending(&self, nonce: u64) -> bool {
        match self.nonce_view().listed_as_pending().await {
            Ok(Some(listed)) => listed.contains(&nonce),
            Ok(None) => {
                let counted = self.0.rpc.waiting_of(self.payer().into()).await;
                !matches!(counted, Ok(Some(count)) if count <= nonce)
            }
            Err(_) => true,
        }
    }
}

/// Whether a recorded transaction is a zero-value transfer to the payer itself.
fn is_filler(intent: &Intent, payer: H160) -> bool {
    let Ok((transaction, _)) = TypedTransaction::decode_signed(&Rlp::new(&intent.raw)) else { return false };
    let has_data = transaction.data().is_some_and(|data| !data.is_empty());
    !intent.moves && !has_data && transaction.to_addr() == Some(&payer)
}
