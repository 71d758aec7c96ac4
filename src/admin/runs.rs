//! The ports of `tollpass run`: each run gets one of its own, so that its report contains its requests and no others.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ethers_core::rand::{RngCore as _, rngs::OsRng};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::endpoints::{RunName, RunRequest};
use crate::payments::{Payments, RunAccount};
use crate::shutdown::Shutdown;

/// How many orders may wait until the proxy serves its ports.
const MAX_ORDERS: usize = 16;

/// The open runs of a proxy; cheap to clone.
#[derive(Clone, Debug)]
pub struct Runs {
    payments: Payments,
    /// Tells the runs of this proxy from those of an earlier one, whose numbers were the same.
    proxy: u64,
    orders: mpsc::Sender<RunOrder>,
    permits: Arc<Semaphore>,
    most: usize,
    drain_timeout: Duration,
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

/// A port that is served for a run. When this is dropped, the run ends and the port closes.
#[derive(Debug)]
pub struct RunPort {
    /// What is paid for its requests.
    pub account: Arc<RunAccount>,
    /// Closes the port.
    pub shutdown: Shutdown,
}

/// A run with its port, until dropped.
#[derive(Debug)]
pub struct OpenRun {
    port: RunPort,
    name: RunName,
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
    /// The run that it says it is within is none of this proxy.
    #[error(
        "the surrounding `tollpass run` ({0}) is not open at the running tollpass: it is over, or belonged to another one, which \
         has stopped; start the command outside of it"
    )]
    NotWithin(RunName),
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
        let (permits, proxy) = (Arc::new(Semaphore::new(most)), OsRng.next_u64());
        (Self { payments, proxy, orders, permits, most, drain_timeout }, received)
    }

    /// Opens a port for the run of the `tollpass run` process `root`.
    ///
    /// # Errors
    /// [`RunRefused`].
    pub async fn open(&self, request: RunRequest, root: Option<i32>) -> Result<OpenRun, RunRefused> {
        let parent = self.parent(request.within, root)?;
        let permit = Arc::clone(&self.permits).try_acquire_owned();
        let permit = permit.map_err(|_| RunRefused::TooMany(self.most))?;
        let (reply, port) = oneshot::channel();
        self.orders
            .send(RunOrder { request, root, parent, reply })
            .await
            .map_err(|_| RunRefused::Stopping)?;
        let port = port.await.map_err(|_| RunRefused::Stopping)??;
        let name = RunName { number: port.account.id(), proxy: self.proxy };
        Ok(OpenRun { port, name, _permit: permit })
    }

    /// The run that a new one of the process `root` is within, which may also know it by name.
    fn parent(
        &self,
        named: Option<RunName>,
        root: Option<i32>,
    ) -> Result<Option<Arc<RunAccount>>, RunRefused> {
        let around = self.around(root)?;
        let Some(name) = named else { return Ok(around) };
        let named = self.find(name).ok_or(RunRefused::NotWithin(name))?;
        // A process can name any run, and belongs to one.
        Ok(around.filter(|around| !named.is_within(around)).or(Some(named)))
    }

    /// An open run.
    pub(super) fn find(&self, name: RunName) -> Option<Arc<RunAccount>> {
        if name.proxy == self.proxy { self.payments.open_runs().find(name.number) } else { None }
    }

    /// The innermost open run that a process belongs to: it descends from its `tollpass run` process.
    ///
    /// # Errors
    /// The process has ended, or the system does not tell about it.
    pub(super) fn around(&self, pid: Option<i32>) -> Result<Option<Arc<RunAccount>>, UnknownPeer> {
        let open = self.payments.open_runs();
        let Some(pid) = pid.filter(|_| !open.is_empty()) else { return Ok(None) };
        open.of_process(pid).map_err(|source| UnknownPeer { pid, source })
    }

    /// Waits for the payments of a run that are in flight, at most `limits.drain_timeout`.
    pub(super) async fn settled(&self, account: &RunAccount) {
        // Otherwise the report lists them.
        let _ = tokio::time::timeout(self.drain_timeout, account.settled()).await;
    }
}

impl OpenRun {
    /// The address of its port.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.port.account.port()
    }

    /// What is paid for it.
    #[must_use]
    pub fn account(&self) -> &Arc<RunAccount> {
        &self.port.account
    }

    /// What its programs call it.
    #[must_use]
    pub fn name(&self) -> RunName {
        self.name
    }
}

impl Drop for RunPort {
    fn drop(&mut self) {
        self.account.close();
        self.shutdown.begin();
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;
    use crate::payments::{RunPlace, RunTerms, idle};

    /// Runs whose ports are never used, with what serves them and their directory.
    fn runs(most: usize) -> (Runs, mpsc::Receiver<RunOrder>, tempfile::TempDir) {
        let (payments, directory) = idle();
        let (runs, orders) = Runs::new(payments, most, Duration::ZERO);
        (runs, orders, directory)
    }

    fn port(runs: &Runs, root: Option<i32>, parent: Option<Arc<RunAccount>>) -> RunPort {
        let place = RunPlace { parent, root, port: ([127, 0, 0, 1], 1).into() };
        let account = runs.payments.open_run(RunTerms::default(), place);
        RunPort { account, shutdown: Shutdown::new() }
    }

    async fn open(
        (runs, orders): (&Runs, &mut mpsc::Receiver<RunOrder>),
        within: Option<RunName>,
        root: Option<i32>,
    ) -> Result<OpenRun, RunRefused> {
        let request = RunRequest { within, ..RunRequest::default() };
        let serve = async {
            let RunOrder { root, parent, reply, .. } = orders.recv().await.unwrap();
            reply.send(Ok(port(runs, root, parent))).unwrap();
        };
        let opening = std::pin::pin!(runs.open(request, root));
        tokio::select! {
            biased;
            opened = opening => opened,
            () = async { serve.await; std::future::pending().await } => unreachable!(),
        }
    }

    fn process() -> (Option<i32>, Option<i32>) {
        let parent = rustix::process::getppid().unwrap().as_raw_nonzero().get();
        (Some(std::process::id().cast_signed()), Some(parent))
    }

    /// Its account is there before the answer to the one who asked for it, and until it is closed.
    #[tokio::test]
    async fn a_process_is_within_a_run_from_its_first_moment_to_its_last() {
        let (runs, _orders, _directory) = runs(1);
        let (own, parent) = process();
        let within = || runs.around(own).unwrap().map(|run| run.id());
        assert_eq!(within(), None);
        let outer = port(&runs, parent, None);
        assert_eq!(within(), Some(outer.account.id()), "it has not been told of it yet");
        let inner = port(&runs, parent, Some(Arc::clone(&outer.account)));
        let ended = Arc::clone(&inner.account);
        drop(inner);
        assert!(ended.check().is_err(), "it pays nothing any more");
        assert_eq!(within(), Some(outer.account.id()));
        drop(outer);
        assert_eq!(within(), None);
    }

    #[tokio::test]
    async fn a_port_that_comes_too_late_leaves_no_run_behind() {
        let (runs, mut orders, _directory) = runs(1);
        let mut opening = Box::pin(runs.open(RunRequest::default(), None));
        assert!(futures_util::poll!(&mut opening).is_pending());
        let RunOrder { reply, .. } = orders.recv().await.unwrap();
        let port = port(&runs, None, None);
        let (account, shutdown) = (Arc::clone(&port.account), port.shutdown.clone());
        reply.send(Ok(port)).unwrap();
        assert!(!runs.payments.open_runs().is_empty());
        drop(opening);
        assert!(runs.payments.open_runs().is_empty() && shutdown.is_stopping());
        assert!(account.check().is_err());
    }

    #[tokio::test]
    async fn a_run_within_another_one_names_it_and_a_name_of_an_earlier_proxy_is_refused() {
        let ((runs, mut orders, _directory), (later, mut later_orders, _other)) = (runs(9), runs(9));
        let (_, parent) = process();
        let outer = open((&runs, &mut orders), None, parent).await.unwrap();
        assert!(runs.find(outer.name()).is_some());
        assert_eq!(outer.name().to_string().parse::<RunName>().unwrap(), outer.name());
        // The processes of other systems tell nothing.
        let inner = open((&runs, &mut orders), Some(outer.name()), None).await.unwrap();
        assert!(inner.account().is_within(outer.account()) && !outer.account().is_within(inner.account()));
        // A program cannot get out by naming another run.
        let foreign = open((&runs, &mut orders), None, None).await.unwrap();
        let (own, _) = process();
        let inner = open((&runs, &mut orders), Some(foreign.name()), own).await.unwrap();
        assert!(inner.account().is_within(outer.account()));
        // The run of the later proxy has the same number.
        let same = open((&later, &mut later_orders), None, None).await.unwrap();
        assert_eq!(same.name().number, outer.name().number);
        let refused = open((&later, &mut later_orders), Some(outer.name()), None).await;
        assert!(matches!(refused, Err(RunRefused::NotWithin(name)) if name == outer.name()));
        assert!(later.find(outer.name()).is_none());
        for wrong in ["", "1", "1-", "x-1", "1-x", "-1"] {
            assert!(wrong.parse::<RunName>().is_err(), "{wrong}");
        }
    }
}
