//! The chain of rows: each has a code over itself and the code of the row before it.

use std::fmt;

use pbkdf2::hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::chain::WalletSigner;

/// The code of a row: HMAC-SHA-256 over the code of the row before it and the row's encoding.
#[derive(Clone, Copy, Debug, Default, Eq)]
pub struct RowSeal(pub [u8; 32]);

impl PartialEq for RowSeal {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

/// What the key is derived from the wallet's for.
const PURPOSE: &str = "tollpass ledger";
/// Separates rows from the other uses of the key.
const ROW: &[u8] = b"row";
/// Separates the beginning of a shortened ledger from the other uses of the key.
const START: &[u8] = b"start";

/// Seals rows. The key is derived from the wallet's and never stored; with an external signer, it is derived
/// from a secret in the state directory.
#[derive(Clone)]
pub struct LedgerKey(Hmac<Sha256>);

impl LedgerKey {
    /// The key for the rows of this wallet.
    #[must_use]
    pub fn of(signer: &WalletSigner) -> Self {
        Self::new(&Zeroizing::new(signer.derive(PURPOSE)))
    }

    /// Seals with `key`, which is derived from the wallet's for this purpose only.
    #[must_use]
    pub fn new(key: &[u8; 32]) -> Self {
        // HMAC pads a key with zeros to the block size.
        let mut block = [0; 64];
        block[..key.len()].copy_from_slice(key);
        Self(Hmac::new(&block.into()))
    }

    /// The code of a row with this encoding that follows the one with the code `before`.
    #[must_use]
    pub fn seal(&self, before: RowSeal, row: &[u8]) -> RowSeal {
        self.code(ROW, before, row)
    }

    /// The code of the beginning of a shortened ledger: the code of the last row that was removed, and the encoded sums of
    /// those rows.
    #[must_use]
    pub fn seal_start(&self, removed: RowSeal, sums: &[u8]) -> RowSeal {
        self.code(START, removed, sums)
    }

    fn code(&self, purpose: &[u8], before: RowSeal, bytes: &[u8]) -> RowSeal {
        let mut mac = self.0.clone();
        mac.update(purpose);
        mac.update(&before.0);
        mac.update(bytes);
        RowSeal(mac.finalize().into_bytes().into())
    }
}

impl fmt::Debug for LedgerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LedgerKey")
    }
}
