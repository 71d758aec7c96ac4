//! The payer's account with a channel contract.

use serde::{Deserialize, Serialize};

use crate::protocol::{Address, AssetId};

/// The payer on one channel contract: the same for all channels of a running proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// The chain ID (EIP-155).
    pub chain_id: u64,
    /// The channel contract.
    pub contract: Address,
    /// The token that the contract holds; amounts are its base units.
    pub token: Address,
    /// The payer's address.
    pub payer: Address,
}

impl Account {
    /// The token that the contract holds, as an asset of its network.
    pub fn token_asset(&self) -> AssetId {
        AssetId::token(format!("eip155:{}", self.chain_id), self.token.to_string())
    }
}
