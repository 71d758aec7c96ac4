//! Reads `[[network]]`: nodes of the networks on which payments without a channel are made. Connects to none.

use std::time::Duration;

use ::config::Value;
use serde_json::json;

use super::asset::{NETWORK, network};
use super::chain::{
    CONFIRM_TIMEOUT, CONFIRMATIONS, MAX_FEE, MAX_FEE_PER_GAS, MAX_FEES_PER_DAY, REQUEST_TIMEOUT,
    RETRY_TIMEOUT, RPC_URL, fee, rpc_url,
};
use super::key::{Shape, Table, keys};
use super::raw_value::{InvalidValue, quoted};
use super::section::{Issues, Section, entries};
use super::values::RpcUrl;
use crate::protocol::Wei;

pub(super) const MAX_NETWORKS: usize = 100;

/// The keys of one `[[network]]` entry.
pub(super) static NETWORK_NODE: Table = Table::new(
    "network",
    "The node of a network on which payments are authorizations of a token. The chain shows whether one was used.",
    keys! {
        /// The network, as a CAIP-2 ID such as "eip155:8453". Each network can appear only once.
        "id": NETWORK; required(),
        /// The JSON-RPC URL of a node of that network, http or https.
        "rpc_url": RPC_URL; required(),
        /// How many blocks, including its own, must confirm what the chain shows before it counts.
        "confirmations": Shape::Quantity(CONFIRMATIONS),
        /// Timeout of one request to the node.
        "request_timeout": Shape::Quantity(REQUEST_TIMEOUT),
        /// How long to retry after temporary errors of the node, such as 429 or a lost connection, with growing pauses (or as
        /// Retry-After says).
        "retry_timeout": Shape::Quantity(RETRY_TIMEOUT),
        /// How long a transaction of `tollpass approve-token`, the only ones here, may take to be confirmed.
        "confirm_timeout": Shape::Quantity(CONFIRM_TIMEOUT),
        /// Limits on the fee of each of them, per unit of gas and in total, whatever the node suggests.
        "max_fee_per_gas": Shape::Ether; or(|| json!(MAX_FEE_PER_GAS.to_string())),
        /// Limits on the fee of each of them, per unit of gas and in total, whatever the node suggests.
        "max_fee": Shape::Ether; or(|| json!(MAX_FEE.to_string())),
        /// The limit on the fees of those that are signed within 24 hours, at the most that each can cost.
        "max_fees_per_day": Shape::Ether; or(|| json!(MAX_FEES_PER_DAY.to_string())),
    },
);

/// The node of a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkConfig {
    /// The network, as a CAIP-2 ID.
    pub id: String,
    /// The number in its ID.
    pub chain_id: u64,
    /// The node's JSON-RPC.
    pub rpc_url: RpcUrl,
    /// How many blocks, including its own, must confirm what the chain shows; at least 1.
    pub confirmations: u32,
    /// Timeout of one request to the node.
    pub request_timeout: Duration,
    /// How long to retry after temporary errors of the node.
    pub retry_timeout: Duration,
    /// How long a transaction may take to be confirmed.
    pub confirm_timeout: Duration,
    /// The most to pay for one unit of gas.
    pub max_fee_per_gas: Wei,
    /// The most that one transaction may cost in fees.
    pub max_fee: Wei,
    /// The most that the transactions of one day may cost in fees.
    pub max_fees_per_day: Wei,
}

/// Reads all `[[network]]` entries.
pub(super) fn networks(value: Option<Value>, issues: &Issues) -> Vec<NetworkConfig> {
    let mut networks: Vec<NetworkConfig> = Vec::new();
    for (index, entry) in entries("network", value, MAX_NETWORKS, issues).into_iter().enumerate() {
        let section = Section::new(format!("network[{index}]"), Some(entry), &NETWORK_NODE, issues);
        let Some(read) = read(&section) else { continue };
        if networks.iter().any(|other| other.chain_id == read.chain_id) {
            section.issue("id", "another [[network]] has the same id", "remove one of the two");
        } else {
            networks.push(read);
        }
    }
    networks
}

fn read(section: &Section<'_>) -> Option<NetworkConfig> {
    let id = section.require("id", "\"eip155:8453\"", |value| {
        let id = network(value)?;
        let number = id.strip_prefix("eip155:").and_then(|number| number.parse().ok());
        let number: u64 = number.ok_or_else(|| {
            InvalidValue::new(
                format!("the number of {} is too large", quoted(&id)),
                "write the id of your network, such as \"eip155:8453\"",
            )
        })?;
        Ok((id, number))
    });
    let rpc_url = section.require("rpc_url", "\"https://...\", the address of a node", rpc_url);
    let confirmations = section.count("confirmations", CONFIRMATIONS);
    let request_timeout = section.time("request_timeout", REQUEST_TIMEOUT);
    let retry_timeout = section.time("retry_timeout", RETRY_TIMEOUT);
    let confirm_timeout = section.time("confirm_timeout", CONFIRM_TIMEOUT);
    let max_fee_per_gas = fee(section, "max_fee_per_gas", MAX_FEE_PER_GAS);
    let max_fee = fee(section, "max_fee", MAX_FEE);
    let max_fees_per_day = fee(section, "max_fees_per_day", MAX_FEES_PER_DAY);
    // An invalid value has been reported.
    let (id, chain_id) = id?;
    Some(NetworkConfig {
        id,
        chain_id,
        rpc_url: rpc_url?,
        confirmations,
        request_timeout,
        retry_timeout,
        confirm_timeout,
        max_fee_per_gas,
        max_fee,
        max_fees_per_day,
    })
}
