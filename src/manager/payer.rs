//! Signing payments, in the task of whoever pays.

use std::sync::Arc;

use http::HeaderMap;

use crate::chain::signer::Signer;
use crate::fault;
use crate::protocol::microraiden::{self, proof};
use crate::protocol::{Draft, Facts, Refusal};

/// Who pays, and where.
#[derive(Debug)]
pub(super) struct Payer {
    pub facts: Facts,
    pub signer: Arc<Signer>,
}

impl Payer {
    /// The header fields that carry a granted payment: what it promises is on record already.
    pub(super) fn sign(&self, draft: &Draft) -> Result<HeaderMap, Refusal> {
        let Facts { contract, payer, .. } = self.facts;
        let digest = proof::balance_digest(draft.channel, draft.total, contract);
        let signature = self.signer.sign(digest).map_err(|error| Refusal::NotReady(error.to_string()))?;
        fault::point("payment signed");
        Ok(microraiden::attach(draft, payer, contract, &signature))
    }
}
