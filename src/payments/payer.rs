//! Signs payments, in the task of the paying client.

use std::sync::{Arc, OnceLock};

use crate::chain::signer::{NotSigned, Signer};
use crate::failpoint;
use crate::protocol::schemes::{Draft, Payer};
use crate::protocol::{Account, Refusal, Signature};

/// The key that signs payments, and the account that its channels belong to.
#[derive(Debug)]
pub(super) struct Wallet {
    signer: Arc<Signer>,
    /// Set once the chain has been read.
    account: OnceLock<Account>,
}

impl Wallet {
    pub(super) fn new(signer: Arc<Signer>) -> Self {
        Self { signer, account: OnceLock::new() }
    }

    pub(super) fn account(&self) -> Option<Account> {
        self.account.get().copied()
    }

    /// Sets the account, which never changes afterwards.
    pub(super) fn set_account(&self, account: Account) {
        let _ = self.account.set(account);
    }

    /// Has the key sign nothing, or sign again.
    pub(super) fn freeze(&self, is_frozen: bool) {
        self.signer.freeze(is_frozen);
    }

    /// The payer, for schemes.
    pub(super) fn payer(&self) -> Payer {
        Payer { address: self.signer.address(), account: self.account() }
    }

    /// Signs a granted payment, which the journal has already recorded.
    pub(super) fn sign(&self, draft: &Draft) -> Result<Signature, Refusal> {
        let digest = draft.digest(&self.payer()).ok_or_else(|| {
            Refusal::NotReady("the chain of the payment's channel has not been read yet".to_owned())
        })?;
        let signature = self.signer.sign(digest).map_err(|error| match error {
            NotSigned::Frozen => Refusal::Frozen,
            NotSigned::Failed(_) => Refusal::NotReady(error.to_string()),
        })?;
        failpoint::point("payment signed");
        Ok(signature)
    }
}
