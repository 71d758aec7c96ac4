//! Reads `[chain]`: the node and the contract. Asks neither.

use std::time::Duration;

use super::section::{Section, Wrong};
use super::values;
use super::values::RpcUrl;
use crate::protocol::{Address, Wei};

/// The keys of `[chain]`.
pub(super) const KEYS: &[&str] = &[
    "rpc_url",
    "channel_manager",
    "confirmations",
    "start_block",
    "poll_every",
    "request_timeout",
    "confirm_timeout",
    "log_range",
    "retry_timeout",
    "chain_id",
    "max_fee_per_gas",
    "max_fee",
];

/// `[chain]`: the node and the contract.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// The node's JSON-RPC.
    pub rpc_url: RpcUrl,
    /// The contract that holds the channels.
    pub channel_manager: Address,
    /// How many blocks, its own included, must hold a transaction before it counts; at least 1.
    pub confirmations: u32,
    /// The first block that can hold a channel of ours.
    pub start_block: u64,
    /// The pause between two looks at the newest block.
    pub poll_every: Duration,
    /// How long the node may take for one answer.
    pub request_timeout: Duration,
    /// How long a transaction may take until it counts.
    pub confirm_timeout: Duration,
    /// How many blocks one query for events spans at first.
    pub log_range: u64,
    /// How long passing faults of the node are waited out.
    pub retry_timeout: Duration,
    /// The only chain id to pay on, if it is pinned.
    pub chain_id: Option<u64>,
    /// The most to pay for one unit of gas.
    pub max_fee_per_gas: Wei,
    /// The most that one transaction may cost in fees.
    pub max_fee: Wei,
}

/// 500 gwei.
const MAX_FEE_PER_GAS: Wei = Wei(500_000_000_000);
/// 0.1 ETH.
const MAX_FEE: Wei = Wei(100_000_000_000_000_000);

/// Reads `[chain]`; `None` when it is wrong, which is then reported.
pub(super) fn read(section: &Section<'_>) -> Option<Chain> {
    let rpc_url =
        section.require("rpc_url", "\"http://127.0.0.1:8545\", the address of your node", |value| {
            // What is wrong is said without the text: it may hold credentials.
            let remedy = "write one such as \"http://127.0.0.1:8545\"";
            values::text(value)?.parse::<RpcUrl>().map_err(|error| Wrong::new(error.to_string(), remedy))
        });
    let channel_manager =
        section.require("channel_manager", "\"0x...\", the address of the contract", |value| {
            let address = values::address(value)?;
            if address == Address::default() {
                return Err(Wrong::new(
                    "the zero address cannot be a contract",
                    "write the address of the contract",
                ));
            }
            Ok(address)
        });
    let count = |key, default, least, most| {
        section.bounded(key, default, least..=most, values::integer, |number| number.to_string())
    };
    let duration = |key, default, most| {
        let range = Duration::from_millis(1)..=Duration::from_secs(most);
        section.bounded(key, Duration::from_secs(default), range, values::duration, values::show_duration)
    };
    let confirmations =
        section.bounded("confirmations", 1, 1..=1000, values::small_integer, |n| n.to_string());
    let start_block = count("start_block", 0, 0, u64::MAX);
    let log_range = count("log_range", 10_000, 1, 10_000_000);
    let poll_every = duration("poll_every", 2, 3600);
    let request_timeout = duration("request_timeout", 10, 600);
    let confirm_timeout = duration("confirm_timeout", 600, 24 * 3600);
    let retry_timeout = duration("retry_timeout", 20, 3600);
    let chain_id = section.read("chain_id", |value| match values::integer(value)? {
        0 => Err(Wrong::new(
            "no chain has the id 0",
            "write the id of your chain, such as 1 for the main network",
        )),
        id => Ok(id),
    });
    let fee = |key, default| {
        section.bounded(key, default, Wei(1)..=Wei(u128::MAX), values::wei, |wei| wei.to_string())
    };
    let max_fee_per_gas = fee("max_fee_per_gas", MAX_FEE_PER_GAS);
    let max_fee = fee("max_fee", MAX_FEE);
    Some(Chain {
        rpc_url: rpc_url?,
        channel_manager: channel_manager?,
        confirmations,
        start_block,
        poll_every,
        request_timeout,
        confirm_timeout,
        log_range,
        retry_timeout,
        chain_id,
        max_fee_per_gas,
        max_fee,
    })
}
