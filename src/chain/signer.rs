//! The key of this process, which signs payments and transactions. It never leaves this file.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

use ethers_core::rand::{RngCore as _, rngs::OsRng};
use ethers_core::types::transaction::eip2718::TypedTransaction;
use ethers_core::types::{Bytes, Signature as Rsv, U256};
use ethers_core::utils::keccak256;
use pbkdf2::hmac::{Hmac, KeyInit as _, Mac as _};
use secp256k1::ecdsa::RecoveryId;
use secp256k1::{Message, PublicKey, Secp256k1, SecretKey, SignOnly};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::protocol::{Address, Signature};

/// A private key and its address.
pub struct Signer {
    curve: Secp256k1<SignOnly>,
    key: SecretKey,
    address: Address,
    frozen: FreezeSwitch,
}

/// Whether the user wants nothing to be signed.
#[derive(Debug, Default)]
pub(super) struct FreezeSwitch(AtomicBool);

impl FreezeSwitch {
    pub(super) fn set(&self, is_frozen: bool) {
        self.0.store(is_frozen, Ordering::SeqCst);
    }

    /// # Errors
    /// [`NotSigned::Frozen`].
    pub(super) fn check(&self) -> Result<(), NotSigned> {
        if self.0.load(Ordering::SeqCst) { Err(NotSigned::Frozen) } else { Ok(()) }
    }
}

/// The bytes are not a private key: zero, or not below the order of the curve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a valid secp256k1 private key")]
pub struct NotAKey;

/// Why there is no signature.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotSigned {
    /// The user wants nothing to be signed.
    #[error("tollpass is frozen and signs nothing; run `tollpass thaw`")]
    Frozen,
    /// Signing failed, which does not happen with a valid key and digest.
    #[error("signing failed: {0}")]
    Failed(String),
    /// The external signer refused.
    #[error("the signer refused: {0}")]
    Refused(String),
    /// The external signer could not be asked, so that it signed nothing.
    #[error("the signer cannot be asked, so nothing was signed: {0}")]
    NotAsked(String),
    /// The external signer was asked, and gave no usable answer.
    #[error("the signer gave no clear answer, so this counts as signed: {0}")]
    Unclear(String),
}

impl NotSigned {
    /// Whether it is certain that there is no signature. Absence of an answer is not.
    pub fn is_certain(&self) -> bool {
        match self {
            Self::Frozen | Self::Failed(_) | Self::Refused(_) | Self::NotAsked(_) => true,
            Self::Unclear(_) => false,
        }
    }
}

impl Signer {
    /// Takes a private key of 32 bytes, big endian.
    pub fn new(key: &[u8; 32]) -> Result<Self, NotAKey> {
        let mut curve = Secp256k1::signing_only();
        let mut blinding = [0; 32];
        // Blinding protects the key from timing and power analysis. The signatures are the same without it.
        if OsRng.try_fill_bytes(&mut blinding).is_ok() {
            curve.seeded_randomize(&blinding);
        }
        let key = SecretKey::from_byte_array(*key).map_err(|_| NotAKey)?;
        let address = address_of(&PublicKey::from_secret_key(&curve, &key));
        Ok(Self { curve, key, address, frozen: FreezeSwitch::default() })
    }

    /// Signs nothing from now on, or signs again.
    pub fn freeze(&self, is_frozen: bool) {
        self.frozen.set(is_frozen);
    }

    /// The payer's address.
    pub fn address(&self) -> Address {
        self.address
    }

    /// Signs a digest: `r ‖ s ‖ v` with v 27 or 28, low s, nonce as in RFC 6979.
    pub fn sign(&self, digest: [u8; 32]) -> Result<Signature, NotSigned> {
        let (is_odd, compact) = self.sign_recoverably(digest)?;
        let mut bytes = [27 + u8::from(is_odd); 65];
        bytes[..64].copy_from_slice(&compact);
        Ok(Signature(bytes))
    }

    /// The signature of a digest, `r ‖ s`, and whether the point that `r` belongs to has an odd y.
    fn sign_recoverably(&self, digest: [u8; 32]) -> Result<(bool, [u8; 64]), NotSigned> {
        self.frozen.check()?;
        let signature = self.curve.sign_ecdsa_recoverable(Message::from_digest(digest), &self.key);
        match signature.serialize_compact() {
            (RecoveryId::Zero, compact) => Ok((false, compact)),
            (RecoveryId::One, compact) => Ok((true, compact)),
            (other, _) => Err(NotSigned::Failed(format!("v cannot represent the recovery ID {other:?}"))),
        }
    }

    /// A key for another purpose, which reveals nothing about this one: HMAC-SHA-256 of the purpose.
    #[must_use]
    pub fn derive(&self, purpose: &str) -> [u8; 32] {
        derived(&Zeroizing::new(self.key.secret_bytes()), purpose)
    }

    /// Signs a transaction, which must include its chain ID, and returns its RLP encoding.
    pub fn sign_transaction(&self, transaction: &TypedTransaction) -> Result<Bytes, NotSigned> {
        let chain_id = transaction
            .chain_id()
            .ok_or_else(|| NotSigned::Failed("the transaction has no chain ID".into()))?
            .as_u64();
        let (is_odd, compact) = self.sign_recoverably(transaction.sighash().0)?;
        let v = match transaction {
            // EIP-155.
            TypedTransaction::Legacy(_) => chain_id
                .checked_mul(2)
                .and_then(|twice| twice.checked_add(35 + u64::from(is_odd)))
                .ok_or_else(|| NotSigned::Failed(format!("v cannot represent the chain ID {chain_id}")))?,
            TypedTransaction::Eip2930(_) | TypedTransaction::Eip1559(_) => u64::from(is_odd),
        };
        let (r, s) = compact.split_at(32);
        let signature = Rsv { r: U256::from_big_endian(r), s: U256::from_big_endian(s), v };
        Ok(transaction.rlp_signed(&signature))
    }
}

/// The address of a key: the end of the hash of its public key.
fn address_of(key: &PublicKey) -> Address {
    let hash = keccak256(&key.serialize_uncompressed()[1..]);
    let mut address = Address([0; 20]);
    address.0.copy_from_slice(&hash[12..]);
    address
}

/// A key for one purpose: HMAC-SHA-256 of the purpose.
pub(super) fn derived(secret: &[u8; 32], purpose: &str) -> [u8; 32] {
    // HMAC pads a key with zeros to the block size.
    let mut block = Zeroizing::new([0; 64]);
    block[..32].copy_from_slice(secret);
    let mut mac = Hmac::<Sha256>::new((&*block).into());
    mac.update(purpose.as_bytes());
    mac.finalize().into_bytes().into()
}

impl Drop for Signer {
    fn drop(&mut self) {
        self.key.non_secure_erase();
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signer({})", self.address)
    }
}
