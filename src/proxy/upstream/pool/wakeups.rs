//! Whom a connection wakes that the tasks of its requests drive, one after the other.

use std::cell::Cell;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Wake, Waker};

use futures_util::task::AtomicWaker;
use tokio::sync::Notify;

/// Nothing drives the connection.
const IDLE: u8 = 0;
/// Something has happened on the connection since.
const STIRRED: u8 = 1;
/// It is being polled.
const POLLED: u8 = 2;
/// It was woken in the meantime, perhaps by what polls it.
const POLLED_AND_WOKEN: u8 = 3;
/// A task waits for it.
const AWAITED: u8 = 4;

thread_local! {
    /// The address of the wakeups whose result this thread takes.
    static TAKING: Cell<usize> = const { Cell::new(0) };
}

/// The waker with which a connection is polled. It lives as long as the connection, so that each request need not
/// register its own at all places where the connection may wait. It also saves the task that polls the connection from
/// waking itself.
pub(super) struct Wakeups {
    state: AtomicU8,
    task: AtomicWaker,
    /// Tells the pool that something has happened on an idle connection.
    news: Arc<Notify>,
}

impl Wakeups {
    pub(super) fn new(news: Arc<Notify>) -> Self {
        Self { state: AtomicU8::new(IDLE), task: AtomicWaker::new(), news }
    }

    /// Begins to poll the connection, which takes notice of all that has happened before.
    pub(super) fn begin(&self) {
        self.state.swap(POLLED, Ordering::AcqRel);
    }

    /// Makes the connection wake a task from now on. `false` if it was woken since [`Self::begin`]: poll it again.
    pub(super) fn wait(&self, task: &Waker) -> bool {
        self.task.register(task);
        self.state.compare_exchange(POLLED, AWAITED, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Takes a result from the connection. That wakes it, to no purpose, because whoever takes the result polls it next.
    pub(super) fn take<T>(self: &Arc<Self>, result: impl FnOnce() -> T) -> T {
        let before = TAKING.replace(self.address());
        let taken = result();
        TAKING.set(before);
        taken
    }

    /// Leaves the connection to the pool, and forgets the task that waited for it. `false` if it was woken since
    /// [`Self::begin`]: unless it is polled again, the pool does not hear of what happens on it.
    pub(super) fn rest(&self) -> bool {
        self.task.take();
        let is_idle = self.state.compare_exchange(POLLED, IDLE, Ordering::AcqRel, Ordering::Acquire).is_ok();
        if !is_idle {
            self.state.store(STIRRED, Ordering::Release);
        }
        is_idle
    }

    fn address(self: &Arc<Self>) -> usize {
        Arc::as_ptr(self).addr()
    }

    /// Whether something may have happened since [`Self::rest`].
    pub(super) fn is_stirred(&self) -> bool {
        self.state.load(Ordering::Acquire) != IDLE
    }
}

impl Wake for Wakeups {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if TAKING.get() == self.address() {
            return;
        }
        let update = |state| match state {
            IDLE => Some(STIRRED),
            POLLED => Some(POLLED_AND_WOKEN),
            _ => None,
        };
        match self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, update) {
            Ok(IDLE) => self.news.notify_one(),
            Err(AWAITED) => self.task.wake(),
            _ => {}
        }
    }
}

impl fmt::Debug for Wakeups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wakeups").field("state", &self.state).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use crate::proxy::upstream::pool::wakeups::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    impl Count {
        fn of(self: &Arc<Self>) -> usize {
            self.0.load(Ordering::Relaxed)
        }
    }

    #[tokio::test]
    async fn each_wakeup_reaches_whoever_is_responsible() {
        let (news, task) = (Arc::new(Notify::new()), Arc::new(Count::default()));
        let wakeups = Arc::new(Wakeups::new(Arc::clone(&news)));
        let waker = Waker::from(Arc::clone(&task));

        wakeups.begin();
        wakeups.wake_by_ref();
        assert!(!wakeups.wait(&waker), "woken while it was polled");
        assert_eq!(task.of(), 0);
        wakeups.begin();
        assert!(wakeups.wait(&waker));
        wakeups.wake_by_ref();
        assert_eq!(task.of(), 1);

        wakeups.begin();
        wakeups.take(|| wakeups.wake_by_ref());
        assert!(wakeups.rest());
        assert!(!wakeups.is_stirred());
        wakeups.wake_by_ref();
        assert!(wakeups.is_stirred());
        news.notified().await;
        assert_eq!((task.of(), Arc::strong_count(&task)), (1, 2), "the task is forgotten");

        wakeups.begin();
        wakeups.wake_by_ref();
        assert!(!wakeups.rest());
        assert!(wakeups.is_stirred(), "what has happened meanwhile is not lost");
    }
}
