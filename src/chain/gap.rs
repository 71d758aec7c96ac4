//! Gaps between nonces: a transaction whose nonce is not the next one waits for ever, and with it all that come after.
//! A gap is filled with a transfer of nothing to the payer itself, and never with recorded bytes that move money: their
//! order may have ended, or have another transaction by now.

use std::collections::BTreeSet;
use std::fmt;

use ethers_core::types::transaction::eip2718::TypedTransaction;
use ethers_core::types::{Bytes, H160};
use ethers_core::utils::keccak256;
use ethers_core::utils::rlp::Rlp;

use crate::chain::Chain;
use crate::chain::confirm::Sent;
use crate::chain::error::{ChainError, OpError, TransactionHash};
use crate::chain::fees::Caps;
use crate::chain::nonces::InFlight;
use crate::chain::recorder::TransactionRecorder;
use crate::chain::refusal::SendRefusal;
use crate::chain::rpc::CallRequest;
use crate::protocol::Intent;

/// So many looks in a row must see the same gap: a node may be behind, or a transaction just on its way.
const GAP_LOOKS: u32 = 3;
/// How often a gap is looked into while one transaction is waited for.
const MOST_TRIES: usize = 16;
/// How many transfers of nothing are signed while one transaction is waited for: each costs a fee.
const MOST_FILLED: usize = 4;

/// What is seen of gaps while a transaction is waited for.
#[derive(Default)]
pub(super) struct Gaps {
    nonce: Option<u64>,
    poll: u32,
    tried: usize,
    filled: usize,
    fillers: Vec<InFlight>,
}

/// A transaction that waits for a nonce which no transaction has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The nonce that is missing.
    pub missing: u64,
    /// The transaction that waits.
    pub waits: TransactionHash,
    /// Its nonce.
    pub nonce: u64,
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { missing, waits, nonce } = self;
        write!(
            f,
            "transaction {waits} with nonce {nonce} can never be mined: no transaction has the nonce {missing} before it. \
             The node counted too many, or dropped one. The gap is filled as soon as the transaction is waited for \
             again, at the next payment or order for its receiver"
        )
    }
}

impl Chain {
    /// Takes note of transactions on record: their nonces are not given away while a node has them, and they fill gaps.
    pub fn remember(&self, intents: &[Intent]) {
        intents.iter().for_each(|intent| self.0.nonces.signed(intent));
    }

    /// A gap before one of the transactions on record, if there is one.
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

    /// Looks for a gap before `sent`, which is in no block while `mined` transactions of the account are, and fills it
    /// once it has been seen often enough.
    pub(super) async fn close_gap(
        &self,
        sent: &Sent,
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
        if gaps.poll < GAP_LOOKS || gaps.tried == MOST_TRIES {
            return;
        }
        (gaps.poll, gaps.tried) = (0, gaps.tried + 1);
        if let Err(error) = self.fill(missing, sent, gaps, recorder).await {
            tracing::warn!(%error, nonce = missing, "the gap before a transaction cannot be filled");
        }
    }

    async fn fill(
        &self,
        nonce: u64,
        sent: &Sent,
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
                // Another transaction has the nonce by now: there is no gap.
                Ok(_) | Err((SendRefusal::NonceTooLow | SendRefusal::Underpriced, _)) => {
                    tracing::info!(nonce, %transaction, "sent again, before a later one");
                    return Ok(());
                }
                // Its fee may be too low today.
                Err((_, error)) => tracing::warn!(nonce, %transaction, %error, "the node refuses a filler"),
            }
        }
        if gaps.filled == MOST_FILLED || self.knows_any(nonce).await || self.may_be_pending(nonce).await {
            return Ok(());
        }
        tracing::warn!(
            waiting = %sent.hash(),
            its_nonce = sent.intent.nonce,
            missing = nonce,
            "no transaction has the nonce before one that waits: the gap is filled with a transfer of nothing"
        );
        let chain_id = self.pinned().await?.chain_id;
        let request = CallRequest { from: payer, to: payer, data: Bytes::new() };
        let (raw, _) = self.sign(&sent.intent.op, &request, chain_id, nonce).await?;
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

    /// Whether a transaction of this account with `nonce` may wait at the node. A node that cannot be asked says nothing.
    async fn may_be_pending(&self, nonce: u64) -> bool {
        match self.listed_as_pending().await {
            Ok(Some(listed)) => listed.contains(&nonce),
            Ok(None) => {
                let counted = self.0.rpc.waiting_of(self.payer().into()).await;
                !matches!(counted, Ok(Some(count)) if count <= nonce)
            }
            Err(_) => true,
        }
    }
}

/// Whether a recorded transaction is a transfer of nothing to the payer itself.
fn is_filler(intent: &Intent, payer: H160) -> bool {
    let Ok((transaction, _)) = TypedTransaction::decode_signed(&Rlp::new(&intent.raw)) else { return false };
    let has_data = transaction.data().is_some_and(|data| !data.is_empty());
    !intent.moves && !has_data && transaction.to_addr() == Some(&payer)
}
