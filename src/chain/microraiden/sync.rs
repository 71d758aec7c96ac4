//! Reads the events of the payer's channels since a cursor, and the state of each channel.

use std::collections::{BTreeMap, BTreeSet};

use ethers_core::types::{H160, H256, Log, U64, U256};
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};

use crate::chain::Chain;
use crate::chain::error::ChainError;
use crate::chain::microraiden::contracts::ChannelEvent;
use crate::chain::rpc::{At, LogFilter, TxReceipt};
use crate::protocol::{Address, Amount, ChannelId, ChannelOp, OnChain};

/// The result of [`Chain::sync`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Synced {
    /// Every channel that was known or had an event, with its state: `None` if it is settled, or never existed on this
    /// chain (a reorganisation). Channels that the node may be too far behind to know are left out.
    pub channels: Vec<(ChannelId, Option<OnChain>)>,
    /// The settled channels with their final totals. A channel that is settled during the sync may be missing here and
    /// `None` above; the next sync returns it.
    pub settled: BTreeMap<ChannelId, Amount>,
    /// The block to start the next sync from.
    pub cursor: u64,
    /// The newest block.
    pub head: u64,
}

impl Synced {
    /// Whether it contains the state of a channel, which it does not if the node is behind.
    pub fn tells_of(&self, id: &ChannelId) -> bool {
        self.channels.iter().any(|(channel, _)| channel == id)
    }
}

/// The events of the payer's channels.
#[derive(Default)]
pub(in crate::chain) struct Events {
    /// The channels with events.
    pub ids: BTreeSet<ChannelId>,
    /// The settled channels with their final totals.
    pub settled: BTreeMap<ChannelId, Amount>,
}

/// How many blocks the next sync reads again, in case of a reorganisation.
pub(in crate::chain) const REORG_MARGIN: u64 = 12;
/// A halved range is doubled after this many consecutive successes.
const GROW_AFTER: u32 = 4;
/// How many channels are read concurrently.
const AT_ONCE: usize = 8;
/// How often in a row a range is halved because of timeouts, so that sync does not query a slow node forever.
const MAX_TIMEOUTS: u32 = 3;
/// A head more than this many ranges away is read twice.
const MANY_RANGES: u64 = 16;

impl Chain {
    /// Reads the events of the payer's channels from `from_block` to the head, then the state of each channel that had
    /// one or is in `known`.
    pub async fn sync(&self, from_block: u64, known: &[ChannelId]) -> Result<Synced, ChainError> {
        let head = self.likely_head(from_block, self.head().await?).await?;
        let Events { mut ids, settled } = self.events(from_block, head).await?;
        ids.extend(known);
        let cursor = head.saturating_sub(REORG_MARGIN).max(self.0.settings.start_block);
        Ok(Synced { channels: self.channels(ids, head).await?, settled, cursor, head })
    }

    /// `head`, or the lower of two readings if it is far from `from`: a single wrong reading must neither start an
    /// endless scan nor end up in the cursor.
    pub(in crate::chain) async fn likely_head(&self, from: u64, head: u64) -> Result<u64, ChainError> {
        let far = self.0.settings.log_range.saturating_mul(MANY_RANGES);
        if head.saturating_sub(from.max(self.0.settings.start_block)) <= far {
            return Ok(head);
        }
        Ok(self.head().await?.min(head))
    }

    /// The events of the payer's channels in a range of blocks, both ends included.
    pub(in crate::chain) async fn events(&self, from: u64, to: u64) -> Result<Events, ChainError> {
        let from = from.max(self.0.settings.start_block);
        let mut events = Events::default();
        self.each_logs(from, to, |logs| self.take(logs, &mut events)).await?;
        Ok(events)
    }

    /// Passes the logs of the payer's channels to `take`, range by range.
    async fn each_logs(
        &self,
        from: u64,
        to: u64,
        mut take: impl FnMut(&[Log]) -> Result<(), ChainError>,
    ) -> Result<(), ChainError> {
        let mut ranges = Ranges::new(from, to, self.0.settings.log_range);
        // Some nodes reject a filter that starts above the head; such a range is never requested.
        while let Some((from, to)) = ranges.next() {
            match self.0.rpc.logs(&self.filter(from, to)).await {
                Ok(logs) => {
                    take(&logs)?;
                    ranges.taken();
                }
                Err(error) => ranges.refused(error)?,
            }
        }
        Ok(())
    }

    /// A receipt of transaction `hash`, if the contract's event for `op` in the blocks from `from` to `to` proves it.
    pub(in crate::chain) async fn trace(
        &self,
        op: &ChannelOp,
        hash: [u8; 32],
        from: u64,
        to: u64,
    ) -> Result<Option<TxReceipt>, ChainError> {
        if !matches!(op, ChannelOp::Open { .. } | ChannelOp::TopUp { .. }) {
            return Ok(None);
        }
        let mut found = None;
        self.each_logs(from, to, |logs| {
            let is_ours = |log: &Log| log.transaction_hash == Some(H256(hash));
            if self.has_event(op, logs, is_ours) {
                found = logs.iter().find(|log| is_ours(log)).and_then(|log| log.block_number);
            }
            Ok(())
        })
        .await?;
        Ok(found.map(|block_number| TxReceipt {
            block_number,
            gas_used: None,
            effective_gas_price: None,
            status: Some(U64::one()),
            logs: Vec::new(),
        }))
    }

    /// Whether one of the logs that pass `admits` is the event of a successful `op`.
    pub(in crate::chain) fn has_event(
        &self,
        op: &ChannelOp,
        logs: &[Log],
        admits: impl Fn(&Log) -> bool,
    ) -> bool {
        let (contract, payer) = (H160::from(self.0.settings.channel_manager), topic(self.payer()));
        let (event, open_block, amount) = match *op {
            ChannelOp::Open { deposit, .. } => (ChannelEvent::Created.topic(), None, deposit),
            ChannelOp::TopUp { channel, added } => {
                (ChannelEvent::ToppedUp.topic(), Some(channel.open_block), added)
            }
            ChannelOp::CloseTogether { .. } | ChannelOp::CloseAlone { .. } | ChannelOp::Settle { .. } => {
                return false;
            }
        };
        logs.iter().any(|log| {
            let of_channel = channel_of(log).is_some_and(|channel| {
                channel.receiver == op.receiver()
                    && open_block.is_none_or(|open_block| channel.open_block == open_block)
            });
            log.address == contract
                && !log.removed.unwrap_or(false)
                && log.topics.first() == Some(&event)
                && log.topics.get(1) == Some(&payer)
                && of_channel
                && amount_of(log) == Some(amount)
                && admits(log)
        })
    }

    /// The state of each channel. "No such channel" is trusted only at a block no older than `seen`; channels that a
    /// lagging node may not have yet are left out.
    pub(in crate::chain) async fn channels(
        &self,
        ids: BTreeSet<ChannelId>,
        seen: u64,
    ) -> Result<Vec<(ChannelId, Option<OnChain>)>, ChainError> {
        let read = |id: ChannelId| async move {
            if let Some(on_chain) = self.channel_at(id, At::Latest).await? {
                return Ok::<_, ChainError>(Some((id, Some(on_chain))));
            }
            // A channel that cannot be read now is read again by the next sync.
            let again = self.channel_for_certain(id, seen.max(id.open_block.into())).await;
            Ok(again.ok().flatten().map(|on_chain| (id, on_chain)))
        };
        let channels: Vec<Option<_>> = stream::iter(ids).map(read).buffered(AT_ONCE).try_collect().await?;
        Ok(channels.into_iter().flatten().collect())
    }

    fn filter(&self, from: u64, to: u64) -> LogFilter {
        let events = ChannelEvent::ALL.map(ChannelEvent::topic).to_vec();
        LogFilter {
            address: self.0.settings.channel_manager.into(),
            from_block: U64::from(from),
            to_block: U64::from(to),
            topics: (events, topic(self.payer())),
        }
    }

    fn take(&self, logs: &[Log], events: &mut Events) -> Result<(), ChainError> {
        // A node may return more than was requested.
        let (contract, payer) = (H160::from(self.0.settings.channel_manager), topic(self.payer()));
        let odd = |why: &str| ChainError::NotUnderstood {
            node: self.0.rpc.shown().into(),
            method: "eth_getLogs",
            why: why.into(),
        };
        for log in logs
            .iter()
            .filter(|log| log.address == contract && log.topics.get(1) == Some(&payer))
            .filter(|log| !log.removed.unwrap_or(false))
        {
            let without = "an event of the channel contract without receiver or block";
            let id = channel_of(log).ok_or_else(|| odd(without))?;
            events.ids.insert(id);
            if log.topics.first() == Some(&ChannelEvent::Settled.topic()) {
                let total = amount_of(log).ok_or_else(|| odd("a settlement without a total"))?;
                events.settled.insert(id, total);
            }
        }
        Ok(())
    }
}

/// The channel of an event. `ChannelCreated` does not contain the open block, which is the log's own block.
fn channel_of(log: &Log) -> Option<ChannelId> {
    let receiver = Address::from(H160::from(*log.topics.get(2)?));
    let open_block = if log.topics.first() == Some(&ChannelEvent::Created.topic()) {
        u32::try_from(log.block_number?.as_u64()).ok()?
    } else {
        u32::from_be_bytes(log.topics.get(3)?.0[28..].try_into().ok()?)
    };
    Some(ChannelId { receiver, open_block })
}

/// The first data word of an event: the deposit of an opening, the amount added by a top-up, or the total that a
/// channel was settled on, including earlier withdrawals.
fn amount_of(log: &Log) -> Option<Amount> {
    Amount::try_from(U256::from_big_endian(log.data.get(..32)?)).ok()
}

fn topic(address: Address) -> H256 {
    H256::from(H160::from(address))
}

/// Splits a block range into ranges as wide as the node accepts.
struct Ranges {
    from: u64,
    last: u64,
    width: u64,
    widest: u64,
    taken: u32,
    timeouts: u32,
}

impl Ranges {
    fn new(from: u64, last: u64, widest: u64) -> Self {
        let widest = widest.max(1);
        Self { from, last, width: widest, widest, taken: 0, timeouts: 0 }
    }

    /// The next range to request, both ends included; `None` at the end.
    fn next(&self) -> Option<(u64, u64)> {
        let to = self.from.saturating_add(self.width - 1).min(self.last);
        (self.from <= self.last).then_some((self.from, to))
    }

    /// The request for the range succeeded.
    fn taken(&mut self) {
        self.from = self.from.saturating_add(self.width);
        (self.taken, self.timeouts) = (self.taken + 1, 0);
        if self.taken == GROW_AFTER {
            self.width = self.width.saturating_mul(2).min(self.widest);
            self.taken = 0;
        }
    }

    /// The request failed: halves the range, or returns the error if that cannot help.
    fn refused(&mut self, error: ChainError) -> Result<(), ChainError> {
        let may_help = match error {
            // Nodes report "too many blocks" or "too many results" in different ways; an error with another cause
            // returns at a range of one block.
            ChainError::NotUnderstood { ref why, .. } => why != ChainError::NULL,
            ChainError::NodeRefused { .. } => true,
            ChainError::NodeRejected { status, .. } => {
                matches!(status, 400 | 413 | 422 | 500..=599) && status != 503
            }
            ChainError::Timeout { .. } => {
                self.timeouts += 1;
                self.timeouts <= MAX_TIMEOUTS
            }
            _ => false,
        };
        if !may_help || self.width == 1 {
            return Err(error);
        }
        (self.width, self.taken) = (self.width.min(self.last - self.from + 1).div_ceil(2), 0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::chain::microraiden::sync::*;

    fn refusal() -> ChainError {
        ChainError::NodeRefused {
            node: String::new(),
            method: "eth_getLogs",
            code: -32005,
            message: "too many".into(),
        }
    }

    /// The ranges requested from a node that rejects more than `most` blocks.
    fn walk(from: u64, last: u64, widest: u64, most: u64) -> Vec<(u64, u64)> {
        let mut ranges = Ranges::new(from, last, widest);
        let mut walked = Vec::new();
        while let Some((from, to)) = ranges.next() {
            if to - from + 1 > most {
                ranges.refused(refusal()).unwrap();
            } else {
                walked.push((from, to));
                ranges.taken();
            }
        }
        walked
    }

    #[test]
    fn ranges_meet_without_gap_whatever_the_node_refuses() {
        for (from, last, widest, most) in
            [(0, 99, 10, 10), (0, 99, 1000, 7), (5, 5, 10, 1), (3, 1000, 64, 1), (0, 9999, 2000, 999)]
        {
            let walked = walk(from, last, widest, most);
            assert_eq!((walked[0].0, walked[walked.len() - 1].1), (from, last));
            assert!(walked.windows(2).all(|pair| pair[0].1 + 1 == pair[1].0), "{walked:?}");
            assert!(walked.iter().all(|(from, to)| to - from < most.min(widest)), "{walked:?}");
        }
        assert_eq!(walk(10, 9, 5, 5), []);
        assert_eq!(walk(0, 9, 5, 5), [(0, 4), (5, 9)]);
    }

    #[test]
    fn a_halved_range_grows_again() {
        let mut ranges = Ranges::new(0, 1_000_000, 64);
        ranges.refused(refusal()).unwrap();
        assert_eq!(ranges.next(), Some((0, 31)));
        for _ in 0..GROW_AFTER {
            ranges.taken();
        }
        assert_eq!(ranges.next(), Some((128, 191)));
    }

    #[test]
    fn gives_up_where_a_smaller_range_cannot_help() {
        let timeout =
            || ChainError::Timeout { node: String::new(), method: "eth_getLogs", within: Duration::ZERO };
        let down =
            ChainError::NodeUnreachable { key: String::new(), node: String::new(), why: String::new() };
        assert!(Ranges::new(0, 9, 10).refused(down).is_err());
        assert!(Ranges::new(0, 9, 1).refused(refusal()).is_err());
        let mut ranges = Ranges::new(0, 999, 1000);
        for _ in 0..MAX_TIMEOUTS {
            ranges.refused(timeout()).unwrap();
        }
        assert!(ranges.refused(timeout()).is_err());
    }
}
