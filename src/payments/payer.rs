//! Signing payments, in the task of the client that pays.

use std::sync::Arc;

use crate::chain::signer::Signer;
use crate::failpoint;
use crate::protocol::schemes::microraiden::proof;
use crate::protocol::{Account, Draft, Refusal, Signature};

/// The paying account and its key.
#[derive(Debug)]
pub(super) struct Payer {
    pub account: Account,
    pub signer: Arc<Signer>,
}

impl Payer {
    /// Signs a granted payment, which the journal has recorded already.
    pub(super) fn sign(&self, draft: &Draft) -> Result<Signature, Refusal> {
        let digest = proof::balance_digest(draft.channel, draft.total, self.account.contract);
        let signature = self.signer.sign(digest).map_err(|error| Refusal::NotReady(error.to_string()))?;
        failpoint::point("payment signed");
        Ok(signature)
    }
}
