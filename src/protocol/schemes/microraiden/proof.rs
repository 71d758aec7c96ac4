//! Digests that are signed, and who signed them (contract 0.2.0).

use std::sync::LazyLock;

use ethers_core::types::{H256, RecoveryMessage, Signature as EthersSignature, U256};
use ethers_core::utils::keccak256;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::protocol::{Address, Amount, ChannelId};

/// `r ‖ s ‖ v`, v = 27 or 28 (0 or 1 from some sellers).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Signature(pub [u8; 65]);

/// The hash of the names and types of what is signed, which is the same in each payment.
static BALANCE_SCHEMA: LazyLock<[u8; 32]> = LazyLock::new(|| {
    keccak256(b"string message_idaddress receiveruint32 block_createduint192 balanceaddress contract")
});
const BALANCE_MESSAGE: &[u8] = b"Sender balance proof signature";
static CLOSING_SCHEMA: LazyLock<[u8; 32]> = LazyLock::new(|| {
    keccak256(b"string message_idaddress senderuint32 block_createduint192 balanceaddress contract")
});
const CLOSING_MESSAGE: &[u8] = b"Receiver closing signature";

/// What a payer signs to promise `total` on `channel` of `contract`.
pub fn balance_digest(channel: ChannelId, total: Amount, contract: Address) -> [u8; 32] {
    digest(&BALANCE_SCHEMA, BALANCE_MESSAGE, channel.receiver, channel.open_block, total, contract)
}

/// What a receiver signs to agree that the channel of `sender` closes on `total`.
pub fn closing_digest(sender: Address, open_block: u32, total: Amount, contract: Address) -> [u8; 32] {
    digest(&CLOSING_SCHEMA, CLOSING_MESSAGE, sender, open_block, total, contract)
}

fn digest(
    schema: &[u8; 32],
    message: &[u8],
    party: Address,
    open_block: u32,
    total: Amount,
    contract: Address,
) -> [u8; 32] {
    // The longest message id has 30 bytes: 30 + 20 + 4 + 24 + 20.
    let mut values = Vec::with_capacity(98);
    values.extend_from_slice(message);
    values.extend_from_slice(&party.0);
    values.extend_from_slice(&open_block.to_be_bytes());
    values.extend_from_slice(&total.to_be_bytes());
    values.extend_from_slice(&contract.0);
    let mut both = [0; 64];
    both[..32].copy_from_slice(schema);
    both[32..].copy_from_slice(&keccak256(values));
    keccak256(both)
}

/// The address whose key made `signature` over `digest`, or `None` if no key can have made it.
pub fn recover(digest: [u8; 32], signature: &Signature) -> Option<Address> {
    let v = match signature.0[64] {
        0 | 27 => 27,
        1 | 28 => 28,
        _ => return None,
    };
    let signature = EthersSignature {
        r: U256::from_big_endian(&signature.0[..32]),
        s: U256::from_big_endian(&signature.0[32..64]),
        v,
    };
    signature.recover(RecoveryMessage::Hash(H256(digest))).ok().map(Address::from)
}

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
