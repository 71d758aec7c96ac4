//! The thread that writes the journal: a durable write takes as long as the disk takes, so it happens off the
//! asynchronous threads, in the order of submission.

use tokio::sync::{mpsc, oneshot};

use super::error::JournalError;
use super::file::Journal;

/// How many writes may wait for the disk.
const QUEUE: usize = 256;

/// A handle on the writing thread, which ends when this is dropped.
#[derive(Debug)]
pub(crate) struct JournalWriter(mpsc::Sender<WriteJob>);

type WriteJob = Box<dyn FnOnce(&mut Journal) + Send>;

/// The result of a submitted write, which is not there yet.
pub(crate) struct PendingWrite<T>(oneshot::Receiver<Result<T, JournalError>>);

impl JournalWriter {
    /// Starts the thread.
    pub(crate) fn start(mut journal: Journal) -> Self {
        let (jobs, mut waiting) = mpsc::channel::<WriteJob>(QUEUE);
        tokio::task::spawn_blocking(move || {
            while let Some(job) = waiting.blocking_recv() {
                job(&mut journal);
            }
        });
        Self(jobs)
    }

    /// Submits work; waits if the queue is full.
    pub(crate) async fn submit<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Journal) -> Result<T, JournalError> + Send + 'static,
    ) -> PendingWrite<T> {
        let (job, pending) = job(work);
        // If the thread has died the job is dropped, and with it its answer.
        let _ = self.0.send(job).await;
        pending
    }

    /// Submits work without waiting; `None` if the queue is full.
    pub(crate) fn try_submit<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Journal) -> Result<T, JournalError> + Send + 'static,
    ) -> Option<PendingWrite<T>> {
        let (job, pending) = job(work);
        self.0.try_send(job).ok().map(|()| pending)
    }
}

fn job<T: Send + 'static>(
    work: impl FnOnce(&mut Journal) -> Result<T, JournalError> + Send + 'static,
) -> (WriteJob, PendingWrite<T>) {
    let (reply, answer) = oneshot::channel();
    let job = Box::new(move |journal: &mut Journal| {
        // The receiver may be gone.
        let _ = reply.send(work(journal));
    });
    (job, PendingWrite(answer))
}

impl<T> PendingWrite<T> {
    /// Waits until the write is durable.
    ///
    /// # Errors
    /// If it failed, or the thread has died.
    pub(crate) async fn done(self) -> Result<T, JournalError> {
        self.0.await.unwrap_or(Err(JournalError::Gone))
    }
}
