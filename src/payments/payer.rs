//! Signs payments, in the task of the paying client.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use crate::chain::signer::NotSigned;
use crate::chain::{SigningTurn, WalletSigner};
use crate::failpoint;
use crate::protocol::schemes::{Draft, Payer, SignIn};
use crate::protocol::{Account, Refusal, Signature, SigningRequest};

/// The signer of payments, and the account that its channels belong to.
#[derive(Debug)]
pub(super) struct Wallet {
    signer: Arc<WalletSigner>,
    /// Set once the chain has been read.
    account: OnceLock<Account>,
}

/// The first step of signing a payment.
pub(super) enum Signing {
    /// It is done.
    Signed(Signature),
    /// An external signer has to be asked.
    Asks(ExternalRequest),
}

/// A payment that an external signer has to be asked about.
#[derive(Debug)]
pub(super) struct ExternalRequest {
    signer: Arc<WalletSigner>,
    request: SigningRequest,
}

impl Wallet {
    pub(super) fn new(signer: Arc<WalletSigner>) -> Self {
        Self { signer, account: OnceLock::new() }
    }

    pub(super) fn signer(&self) -> &Arc<WalletSigner> {
        &self.signer
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

    /// Signs a granted payment, which the journal has already recorded, or says who has to be asked.
    pub(super) fn sign(&self, draft: &Draft) -> Result<Signing, Refusal> {
        let unread =
            || Refusal::NotReady("the chain of the payment's channel has not been read yet".to_owned());
        let signer = match &*self.signer {
            WalletSigner::Local(signer) => signer,
            WalletSigner::External(_) => {
                let request = draft.signing_request(&self.payer()).ok_or_else(unread)?;
                return Ok(Signing::Asks(ExternalRequest { signer: Arc::clone(&self.signer), request }));
            }
        };
        let digest = draft.digest(&self.payer()).ok_or_else(unread)?;
        let signature = signer.sign(digest).map_err(refusal)?;
        failpoint::point("payment signed");
        Ok(Signing::Signed(signature))
    }
}

impl Wallet {
    /// Signs what proves who the payer is, which moves no money, until `by` at the latest.
    ///
    /// # Errors
    /// The signer did not sign it.
    pub(super) async fn sign_in(&self, challenge: &SignIn, by: Instant) -> Result<Signature, Refusal> {
        let request = challenge.signing_request(self.signer.address());
        match &*self.signer {
            WalletSigner::Local(signer) => signer.sign(request.digest).map_err(refusal),
            WalletSigner::External(_) => {
                let request = ExternalRequest { signer: Arc::clone(&self.signer), request };
                let turn = request.turn(by).await?;
                request.ask(turn).await.map_err(refusal)
            }
        }
    }
}

impl ExternalRequest {
    /// Whether `signature` is what the signer would return.
    pub(super) fn is_signed_by(&self, signature: &Signature) -> bool {
        signature.recover(self.request.digest) == Some(self.signer.address())
    }

    /// Waits until the signer may be asked, until `by` at the latest, which is when the signature is needed.
    ///
    /// # Errors
    /// It is busy, so that nothing is signed.
    pub(super) async fn turn(&self, by: Instant) -> Result<SigningTurn, Refusal> {
        self.signer.turn(Some(by)).await.map_err(refusal)
    }

    /// Asks the signer.
    ///
    /// # Errors
    /// See [`NotSigned::is_certain`].
    pub(super) async fn ask(self, turn: SigningTurn) -> Result<Signature, NotSigned> {
        failpoint::point("external signer about to be asked");
        let signature = self.signer.sign(&self.request, turn).await?;
        failpoint::point("payment signed");
        Ok(signature)
    }
}

/// Why the client's request is not paid.
pub(super) fn refusal(error: NotSigned) -> Refusal {
    match error {
        NotSigned::Frozen => Refusal::Frozen,
        NotSigned::Failed(_) => Refusal::NotReady(error.to_string()),
        NotSigned::Refused(why) => Refusal::SignerRefused(why.into()),
        NotSigned::NotAsked(why) => Refusal::SignerUnavailable(why.into()),
        NotSigned::Unclear(why) => Refusal::SignerUnclear(why.into()),
    }
}
