//! Reads `[chain]`: the node and the contract. Connects to neither.

use std::time::Duration;

use ::config::Value;
use serde_json::json;

use super::key::{ADDRESS, Shape, Table, keys};
use super::raw_value::InvalidValue;
use super::section::Section;
use super::values;
use super::values::RpcUrl;
use crate::limits::{DAY, HOUR, MILLISECOND, MINUTE, Quantity, SECOND, count, time};
use crate::protocol::{Address, Wei};

pub(super) const CONFIRMATIONS: Quantity = count(1, 1..=1000);
const START_BLOCK: Quantity = count(0, 0..=u64::MAX);
const POLL_EVERY: Quantity = time(2 * SECOND, MILLISECOND..=HOUR);
pub(super) const REQUEST_TIMEOUT: Quantity = time(10 * SECOND, MILLISECOND..=10 * MINUTE);
pub(super) const CONFIRM_TIMEOUT: Quantity = time(10 * MINUTE, MILLISECOND..=DAY);
const LOG_RANGE: Quantity = count(10_000, 1..=10_000_000);
pub(super) const RETRY_TIMEOUT: Quantity = time(20 * SECOND, MILLISECOND..=HOUR);
/// 500 gwei.
pub(super) const MAX_FEE_PER_GAS: Wei = Wei(500_000_000_000);
/// 0.1 ETH.
pub(super) const MAX_FEE: Wei = Wei(100_000_000_000_000_000);
/// 1 ETH.
pub(super) const MAX_FEES_PER_DAY: Wei = Wei(1_000_000_000_000_000_000);

/// The URL of a node.
pub(super) const RPC_URL: Shape = Shape::Text("^https?://.");

/// The keys of `[chain]`.
pub(super) static CHAIN: Table = Table::new(
    "chain",
    "The blockchain that holds the channels.",
    keys! {
        /// The JSON-RPC URL of an Ethereum node, http or https.
        "rpc_url": RPC_URL; required(),
        /// The contract that holds the channels.
        "channel_manager": ADDRESS; required(),
        /// The first block that can contain a channel of yours.
        "start_block": Shape::Quantity(START_BLOCK),
        /// How many blocks, including its own, must confirm a transaction before it counts.
        "confirmations": Shape::Quantity(CONFIRMATIONS),
        /// The interval between polls for new blocks.
        "poll_every": Shape::Quantity(POLL_EVERY),
        /// Timeout of one request to the node.
        "request_timeout": Shape::Quantity(REQUEST_TIMEOUT),
        /// How long a transaction may take to be confirmed.
        "confirm_timeout": Shape::Quantity(CONFIRM_TIMEOUT),
        /// How many blocks one event query spans at first; halved until the node accepts it.
        "log_range": Shape::Quantity(LOG_RANGE),
        /// How long to retry after temporary errors of the node, such as "header not found", 429 or a lost connection,
        /// with growing pauses (or as Retry-After says), within confirm_timeout.
        "retry_timeout": Shape::Quantity(RETRY_TIMEOUT),
        /// The only chain to sign for.
        "chain_id": Shape::Integer(1, u64::MAX),
        /// Limits on the fee of every transaction (opening, top-up, approval, close, settlement), per unit of gas and
        /// in total, whatever the node suggests.
        "max_fee_per_gas": Shape::Ether; or(|| json!(MAX_FEE_PER_GAS.to_string())),
        /// Limits on the fee of every transaction (opening, top-up, approval, close, settlement), per unit of gas and
        /// in total, whatever the node suggests.
        "max_fee": Shape::Ether; or(|| json!(MAX_FEE.to_string())),
        /// The limit on the fees of all transactions that are signed within 24 hours, at the most that each can cost.
        "max_fees_per_day": Shape::Ether; or(|| json!(MAX_FEES_PER_DAY.to_string())),
    },
);

/// `[chain]`: the node and the contract.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainConfig {
    /// The node's JSON-RPC.
    pub rpc_url: RpcUrl,
    /// The contract that holds the channels.
    pub channel_manager: Address,
    /// How many blocks, including its own, must confirm a transaction before it counts; at least 1.
    pub confirmations: u32,
    /// The first block that can contain a channel of ours.
    pub start_block: u64,
    /// The interval between polls for new blocks.
    pub poll_every: Duration,
    /// Timeout of one request to the node.
    pub request_timeout: Duration,
    /// How long a transaction may take to be confirmed.
    pub confirm_timeout: Duration,
    /// How many blocks one event query spans at first.
    pub log_range: u64,
    /// How long to retry after temporary errors of the node.
    pub retry_timeout: Duration,
    /// The only chain to sign for, if it is pinned.
    pub chain_id: Option<u64>,
    /// The most to pay for one unit of gas.
    pub max_fee_per_gas: Wei,
    /// The most that one transaction may cost in fees.
    pub max_fee: Wei,
    /// The most that the transactions of one day may cost in fees.
    pub max_fees_per_day: Wei,
}

/// Reads the URL of a node.
pub(super) fn rpc_url(value: &Value) -> Result<RpcUrl, InvalidValue> {
    // The error does not quote the URL: it may contain credentials.
    let remedy = "write one such as \"http://127.0.0.1:8545\"";
    values::text(value)?.parse::<RpcUrl>().map_err(|error| InvalidValue::new(error.to_string(), remedy))
}

/// Reads `[chain]`; `None` if it is invalid, which is then reported.
pub(super) fn read(section: &Section<'_>) -> Option<ChainConfig> {
    let rpc_url = section.require("rpc_url", "\"http://127.0.0.1:8545\", the address of your node", rpc_url);
    let channel_manager =
        section.require("channel_manager", "\"0x...\", the address of the contract", |value| {
            let address = values::address(value)?;
            if address == Address::default() {
                return Err(InvalidValue::new(
                    "the zero address cannot be a contract",
                    "write the address of the contract",
                ));
            }
            Ok(address)
        });
    // Everything is read before the first `?`, so that every issue is reported.
    let confirmations = section.count("confirmations", CONFIRMATIONS);
    let start_block = section.quantity("start_block", START_BLOCK);
    let poll_every = section.time("poll_every", POLL_EVERY);
    let request_timeout = section.time("request_timeout", REQUEST_TIMEOUT);
    let confirm_timeout = section.time("confirm_timeout", CONFIRM_TIMEOUT);
    let log_range = section.quantity("log_range", LOG_RANGE);
    let retry_timeout = section.time("retry_timeout", RETRY_TIMEOUT);
    let chain_id = section.read("chain_id", |value| match values::integer(value)? {
        0 => Err(InvalidValue::new(
            "no chain has the id 0",
            "write the id of your chain, such as 1 for Ethereum mainnet",
        )),
        id => Ok(id),
    });
    let max_fee_per_gas = fee(section, "max_fee_per_gas", MAX_FEE_PER_GAS);
    let max_fee = fee(section, "max_fee", MAX_FEE);
    let max_fees_per_day = fee(section, "max_fees_per_day", MAX_FEES_PER_DAY);
    Some(ChainConfig {
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
        max_fees_per_day,
    })
}

/// A limit on fees, in wei.
pub(super) fn fee(section: &Section<'_>, key: &'static str, default: Wei) -> Wei {
    section.bounded(key, default, Wei(1)..=Wei(u128::MAX), values::wei, |wei| wei.to_string())
}
