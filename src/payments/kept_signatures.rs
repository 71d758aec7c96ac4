//! Signatures of an external signer on authorizations that may be presented again: it is not asked twice, and what sellers
//! see stays the same, although it need not sign the same way each time.

use std::sync::Mutex;

use hashlink::LruCache;

use crate::mutex::lock;
use crate::protocol::Signature;

/// How many are kept in memory; for one more, the signer is asked again.
const MOST: usize = 4096;

/// The signatures, by the nonce of what they sign. The journal has them, too.
pub(super) struct KeptSignatures(Mutex<LruCache<[u8; 32], Signature>>);

impl KeptSignatures {
    pub(super) fn get(&self, nonce: &[u8; 32]) -> Option<Signature> {
        lock(&self.0).get(nonce).copied()
    }

    pub(super) fn insert(&self, nonce: [u8; 32], signature: Signature) {
        lock(&self.0).insert(nonce, signature);
    }

    /// The payment is over.
    pub(super) fn remove(&self, nonce: &[u8; 32]) {
        lock(&self.0).remove(nonce);
    }
}

impl Default for KeptSignatures {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(MOST)))
    }
}

impl std::fmt::Debug for KeptSignatures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeptSignatures(..)")
    }
}
