//! The ports of `tollpass run`: each run gets one of its own, so that its report contains its requests and no others.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::endpoints::RunRequest;
use crate::mutex::lock;
use crate::payments::{Payments, RunAccount};
use crate::shutdown::Shutdown;

/// How many orders may wait until the proxy serves its ports.
const MAX_ORDERS: usize = 16;

/// The open runs of a proxy; cheap to clone.
#[derive(Clone, Debug)]
pub struct Runs {
    payments: Payments,
    orders: mpsc::Sender<RunOrder>,
    open: Arc<Mutex<BTreeMap<u64, RunEntry>>>,
    permits: Arc<Semaphore>,
    most: usize,
    drain_timeout: Duration,
}

/// An open run.
#[derive(Clone, Debug)]
pub(super) struct RunEntry {
    pub(super) account: Arc<RunAccount>,
    /// The address of its port.
    pub(super) address: SocketAddr,
}

/// An order of a port for a run.
#[derive(Debug)]
pub struct RunOrder {
    /// What it may spend.
    pub request: RunRequest,
    /// The `tollpass run` process.
    pub root: Option<i32>,
    /// The run that it is within.
    pub parent: Option<Arc<RunAccount>>,
    /// Receives the port.
    pub reply: oneshot::Sender<Result<RunPort, RunRefused>>,
}

/// A port that is served for a run.
#[derive(Debug)]
pub struct RunPort {
    /// Its address.
    pub address: SocketAddr,
    /// What is paid for its requests.
    pub account: Arc<RunAccount>,
    /// Closes the port.
    pub shutdown: Shutdown,
}

/// A run with its port. When this is dropped, the run ends and the port closes.
#[derive(Debug)]
pub struct OpenRun {
    port: RunPort,
    open: Arc<Mutex<BTreeMap<u64, RunEntry>>>,
    _permit: OwnedSemaphorePermit,
}

/// Why a run gets no port.
#[derive(Debug, thiserror::Error)]
pub enum RunRefused {
    /// Too many are open.
    #[error(
        "{0} other `tollpass run` commands use the proxy (limits.runs): wait until one ends, or raise it"
    )]
    TooMany(usize),
    /// The budget is invalid.
    #[error("--budget: {0}")]
    Budget(String),
    /// No port can be opened.
    #[error("cannot open a port for the run: {0}")]
    Listen(#[from] io::Error),
    /// It is not known whether it is within another one.
    #[error(transparent)]
    Unknown(#[from] UnknownPeer),
    /// The proxy is shutting down.
    #[error("the running tollpass is shutting down")]
    Stopping,
}

/// It is not known whether a process belongs to a run.
#[derive(Debug, thiserror::Error)]
#[error("cannot find out whether the process {pid} belongs to a `tollpass run`: {source}")]
pub struct UnknownPeer {
    pid: i32,
    source: io::Error,
}

impl Runs {
    /// At most `most` runs at once; `drain_timeout` bounds the wait for payments of a run that ends. The proxy serves the
    /// orders.
    #[must_use]
    pub fn new(payments: Payments, most: usize, drain_timeout: Duration) -> (Self, mpsc::Receiver<RunOrder>) {
        let (orders, received) = mpsc::channel(MAX_ORDERS);
        let (open, permits) = (Arc::default(), Arc::new(Semaphore::new(most)));
        (Self { payments, orders, open, permits, most, drain_timeout }, received)
    }

    /// Opens a port for the run of the `tollpass run` process `root`.
    ///
    /// # Errors
    /// [`RunRefused`].
    pub async fn open(&self, request: RunRequest, root: Option<i32>) -> Result<OpenRun, RunRefused> {
        let parent = self.around(root)?.map(|entry| entry.account);
        let permit = Arc::clone(&self.permits).try_acquire_owned();
        let permit = permit.map_err(|_| RunRefused::TooMany(self.most))?;
        let (reply, port) = oneshot::channel();
        self.orders
            .send(RunOrder { request, root, parent, reply })
            .await
            .map_err(|_| RunRefused::Stopping)?;
        let port = port.await.map_err(|_| RunRefused::Stopping)??;
        let entry = RunEntry { account: Arc::clone(&port.account), address: port.address };
        lock(&self.open).insert(port.account.id(), entry);
        Ok(OpenRun { port, open: Arc::clone(&self.open), _permit: permit })
    }

    /// An open run.
    pub(super) fn entry(&self, id: u64) -> Option<RunEntry> {
        lock(&self.open).get(&id).cloned()
    }

    /// The innermost open run that a process belongs to: it descends from its `tollpass run` process.
    ///
    /// # Errors
    /// The process has ended, or the system does not tell about it.
    pub(super) fn around(&self, pid: Option<i32>) -> Result<Option<RunEntry>, UnknownPeer> {
        let open = self.payments.open_runs();
        let Some(pid) = pid.filter(|_| !open.is_empty()) else { return Ok(None) };
        let found = open.of_process(pid).map_err(|source| UnknownPeer { pid, source })?;
        Ok(found.and_then(|account| self.entry(account.id())))
    }

    /// Waits for the payments of a run that are in flight, at most `limits.drain_timeout`.
    pub(super) async fn settled(&self, account: &RunAccount) {
        // Otherwise the report lists them.
        let _ = tokio::time::timeout(self.drain_timeout, account.settled()).await;
    }
}

impl RunEntry {
    /// Whether this is the run of the `tollpass run` process with this number.
    pub(super) fn is_of(&self, pid: Option<i32>) -> bool {
        pid.is_some() && self.account.root() == pid
    }
}

impl OpenRun {
    /// The address of its port.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.port.address
    }

    /// What is paid for it.
    #[must_use]
    pub fn account(&self) -> &Arc<RunAccount> {
        &self.port.account
    }
}

impl Drop for OpenRun {
    fn drop(&mut self) {
        lock(&self.open).remove(&self.port.account.id());
        self.port.account.close();
        self.port.shutdown.begin();
    }
}
