//! The node of a network on which payments are made without a channel. Whatever uses it first learns whether the node follows
//! that network.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ethers_core::types::{H256, U256};

use crate::chain::error::ChainError;
use crate::chain::rpc::{At, CallRequest, Rpc};
use crate::protocol::{Address, Amount};

/// The selector of `balanceOf(address)`, which any token has (EIP-20).
const BALANCE_OF: [u8; 4] = [0x70, 0xa0, 0x82, 0x31];

/// How to reach the node of a network.
#[derive(Clone)]
pub struct NetworkSettings {
    /// The chain ID of the network.
    pub chain_id: u64,
    /// The node's JSON-RPC URL, http or https; it may contain secrets and is never printed.
    pub rpc_url: String,
    /// How many confirmations something needs before it counts, its own block included.
    pub confirmations: u32,
    /// The timeout of one JSON-RPC call.
    pub request_timeout: Duration,
    /// How long to retry transient node errors.
    pub retry_timeout: Duration,
}

/// A network through one JSON-RPC node; cheap to clone.
#[derive(Clone)]
pub struct Network {
    rpc: Rpc,
    settings: Arc<NetworkSettings>,
}

/// A block with enough confirmations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConfirmedBlock {
    /// Its number.
    pub number: u64,
    /// Its hash.
    pub hash: [u8; 32],
    /// Its time, in seconds since 1970.
    pub timestamp: u64,
}

impl Network {
    /// Checks the URL; does not contact the node.
    ///
    /// # Errors
    /// The URL cannot be used.
    pub fn new(settings: NetworkSettings) -> Result<Self, ChainError> {
        let key = format!("the rpc_url of eip155:{}", settings.chain_id);
        let rpc = Rpc::new(&key, &settings.rpc_url, settings.request_timeout, settings.retry_timeout)?;
        Ok(Self { rpc, settings: Arc::new(settings) })
    }

    /// The chain ID of the network.
    #[must_use]
    pub fn chain_id(&self) -> u64 {
        self.settings.chain_id
    }

    /// How many confirmations something needs; at least 1.
    pub(super) fn confirmations(&self) -> u32 {
        self.settings.confirmations.max(1)
    }

    /// The newest block with enough confirmations, after a check that the node follows this network.
    ///
    /// # Errors
    /// The node follows another one, or gives no usable answer.
    pub async fn confirmed_block(&self) -> Result<ConfirmedBlock, ChainError> {
        let head = self.checked().await?.head().await?;
        let number = head.saturating_sub(u64::from(self.confirmations()) - 1);
        let unusable = |why: &str| ChainError::NotUnderstood {
            node: self.rpc.shown().to_owned(),
            method: "eth_getBlockByNumber",
            why: why.to_owned(),
        };
        let block = self.rpc.block(number).await?.ok_or_else(|| unusable(ChainError::NULL))?;
        if block.number.as_u64() != number {
            return Err(unusable("another block than the one that was asked for"));
        }
        let timestamp = u64::try_from(block.timestamp).map_err(|_| unusable("a time above 2^64"))?;
        Ok(ConfirmedBlock { number, hash: block.hash.0, timestamp })
    }

    /// The result of a call of a contract after this block, and no other: one word.
    ///
    /// # Errors
    /// The node does not have that block any more, the contract refuses, or there is no usable answer.
    pub async fn word(
        &self,
        contract: Address,
        call: &[u8],
        block: &ConfirmedBlock,
    ) -> Result<[u8; 32], ChainError> {
        let request =
            CallRequest { from: Address::default().into(), to: contract.into(), data: call.to_vec().into() };
        let answer = self.rpc.call(&request, At::Hash(H256(block.hash))).await?;
        answer.as_ref().try_into().map_err(|_| ChainError::NotUnderstood {
            node: self.rpc.shown().to_owned(),
            method: "eth_call",
            why: format!("{} bytes instead of 32: is there such a token at {contract}?", answer.len()),
        })
    }

    /// What an account holds of a token, in base units, in the newest block with enough confirmations.
    ///
    /// # Errors
    /// As for [`Self::word`].
    pub async fn balance(&self, token: Address, owner: Address) -> Result<Amount, ChainError> {
        let call = [&BALANCE_OF[..], &[0; 12], &owner.0].concat();
        let word = self.word(token, &call, &self.confirmed_block().await?).await?;
        // More than any price.
        Ok(Amount::try_from(U256::from_big_endian(&word)).unwrap_or(Amount::MAX))
    }

    /// The node, which follows this network.
    ///
    /// # Errors
    /// [`ChainError::OtherNetwork`]: it follows another one.
    pub(super) async fn checked(&self) -> Result<&Rpc, ChainError> {
        let (found, wanted) = (self.rpc.chain_id().await?, self.settings.chain_id);
        if found != wanted {
            let node = self.rpc.shown().to_owned();
            return Err(ChainError::OtherNetwork { node, found, wanted });
        }
        Ok(&self.rpc)
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "eip155:{} {:?}", self.settings.chain_id, self.rpc)
    }
}
