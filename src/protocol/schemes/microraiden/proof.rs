//! Digests to sign, and recovery of the signer (contract 0.2.0).

use std::sync::LazyLock;

use ethers_core::utils::keccak256;

use crate::protocol::signing_request::packed_digest;
use crate::protocol::{Address, Amount, ChannelId, Signature, SigningRequest, TypedData, TypedValue};

/// The hash of the names and types of the signed values, the same for each payment.
static BALANCE_SCHEMA: LazyLock<[u8; 32]> = LazyLock::new(|| {
    keccak256(b"string message_idaddress receiveruint32 block_createduint192 balanceaddress contract")
});
const BALANCE_MESSAGE: &str = "Sender balance proof signature";
static CLOSING_SCHEMA: LazyLock<[u8; 32]> = LazyLock::new(|| {
    keccak256(b"string message_idaddress senderuint32 block_createduint192 balanceaddress contract")
});
const CLOSING_MESSAGE: &str = "Receiver closing signature";

/// The digest that a payer signs to promise `total` on `channel` of `contract`.
pub fn balance_digest(channel: ChannelId, total: Amount, contract: Address) -> [u8; 32] {
    digest(&BALANCE_SCHEMA, BALANCE_MESSAGE, channel.receiver, channel.open_block, total, contract)
}

/// The same with the values that it consists of.
pub fn balance_request(channel: ChannelId, total: Amount, contract: Address) -> SigningRequest {
    SigningRequest {
        digest: balance_digest(channel, total, contract),
        typed: TypedData::Values(vec![
            TypedValue::text("message_id", BALANCE_MESSAGE),
            TypedValue::address("receiver", channel.receiver),
            TypedValue::block("block_created", channel.open_block),
            TypedValue::amount("balance", total),
            TypedValue::address("contract", contract),
        ]),
    }
}

/// The digest that a receiver signs to agree that the channel of `sender` closes at `total`.
pub fn closing_digest(sender: Address, open_block: u32, total: Amount, contract: Address) -> [u8; 32] {
    digest(&CLOSING_SCHEMA, CLOSING_MESSAGE, sender, open_block, total, contract)
}

fn digest(
    schema: &[u8; 32],
    message: &str,
    party: Address,
    open_block: u32,
    total: Amount,
    contract: Address,
) -> [u8; 32] {
    // The longest message ID has 30 bytes: 30 + 20 + 4 + 24 + 20.
    let mut values = Vec::with_capacity(98);
    values.extend_from_slice(message.as_bytes());
    values.extend_from_slice(&party.0);
    values.extend_from_slice(&open_block.to_be_bytes());
    values.extend_from_slice(&total.to_be_bytes());
    values.extend_from_slice(&contract.0);
    packed_digest(schema, &values)
}

/// The address whose key signed `digest`, or `None` if the signature is invalid.
pub fn recover(digest: [u8; 32], signature: &Signature) -> Option<Address> {
    signature.recover(digest)
}
