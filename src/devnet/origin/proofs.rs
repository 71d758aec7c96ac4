//! The seller's own cryptography: recovers the signer of a balance proof, and signs closings.
//!
//! Written against the contract, on libsecp256k1, and independent of the payer's code on purpose, so that each detects
//! mistakes of the other.

use std::sync::LazyLock;

use revm::primitives::{B256, keccak256};
use secp256k1::ecdsa::{RecoverableSignature, RecoveryId};
use secp256k1::{All, Message, PublicKey, Secp256k1, SecretKey};

use super::error::SellerStartError;
use crate::protocol::{Address, Amount};

static BALANCE_SCHEMA: LazyLock<B256> = LazyLock::new(|| {
    keccak256("string message_idaddress receiveruint32 block_createduint192 balanceaddress contract")
});
static CLOSING_SCHEMA: LazyLock<B256> = LazyLock::new(|| {
    keccak256("string message_idaddress senderuint32 block_createduint192 balanceaddress contract")
});

/// The seller's key and the contract that its signatures are for.
pub(super) struct Notary {
    curve: Secp256k1<All>,
    key: SecretKey,
    receiver: Address,
    contract: Address,
}

impl Notary {
    pub(super) fn new(key: [u8; 32], contract: Address) -> Result<Self, SellerStartError> {
        let curve = Secp256k1::new();
        let key = SecretKey::from_byte_array(key).map_err(|_| SellerStartError::Key)?;
        let receiver = account(&key.public_key(&curve));
        Ok(Self { curve, key, receiver, contract })
    }

    pub(super) fn receiver(&self) -> Address {
        self.receiver
    }

    pub(super) fn contract(&self) -> Address {
        self.contract
    }

    /// The account that promised `total` on the channel opened in `open_block`; `None` if the signature is invalid.
    pub(super) fn payer(&self, open_block: u32, total: Amount, signature: &[u8; 65]) -> Option<Address> {
        let (compact, v) = signature.split_at(64);
        let recovery = match v {
            [0 | 27] => RecoveryId::Zero,
            [1 | 28] => RecoveryId::One,
            _ => return None,
        };
        let signature = RecoverableSignature::from_compact(compact, recovery).ok()?;
        let digest =
            self.digest(&BALANCE_SCHEMA, "Sender balance proof signature", self.receiver, open_block, total);
        let key = self.curve.recover_ecdsa(Message::from_digest(digest), &signature).ok()?;
        Some(account(&key))
    }

    /// The seller's closing signature for the channel of `sender` on `total`: `r ‖ s ‖ v`, v 27 or 28.
    pub(super) fn consent(&self, sender: Address, open_block: u32, total: Amount) -> [u8; 65] {
        let digest = self.digest(&CLOSING_SCHEMA, "Receiver closing signature", sender, open_block, total);
        let signature = self.curve.sign_ecdsa_recoverable(Message::from_digest(digest), &self.key);
        let (recovery, compact) = signature.serialize_compact();
        let mut bytes = [27; 65];
        bytes[..64].copy_from_slice(&compact);
        if recovery == RecoveryId::One {
            bytes[64] = 28;
        }
        bytes
    }

    fn digest(&self, schema: &B256, id: &str, party: Address, open_block: u32, total: Amount) -> [u8; 32] {
        let values =
            [id.as_bytes(), &party.0, &open_block.to_be_bytes(), &total.to_be_bytes(), &self.contract.0]
                .concat();
        keccak256([*schema, keccak256(values)].concat()).0
    }
}

fn account(key: &PublicKey) -> Address {
    let hash = keccak256(&key.serialize_uncompressed()[1..]);
    let mut address = Address::default();
    address.0.copy_from_slice(&hash[12..]);
    address
}

#[cfg(test)]
mod tests {
    use revm::primitives::hex;

    use crate::devnet::origin::proofs::*;

    /// A signature made by the original client with its reference keys.
    #[test]
    fn recovers_the_signer() {
        let contract = "0xe7f1725E7734CE288F8367e1Bb143E90bb3F0512".parse().unwrap();
        let receiver = "0x08c86B491A37C2FFC25072a17c7A97EF2D0357dd".parse().unwrap();
        let notary = Notary { receiver, ..Notary::new([7; 32], contract).unwrap() };
        let signature = hex::decode_to_array(
            "26df90e3e231ee5289cd6a87f6a1df90b368a1d91e960bee9087e373f96f56a36cd74ec6bb04ccef442760759d37a886908663aedc3d884e7f6480410e35c5401c",
        )
        .unwrap();
        let payer = notary.payer(37, Amount::from(15), &signature);
        assert_eq!(payer, Some("0x8Bf640A099fE945DA46F354d3B49c48a125F48B6".parse().unwrap()));
        assert_ne!(notary.payer(38, Amount::from(15), &signature), payer);
    }
}
