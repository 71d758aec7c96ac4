//! How a chain tells whether a payment was used.

use crate::protocol::Address;

/// A call of a contract whose result, a word of 32 bytes, tells whether a payment was used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UseQuery {
    /// The chain.
    pub chain_id: u64,
    /// The contract.
    pub contract: Address,
    /// The data of the call.
    pub call: Vec<u8>,
    /// The bits of the result of which one is set if the payment was used.
    pub mask: [u8; 32],
}

impl UseQuery {
    /// What the result of the call means.
    #[must_use]
    pub fn is_used(&self, result: &[u8; 32]) -> bool {
        self.mask.iter().zip(result).any(|(mask, byte)| mask & byte != 0)
    }
}
