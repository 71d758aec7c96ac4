//! The events that wait for the journal thread, in memory and bounded.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;

use super::event::PaymentEvent;
use super::row::LedgerState;
use crate::mutex::lock;
use crate::payments::clock::unix_millis;
use crate::protocol::{Amount, ChannelId};

/// How long events wait for others, so that many share a transaction. A payment that ends meanwhile gets one row.
pub(in crate::payments) const GATHER: Duration = Duration::from_millis(500);
/// The same while someone watches the rows.
const GATHER_WATCHED: Duration = Duration::from_millis(100);
/// The most rows in one transaction, bounded because a payment may be waiting behind it.
const MAX_BATCH: usize = 256;
/// How many bits of a payment's number count the payments of one process; the others are the time of its start.
const COUNTER_BITS: u32 = 20;

/// The events of payments that have no row yet.
#[derive(Debug)]
pub(in crate::payments) struct LedgerQueue {
    next: AtomicU64,
    /// How many ended payments on channels may wait.
    most: usize,
    waiting: Mutex<WaitingEvents>,
    /// There is something to write.
    filled: Notify,
    /// The queue is half full.
    urgent: Notify,
    /// Shared with those who watch the rows.
    watches: Arc<()>,
}

/// Guard: rows are written sooner while it is held.
#[derive(Debug)]
pub struct LedgerWatch(#[expect(dead_code, reason = "it is counted")] Arc<()>);

#[derive(Debug, Default)]
struct WaitingEvents {
    /// One-shot authorizations that the journal is about to record.
    expected: HashMap<[u8; 32], PaymentEvent>,
    /// Payments on channels whose response is outstanding.
    in_flight: HashMap<u64, OutstandingPayment>,
    /// Payments on channels that have ended.
    ended: Vec<PaymentEvent>,
    /// Changes of one-shot payments, which are never dropped; the number of pending payments bounds them.
    sure: Vec<PaymentEvent>,
    /// Settled channels with their final totals.
    settled: BTreeMap<ChannelId, Amount>,
    /// Whether the journal is to be synced, although there may be no events.
    is_sync_due: bool,
    /// For each channel with a dropped event, the highest total of these.
    lost: BTreeMap<ChannelId, Amount>,
}

#[derive(Debug)]
struct OutstandingPayment {
    sent: PaymentEvent,
    /// True once it has a row.
    is_written: bool,
}

/// Events for one transaction, in order.
#[derive(Debug, Default)]
pub(super) struct EventBatch {
    pub(super) events: Vec<PaymentEvent>,
    pub(super) settled: BTreeMap<ChannelId, Amount>,
    pub(super) lost: BTreeMap<ChannelId, Amount>,
}

impl EventBatch {
    pub(super) fn is_empty(&self) -> bool {
        self.events.is_empty() && self.settled.is_empty() && self.lost.is_empty()
    }
}

impl WaitingEvents {
    fn is_due(&self) -> bool {
        self.is_sync_due
            || !self.ended.is_empty()
            || !self.sure.is_empty()
            || !self.settled.is_empty()
            || !self.lost.is_empty()
            || self.in_flight.values().any(|sent| !sent.is_written)
    }

    fn lose(&mut self, event: &PaymentEvent) {
        if let Some((channel, total)) = event.channel.filter(|_| event.state != LedgerState::Unsent) {
            let lost = self.lost.entry(channel).or_default();
            *lost = total.max(*lost);
        }
    }
}

impl LedgerQueue {
    /// An empty queue for at most `most` ended payments.
    pub(in crate::payments) fn new(most: usize) -> Self {
        Self {
            next: AtomicU64::new(unix_millis() << COUNTER_BITS),
            most,
            waiting: Mutex::default(),
            filled: Notify::new(),
            urgent: Notify::new(),
            watches: Arc::default(),
        }
    }

    /// Has rows written sooner.
    pub(in crate::payments) fn watch(&self) -> LedgerWatch {
        LedgerWatch(Arc::clone(&self.watches))
    }

    /// A number for the next payment, unique in the journal.
    pub(super) fn next_payment(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// A one-shot authorization that the journal is about to record.
    pub(super) fn expect(&self, nonce: [u8; 32], held: PaymentEvent) {
        lock(&self.waiting).expected.insert(nonce, held);
    }

    /// The authorization that the journal records now.
    pub(super) fn expected(&self, nonce: &[u8; 32]) -> Option<PaymentEvent> {
        lock(&self.waiting).expected.get(nonce).cloned()
    }

    /// The purchase of a one-shot authorization has ended.
    pub(super) fn forget(&self, nonce: &[u8; 32]) {
        lock(&self.waiting).expected.remove(nonce);
    }

    /// A one-shot payment changes its state.
    pub(super) fn change(&self, event: PaymentEvent) {
        lock(&self.waiting).sure.push(event);
        self.filled.notify_one();
    }

    /// A payment on a channel is about to be sent.
    pub(super) fn begin(&self, sent: PaymentEvent) {
        let mut waiting = lock(&self.waiting);
        let is_first = waiting.in_flight.is_empty();
        waiting.in_flight.insert(sent.payment, OutstandingPayment { sent, is_written: false });
        drop(waiting);
        if is_first {
            self.filled.notify_one();
        }
    }

    /// A payment on a channel has ended.
    pub(super) fn end(&self, payment: u64, state: LedgerState, receipt: Cow<'static, str>) {
        let mut waiting = lock(&self.waiting);
        let Some(OutstandingPayment { sent, is_written }) = waiting.in_flight.remove(&payment) else {
            return;
        };
        if state == LedgerState::Unsent && !is_written {
            return;
        }
        let event = PaymentEvent { at: unix_millis(), state, receipt, ..sent };
        if waiting.ended.len() >= self.most {
            waiting.lose(&event);
            return;
        }
        waiting.ended.push(event);
        let count = waiting.ended.len();
        drop(waiting);
        if count == 1 {
            self.filled.notify_one();
        } else if count == self.most.div_ceil(2) {
            self.urgent.notify_one();
        }
    }

    /// Channels were settled at these totals.
    pub(in crate::payments) fn settle(&self, settled: impl IntoIterator<Item = (ChannelId, Amount)>) {
        lock(&self.waiting).settled.extend(settled);
        self.filled.notify_one();
    }

    /// Waits until there is something to write, and then for more.
    pub(in crate::payments) async fn gather(&self) {
        // Notifications may be about what was written meanwhile.
        while !lock(&self.waiting).is_due() {
            self.filled.notified().await;
        }
        let is_watched = Arc::strong_count(&self.watches) > 1;
        tokio::select! {
            () = tokio::time::sleep(if is_watched { GATHER_WATCHED } else { GATHER }) => {}
            () = self.urgent.notified() => {}
        }
    }

    /// The journal is to be synced when events would be written next.
    pub(super) fn ask_for_sync(&self) {
        lock(&self.waiting).is_sync_due = true;
        self.filled.notify_one();
    }

    /// Whether the next write to the journal must come after the rows: it may forget a settled channel.
    pub(in crate::payments) fn has_settled(&self) -> bool {
        !lock(&self.waiting).settled.is_empty()
    }

    /// Whether a change of this one-shot payment waits.
    pub(super) fn is_changing(&self, payment: u64) -> bool {
        lock(&self.waiting).sure.iter().any(|event| event.payment == payment)
    }

    /// Takes the changes of a one-shot payment that wait, in order.
    pub(super) fn take_changes(&self, nonce: &[u8; 32]) -> Vec<PaymentEvent> {
        lock(&self.waiting).sure.extract_if(.., |event| event.nonce.as_ref() == Some(nonce)).collect()
    }

    /// Returns what [`LedgerQueue::take_changes`] took and could not be written.
    pub(super) fn return_changes(&self, mut taken: Vec<PaymentEvent>) {
        let mut waiting = lock(&self.waiting);
        taken.append(&mut waiting.sure);
        waiting.sure = taken;
    }

    /// Takes events for one transaction. A settlement comes after all payments that ended before it.
    pub(super) fn take(&self) -> EventBatch {
        let mut waiting = lock(&self.waiting);
        waiting.is_sync_due = false;
        let mut batch = EventBatch { events: std::mem::take(&mut waiting.sure), ..EventBatch::default() };
        let count = waiting.ended.len().min(MAX_BATCH);
        batch.events.extend(waiting.ended.drain(..count));
        if !waiting.ended.is_empty() {
            return batch;
        }
        // Whatever ended before is written by now; a payment that still waits has been in flight for a while.
        let now = unix_millis();
        let since = now.saturating_sub(GATHER.as_millis() as u64);
        for sent in waiting.in_flight.values_mut().filter(|sent| !sent.is_written && sent.sent.at <= since) {
            sent.is_written = true;
            batch.events.push(sent.sent.clone());
        }
        batch.settled = std::mem::take(&mut waiting.settled);
        batch.lost = std::mem::take(&mut waiting.lost);
        batch
    }

    /// Returns what could not be written. Of payments on channels, the totals are kept.
    pub(super) fn put_back(&self, batch: EventBatch) {
        let mut waiting = lock(&self.waiting);
        let mut sure = Vec::new();
        for event in batch.events {
            if event.nonce.is_some() {
                sure.push(event);
            } else {
                waiting.lose(&event);
            }
        }
        sure.append(&mut waiting.sure);
        waiting.sure = sure;
        for (channel, total) in batch.lost {
            let lost = waiting.lost.entry(channel).or_default();
            *lost = total.max(*lost);
        }
        for (channel, total) in batch.settled {
            waiting.settled.entry(channel).or_insert(total);
        }
    }
}
