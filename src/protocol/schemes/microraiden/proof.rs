//! Digests to sign, and recovery of the signer (contract 0.2.0).

use std::sync::LazyLock;

use ethers_core::types::{H256, RecoveryMessage, Signature as EthersSignature, U256};
use ethers_core::utils::keccak256;

use crate::protocol::{Address, Amount, ChannelId, Signature};

/// The hash of the names and types of the signed values, the same for each payment.
static BALANCE_SCHEMA: LazyLock<[u8; 32]> = LazyLock::new(|| {
    keccak256(b"string message_idaddress receiveruint32 block_createduint192 balanceaddress contract")
});
const BALANCE_MESSAGE: &[u8] = b"Sender balance proof signature";
static CLOSING_SCHEMA: LazyLock<[u8; 32]> = LazyLock::new(|| {
    keccak256(b"string message_idaddress senderuint32 block_createduint192 balanceaddress contract")
});
const CLOSING_MESSAGE: &[u8] = b"Receiver closing signature";

/// The digest that a payer signs to promise `total` on `channel` of `contract`.
pub fn balance_digest(channel: ChannelId, total: Amount, contract: Address) -> [u8; 32] {
    digest(&BALANCE_SCHEMA, BALANCE_MESSAGE, channel.receiver, channel.open_block, total, contract)
}

/// The digest that a receiver signs to agree that the channel of `sender` closes at `total`.
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
    // The longest message ID has 30 bytes: 30 + 20 + 4 + 24 + 20.
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

/// The address whose key signed `digest`, or `None` if the signature is invalid.
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
