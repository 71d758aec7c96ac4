//! A client's connection, and the user who owns its other end if that is on this machine.

mod owner;
#[cfg(target_os = "linux")]
mod proc_table;
#[cfg(target_os = "linux")]
mod sock_diag;
mod socket;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::OnceCell;

use self::owner::OwnerError;
use self::socket::{OpenSocket, SocketPair};
use crate::payments::{OpenRuns, RunAccount};

/// Why it is not known which run a client belongs to.
#[derive(Debug, thiserror::Error)]
pub(super) enum UnknownRun {
    /// Its socket is not found.
    #[error(transparent)]
    Socket(#[from] OwnerError),
    /// The processes of this machine do not show it.
    #[error("cannot look for its process: {0}")]
    Processes(io::Error),
}

/// A connection that a client has made to the proxy.
#[derive(Debug)]
pub(crate) struct ClientConnection {
    pub(crate) client: SocketAddr,
    /// Whether its requests reach only what those of other machines do.
    pub(crate) is_confined: bool,
    /// The address that the client connected to.
    server: Option<SocketAddr>,
    /// The client's socket, once it has been looked up.
    socket: OnceCell<OpenSocket>,
    /// The run that the client belongs to, once it is known: that of the port that it came to, or of its process.
    run: OnceCell<Option<Arc<RunAccount>>>,
}

impl ClientConnection {
    /// The connection from `client` to `server`, if that is known.
    pub(crate) fn new(client: SocketAddr, server: Option<SocketAddr>) -> Self {
        Self { client, is_confined: false, server, socket: OnceCell::new(), run: OnceCell::new() }
    }

    /// The same, to a port whose requests reach only what those of other machines do, if `is_confined` is true.
    pub(crate) fn confined(self, is_confined: bool) -> Self {
        Self { is_confined, ..self }
    }

    /// The same, to the port of a run.
    pub(crate) fn of_run(self, run: Option<Arc<RunAccount>>) -> Self {
        match run {
            Some(_) => Self { run: run.into(), ..self },
            None => self,
        }
    }

    /// The run that the client belongs to. Looks it up once if it came to another port than a run's: a run has the
    /// programs that descend from its process.
    ///
    /// # Errors
    /// It is not known, so that it could be one whose budget is used up. A later call looks again.
    pub(super) async fn find_run(
        &self,
        open: impl FnOnce() -> OpenRuns,
    ) -> Result<Option<Arc<RunAccount>>, UnknownRun> {
        match self.run.get() {
            Some(run) => Ok(run.clone()),
            // Boxed: once per connection, and larger than all that a payment waits for otherwise.
            None => Box::pin(self.look_for_run(open)).await,
        }
    }

    async fn look_for_run(
        &self,
        open: impl FnOnce() -> OpenRuns,
    ) -> Result<Option<Arc<RunAccount>>, UnknownRun> {
        let looked_up = || async {
            // A connection is younger than the run that its program belongs to.
            let open = open();
            if open.is_empty() || !self.client.ip().to_canonical().is_loopback() {
                return Ok(None);
            }
            let socket = match self.socket().await {
                Ok(socket) => socket,
                // A program of a run belongs to a user who is known.
                #[cfg(target_os = "linux")]
                Err(OwnerError::Hidden(_)) => return Ok(None),
                #[cfg(not(target_os = "linux"))]
                Err(OwnerError::Unsupported) => return Ok(None),
                Err(error) => return Err(error.into()),
            };
            let found = tokio::task::spawn_blocking(move || open.of_socket(socket.inode, socket.owner)).await;
            found.map_err(io::Error::other).flatten().map_err(UnknownRun::Processes)
        };
        self.run.get_or_try_init(looked_up).await.cloned()
    }

    /// The user ID of the user who created the client's socket. Looks it up once, outside of the runtime's threads, and
    /// remembers it.
    ///
    /// # Errors
    /// The client is on another machine, its socket no longer exists, or the system does not say who owns it.
    pub(super) async fn owner(&self) -> Result<u32, OwnerError> {
        Ok(self.socket().await?.owner)
    }

    async fn socket(&self) -> Result<OpenSocket, OwnerError> {
        match self.socket.get() {
            Some(socket) => Ok(*socket),
            // Boxed for the same reason.
            None => Box::pin(self.look_for_socket()).await,
        }
    }

    async fn look_for_socket(&self) -> Result<OpenSocket, OwnerError> {
        let pair = SocketPair { local: self.client, remote: self.server.ok_or(OwnerError::NotFound)? };
        let looked_up = || async move {
            let found = tokio::task::spawn_blocking(move || owner::find(pair)).await;
            found.map_err(|_| OwnerError::NotFound).flatten()
        };
        self.socket.get_or_try_init(looked_up).await.copied()
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::time::Duration;

    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::limits::Limits;
    use crate::payments::journal::Journal;
    use crate::payments::{LedgerBounds, Payments, RunTerms};
    use crate::protocol::Policy;
    use crate::proxy::own_sockets;

    #[tokio::test]
    async fn the_owner_is_remembered_and_a_failure_is_not() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, peer) = listener.accept().await.unwrap();
        let [known, late] = [(); 2].map(|()| ClientConnection::new(peer, server.local_addr().ok()));
        let us = rustix::process::geteuid().as_raw();
        assert_eq!(known.owner().await.ok(), Some(us));
        drop(client);
        assert_eq!(known.owner().await.ok(), Some(us));
        for _ in 0..2 {
            assert!(matches!(late.owner().await, Err(OwnerError::NotFound)));
        }
    }

    #[tokio::test]
    async fn a_client_that_cannot_be_looked_up_may_belong_to_an_open_run() {
        let directory = tempfile::tempdir().unwrap();
        let journal = Journal::open(directory.path()).unwrap();
        let bounds = LedgerBounds { keep: Duration::from_secs(60), max_size: 1 << 20 };
        let policy = Arc::new(Policy::builder().build());
        let (payments, _task) =
            Payments::spawn(policy, journal, bounds, [].into(), &Limits::default()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, peer) = listener.accept().await.unwrap();
        let [before, outside, within, late] =
            [(); 4].map(|()| ClientConnection::new(peer, server.local_addr().ok()));
        let find = async |client: &ClientConnection| {
            client.find_run(|| payments.open_runs()).await.map(|run| run.map(|run| run.id()))
        };
        assert!(matches!(find(&before).await, Ok(None)));
        // The client is this process, which descends from its parent, and not from itself.
        let own = std::process::id().cast_signed();
        let other = payments.open_run(RunTerms::default(), Some(own), None);
        assert!(matches!(find(&outside).await, Ok(None)));
        let parent = rustix::process::getppid().unwrap().as_raw_nonzero().get();
        let run = payments.open_run(RunTerms::default(), Some(parent), None);
        assert_eq!(find(&within).await.unwrap(), Some(run.id()));
        drop(client);
        for _ in 0..2 {
            assert!(matches!(find(&late).await, Err(UnknownRun::Socket(OwnerError::NotFound))));
        }
        let through = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, peer) = listener.accept().await.unwrap();
        own_sockets::remember(&through).unwrap();
        let through = ClientConnection::new(peer, server.local_addr().ok());
        assert!(matches!(find(&through).await, Err(UnknownRun::Socket(OwnerError::Itself))));
        other.close();
        run.close();
        assert!(matches!(find(&late).await, Ok(None)), "without runs nothing is looked up");
    }
}
