//! Signs payments, in the task of the paying client.

use std::sync::Arc;

use crate::chain::signer::Signer;
use crate::failpoint;
use crate::protocol::schemes::{Draft, Payer};
use crate::protocol::{Account, Refusal, Signature};

/// The key that signs payments, and the account that its channels belong to.
#[derive(Debug)]
pub(super) struct Wallet {
    pub account: Account,
    pub signer: Arc<Signer>,
}

impl Wallet {
    /// The payer, for schemes.
    pub(super) fn payer(&self) -> Payer {
        Payer { address: self.signer.address(), account: Some(self.account) }
    }

    /// Signs a granted payment, which the journal has already recorded.
    pub(super) fn sign(&self, draft: &Draft) -> Result<Signature, Refusal> {
        let digest = draft.digest(&self.payer()).ok_or_else(|| {
            Refusal::NotReady("the chain of the payment's channel has not been read yet".to_owned())
        })?;
        let signature = self.signer.sign(digest).map_err(|error| Refusal::NotReady(error.to_string()))?;
        failpoint::point("payment signed");
        Ok(signature)
    }
}
