//! The lowest nonce that no transaction of the account has.

use std::time::Duration;

use ethers_core::types::H160;

use crate::chain::error::ChainError;
use crate::chain::nonces::{NonceTurn, Nonces};
use crate::chain::rpc::Rpc;

/// How often to ask a node that counts more pending transactions than are known.
const PENDING_POLLS: u32 = 3;
/// The longest pause between these.
const PENDING_PAUSE: Duration = Duration::from_secs(1);

/// Where the nonces of an account on one network are seen.
pub(super) struct NonceView<'a> {
    pub rpc: &'a Rpc,
    pub nonces: &'a Nonces,
    pub payer: H160,
    pub poll_every: Duration,
}

impl NonceView<'_> {
    /// The lowest nonce that no known transaction has. The node's pending count is trusted only as far as it can be
    /// verified: a count that is too high would leave a gap, behind which nothing is ever mined.
    pub async fn free(&self, turn: &NonceTurn<'_>, at_least: u64) -> Result<u64, ChainError> {
        let Self { rpc, payer, .. } = *self;
        let mut polls = 1;
        loop {
            let mined = rpc.mined_of(payer).await?;
            let waiting = rpc.waiting_of(payer).await?.unwrap_or(mined);
            if turn.is_behind(mined) {
                if polls < PENDING_POLLS {
                    polls += 1;
                    tokio::time::sleep(self.poll_every.min(PENDING_PAUSE)).await;
                    continue;
                }
                // The node does not lag: there was a reorganisation.
                turn.undone_from(mined);
            }
            let mut free = turn.first_free(mined, at_least);
            while free < waiting && self.knows_any(free).await {
                free = turn.first_free(mined, free + 1);
            }
            if free >= waiting {
                return Ok(free);
            }
            if polls == PENDING_POLLS {
                // If the node does not list them, no other transactions are known.
                let listed = self.listed_as_pending().await?.unwrap_or_default();
                while free < waiting && listed.contains(&free) {
                    free = turn.first_free(mined, free + 1);
                }
                if free < waiting {
                    tracing::warn!(
                        nonce = free,
                        counted = waiting,
                        "the node counts more transactions of this account than it lists; using the lowest free \
                         nonce. If another program uses the same key, give it a key of its own"
                    );
                }
                return Ok(free);
            }
            polls += 1;
            tokio::time::sleep(self.poll_every.min(PENDING_PAUSE)).await;
        }
    }

    /// Whether the node has one of the transactions signed for a nonce.
    pub async fn knows_any(&self, nonce: u64) -> bool {
        for signed in self.nonces.signed_at(nonce) {
            if matches!(self.rpc.transaction(signed.hash).await, Ok(Some(_))) {
                return true;
            }
        }
        false
    }

    /// The nonces of the account's transactions in the pending block; `None` if the node does not offer it.
    pub async fn listed_as_pending(&self) -> Result<Option<Vec<u64>>, ChainError> {
        let block = self.rpc.pending_block().await?;
        Ok(block.map(|block| block.of(self.payer).map(|listed| listed.nonce.low_u64()).collect()))
    }
}
