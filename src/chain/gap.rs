//! Gaps between nonces: a transaction whose nonce is not the next one waits for ever, and with it all that come after.
//! A gap is filled with what this journal signed for it, or else with a transfer of nothing to the payer itself.

use std::collections::BTreeSet;
use std::fmt;

use ethers_core::types::Bytes;
use ethers_core::utils::keccak256;

use crate::chain::Chain;
use crate::chain::confirm::Sent;
use crate::chain::error::{ChainError, OrderError, TransactionHash};
use crate::chain::fees::Caps;
use crate::chain::nonces::InFlight;
use crate::chain::order::Journal;
use crate::chain::rpc::CallRequest;
use crate::protocol::Intent;

/// So many looks in a row must see the same gap: a node may be behind, or a transaction just on its way.
const GAP_LOOKS: u32 = 3;
/// How many nonces are filled at most while one transaction is waited for.
const MOST_FILLED: usize = 16;

/// What is seen of gaps while a transaction is waited for.
#[derive(Default)]
pub(super) struct Gaps {
    nonce: Option<u64>,
    looks: u32,
    tried: usize,
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
        if self.listed_as_pending().await.contains(&missing) {
            return Ok(None);
        }
        let waits = intents.iter().rfind(|intent| intent.nonce == nonce);
        Ok(waits.map(|intent| Gap { missing, waits: TransactionHash(intent.hash), nonce }))
    }

    /// Looks for a gap before `sent`, which is in no block while `mined` transactions of the account are, and fills it
    /// once it has been seen often enough.
    pub(super) async fn close_gap(&self, sent: &Sent, mined: u64, gaps: &mut Gaps, journal: &impl Journal) {
        let missing = self.0.nonces.missing(mined, sent.intent.nonce);
        if missing != gaps.nonce {
            (gaps.nonce, gaps.looks) = (missing, 0);
        }
        let Some(missing) = missing else { return };
        gaps.looks += 1;
        if gaps.looks < GAP_LOOKS || gaps.tried == MOST_FILLED {
            return;
        }
        (gaps.looks, gaps.tried) = (0, gaps.tried + 1);
        match self.fill(missing, sent, journal).await {
            Ok(filler) => gaps.fillers.extend(filler),
            Err(error) => {
                tracing::warn!(%error, nonce = missing, "the gap before a transaction cannot be filled")
            }
        }
    }

    async fn fill(
        &self,
        nonce: u64,
        sent: &Sent,
        journal: &impl Journal,
    ) -> Result<Option<InFlight>, OrderError> {
        let turn = self.0.nonces.turn().await;
        let payer = self.payer().into();
        let mined = self.0.rpc.mined_of(payer).await?;
        if self.0.nonces.missing(mined, sent.intent.nonce) != Some(nonce) {
            return Ok(None);
        }
        if let Some(signed) = self.0.nonces.signed_at(nonce).first() {
            // What is on record was meant to be mined. A refusal says that there is no gap.
            Caps::of(&self.0.settings).allow(&signed.raw)?;
            let is_taken = self.submit(&signed.raw).await.is_ok();
            tracing::info!(nonce, transaction = %TransactionHash(signed.hash), is_taken, "sent again, before a later one");
            return Ok(None);
        }
        if self.listed_as_pending().await.contains(&nonce) {
            return Ok(None);
        }
        tracing::warn!(
            waiting = %sent.hash(),
            its_nonce = sent.intent.nonce,
            missing = nonce,
            "no transaction has the nonce before one that waits: the gap is filled with a transfer of nothing"
        );
        let chain_id = self.ground().await?.chain_id;
        let request = CallRequest { from: payer, to: payer, data: Bytes::new() };
        let (raw, _) = self.sign(&sent.intent.order, &request, chain_id, nonce).await?;
        let hash = keccak256(&raw);
        let filler = Intent { order: sent.intent.order, moves: false, nonce, hash, raw, host: None };
        journal.record(filler.clone()).await?;
        self.0.nonces.signed(&filler);
        match self.submit(&filler.raw).await {
            Ok(_) => Ok(Some(turn.take(nonce))),
            Err((_, error)) => Err(error.into()),
        }
    }
}
