//! The journal thread: durable writes are as slow as the disk, so they run outside the asynchronous threads, in the
//! order of submission.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::AccountId;
use super::error::JournalError;
use super::file::Journal;
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
        let (jobs, mut waiting) = mpsc::channel::<WriteJob>(QUEUE);
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
            let mut next = None;
            while let Some(job) = next.take().or_else(|| waiting.blocking_recv()) {
                match job {
                    WriteJob::Other(work) => work(&mut journal),
                    WriteJob::Ledger => {
                        journal.flush_ledger();
                        journal.sync();
                    }
                    WriteJob::Records(first) => next = write_group(&mut journal, first, &mut waiting),
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

/// Writes a job and those queued behind it in one transaction. Returns a job of another kind if it meets one.
fn write_group(
    journal: &mut Journal,
    mut first: RecordsJob,
    waiting: &mut mpsc::Receiver<WriteJob>,
) -> Option<WriteJob> {
    let mut records = std::mem::take(&mut first.records);
    let account = first.account;
    let mut group = vec![first];
    let mut other = None;
    while other.is_none()
        && group.len() < MAX_GROUP
        && let Ok(job) = waiting.try_recv()
    {
        match job {
            WriteJob::Records(mut job) if job.account == account => {
                records.append(&mut job.records);
                group.push(job);
            }
            job => other = Some(job),
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
