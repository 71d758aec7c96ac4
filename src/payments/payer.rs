//! Signing payments, in the task of whoever pays.

use std::sync::Arc;

use crate::chain::signer::Signer;
use crate::failpoint;
use crate::protocol::schemes::microraiden::proof;
use crate::protocol::{Draft, Facts, Refusal, Signature};

/// Who pays, and where.
#[derive(Debug)]
pub(super) struct Payer {
    pub facts: Facts,
    pub signer: Arc<Signer>,
}

impl Payer {
    /// Signs a granted payment: what it promises is on record already.
    pub(super) fn sign(&self, draft: &Draft) -> Result<Signature, Refusal> {
        let digest = proof::balance_digest(draft.channel, draft.total, self.facts.contract);
        let signature = self.signer.sign(digest).map_err(|error| Refusal::NotReady(error.to_string()))?;
        failpoint::point("payment signed");
        Ok(signature)
    }
}
