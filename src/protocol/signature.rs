//! A signature of the payer or a seller.

use ethers_core::types::{H256, RecoveryMessage, Signature as EthersSignature, U256};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::protocol::Address;

/// `r ‖ s ‖ v`, v = 27 or 28 (0 or 1 from some sellers).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Signature(pub [u8; 65]);

impl Signature {
    /// Reads `0x` and 130 hexadecimal digits, or `None`.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix("0x").unwrap_or(text);
        if digits.len() != 130 || !digits.is_ascii() {
            return None;
        }
        let bytes = ethers_core::utils::hex::decode(digits).ok()?;
        Some(Self(bytes.try_into().ok()?))
    }

    /// The address whose key signed `digest`, or `None` if the signature is invalid.
    pub fn recover(&self, digest: [u8; 32]) -> Option<Address> {
        let v = match self.0[64] {
            0 | 27 => 27,
            1 | 28 => 28,
            _ => return None,
        };
        let [r, s] = [&self.0[..32], &self.0[32..64]].map(U256::from_big_endian);
        let signature = EthersSignature { r, s, v };
        signature.recover(RecoveryMessage::Hash(H256(digest))).ok().map(Address::from)
    }

    /// `0x` and 130 hexadecimal digits.
    pub fn to_hex(self) -> String {
        ethers_core::utils::hex::encode_prefixed(self.0)
    }
}

impl Serialize for Signature {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_hex())
    }
}

impl<'de> Deserialize<'de> for Signature {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        // The text is not repeated: it may be money.
        Self::parse(&text).ok_or_else(|| de::Error::custom("not a signature: 0x and 130 digits are needed"))
    }
}

impl std::fmt::Debug for Signature {
    /// A signed total is money: it is never printed.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Signature(..)")
    }
}
