//! Whatever signs for the wallet: the key of this process, or an external signer.

use std::fmt;
use std::time::Instant;

use ethers_core::types::Bytes;
use ethers_core::types::transaction::eip2718::TypedTransaction;

use crate::chain::external::{ExternalSigner, SignerTurn};
use crate::chain::signer::{NotSigned, Signer};
use crate::protocol::{Address, Signature, SigningRequest};

/// The signer of the wallet.
pub enum WalletSigner {
    /// The key is in this process.
    Local(Box<Signer>),
    /// The key is elsewhere.
    External(ExternalSigner),
}

/// The right to have something signed now.
#[derive(Debug)]
pub struct SigningTurn(Option<SignerTurn>);

impl WalletSigner {
    /// The payer's address.
    pub fn address(&self) -> Address {
        match self {
            Self::Local(signer) => signer.address(),
            Self::External(signer) => signer.address(),
        }
    }

    /// Signs nothing from now on, or signs again.
    pub fn freeze(&self, is_frozen: bool) {
        match self {
            Self::Local(signer) => signer.freeze(is_frozen),
            Self::External(signer) => signer.freeze(is_frozen),
        }
    }

    /// A key for another purpose, which reveals nothing about the wallet's.
    #[must_use]
    pub fn derive(&self, purpose: &str) -> [u8; 32] {
        match self {
            Self::Local(signer) => signer.derive(purpose),
            Self::External(signer) => signer.derive(purpose),
        }
    }

    /// Waits until an external signer may be asked, until `by` at the latest, which is when the signature is needed. If this
    /// is dropped, it is not asked.
    ///
    /// # Errors
    /// It is busy, so that nothing is signed.
    pub async fn turn(&self, by: Option<Instant>) -> Result<SigningTurn, NotSigned> {
        match self {
            Self::Local(_) => Ok(SigningTurn(None)),
            Self::External(signer) => signer.turn(by).await.map(Some).map(SigningTurn),
        }
    }

    /// Signs a digest.
    ///
    /// # Errors
    /// See [`NotSigned::is_certain`].
    pub async fn sign(&self, request: &SigningRequest, turn: SigningTurn) -> Result<Signature, NotSigned> {
        match self {
            Self::Local(signer) => signer.sign(request.digest),
            Self::External(signer) => {
                let turn = match turn.0 {
                    Some(turn) => turn,
                    None => signer.turn(None).await?,
                };
                signer.sign(request, turn).await
            }
        }
    }

    /// Signs a transaction, which includes its chain ID, and returns its RLP encoding.
    ///
    /// # Errors
    /// See [`NotSigned::is_certain`].
    pub async fn sign_transaction(&self, transaction: &TypedTransaction) -> Result<Bytes, NotSigned> {
        match self {
            Self::Local(signer) => signer.sign_transaction(transaction),
            Self::External(signer) => signer.sign_transaction(transaction).await,
        }
    }

    /// Whether signing means asking a program that need not answer.
    pub fn is_external(&self) -> bool {
        matches!(self, Self::External(_))
    }
}

impl From<Signer> for WalletSigner {
    fn from(signer: Signer) -> Self {
        Self::Local(Box::new(signer))
    }
}

impl From<ExternalSigner> for WalletSigner {
    fn from(signer: ExternalSigner) -> Self {
        Self::External(signer)
    }
}

impl fmt::Debug for WalletSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(signer) => signer.fmt(f),
            Self::External(signer) => signer.fmt(f),
        }
    }
}
