//! The event filter of `eth_getLogs`.

use ethers_core::types::{BlockNumber, H160, H256, Log};
use serde::Deserialize;

/// A filter as sent by the client.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Filter {
    pub from_block: Option<BlockNumber>,
    pub to_block: Option<BlockNumber>,
    pub block_hash: Option<H256>,
    address: Option<OneOrMany<H160>>,
    #[serde(default)]
    topics: Vec<Option<OneOrMany<Option<H256>>>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum OneOrMany<T> {
    One(T),
    Many(Vec<T>),
}

impl Filter {
    /// Whether the filter matches this event, ignoring its block.
    pub fn admits(&self, log: &Log) -> bool {
        let is_from_here = match &self.address {
            None => true,
            Some(OneOrMany::One(address)) => *address == log.address,
            Some(OneOrMany::Many(addresses)) => addresses.is_empty() || addresses.contains(&log.address),
        };
        is_from_here
            && self.topics.iter().enumerate().all(|(i, wanted)| fits(wanted.as_ref(), log.topics.get(i)))
    }
}

/// Whether a topic matches. If the filter names a position, the event must have a topic there, even with a wildcard.
fn fits(wanted: Option<&OneOrMany<Option<H256>>>, topic: Option<&H256>) -> bool {
    let Some(topic) = topic else { return false };
    match wanted {
        None | Some(OneOrMany::One(None)) => true,
        Some(OneOrMany::One(Some(one))) => one == topic,
        Some(OneOrMany::Many(many)) => {
            many.is_empty() || many.iter().any(|one| one.is_none_or(|one| one == *topic))
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::devnet::logs::*;
    use serde_json::{Value, json};

    fn admits(filter: Value) -> bool {
        let topic = |n| H256::from_low_u64_be(n);
        let log = Log { address: H160::repeat_byte(7), topics: vec![topic(1), topic(2)], ..Log::default() };
        serde_json::from_value::<Filter>(filter).unwrap().admits(&log)
    }

    #[test]
    fn addresses_and_topics_are_single_or_lists_or_anything() {
        let (here, other) = (H160::repeat_byte(7), H160::repeat_byte(8));
        let topic = H256::from_low_u64_be;
        assert!(admits(json!({})));
        assert!(admits(json!({"address": here})));
        assert!(!admits(json!({"address": other})));
        assert!(admits(json!({"address": [other, here]})));
        assert!(admits(json!({"topics": [topic(1)]})));
        assert!(!admits(json!({"topics": [topic(2)]})));
        assert!(admits(json!({"topics": [null, topic(2)]})));
        assert!(admits(json!({"topics": [[topic(5), topic(1)], [topic(2)]]})));
        assert!(!admits(json!({"topics": [[topic(5)]]})));
        assert!(!admits(json!({"topics": [null, null, null]})));
    }
}
