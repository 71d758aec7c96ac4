//! The journal thread: durable writes are as slow as the disk, so they run outside the asynchronous threads, in the
//! order of submission.

use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::thread::Thread;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::AccountId;
use super::error::JournalError;
use super::file::Journal;
use super::write::can_be_late;
use crate::failpoint;
use crate::histogram::Histogram;
use crate::payments::ledger::LedgerQueue;
use crate::protocol::engine::Record;

/// How long durable writes took, or their failures.
pub static WRITE_LATENCY: Histogram = Histogram::new();

/// How many writes may be queued.
const QUEUE: usize = 256;

/// The most writes in one transaction.
const MAX_GROUP: usize = 64;

/// How long records that can be late wait for a write that cannot, to share its transaction: the next payment of a busy
/// client comes sooner, and would otherwise wait for theirs.
const MAX_WAIT: Duration = Duration::from_millis(5);

/// A handle to the journal thread, which ends when this is dropped.
#[derive(Debug)]
pub(crate) struct JournalWriter {
    jobs: mpsc::Sender<WriteJob>,
    thread: JoinHandle<()>,
    /// Asks the thread to write the rows of the ledger.
    gathering: JoinHandle<()>,
}

impl Drop for JournalWriter {
    fn drop(&mut self) {
        self.gathering.abort();
    }
}

enum WriteJob {
    Records(RecordsJob),
    /// Write the rows of the ledger.
    Ledger,
    Other(Box<dyn FnOnce(&mut Journal) + Send>),
}

/// Called with the result of a write: `Err` with the reason if that failed.
pub(crate) type WriteEnded = Box<dyn FnOnce(Result<(), String>) + Send>;

struct RecordsJob {
    /// Whose channels and prices the records are of; records of authorizations need none.
    account: Option<AccountId>,
    records: Vec<Record>,
    ended: Option<WriteEnded>,
}

impl RecordsJob {
    fn end(mut self, result: Result<(), String>) {
        if let Some(ended) = self.ended.take() {
            ended(result);
        }
    }
}

impl Drop for RecordsJob {
    /// If the thread dies, its jobs fail.
    fn drop(&mut self) {
        if let Some(ended) = self.ended.take() {
            ended(Err(JournalError::Gone.to_string()));
        }
    }
}

/// The pending result of a submitted write.
pub(crate) struct PendingWrite<T>(oneshot::Receiver<Result<T, JournalError>>);

impl JournalWriter {
    /// Starts the thread, which also writes the events of `ledger`.
    pub(in crate::payments) fn start(mut journal: Journal, ledger: Arc<LedgerQueue>) -> Self {
        let (jobs, waiting) = mpsc::channel::<WriteJob>(QUEUE);
        let asking = jobs.downgrade();
        let gathering = tokio::spawn(async move {
            loop {
                ledger.gather().await;
                // Without a sender the thread has ended, or is about to.
                let Some(jobs) = asking.upgrade() else { return };
                if jobs.send(WriteJob::Ledger).await.is_err() {
                    return;
                }
            }
        });
        let thread = tokio::task::spawn_blocking(move || {
            let mut queue = JobQueue::of_this_thread(waiting);
            let mut next = None;
            while let Some(job) = next.take().or_else(|| queue.waiting.blocking_recv()) {
                match job {
                    WriteJob::Other(work) => work(&mut journal),
                    WriteJob::Ledger => {
                        journal.flush_ledger();
                        journal.sync();
                    }
                    WriteJob::Records(first) => next = write_group(&mut journal, first, &mut queue, MAX_WAIT),
                }
            }
            journal.flush_ledger();
            journal.sync();
        });
        Self { jobs, thread, gathering }
    }

    /// Waits until everything queued is written and the file is closed. Nothing can be submitted afterwards.
    pub(crate) async fn close(&mut self) {
        // Without a sender the thread ends.
        self.jobs = mpsc::channel(1).0;
        // A panic of the thread is in the log.
        let _ = (&mut self.thread).await;
    }

    /// Submits work; waits if the queue is full.
    pub(crate) async fn submit<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Journal) -> Result<T, JournalError> + Send + 'static,
    ) -> PendingWrite<T> {
        let (job, pending) = job(work);
        // If the thread has died, the job and its reply channel are dropped.
        let _ = self.jobs.send(job).await;
        pending
    }

    /// Submits work without a result; waits if the queue is full.
    pub(in crate::payments) async fn change(&self, work: impl FnOnce(&mut Journal) + Send + 'static) {
        // If the thread has died, payments fail with their writes.
        let _ = self.jobs.send(WriteJob::Other(Box::new(work))).await;
    }

    /// Submits records, which become durable together with everything queued then; waits if the queue is full.
    pub(crate) async fn write(&self, account: Option<AccountId>, records: Vec<Record>, ended: WriteEnded) {
        let job = RecordsJob { account, records, ended: Some(ended) };
        // If the thread has died, the job is dropped, which reports its failure.
        let _ = self.jobs.send(WriteJob::Records(job)).await;
    }

    /// Submits records for others than the owner of this handle.
    pub(crate) fn port(&self) -> JournalPort {
        JournalPort(self.jobs.downgrade())
    }
}

/// Submits records from any thread, without waiting. It does not keep the journal thread running.
#[derive(Debug)]
pub(crate) struct JournalPort(mpsc::WeakSender<WriteJob>);

/// A place in the queue of the journal thread.
pub(crate) struct ReservedWrite(mpsc::OwnedPermit<WriteJob>);

impl JournalPort {
    /// A place in the queue; `None` if that is full, or closed.
    pub(crate) fn reserve(&self) -> Option<ReservedWrite> {
        self.0.upgrade()?.try_reserve_owned().ok().map(ReservedWrite)
    }
}

impl ReservedWrite {
    /// As [`JournalWriter::write`].
    pub(crate) fn write(self, account: Option<AccountId>, records: Vec<Record>, ended: WriteEnded) {
        self.0.send(WriteJob::Records(RecordsJob { account, records, ended: Some(ended) }));
    }
}

/// Writes a job and those queued behind it in one transaction. As long as all of them can be late, waits for others for at most
/// `wait`. Returns a job of another kind if it meets one.
fn write_group(
    journal: &mut Journal,
    mut first: RecordsJob,
    queue: &mut JobQueue,
    wait: Duration,
) -> Option<WriteJob> {
    let mut records = std::mem::take(&mut first.records);
    let account = first.account;
    let mut group = vec![first];
    let mut other = None;
    let mut may_wait = records.iter().all(can_be_late);
    let until = Instant::now() + wait;
    while other.is_none() && group.len() < MAX_GROUP {
        let job = if may_wait { queue.next_until(until) } else { queue.waiting.try_recv().ok() };
        match job {
            Some(WriteJob::Records(mut job)) if job.account == account => {
                may_wait &= job.records.iter().all(can_be_late);
                records.append(&mut job.records);
                group.push(job);
            }
            Some(job) => other = Some(job),
            None => break,
        }
    }
    journal.flush_settled();
    #[cfg(feature = "testing")]
    super::write_hook::call(&journal.path);
    let begun = Instant::now();
    let written = journal.write(account, &records);
    WRITE_LATENCY.add(begun.elapsed());
    let written = written.map_err(|error| {
        tracing::error!(%error, "cannot write the journal; payments are suspended until it can be written");
        error.to_string()
    });
    failpoint::point("records written");
    for job in group {
        job.end(written.clone());
    }
    other
}

/// The jobs of the journal thread.
struct JobQueue {
    waiting: mpsc::Receiver<WriteJob>,
    /// Wakes the thread.
    waker: Waker,
}

impl JobQueue {
    /// Only this thread may wait for these jobs.
    fn of_this_thread(waiting: mpsc::Receiver<WriteJob>) -> Self {
        Self { waiting, waker: Waker::from(Arc::new(Unparker(thread::current()))) }
    }

    /// Waits for a job until then; `None` if there is none by then, or will be none.
    fn next_until(&mut self, until: Instant) -> Option<WriteJob> {
        let mut context = Context::from_waker(&self.waker);
        loop {
            if let Poll::Ready(job) = self.waiting.poll_recv(&mut context) {
                return job;
            }
            let left = until.checked_duration_since(Instant::now())?;
            thread::park_timeout(left);
        }
    }
}

struct Unparker(Thread);

impl Wake for Unparker {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn job<T: Send + 'static>(
    work: impl FnOnce(&mut Journal) -> Result<T, JournalError> + Send + 'static,
) -> (WriteJob, PendingWrite<T>) {
    let (reply, answer) = oneshot::channel();
    let job = WriteJob::Other(Box::new(move |journal: &mut Journal| {
        // The receiver may be gone.
        let _ = reply.send(work(journal));
    }));
    (job, PendingWrite(answer))
}

impl<T> PendingWrite<T> {
    /// Waits until the write is durable.
    ///
    /// # Errors
    /// The write failed, or the thread has died.
    pub(crate) async fn done(self) -> Result<T, JournalError> {
        self.0.await.unwrap_or(Err(JournalError::Gone))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::mutex::lock;
    use crate::payments::journal::before_writes;

    const LATE: Record = Record::AuthorizationServed([7; 32]);
    const AT_ONCE: Record = Record::Frozen(true);

    /// Writes the first record, and `others` once that waits for them; returns how many transactions that took, and the order in
    /// which the jobs ended.
    fn written(first: Record, others: Vec<Record>, wait: Duration) -> (usize, Vec<usize>) {
        let directory = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(directory.path()).unwrap();
        let (writes, order) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::new())));
        let counted = Arc::clone(&writes);
        before_writes(directory.path(), move || {
            counted.fetch_add(1, Ordering::Relaxed);
        });
        let job = |place: usize, record: Record| {
            let order = Arc::clone(&order);
            let ended: WriteEnded = Box::new(move |written| {
                written.unwrap();
                lock(&order).push(place);
            });
            RecordsJob { account: None, records: vec![record], ended: Some(ended) }
        };
        let (jobs, waiting) = mpsc::channel(QUEUE);
        let first = job(0, first);
        let sent = jobs.clone();
        let others: Vec<RecordsJob> =
            others.into_iter().enumerate().map(|(place, record)| job(place + 1, record)).collect();
        thread::scope(|threads| {
            threads.spawn(|| {
                let mut queue = JobQueue::of_this_thread(waiting);
                let mut next = write_group(&mut journal, first, &mut queue, wait);
                while let Some(job) = next.or_else(|| queue.waiting.blocking_recv()) {
                    let WriteJob::Records(job) = job else { return };
                    next = write_group(&mut journal, job, &mut queue, Duration::ZERO);
                }
            });
            for other in others {
                sent.blocking_send(WriteJob::Records(other)).unwrap();
            }
            // Ends the thread; whatever waits is written before.
            sent.blocking_send(WriteJob::Ledger).unwrap();
        });
        let order = lock(&order).clone();
        (writes.load(Ordering::Relaxed), order)
    }

    #[test]
    fn what_can_be_late_waits_for_the_next_write_and_shares_its_transaction() {
        let long = Duration::from_secs(3600);
        assert_eq!(written(LATE, vec![AT_ONCE], long), (1, vec![0, 1]));
        assert_eq!(written(LATE, vec![LATE, AT_ONCE], long), (1, vec![0, 1, 2]));
        // Nothing else of the journal comes before it.
        assert_eq!(written(LATE, vec![], long), (1, vec![0]));
        let most = vec![LATE; MAX_GROUP - 1];
        assert_eq!(written(LATE, most, long).0, 1, "a full group does not wait");
    }

    #[test]
    fn what_can_be_late_waits_no_longer_than_that() {
        let directory = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(directory.path()).unwrap();
        let (ended, written) = std::sync::mpsc::channel();
        let ended: WriteEnded = Box::new(move |result| ended.send(result).unwrap());
        let (_jobs, waiting) = mpsc::channel(QUEUE);
        let job = RecordsJob { account: None, records: vec![LATE], ended: Some(ended) };
        let mut queue = JobQueue::of_this_thread(waiting);
        assert!(write_group(&mut journal, job, &mut queue, Duration::from_millis(1)).is_none());
        written.try_recv().unwrap().unwrap();
    }
}
