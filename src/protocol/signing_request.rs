//! What a payer signs, with everything that a signer outside this process needs to show and to compute it.

use ethers_core::utils::keccak256;
use serde::Serialize;
use serde_json::Value;

use crate::protocol::{Address, Amount};

/// A digest to sign, and what it is the digest of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SigningRequest {
    /// The 32 bytes to sign.
    pub digest: [u8; 32],
    /// What they are computed from.
    pub typed: TypedData,
}

/// Typed data, in one of three forms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TypedData {
    /// Values in order, as in the first version of `eth_signTypedData`, whose digest is
    /// `keccak256(keccak256(types and names) ‖ keccak256(values))`, with nothing between the parts.
    Values(Vec<TypedValue>),
    /// EIP-712, as in `eth_signTypedData_v4`: an object with `types`, `primaryType`, `domain` and `message`.
    Eip712(Value),
    /// A text, as in `personal_sign` (EIP-191).
    Message(String),
}

/// One of the values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TypedValue {
    /// Its Solidity type.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Its name.
    pub name: &'static str,
    /// The value: text as it is, a number in decimal digits, an address or bytes in hexadecimal ones.
    pub value: String,
}

impl TypedValue {
    /// A text.
    pub fn text(name: &'static str, text: &str) -> Self {
        Self { kind: "string", name, value: text.to_owned() }
    }

    /// An address.
    pub fn address(name: &'static str, address: Address) -> Self {
        Self { kind: "address", name, value: address.to_string() }
    }

    /// A block number.
    pub fn block(name: &'static str, block: u32) -> Self {
        Self { kind: "uint32", name, value: block.to_string() }
    }

    /// An amount in base units.
    pub fn amount(name: &'static str, amount: Amount) -> Self {
        Self { kind: "uint192", name, value: amount.to_string() }
    }
}

/// The digest of values with this schema, which is the hash of their types and names, in this packed encoding.
pub fn packed_digest(schema: &[u8; 32], packed: &[u8]) -> [u8; 32] {
    let mut both = [0; 64];
    both[..32].copy_from_slice(schema);
    both[32..].copy_from_slice(&keccak256(packed));
    keccak256(both)
}
