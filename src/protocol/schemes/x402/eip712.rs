//! The encoding of EIP-712 and of calls, and what all authorizations have.

use ethers_core::types::U256;
use ethers_core::utils::keccak256;
use serde_json::{Value, json};

/// What makes an authorization usable once, and until when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Once {
    pub(super) nonce: [u8; 32],
    /// When it expires, in seconds since 1970.
    pub(super) valid_before: u64,
}

/// The fields of a type, with their types, as `eth_signTypedData_v4` takes them.
pub(super) fn fields(fields: &[(&str, &str)]) -> Value {
    fields.iter().map(|(name, kind)| json!({"name": name, "type": kind})).collect()
}

/// 32 bytes, padded on the left.
pub(super) fn word(bytes: &[u8]) -> [u8; 32] {
    let mut word = [0; 32];
    word[32 - bytes.len()..].copy_from_slice(bytes);
    word
}

/// A number in 32 bytes.
pub(super) fn number(number: u64) -> [u8; 32] {
    let mut word = [0; 32];
    U256::from(number).to_big_endian(&mut word);
    word
}

/// The data of a call of a function that takes these words.
pub(super) fn call(function: &[u8], arguments: &[[u8; 32]]) -> Vec<u8> {
    let mut data = keccak256(function)[..4].to_vec();
    arguments.iter().for_each(|argument| data.extend_from_slice(argument));
    data
}
