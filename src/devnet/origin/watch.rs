//! Watches the chain for the seller: polls the node for the contract's events and updates the ledger.
//!
//! Events without enough confirmations are read again with each poll, so that events removed by a reorganisation leave
//! no trace. The end of a channel counts as soon as it is mined, since a seller that waited would lose money.

use std::time::Duration;

use jsonrpsee::core::ClientError;
use jsonrpsee::core::client::ClientT;
use jsonrpsee::http_client::{HttpClient, HttpClientBuilder};
use jsonrpsee::rpc_params;
use revm::primitives::{U256, hex, keccak256};
use serde::Deserialize;

use super::error::SellerStartError;
use super::ledger::{ChannelKey, Ledger, SellerPhase};
use super::shared::SellerShared;
use crate::protocol::{Address, Amount};

/// The timeout of one request to the node.
const NODE_PATIENCE: Duration = Duration::from_secs(10);

/// The seller's view of the chain.
pub(super) struct EventWatcher {
    node: HttpClient,
    contract: Address,
    receiver: Address,
    confirmations: u64,
    /// The first block whose events are not processed yet.
    next: u64,
}

/// A log as returned by `eth_getLogs`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct EventLog {
    topics: Vec<String>,
    data: String,
    block_number: String,
}

struct Event {
    block: u64,
    key: ChannelKey,
    what: What,
}

enum What {
    Created(Amount),
    ToppedUp(Amount),
    CloseRequested,
    Settled,
    Withdrew(Amount),
}

impl EventWatcher {
    pub(super) fn new(
        rpc_url: &str,
        contract: Address,
        receiver: Address,
        confirmations: u64,
    ) -> Result<Self, SellerStartError> {
        let node = HttpClientBuilder::default()
            .request_timeout(NODE_PATIENCE)
            .build(rpc_url)
            .map_err(|error| SellerStartError::Node { url: rpc_url.to_owned(), reason: error.to_string() })?;
        Ok(Self { node, contract, receiver, confirmations, next: 0 })
    }

    /// Polls the chain every `poll_every` until the task is dropped.
    pub(super) async fn run(mut self, shared: &SellerShared, poll_every: Duration) {
        let mut polls = tokio::time::interval(poll_every);
        polls.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            polls.tick().await;
            if !shared.faults().notices {
                continue;
            }
            match self.fetch().await {
                // A poll that was in progress when watching was stopped does not count.
                Ok((head, events)) if shared.faults().notices => {
                    shared.with_ledger(|ledger| self.count(head, events, ledger));
                    shared.counts.send_modify(|counts| counts.polls += 1);
                }
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, "the seller cannot read channel events from its node"),
            }
        }
    }

    async fn fetch(&self) -> Result<(u64, Vec<Event>), ClientError> {
        let head: String = self.node.request("eth_blockNumber", rpc_params![]).await?;
        let head =
            number(&head).ok_or_else(|| ClientError::Custom(format!("{head:.40} is not a block number")))?;
        // Some nodes reject a filter that starts above the head.
        if self.next > head {
            return Ok((head, Vec::new()));
        }
        let filter = serde_json::json!({
            "address": self.contract,
            "fromBlock": format!("{:#x}", self.next),
            "toBlock": format!("{head:#x}"),
            "topics": [null, null, format!("0x{}{}", "00".repeat(12), hex::encode(self.receiver.0))],
        });
        let logs: Vec<EventLog> = self.node.request("eth_getLogs", rpc_params![filter]).await?;
        Ok((head, logs.iter().filter_map(event).collect()))
    }

    fn count(&mut self, head: u64, events: Vec<Event>, ledger: &mut Ledger) {
        let end = (head + 1).saturating_sub(self.confirmations).max(self.next);
        ledger.unconfirmed.clear();
        ledger.topping_up.clear();
        for Event { block, key, what } in events {
            let confirmed = block < end;
            match what {
                What::Created(deposit) if confirmed => ledger.opened(key, deposit),
                What::ToppedUp(added) if confirmed => ledger.topped_up(key, added),
                What::Withdrew(amount) if confirmed => ledger.withdrew(key, amount),
                What::Created(deposit) => {
                    ledger.unconfirmed.insert(key, deposit);
                }
                What::ToppedUp(_) => {
                    ledger.topping_up.insert(key);
                }
                What::Withdrew(_) => {}
                What::CloseRequested => ledger.ends(key, SellerPhase::Closing),
                What::Settled => ledger.ends(key, SellerPhase::Settled),
            }
        }
        self.next = end;
    }
}

fn event(log: &EventLog) -> Option<Event> {
    let block = number(&log.block_number)?;
    let [topic, sender, _receiver, rest @ ..] = log.topics.as_slice() else { return None };
    let topic: [u8; 32] = hex::decode_to_array(topic).ok()?;
    let sender: [u8; 32] = hex::decode_to_array(sender).ok()?;
    let mut payer = Address::default();
    payer.0.copy_from_slice(&sender[12..]);
    let data = hex::decode(&log.data).ok()?;
    let amount = || U256::try_from_be_slice(data.get(..32)?)?.to_string().parse::<Amount>().ok();
    let is = |declaration: &str| keccak256(declaration).0 == topic;
    if is("ChannelCreated(address,address,uint192)") {
        let key = (payer, u32::try_from(block).ok()?);
        return Some(Event { block, key, what: What::Created(amount()?) });
    }
    let key = (payer, u32::try_from(number(rest.first()?)?).ok()?);
    let what = if is("ChannelToppedUp(address,address,uint32,uint192)") {
        What::ToppedUp(amount()?)
    } else if is("ChannelCloseRequested(address,address,uint32,uint192)") {
        What::CloseRequested
    } else if is("ChannelSettled(address,address,uint32,uint192,uint192)") {
        What::Settled
    } else if is("ChannelWithdraw(address,address,uint32,uint192)") {
        What::Withdrew(amount()?)
    } else {
        return None;
    };
    Some(Event { block, key, what })
}

/// Parses a quantity or a 32-byte word in the node's format.
fn number(text: &str) -> Option<u64> {
    let digits = text.strip_prefix("0x")?.trim_start_matches('0');
    if digits.is_empty() { Some(0) } else { u64::from_str_radix(digits, 16).ok() }
}
