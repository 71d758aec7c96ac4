//! The threads that serve clients. Each has a runtime of its own, so that a request never waits for another thread: its
//! sockets, timers and tasks stay on the thread that got the connection.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::failpoint;
use crate::shutdown::Shutdown;

/// How many threads a worker may have for work that blocks, such as resolving names. They end when they are idle.
const BLOCKING_THREADS: usize = 64;
/// How old a measurement of the workers' load may become.
const MEASURE_EVERY: Duration = Duration::from_millis(100);
/// A worker that has more to do than this is not given a connection that one with less than [`CALM`] can take.
const BUSY: f64 = 0.75;
/// See [`BUSY`].
const CALM: f64 = 0.5;
/// How many connections a calm worker gets ahead of busy ones until it is measured again: they may make it busy.
const AHEAD: usize = 8;

/// The workers, each with its own `T`.
#[derive(Clone, Debug)]
pub struct Workers<T> {
    workers: Vec<(Worker, T)>,
}

/// One of the workers.
#[derive(Clone, Debug)]
pub(crate) struct Worker {
    runtime: Handle,
    connections: Arc<AtomicUsize>,
}

/// The threads of the workers.
#[derive(Debug)]
pub struct WorkerThreads {
    stop: CancellationToken,
    /// A message from each thread that has ended.
    ended: mpsc::Receiver<()>,
    running: usize,
}

/// Counts one connection of a worker.
#[derive(Debug)]
pub(crate) struct WorkerShare(Arc<AtomicUsize>);

impl WorkerShare {
    /// How many connections the worker has.
    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for WorkerShare {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Tells that a thread has ended, even if it has panicked.
struct Ending(mpsc::Sender<()>);

impl Drop for Ending {
    fn drop(&mut self) {
        // There is room for a message from each thread.
        let _ = self.0.try_send(());
    }
}

impl Workers<()> {
    /// Starts this many threads, at least one. They run until [`WorkerThreads::stop`].
    ///
    /// # Errors
    /// The system refuses a thread, or what a runtime needs.
    pub fn start(count: usize) -> io::Result<(Self, WorkerThreads)> {
        let count = count.max(1);
        let (sender, ended) = mpsc::channel(count);
        let (stop, mut workers) = (CancellationToken::new(), Vec::with_capacity(count));
        // Dropped on an error, it ends the threads that have started.
        let guard = stop.clone().drop_guard();
        for index in 0..count {
            let mut runtime = Builder::new_current_thread();
            let runtime = runtime.enable_all().max_blocking_threads(BLOCKING_THREADS).build()?;
            let worker = Worker { runtime: runtime.handle().clone(), connections: Arc::default() };
            let (stop, ending) = (stop.clone(), Ending(sender.clone()));
            thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
                let _ending = ending;
                work(runtime, &stop);
            })?;
            workers.push((worker, ()));
        }
        guard.disarm();
        Ok((Self { workers }, WorkerThreads { stop, ended, running: count }))
    }

    /// The same workers, each with what `make` returns for its index and their number.
    pub fn each<U>(&self, make: impl Fn(usize, usize) -> U) -> Workers<U> {
        let (indices, count) = (Cell::new(0), self.workers.len());
        self.map(|()| make(indices.replace(indices.get() + 1), count))
    }
}

/// Runs what is spawned on `runtime` until `stop`.
fn work(runtime: Runtime, stop: &CancellationToken) {
    failpoint::point("worker");
    runtime.block_on(stop.cancelled());
    // A name may still be looked up; nothing waits for it.
    runtime.shutdown_background();
}

impl<T> Workers<T> {
    /// The runtime of the caller as the only worker.
    ///
    /// # Panics
    /// Outside of a runtime.
    #[cfg(feature = "testing")]
    pub fn here(of: T) -> Self {
        Self { workers: vec![(Worker { runtime: Handle::current(), connections: Arc::default() }, of)] }
    }

    /// How many connections the workers have.
    pub fn connections(&self) -> usize {
        self.workers.iter().map(|(worker, _)| worker.connections.load(Ordering::Relaxed)).sum()
    }

    /// What each worker has.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.workers.iter().map(|(_, of)| of)
    }

    /// The same workers, each with what `make` returns for its own `T`.
    pub fn map<U>(&self, make: impl Fn(&T) -> U) -> Workers<U> {
        let workers = self.workers.iter().map(|(worker, of)| (worker.clone(), make(of))).collect();
        Workers { workers }
    }
}

impl Worker {
    /// Runs a task of `shutdown` on this worker; see [`Shutdown::spawn_watchful`].
    pub(crate) fn spawn(&self, shutdown: &Shutdown, task: impl Future<Output = ()> + Send + 'static) {
        shutdown.spawn_watchful_on(&self.runtime, task);
    }

    fn busy_time(&self) -> Duration {
        self.runtime.metrics().worker_total_busy_duration(0)
    }
}

impl WorkerThreads {
    /// Resolves if a worker ends by itself.
    pub async fn failure(&mut self) {
        // The threads hold the senders.
        if self.ended.recv().await.is_some() {
            self.running -= 1;
        }
    }

    /// Ends the threads, and the tasks that they still have.
    pub async fn stop(mut self) {
        self.stop.cancel();
        while self.running > 0 && self.ended.recv().await.is_some() {
            self.running -= 1;
        }
    }
}

/// Chooses workers for connections: the one with the fewest, but none that is busy while another is not. The first of
/// equals is chosen, so that clients that come one after the other find the connections to origins of those before them.
#[derive(Debug)]
pub(crate) struct Placement<T> {
    workers: Workers<T>,
    measured: Instant,
    loads: Vec<WorkerLoad>,
}

/// What was last measured of a worker, and what it was given since.
#[derive(Clone, Debug, Default)]
struct WorkerLoad {
    /// How long it had been busy in all when that was last read.
    total: Duration,
    /// Which part of the time it was busy.
    share: f64,
    given: usize,
}

impl<T> Placement<T> {
    pub(crate) fn new(workers: Workers<T>) -> Self {
        let load = |(worker, _): &(Worker, T)| WorkerLoad { total: worker.busy_time(), ..Default::default() };
        let loads = workers.workers.iter().map(load).collect();
        Self { workers, measured: Instant::now(), loads }
    }

    /// The worker for the next connection, which counts as its own as long as the share exists.
    pub(crate) fn next(&mut self) -> Option<(&Worker, &T, WorkerShare)> {
        self.measure();
        let connections = self.workers.workers.iter().map(|(worker, _)| &worker.connections);
        let counts: Vec<usize> = connections.map(|count| count.load(Ordering::Relaxed)).collect();
        let index = choose(&counts, &self.loads)?;
        self.loads.get_mut(index)?.given += 1;
        let (worker, of) = self.workers.workers.get(index)?;
        worker.connections.fetch_add(1, Ordering::Relaxed);
        Some((worker, of, WorkerShare(Arc::clone(&worker.connections))))
    }

    fn measure(&mut self) {
        let elapsed = self.measured.elapsed();
        if elapsed < MEASURE_EVERY {
            return;
        }
        self.measured += elapsed;
        for (load, (worker, _)) in self.loads.iter_mut().zip(&self.workers.workers) {
            let total = worker.busy_time();
            let busy = total.saturating_sub(load.total);
            *load = WorkerLoad { total, share: busy.as_secs_f64() / elapsed.as_secs_f64(), given: 0 };
        }
    }
}

/// The index of the worker for the next connection, by the connections and the loads of all.
fn choose(connections: &[usize], loads: &[WorkerLoad]) -> Option<usize> {
    let is_calm = |load: &WorkerLoad| load.share < CALM && load.given < AHEAD;
    let is_any_calm = loads.iter().any(is_calm);
    let workers = connections.iter().zip(loads).enumerate();
    workers
        .min_by_key(|(_, (count, load))| (is_any_calm && load.share > BUSY, **count))
        .map(|(index, _)| index)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(workers: &[(usize, f64, usize)]) -> usize {
        let counts: Vec<usize> = workers.iter().map(|(count, ..)| *count).collect();
        let load = |(_, share, given): &(usize, f64, usize)| WorkerLoad {
            share: *share,
            given: *given,
            ..Default::default()
        };
        let loads: Vec<WorkerLoad> = workers.iter().map(load).collect();
        choose(&counts, &loads).unwrap()
    }

    #[test]
    fn the_worker_with_the_fewest_connections_gets_the_next() {
        assert_eq!(chosen(&[(2, 0.0, 0), (1, 0.0, 0), (3, 0.0, 0)]), 1);
        assert_eq!(chosen(&[(1, 0.6, 0), (1, 0.0, 0)]), 0, "the first of equals");
        assert_eq!(chosen(&[(1, 0.9, 0), (0, 0.9, 0)]), 1, "all are busy");
    }

    #[test]
    fn a_busy_worker_gets_none_while_another_is_calm() {
        assert_eq!(chosen(&[(1, 1.0, 0), (40, 0.1, 0)]), 1);
        assert_eq!(chosen(&[(1, 1.0, 0), (40, 0.6, 0)]), 0, "neither calm nor busy");
        assert_eq!(chosen(&[(1, 1.0, 0), (40, 0.1, AHEAD)]), 0, "it may be busy by now");
    }

    #[tokio::test]
    async fn connections_are_spread_until_they_end() {
        let (workers, threads) = Workers::start(3).unwrap();
        let mut placement = Placement::new(workers.each(|index, count| (index, count)));
        let mut place = || {
            let (_, place, share) = placement.next().unwrap();
            (*place, share)
        };
        let [(first, held), (second, _second), (third, _third), (fourth, _fourth)] =
            [(); 4].map(|()| place());
        assert_eq!([first, second, third, fourth], [(0, 3), (1, 3), (2, 3), (0, 3)]);
        drop((held, _fourth));
        assert_eq!(place().0, (0, 3));
        threads.stop().await;
    }

    #[tokio::test]
    async fn a_task_runs_on_its_worker_and_its_end_is_counted() {
        let (workers, threads) = Workers::start(2).unwrap();
        let mut placement = Placement::new(workers);
        let (shutdown, (sender, mut names)) = (Shutdown::new(), mpsc::channel(2));
        let shares: Vec<WorkerShare> = (0..2)
            .map(|_| {
                let ((worker, (), share), sender) = (placement.next().unwrap(), sender.clone());
                let named =
                    async move { sender.send(thread::current().name().map(str::to_owned)).await.unwrap() };
                worker.spawn(&shutdown, named);
                share
            })
            .collect();
        let mut named = [names.recv().await.unwrap(), names.recv().await.unwrap()];
        named.sort();
        assert_eq!(named.map(Option::unwrap), ["worker-0", "worker-1"]);
        assert_eq!(shutdown.drain(Duration::from_secs(60)).await, 0);
        drop(shares);
        threads.stop().await;
    }
}
