//! The settings of the chain layer.

use std::fmt;
use std::time::Duration;

use crate::protocol::{Address, Wei};

/// The node, the contract and the limits of the chain layer.
#[derive(Clone)]
pub struct ChainSettings {
    /// The node's JSON-RPC URL, http or https; it may contain secrets and is never printed.
    pub rpc_url: String,
    /// The channel contract.
    pub channel_manager: Address,
    /// How many confirmations a transaction needs, its own block included; at least 1.
    pub confirmations: u32,
    /// The first block that can contain an event of this contract.
    pub start_block: u64,
    /// The timeout of one JSON-RPC call.
    pub request_timeout: Duration,
    /// How often to check for a new block or a pending transaction.
    pub poll_every: Duration,
    /// How long to wait for the confirmation of a sent transaction.
    pub confirm_timeout: Duration,
    /// The most blocks to request in one `eth_getLogs`; halved if the node refuses; at least 1.
    pub log_range: u64,
    /// How long to retry transient node errors; also bounded by `confirm_timeout`.
    pub retry_timeout: Duration,
    /// The only chain ID to sign for; if absent, the first that the node reports.
    pub chain_id: Option<u64>,
    /// The highest fee per unit of gas.
    pub max_fee_per_gas: Wei,
    /// The highest fee of one transaction.
    pub max_fee: Wei,
    /// The highest sum of the fees of one day.
    pub max_fees_per_day: Wei,
}

impl fmt::Debug for ChainSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The URL is left out: it may contain a password or a key.
        f.debug_struct("ChainSettings")
            .field("channel_manager", &self.channel_manager)
            .field("confirmations", &self.confirmations)
            .field("start_block", &self.start_block)
            .finish_non_exhaustive()
    }
}
