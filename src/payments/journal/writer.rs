//! The thread that writes the journal: a durable write takes as long as the disk takes, so it happens off the
//! asynchronous threads. Writes happen in the order in which they are handed in.

use tokio::sync::{mpsc, oneshot};

use super::error::StoreError;
use super::file::Store;

/// How many writes may wait for the disk.
const WAITING: usize = 256;

/// A handle on the writing thread, which ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Scribe(mpsc::Sender<Job>);

type Job = Box<dyn FnOnce(&mut Store) + Send>;

/// The result of a job that was handed in.
pub(crate) struct Pending<T>(oneshot::Receiver<Result<T, StoreError>>);

impl Scribe {
    /// Starts the thread.
    pub(crate) fn start(mut store: Store) -> Self {
        let (jobs, mut waiting) = mpsc::channel::<Job>(WAITING);
        tokio::task::spawn_blocking(move || {
            while let Some(job) = waiting.blocking_recv() {
                job(&mut store);
            }
        });
        Self(jobs)
    }

    /// Hands in work; waits only when too much waits for the disk already.
    pub(crate) async fn hand_in<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Pending<T> {
        let (job, pending) = job(work);
        // Where the thread has died the job is dropped, and with it its answer.
        let _ = self.0.send(job).await;
        pending
    }

    /// The same without ever waiting; `None` when too much waits for the disk already.
    pub(crate) fn try_hand_in<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Option<Pending<T>> {
        let (job, pending) = job(work);
        self.0.try_send(job).ok().map(|()| pending)
    }
}

fn job<T: Send + 'static>(
    work: impl FnOnce(&mut Store) -> Result<T, StoreError> + Send + 'static,
) -> (Job, Pending<T>) {
    let (reply, answer) = oneshot::channel();
    let job = Box::new(move |store: &mut Store| {
        // Nobody waits for an answer that is not wanted any more.
        let _ = reply.send(work(store));
    });
    (job, Pending(answer))
}

impl<T> Pending<T> {
    /// Waits until it is done.
    pub(crate) async fn done(self) -> Result<T, StoreError> {
        self.0.await.unwrap_or(Err(StoreError::Gone))
    }
}
