//! The book and who waits for its answers, behind one lock. Whoever asks is answered in their own task where neither
//! the disk nor the chain is needed; the rest is left to the manager's task, which is woken for it.
//!
//! Nothing waits while the lock is held. While records are being written the book hears of nothing: what comes
//! meanwhile is told to it afterwards, so that nothing is granted on a record that is not there yet.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

use tokio::sync::futures::Notified;
use tokio::sync::{Notify, oneshot};

use super::payer::Payer;
use crate::protocol::engine::{Book, Effect, Input, PurchaseId};
use crate::protocol::{Draft, Refusal};

/// How long the book may be newer than its record while nobody pays.
const WRITE_DOWN_AFTER: Duration = Duration::from_secs(1);

/// What a purchase gets: a payment that may be signed, or why there is none.
pub(super) type Granted = Result<Draft, Refusal>;

/// See the module.
#[derive(Debug)]
pub(super) struct Desk {
    counter: Mutex<Counter>,
    /// Wakes the manager's task.
    bell: Notify,
    /// Who signs, once that is known.
    pub payer: OnceLock<Payer>,
}

/// What lies behind the lock.
#[derive(Debug)]
pub(super) struct Counter {
    pub book: Book,
    /// Who waits for an answer.
    replies: HashMap<PurchaseId, oneshot::Sender<Granted>>,
    /// True while records are being written.
    is_writing: bool,
    /// What the book is told afterwards.
    late: VecDeque<Input>,
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

impl Desk {
    /// A desk with this book.
    pub(super) fn new(book: Book) -> Self {
        let counter = Counter {
            book,
            replies: HashMap::new(),
            is_writing: false,
            late: VecDeque::new(),
            alarm: None,
            touched: Instant::now(),
            awaits_returns: false,
        };
        Self { counter: Mutex::new(counter), bell: Notify::new(), payer: OnceLock::new() }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Counter> {
        super::lock(&self.counter)
    }

    /// Resolves when there is something to do for the manager's task.
    pub(super) fn rung(&self) -> Notified<'_> {
        self.bell.notified()
    }

    /// Tells the book of a purchase that wants a payment.
    pub(super) fn ask(&self, id: PurchaseId, input: Input) -> Asked {
        // Somebody panicked over the book: nothing is signed on what it says since.
        if self.counter.is_poisoned() {
            return Asked::Answered(Err(Refusal::ShuttingDown));
        }
        let now = Instant::now();
        let mut counter = self.lock();
        counter.tell(input, now);
        let asked = match counter.answer_all(Some(id)) {
            Some(granted) => Asked::Answered(granted),
            None => {
                let (reply, answer) = oneshot::channel();
                counter.replies.insert(id, reply);
                Asked::Waits(answer)
            }
        };
        self.ring_if_needed(counter, Some(id), now);
        asked
    }

    /// Tells the book what became of a purchase, which waits for nothing any more.
    pub(super) fn give_back(&self, id: PurchaseId, input: Input) {
        let now = Instant::now();
        let mut counter = self.lock();
        counter.replies.remove(&id);
        counter.tell(input, now);
        counter.answer_all(None);
        self.ring_if_needed(counter, None, now);
    }

    /// Wakes the manager's task for what only it can do.
    fn ring_if_needed(&self, mut counter: MutexGuard<'_, Counter>, id: Option<PurchaseId>, now: Instant) {
        counter.touched = now;
        let waits_until = id.and_then(|id| counter.book.due(id));
        let idle = counter.book.is_dirty().then_some(now + WRITE_DOWN_AFTER);
        let due = waits_until.into_iter().chain(idle).min();
        let is_earlier = due.is_some_and(|due| counter.alarm.is_none_or(|alarm| due < alarm));
        if is_earlier {
            counter.alarm = due;
        }
        // While it writes it is awake, and looks at everything once more when it has written.
        let has_work = counter.book.has_effects() && !counter.is_writing;
        let is_needed = is_earlier || has_work || counter.awaits_returns;
        drop(counter);
        if is_needed {
            self.bell.notify_one();
        }
    }
}

impl Counter {
    fn tell(&mut self, input: Input, now: Instant) {
        if self.is_writing { self.late.push_back(input) } else { self.book.handle(input, now) }
    }

    /// Hands out what needs neither the disk nor the chain; what is for `own` is handed back.
    fn answer_all(&mut self, own: Option<PurchaseId>) -> Option<Granted> {
        let mut answer = None;
        while !self.is_writing
            && let Some((id, granted)) = self.book.poll_answer()
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

    /// Everything the book wants done. With records among it the book hears of nothing until [`Counter::written`].
    pub(super) fn take_effects(&mut self) -> Vec<Effect> {
        let effects: Vec<Effect> = std::iter::from_fn(|| self.book.poll_effect()).collect();
        self.is_writing = effects.iter().any(|effect| matches!(effect, Effect::Persist(_)));
        effects
    }

    /// Nothing is being written any more: the book is told what came meanwhile.
    pub(super) fn written(&mut self, now: Instant) {
        self.is_writing = false;
        for input in std::mem::take(&mut self.late) {
            self.book.handle(input, now);
        }
    }

    /// When the task is to wake up: for what is due, and to put on record what is only in memory.
    pub(super) fn set_alarm(&mut self) -> Option<Instant> {
        let due = self.book.poll_timeout();
        let idle = self.book.is_dirty().then_some(self.touched + WRITE_DOWN_AFTER);
        self.alarm = due.into_iter().chain(idle).min();
        self.alarm
    }

    /// Tells the book of the time. True when nobody has paid for a while, so that prices can be written down too.
    pub(super) fn wake(&mut self, now: Instant) -> bool {
        if self.book.poll_timeout().is_some_and(|due| due <= now) {
            self.book.handle(Input::Tick, now);
            return false;
        }
        let is_idle = self.touched + WRITE_DOWN_AFTER <= now;
        if is_idle {
            // What cannot be written now is not tried again before that time has passed once more.
            self.touched = now;
            self.book.handle(Input::Idle, now);
        }
        is_idle
    }

    /// True when no purchase waits or has a channel.
    pub(super) fn is_done(&self) -> bool {
        self.replies.is_empty() && self.late.is_empty() && !self.book.has_leases()
    }

    /// Nobody is answered any more.
    pub(super) fn close(&mut self) {
        self.replies.clear();
    }
}
