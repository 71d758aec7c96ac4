//! The engine and who waits for its answers, behind one lock. Whoever asks is answered in their own task where neither
//! the disk nor the chain is needed; the rest is left to the manager's task, which is woken for it.
//!
//! Nothing waits while the lock is held. While records are being written the engine hears of nothing: what comes
//! meanwhile is told to it afterwards, so that nothing is granted on a record that is not there yet.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

use tokio::sync::futures::Notified;
use tokio::sync::{Notify, oneshot};

use super::payer::Wallet;
use crate::mutex::lock;
use crate::protocol::Refusal;
use crate::protocol::channel::ChannelDraft;
use crate::protocol::engine::{Effect, Engine, Input, PurchaseId};

/// How long the engine may be newer than its record while nobody pays.
const PERSIST_AFTER: Duration = Duration::from_secs(1);

/// What a purchase gets: a payment that may be signed, or why there is none.
pub(super) type Granted = Result<ChannelDraft, Refusal>;

/// See the module.
#[derive(Debug)]
pub(super) struct SharedEngine {
    inner: Mutex<Inner>,
    /// Wakes the manager's task.
    wake: Notify,
    /// Who signs, once that is known.
    pub payer: OnceLock<Wallet>,
}

/// What lies behind the lock.
#[derive(Debug)]
pub(super) struct Inner {
    pub engine: Engine,
    /// Who waits for an answer.
    replies: HashMap<PurchaseId, oneshot::Sender<Granted>>,
    /// True while records are being written.
    is_writing: bool,
    /// What the engine is told afterwards.
    deferred: VecDeque<Input>,
    /// When the manager's task wakes up by itself.
    alarm: Option<Instant>,
    /// When a purchase was last heard of.
    touched: Instant,
    /// True when the manager's task waits for channels to come back.
    pub awaits_returns: bool,
}

/// What comes of asking.
pub(super) enum Asked {
    Answered(Granted),
    /// The answer comes later.
    Waits(oneshot::Receiver<Granted>),
}

impl SharedEngine {
    /// The engine, not shared yet.
    pub(super) fn new(engine: Engine) -> Self {
        let inner = Inner {
            engine,
            replies: HashMap::new(),
            is_writing: false,
            deferred: VecDeque::new(),
            alarm: None,
            touched: Instant::now(),
            awaits_returns: false,
        };
        Self { inner: Mutex::new(inner), wake: Notify::new(), payer: OnceLock::new() }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        lock(&self.inner)
    }

    /// Resolves when there is something to do for the manager's task.
    pub(super) fn woken(&self) -> Notified<'_> {
        self.wake.notified()
    }

    /// Tells the engine of a purchase that wants a payment.
    pub(super) fn ask(&self, id: PurchaseId, input: Input) -> Asked {
        // Somebody panicked over the engine: nothing is signed on what it says since.
        if self.inner.is_poisoned() {
            return Asked::Answered(Err(Refusal::ShuttingDown));
        }
        let now = Instant::now();
        let mut inner = self.lock();
        inner.tell(input, now);
        let asked = match inner.answer_all(Some(id)) {
            Some(granted) => Asked::Answered(granted),
            None => {
                let (reply, answer) = oneshot::channel();
                inner.replies.insert(id, reply);
                Asked::Waits(answer)
            }
        };
        self.wake_if_needed(inner, Some(id), now);
        asked
    }

    /// Tells the engine what became of a purchase, which waits for nothing any more.
    pub(super) fn give_back(&self, id: PurchaseId, input: Input) {
        let now = Instant::now();
        let mut inner = self.lock();
        inner.replies.remove(&id);
        inner.tell(input, now);
        inner.answer_all(None);
        self.wake_if_needed(inner, None, now);
    }

    /// Wakes the manager's task for what only it can do.
    fn wake_if_needed(&self, mut inner: MutexGuard<'_, Inner>, id: Option<PurchaseId>, now: Instant) {
        inner.touched = now;
        let waits_until = id.and_then(|id| inner.engine.due(id));
        let idle = inner.engine.is_dirty().then_some(now + PERSIST_AFTER);
        let due = waits_until.into_iter().chain(idle).min();
        let is_earlier = due.is_some_and(|due| inner.alarm.is_none_or(|alarm| due < alarm));
        if is_earlier {
            inner.alarm = due;
        }
        // While it writes it is awake, and looks at everything once more when it has written.
        let has_work = inner.engine.has_effects() && !inner.is_writing;
        let is_needed = is_earlier || has_work || inner.awaits_returns;
        drop(inner);
        if is_needed {
            self.wake.notify_one();
        }
    }
}

impl Inner {
    fn tell(&mut self, input: Input, now: Instant) {
        if self.is_writing { self.deferred.push_back(input) } else { self.engine.handle(input, now) }
    }

    /// Hands out what needs neither the disk nor the chain; what is for `own` is handed back.
    fn answer_all(&mut self, own: Option<PurchaseId>) -> Option<Granted> {
        let mut answer = None;
        while !self.is_writing
            && let Some((id, granted)) = self.engine.poll_answer()
        {
            if Some(id) == own { answer = Some(granted) } else { self.answer(id, granted) }
        }
        answer
    }

    /// Answers a purchase, if it still waits.
    pub(super) fn answer(&mut self, id: PurchaseId, granted: Granted) {
        if let Some(reply) = self.replies.remove(&id) {
            // A client that has left drops its ticket, which withdraws the purchase.
            let _ = reply.send(granted);
        }
    }

    /// Everything the engine wants done. With records among it the engine hears of nothing until [`Inner::written`].
    pub(super) fn take_effects(&mut self) -> Vec<Effect> {
        let effects: Vec<Effect> = std::iter::from_fn(|| self.engine.poll_effect()).collect();
        self.is_writing = effects.iter().any(|effect| matches!(effect, Effect::Persist(_)));
        effects
    }

    /// Nothing is being written any more: the engine is told what came meanwhile.
    pub(super) fn written(&mut self, now: Instant) {
        self.is_writing = false;
        for input in std::mem::take(&mut self.deferred) {
            self.engine.handle(input, now);
        }
    }

    /// When the task is to wake up: for what is due, and to put on record what is only in memory.
    pub(super) fn set_alarm(&mut self) -> Option<Instant> {
        let due = self.engine.poll_timeout();
        let idle = self.engine.is_dirty().then_some(self.touched + PERSIST_AFTER);
        self.alarm = due.into_iter().chain(idle).min();
        self.alarm
    }

    /// Tells the engine of the time. True when nobody has paid for a while, so that prices can be written down too.
    pub(super) fn wake_up(&mut self, now: Instant) -> bool {
        if self.engine.poll_timeout().is_some_and(|due| due <= now) {
            self.engine.handle(Input::Tick, now);
            return false;
        }
        let is_idle = self.touched + PERSIST_AFTER <= now;
        if is_idle {
            // What cannot be written now is not tried again before that time has passed once more.
            self.touched = now;
            self.engine.handle(Input::Idle, now);
        }
        is_idle
    }

    /// True when no purchase waits or has a channel.
    pub(super) fn is_done(&self) -> bool {
        self.replies.is_empty() && self.deferred.is_empty() && !self.engine.has_leases()
    }

    /// Nobody is answered any more.
    pub(super) fn close(&mut self) {
        self.replies.clear();
    }
}
