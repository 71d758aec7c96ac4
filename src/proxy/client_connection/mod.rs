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
    #[error("{0}; send the request again, or once no run is open")]
    Socket(#[from] OwnerError),
    /// The processes of this machine do not show it.
    #[error("cannot look for its process: {0}; send the request again, or once no run is open")]
    Processes(io::Error),
    /// Its port is that of a run which its own is not within, nor the other way round.
    #[error("it belongs to run {program}, and came to the port of run {port}; use the port of its own run")]
    OtherPort { program: u64, port: u64 },
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
    /// The run whose port it came to.
    port: Option<Arc<RunAccount>>,
    /// The run that the client belongs to, once it is known: that of the port that it came to, or of its process.
    run: OnceCell<Option<Arc<RunAccount>>>,
}

impl ClientConnection {
    /// The connection from `client` to `server`, if that is known.
    pub(crate) fn new(client: SocketAddr, server: Option<SocketAddr>) -> Self {
        Self { client, is_confined: false, server, socket: OnceCell::new(), port: None, run: OnceCell::new() }
    }

    /// The same, to a port whose requests reach only what those of other machines do, if `is_confined` is true.
    pub(crate) fn confined(self, is_confined: bool) -> Self {
        Self { is_confined, ..self }
    }

    /// The same, to the port of a run.
    pub(crate) fn of_run(self, run: Option<Arc<RunAccount>>) -> Self {
        Self { port: run, ..self }
    }

    /// The run that the client belongs to. A run has the programs that descend from its process; those of no run may use the
    /// port of one. Looks for the process once, unless the answer is the same for each.
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
            let is_clear = self.port.as_ref().map_or(open.is_empty(), |port| open.are_around(port));
            let found = if is_clear { None } else { self.run_of_process(open).await? };
            let (Some(port), Some(program)) = (&self.port, &found) else {
                return Ok(found.or_else(|| self.port.clone()));
            };
            if port.is_within(program) {
                Ok(self.port.clone())
            } else if program.is_within(port) {
                Ok(found)
            } else {
                Err(UnknownRun::OtherPort { program: program.id(), port: port.id() })
            }
        };
        self.run.get_or_try_init(looked_up).await.cloned()
    }

    /// The run that the process at the other end belongs to, if that is on this machine.
    async fn run_of_process(&self, open: OpenRuns) -> Result<Option<Arc<RunAccount>>, UnknownRun> {
        if !self.is_local() {
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
    }

    /// Whether the other end is on this machine: what is sent to an address of a machine from there comes from the same one.
    fn is_local(&self) -> bool {
        let client = self.client.ip().to_canonical();
        client.is_loopback() || self.server.is_none_or(|server| server.ip().to_canonical() == client)
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
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::payments::{Payments, RunPlace, RunTerms, idle};
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

    fn open(payments: &Payments, root: i32, parent: Option<&Arc<RunAccount>>) -> Arc<RunAccount> {
        let place = RunPlace { parent: parent.cloned(), root: Some(root), port: ([127, 0, 0, 1], 1).into() };
        payments.open_run(RunTerms::default(), place)
    }

    /// The client is this process, which descends from its parent, and not from itself.
    fn roots() -> (i32, i32) {
        let parent = rustix::process::getppid().unwrap().as_raw_nonzero().get();
        (parent, std::process::id().cast_signed())
    }

    #[tokio::test]
    async fn a_program_counts_in_its_own_run_also_at_the_port_of_another_one() {
        let (payments, _directory) = idle();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, peer) = listener.accept().await.unwrap();
        let at = async |port: &Arc<RunAccount>| {
            let client = ClientConnection::new(peer, server.local_addr().ok()).of_run(Some(Arc::clone(port)));
            client.find_run(|| payments.open_runs()).await.map(|run| run.map(|run| run.id()))
        };
        let (ours, other) = roots();
        let outer = open(&payments, other, None);
        assert_eq!(at(&outer).await.unwrap(), Some(outer.id()), "of no run: its user may use any port");
        let own = open(&payments, ours, Some(&outer));
        assert_eq!(at(&outer).await.unwrap(), Some(own.id()), "in the inner one, which counts in the outer");
        assert_eq!(at(&own).await.unwrap(), Some(own.id()));
        let inner = open(&payments, other, Some(&own));
        assert_eq!(at(&inner).await.unwrap(), Some(inner.id()), "which counts in its own");
        let beside = open(&payments, ours, Some(&outer));
        assert_eq!(at(&beside).await.unwrap(), Some(beside.id()), "its own process has opened it");
        let foreign = open(&payments, other + 1, None);
        let refused = at(&foreign).await.unwrap_err();
        assert_eq!(
            refused.to_string(),
            format!(
                "it belongs to run {}, and came to the port of run {}; use the port of its own run",
                own.id(),
                foreign.id()
            )
        );
    }

    #[tokio::test]
    async fn nothing_is_looked_up_at_a_port_that_all_may_use() {
        let (payments, _directory) = idle();
        let (ours, other) = roots();
        let outer = open(&payments, ours, None);
        let inner = open(&payments, other, Some(&outer));
        // There is no such connection.
        let client: SocketAddr = "127.0.0.1:1".parse().unwrap();
        let at = async |port: &Arc<RunAccount>| {
            let client = ClientConnection::new(client, Some(client)).of_run(Some(Arc::clone(port)));
            client.find_run(|| payments.open_runs()).await.map(|run| run.map(|run| run.id()))
        };
        assert_eq!(at(&inner).await.unwrap(), Some(inner.id()));
        assert!(matches!(at(&outer).await, Err(UnknownRun::Socket(OwnerError::NotFound))));
        inner.close();
        assert_eq!(at(&outer).await.unwrap(), Some(outer.id()));
    }

    #[tokio::test]
    async fn a_client_at_an_address_of_this_machine_is_looked_up() {
        let (payments, _directory) = idle();
        let _run = open(&payments, roots().0, None);
        for (client, server, is_here) in [
            ("192.0.2.1:1", "192.0.2.1:2", true),
            ("[::ffff:192.0.2.1]:1", "192.0.2.1:2", true),
            ("[2001:db8::1]:1", "[2001:db8::1]:2", true),
            ("[::1]:1", "[::1]:2", true),
            ("192.0.2.1:1", "192.0.2.2:2", false),
            ("[2001:db8::1]:1", "[2001:db8::2]:2", false),
        ] {
            let connection = ClientConnection::new(client.parse().unwrap(), server.parse().ok());
            match connection.find_run(|| payments.open_runs()).await {
                Err(UnknownRun::Socket(OwnerError::NotFound)) if is_here => {}
                Ok(None) if !is_here => {}
                found => panic!("{client} {server}: {found:?}"),
            }
        }
    }

    #[tokio::test]
    async fn a_client_that_cannot_be_looked_up_may_belong_to_an_open_run() {
        let (payments, _directory) = idle();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, peer) = listener.accept().await.unwrap();
        let [before, outside, within, late] =
            [(); 4].map(|()| ClientConnection::new(peer, server.local_addr().ok()));
        let find = async |client: &ClientConnection| {
            client.find_run(|| payments.open_runs()).await.map(|run| run.map(|run| run.id()))
        };
        assert!(matches!(find(&before).await, Ok(None)));
        let (parent, own) = roots();
        let other = open(&payments, own, None);
        assert!(matches!(find(&outside).await, Ok(None)));
        let run = open(&payments, parent, None);
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
