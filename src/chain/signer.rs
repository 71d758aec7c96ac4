//! The key that signs payments and transactions. It never leaves this file.

use std::fmt;

use ethers_core::types::transaction::eip2718::TypedTransaction;
use ethers_core::types::{Bytes, H256};
use ethers_signers::{LocalWallet, Signer as _};

use crate::protocol::{Address, Signature};

/// A private key, and the address it pays from.
pub struct Signer {
    wallet: LocalWallet,
    address: Address,
}

/// The bytes are no private key: zero, or above the order of the curve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a private key of secp256k1")]
pub struct NotAKey;

/// Signing failed, which a valid key and digest do not do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("signing failed: {0}")]
pub struct NotSigned(String);

impl Signer {
    /// Takes a private key of 32 bytes, big endian.
    pub fn new(key: &[u8; 32]) -> Result<Self, NotAKey> {
        let wallet = LocalWallet::from_bytes(key).map_err(|_| NotAKey)?;
        let address = wallet.address().into();
        Ok(Self { wallet, address })
    }

    /// Who pays.
    pub fn address(&self) -> Address {
        self.address
    }

    /// Signs a digest: `r ‖ s ‖ v` with v 27 or 28, low s, nonce by RFC 6979.
    pub fn sign(&self, digest: [u8; 32]) -> Result<Signature, NotSigned> {
        let signature = self.wallet.sign_hash(H256(digest)).map_err(|error| NotSigned(error.to_string()))?;
        Ok(Signature(signature.into()))
    }

    /// Signs a transaction (which names its chain id) and returns its bytes as a node takes them.
    pub fn sign_transaction(&self, transaction: &TypedTransaction) -> Result<Bytes, NotSigned> {
        let signature =
            self.wallet.sign_transaction_sync(transaction).map_err(|error| NotSigned(error.to_string()))?;
        Ok(transaction.rlp_signed(&signature))
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signer({})", self.address)
    }
}
