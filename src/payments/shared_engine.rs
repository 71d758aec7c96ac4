//! The engine behind one lock, with the callers that await its answers. [`SharedEngine::submit`] is its only entry
//! point: clients on any runtime, chain jobs and the journal thread all use it.
//!
//! No code waits while it holds the lock. Answers to purchases are delivered under it, in the task that submits the
//! input, and records go to the journal thread, as long as its queue has room; all other effects are left to the actor,
//! which is woken for them.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, Weak};
use std::time::{Duration, Instant};

use tokio::sync::futures::Notified;
use tokio::sync::{Notify, SetOnce, mpsc, oneshot};

use super::clock::{BudgetClock, authorization_time};
use super::conditions::Conditions;
use super::freed::FreedAuthorizations;
use super::kept_signatures::KeptSignatures;
use super::payer::Wallet;
use crate::mutex::lock;
use crate::protocol::budget::{BudgetNotice, BudgetView, OverBudget};
use crate::protocol::engine::{
    Effect, Engine, Input, OpRefused, OpenHold, PurchaseId, PurchaseReply, Record, Seq, UnclearAuthorization,
    UseDoubt,
};
use crate::protocol::policy::SpendLimit;
use crate::protocol::{ChannelOp, Money, Refusal};

/// How long the engine's state may be unrecorded while no payments are made.
const PERSIST_AFTER: Duration = Duration::from_secs(1);

/// How many notices about budgets may wait for their webhooks.
const MAX_NOTICES: usize = 64;
/// How often the engine is told the time that budgets go by, which it counts in minutes.
const TIME_EVERY: Duration = Duration::from_secs(1);

/// The engine behind a mutex, with the callers that await an answer.
#[derive(Debug)]
pub(super) struct SharedEngine {
    inner: Mutex<LockedEngine>,
    /// Wakes the actor.
    wake: Notify,
    /// The time that budgets go by.
    clock: BudgetClock,
    /// Notices about budgets with a webhook, until someone takes them.
    notices: (mpsc::Sender<BudgetNotice>, Mutex<Option<mpsc::Receiver<BudgetNotice>>>),
    /// Takes records, once the journal thread runs.
    records: OnceLock<Box<dyn RecordSink>>,
    /// This engine, for those who tell it how a write has ended.
    own: Weak<Self>,
    /// The wallet, once known.
    pub payer: SetOnce<Wallet>,
    /// What an external signer signed of authorizations.
    pub signatures: KeptSignatures,
    /// Authorizations that a chain has shown to be unused.
    pub freed: FreedAuthorizations,
    /// What is known of the node and the disk.
    pub conditions: Arc<Conditions>,
}

/// The state behind the lock.
#[derive(Debug)]
pub(super) struct LockedEngine {
    pub engine: Engine,
    /// Callers waiting for an answer.
    replies: HashMap<PurchaseId, oneshot::Sender<PurchaseReply>>,
    /// How many responses to paid requests are being written to the end.
    deliveries: usize,
    /// When the actor wakes up by itself.
    alarm: Option<Instant>,
    /// The time of the last input from a purchase.
    touched: Instant,
    /// When the engine was last told the time.
    timed: Option<Instant>,
    /// True while the actor waits for leases to return, or for writes to end.
    pub awaits_returns: bool,
    /// True while the actor executes effects that it has taken: those that follow come after them.
    is_acting: bool,
}

/// Records, and what is to be called with the result of writing them: `Err` with the reason if that failed.
pub(super) type NextRecords = (Vec<Record>, Box<dyn FnOnce(Result<(), String>) + Send>);

/// Takes the records of the engine without waiting.
pub(super) trait RecordSink: fmt::Debug + Send + Sync {
    /// Takes what `next` returns, until that is nothing or there is no room.
    fn take(&self, next: &mut dyn FnMut() -> Option<NextRecords>);
}

/// The immediate result of asking the engine.
pub(super) enum Asked {
    Replied(PurchaseReply),
    /// The reply comes later.
    Waits(oneshot::Receiver<PurchaseReply>),
}

impl SharedEngine {
    /// The engine, shared with nobody yet.
    pub(super) fn new(engine: Engine, clock: BudgetClock) -> Arc<Self> {
        let inner = LockedEngine {
            engine,
            replies: HashMap::new(),
            deliveries: 0,
            alarm: None,
            touched: Instant::now(),
            timed: None,
            awaits_returns: false,
            is_acting: false,
        };
        let (sender, receiver) = mpsc::channel(MAX_NOTICES);
        let notices = (sender, Mutex::new(Some(receiver)));
        Arc::new_cyclic(|own| Self {
            inner: Mutex::new(inner),
            wake: Notify::new(),
            clock,
            notices,
            records: OnceLock::new(),
            own: Weak::clone(own),
            payer: SetOnce::new(),
            signatures: KeptSignatures::default(),
            freed: FreedAuthorizations::default(),
            conditions: Arc::default(),
        })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, LockedEngine> {
        lock(&self.inner)
    }

    /// Hands records to this one from now on.
    pub(super) fn set_sink(&self, sink: Box<dyn RecordSink>) {
        // There is one journal.
        let _ = self.records.set(sink);
    }

    /// Tells the engine how the write `seq` has ended.
    pub(super) fn write_ended(&self, seq: Seq, written: Result<(), String>) {
        self.conditions.is_unwritable.store(written.is_err(), Ordering::Relaxed);
        self.submit(match written {
            Ok(()) => Input::Durable(seq),
            Err(reason) => Input::NotRecorded(seq, reason),
        });
    }

    /// Hands records that come next to the journal thread, unless its queue is full: then the actor waits for room.
    fn persist(&self, inner: &mut LockedEngine) {
        let Some(sink) = self.records.get().filter(|_| !inner.is_acting && inner.engine.has_effects()) else {
            return;
        };
        sink.take(&mut || {
            let engine = self.own.upgrade()?;
            let (seq, records) = inner.engine.poll_persist()?;
            Some((records, Box::new(move |written| engine.write_ended(seq, written))))
        });
    }

    /// Resolves when there is work for the actor.
    pub(super) fn woken(&self) -> Notified<'_> {
        self.wake.notified()
    }

    /// The notices about budgets with a webhook; `None` if they were taken before.
    pub(super) fn take_notices(&self) -> Option<mpsc::Receiver<BudgetNotice>> {
        lock(&self.notices.1).take()
    }

    /// The authorizations that a chain is to be asked about now.
    pub(super) fn doubts(&self, chain: u64) -> Vec<UseDoubt> {
        let mut inner = self.lock();
        inner.set_time(&self.clock, Instant::now());
        inner.engine.doubts(chain)
    }

    /// The authorizations that a chain is no longer asked about, although it has not answered; each once.
    pub(super) fn take_given_up(&self, chain: u64) -> Vec<UnclearAuthorization> {
        self.lock().engine.take_given_up(chain)
    }

    /// The authorizations of served payments that a chain is to be asked about now: the first `most` that are due.
    pub(super) fn served(
        &self,
        chain: u64,
        most: usize,
        is_due: impl Fn(&[u8; 32], bool) -> bool,
    ) -> Vec<UseDoubt> {
        self.lock().engine.served(chain, most, is_due)
    }

    /// Everything that is held now, by reason.
    pub(super) fn holds(&self) -> Vec<OpenHold> {
        let (mut inner, now) = (self.lock(), Instant::now());
        inner.set_time(&self.clock, now);
        inner.engine.holds(now)
    }

    /// What each budget has spent by now.
    pub(super) fn budgets(&self) -> Vec<BudgetView> {
        let mut inner = self.lock();
        inner.engine.set_time(self.clock.minute());
        inner.engine.budgets()
    }

    /// Ends or allows signing, at once.
    pub(super) fn freeze(&self, is_frozen: bool) {
        self.submit(Input::Freeze(is_frozen));
        self.freeze_wallet();
    }

    /// Counts what a dry run would pay now.
    ///
    /// # Errors
    /// A budget that does not allow it.
    pub(super) fn rehearse(&self, limit: SpendLimit, price: &Money) -> Result<(), OverBudget> {
        let mut inner = self.lock();
        inner.set_time(&self.clock, Instant::now());
        inner.engine.rehearse(limit, price)
    }

    /// Has the key sign nothing if the engine is frozen.
    pub(super) fn freeze_wallet(&self) {
        let is_frozen = self.lock().engine.is_frozen();
        if let Some(wallet) = self.payer.get() {
            wallet.freeze(is_frozen);
        }
    }

    /// Submits an input to the engine, and delivers its answers.
    pub(super) fn submit(&self, input: Input) {
        let now = Instant::now();
        self.submit_at(self.lock(), input, now);
    }

    fn submit_at(&self, mut inner: MutexGuard<'_, LockedEngine>, input: Input, now: Instant) {
        // Poisoned: the engine's state is suspect, so refuse to sign.
        if self.inner.is_poisoned() {
            return inner.close();
        }
        inner.set_time(&self.clock, now);
        inner.engine.handle(input, now);
        inner.reply_to_all(None);
        self.wake_if_needed(inner, None, now);
    }

    /// Submits the input of a purchase that wants a payment.
    pub(super) fn ask(&self, id: PurchaseId, input: Input) -> Asked {
        // Poisoned: the engine's state is suspect, so refuse to sign.
        if self.inner.is_poisoned() {
            return Asked::Replied(PurchaseReply::Refused(Refusal::ShuttingDown));
        }
        let now = Instant::now();
        let mut inner = self.lock();
        inner.touched = now;
        inner.set_time(&self.clock, now);
        inner.engine.handle(input, now);
        let asked = match inner.reply_to_all(Some(id)) {
            Some(reply) => Asked::Replied(reply),
            None => {
                let (reply, answer) = oneshot::channel();
                inner.replies.insert(id, reply);
                Asked::Waits(answer)
            }
        };
        self.wake_if_needed(inner, Some(id), now);
        asked
    }

    /// Submits the outcome of a purchase that no longer waits.
    pub(super) fn give_back(&self, id: PurchaseId, input: Input) {
        let now = Instant::now();
        let mut inner = self.lock();
        inner.touched = now;
        inner.replies.remove(&id);
        self.submit_at(inner, input, now);
    }

    /// A response to a paid request is on its way to its client, for which the service waits before it stops.
    pub(super) fn begin_delivery(&self) {
        self.lock().deliveries += 1;
    }

    /// The delivery of a response to a paid request has ended, as `input` says. `was_begun` is whether
    /// [`Self::begin_delivery`] was called.
    pub(super) fn end_delivery(&self, input: Input, was_begun: bool) {
        let now = Instant::now();
        let mut inner = self.lock();
        inner.deliveries = inner.deliveries.saturating_sub(usize::from(was_begun));
        self.submit_at(inner, input, now);
    }

    /// Submits a user operation, if it may start now. Check and start are atomic: in between, a client could make the
    /// engine start an operation for the same receiver.
    ///
    /// # Errors
    /// Why it may not start.
    pub(super) fn start_op(&self, op: ChannelOp) -> Result<(), OpRefused> {
        let now = Instant::now();
        let mut inner = self.lock();
        inner.engine.may_start(&op)?;
        inner.engine.handle(Input::ChannelOp(op), now);
        self.wake_if_needed(inner, None, now);
        Ok(())
    }

    /// Wakes the actor for effects that only it can execute.
    fn wake_if_needed(&self, mut inner: MutexGuard<'_, LockedEngine>, id: Option<PurchaseId>, now: Instant) {
        self.persist(&mut inner);
        let waits_until = id.and_then(|id| inner.engine.due(id));
        let idle = inner.engine.is_dirty().then_some(now + PERSIST_AFTER);
        let due = waits_until.into_iter().chain(idle).min();
        let is_earlier = due.is_some_and(|due| inner.alarm.is_none_or(|alarm| due < alarm));
        if is_earlier {
            inner.alarm = due;
        }
        let is_needed = is_earlier || inner.engine.has_effects() || inner.awaits_returns;
        let notices = inner.engine.take_budget_notices();
        drop(inner);
        for notice in notices {
            let BudgetNotice { name, host, key, limit, percent, webhook } = &notice;
            let host = host.as_deref();
            tracing::warn!(budget = %name, host, limit = key, "{percent} % of {limit} is spent: see `tollpass budget`");
            if webhook.is_some() && self.notices.0.try_send(notice).is_err() {
                tracing::warn!("too many notices about budgets wait for their webhooks; dropping one");
            }
        }
        if is_needed {
            self.wake.notify_one();
        }
    }
}

impl LockedEngine {
    /// Tells the engine the time, unless that was just done.
    fn set_time(&mut self, clock: &BudgetClock, now: Instant) {
        if self.timed.is_none_or(|timed| now.saturating_duration_since(timed) >= TIME_EVERY) {
            self.timed = Some(now);
            self.engine.set_time(clock.minute());
            self.engine.set_authorization_time(authorization_time());
        }
    }

    /// Delivers replies to purchases; returns the one for `own`.
    fn reply_to_all(&mut self, own: Option<PurchaseId>) -> Option<PurchaseReply> {
        let mut to_own = None;
        while let Some((id, reply)) = self.engine.poll_reply() {
            if Some(id) == own { to_own = Some(reply) } else { self.reply(id, reply) }
        }
        to_own
    }

    /// Replies to a purchase, if it still waits.
    pub(super) fn reply(&mut self, id: PurchaseId, reply: PurchaseReply) {
        if let Some(waiting) = self.replies.remove(&id) {
            // A client that has disconnected drops its guard, which withdraws the purchase.
            let _ = waiting.send(reply);
        }
    }

    /// All pending effects of the engine. The caller executes them, and calls this again until there are none.
    pub(super) fn take_effects(&mut self) -> Vec<Effect> {
        let effects: Vec<Effect> = std::iter::from_fn(|| self.engine.poll_effect()).collect();
        self.is_acting = !effects.is_empty();
        effects
    }

    /// Sets the actor's next wake-up: for timeouts, and to record what is only in memory.
    pub(super) fn set_alarm(&mut self) -> Option<Instant> {
        let due = self.engine.poll_timeout();
        let idle = self.engine.is_dirty().then_some(self.touched + PERSIST_AFTER);
        self.alarm = due.into_iter().chain(idle).min();
        self.alarm
    }

    /// Advances the engine's clock. True if no payments were made for a while, so that prices can be recorded, too.
    pub(super) fn wake_up(&mut self, now: Instant) -> bool {
        if self.engine.poll_timeout().is_some_and(|due| due <= now) {
            self.engine.handle(Input::Tick, now);
            return false;
        }
        let is_idle = self.touched + PERSIST_AFTER <= now;
        if is_idle {
            // A write that fails now is retried only after the same period.
            self.touched = now;
            self.engine.handle(Input::Idle, now);
        }
        is_idle
    }

    /// True if no purchase waits or holds a lease, and no response is being written to the end.
    pub(super) fn is_done(&self) -> bool {
        self.replies.is_empty() && self.deliveries == 0 && !self.engine.has_leases()
    }

    /// Drops all waiting callers.
    pub(super) fn close(&mut self) {
        self.replies.clear();
    }
}
