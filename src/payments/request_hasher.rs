//! Keys of remembered prices: a keyed hash of method and URL, so that neither memory nor disk contains a query.

use std::fmt;
use std::sync::Arc;

use pbkdf2::hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::protocol::quote::RequestId;

/// The size of the key, in bytes.
pub(super) const KEY: usize = 32;
/// The block size of SHA-256, in bytes.
const BLOCK: usize = 64;

/// Hashes requests with HMAC-SHA-256 and a key that never leaves the journal.
#[derive(Clone)]
pub(super) struct RequestHasher(Arc<Hmac<Sha256>>);

impl RequestHasher {
    /// Hashes with `key`, which must be random.
    pub(super) fn new(key: &[u8; KEY]) -> Self {
        // HMAC pads a key with zeros to the block size.
        let mut block = [0; BLOCK];
        block[..KEY].copy_from_slice(key);
        Self(Arc::new(Hmac::new(&block.into())))
    }

    /// The hash of a request: its method and URL.
    pub(super) fn id(&self, request: &str) -> RequestId {
        let mut mac = (*self.0).clone();
        mac.update(request.as_bytes());
        RequestId(mac.finalize().into_bytes().into())
    }
}

impl fmt::Debug for RequestHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RequestHasher")
    }
}

#[cfg(test)]
mod tests {
    use ethers_core::utils::hex;

    use crate::payments::request_hasher::*;

    /// RFC 4231, test case 1, with the zeros with which HMAC pads a short key.
    #[test]
    fn it_is_hmac_sha_256() {
        let mut key = [0; KEY];
        key[..20].fill(0x0b);
        let expected = "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7";
        assert_eq!(hex::encode(RequestHasher::new(&key).id("Hi There").0), expected);
    }
}
