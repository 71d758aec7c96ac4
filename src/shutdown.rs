//! Graceful and immediate shutdown: signals, tasks and the drain deadline. This module does not know what the tasks do.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

/// Graceful and immediate stop, and the tasks they apply to.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    /// Whether `finish` is cancelled, readable without a lock; set first.
    has_begun: Arc<AtomicBool>,
    /// The same of the shutdown that this one is part of.
    parent_has_begun: Option<Arc<AtomicBool>>,
    finish: CancellationToken,
    now: CancellationToken,
    tasks: TaskTracker,
}

impl Shutdown {
    /// A shutdown that has not begun, without tasks.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A shutdown of a part only: it begins with this one, or earlier. [`drain`](Self::drain) of this one waits for its
    /// tasks, too. A part has no parts of its own.
    #[must_use]
    pub fn part(&self) -> Self {
        Self {
            has_begun: Arc::default(),
            parent_has_begun: Some(Arc::clone(&self.has_begun)),
            finish: self.finish.child_token(),
            now: self.now.child_token(),
            tasks: self.tasks.clone(),
        }
    }

    /// Begins a graceful shutdown: tasks finish what they have begun and start nothing new.
    pub fn begin(&self) {
        self.has_begun.store(true, Ordering::Release);
        self.finish.cancel();
    }

    /// Stops the remaining tasks at once; implies [`begin`](Self::begin).
    pub fn cut(&self) {
        self.begin();
        self.now.cancel();
    }

    /// Whether the shutdown has begun.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        let has_begun = |flag: &Arc<AtomicBool>| flag.load(Ordering::Acquire);
        has_begun(&self.has_begun) || self.parent_has_begun.as_ref().is_some_and(has_begun)
    }

    /// Resolves when the shutdown begins.
    pub fn stopping(&self) -> WaitForCancellationFuture<'_> {
        self.finish.cancelled()
    }

    /// Resolves when the time to finish is over.
    pub fn cut_off(&self) -> WaitForCancellationFuture<'_> {
        self.now.cancelled()
    }

    /// Spawns a task that [`drain`](Self::drain) waits for; it is dropped when the time to finish is over.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let now = self.now.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                biased;
                () = task => {}
                () = now.cancelled() => {}
            }
        });
    }

    /// Spawns a task that [`drain`](Self::drain) waits for and that ends by itself on [`cut_off`](Self::cut_off).
    pub fn spawn_watchful(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    /// As [`spawn_watchful`](Self::spawn_watchful), on another runtime.
    pub fn spawn_watchful_on(&self, runtime: &Handle, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn_on(task, runtime);
    }

    /// The number of running tasks.
    #[must_use]
    pub fn running(&self) -> usize {
        self.tasks.len()
    }

    /// Waits for the tasks to finish, at most `within`, then cuts off the rest and returns their number.
    ///
    /// Implies [`begin`](Self::begin). Another [`cut`](Self::cut) in the meantime ends the wait.
    pub async fn drain(&self, within: Duration) -> usize {
        self.begin();
        self.tasks.close();
        tokio::select! {
            biased;
            () = self.tasks.wait() => {}
            () = self.cut_off() => {}
            () = tokio::time::sleep(within) => {}
        }
        let left = self.running();
        self.cut();
        left
    }

    /// Handles SIGTERM, SIGHUP and Ctrl-C: the first signal begins a graceful shutdown, the second stops at once unless it is
    /// a SIGHUP. A SIGHUP that was ignored at startup, as under `nohup`, stays ignored. If `hang_up` is given, a SIGHUP calls
    /// that instead, until the shutdown begins.
    ///
    /// # Errors
    /// The system refuses a signal handler.
    pub fn on_signals(&self, hang_up: Option<Box<dyn Fn() + Send>>) -> io::Result<()> {
        let mut signals = ShutdownSignals::listen()?;
        let shutdown = self.clone();
        tokio::spawn(async move {
            let name = loop {
                match (signals.next().await, &hang_up) {
                    (HANG_UP, Some(hang_up)) => hang_up(),
                    (name, _) => break name,
                }
            };
            // Logged first, or a quick exit would lose the line. The log never blocks.
            info!(signal = name, "shutting down gracefully; another SIGTERM or SIGINT stops at once");
            shutdown.begin();
            // A terminal that is closed may send several, as may the shell in it.
            let name = loop {
                match signals.next().await {
                    HANG_UP => {}
                    name => break name,
                }
            };
            warn!(signal = name, "stopping at once");
            shutdown.cut();
        });
        Ok(())
    }
}

/// Has writes beyond the limit on the size of files (`ulimit -f`) fail, instead of ending the process.
///
/// # Errors
/// The system refuses a signal handler.
pub fn outlive_file_size_limit() -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    // The handler stays.
    signal(SignalKind::from_raw(signal_hook::consts::SIGXFSZ)).map(drop)
}

/// Whether this process was started with a signal ignored; `false` if the system does not report it.
#[must_use]
pub fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (signal - 1) & 1 == 1
}

/// The name of the signal that a terminal sends when it is closed.
const HANG_UP: &str = "SIGHUP";

struct ShutdownSignals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    hang_up: Option<tokio::signal::unix::Signal>,
}

impl ShutdownSignals {
    fn listen() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let hang_up = SignalKind::hangup();
        let hang_up = if is_ignored(hang_up.as_raw_value()) { None } else { Some(signal(hang_up)?) };
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up,
        })
    }

    async fn next(&mut self) -> &'static str {
        let hang_up = async {
            match &mut self.hang_up {
                Some(signal) => signal.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(()) = self.terminate.recv() => "SIGTERM",
            Some(()) = self.interrupt.recv() => "SIGINT",
            Some(()) = hang_up => HANG_UP,
            else => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::shutdown::*;
    use tokio::sync::oneshot;

    #[tokio::test]
    async fn drain_waits_for_a_task_that_finishes() {
        let shutdown = Shutdown::new();
        let inner = shutdown.clone();
        let (done, finished) = oneshot::channel();
        shutdown.spawn(async move {
            inner.stopping().await;
            let _ = done.send(());
        });
        assert_eq!(shutdown.drain(Duration::from_secs(10)).await, 0);
        assert!(finished.await.is_ok());
    }

    #[tokio::test]
    async fn drain_holds_its_deadline_and_counts_what_is_left() {
        let shutdown = Shutdown::new();
        let (dropped, gone) = oneshot::channel::<()>();
        shutdown.spawn(async move {
            let _held = dropped;
            std::future::pending::<()>().await;
        });
        let begun = tokio::time::Instant::now();
        let within = Duration::from_millis(50);
        assert_eq!(shutdown.drain(within).await, 1);
        assert!(begun.elapsed() >= within);
        assert!(gone.await.is_err(), "the task is dropped when time is up");
    }

    #[tokio::test]
    async fn a_cut_ends_the_drain() {
        let shutdown = Shutdown::new();
        shutdown.spawn(std::future::pending());
        shutdown.cut();
        // A deadline of an hour would hang the test.
        assert!(shutdown.drain(Duration::from_secs(3600)).await <= 1);
    }
}
