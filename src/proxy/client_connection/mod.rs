//! A client's connection, and the user who owns its other end if that is on this machine.

mod owner;
#[cfg(target_os = "linux")]
mod proc_table;
#[cfg(target_os = "linux")]
mod sock_diag;
mod socket;

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::OnceCell;

use self::owner::OwnerError;
use self::socket::{OpenSocket, SocketPair};
use crate::payments::{OpenRuns, RunAccount};

/// A connection that a client has made to the proxy.
#[derive(Debug)]
pub(crate) struct ClientConnection {
    pub(crate) client: SocketAddr,
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
        Self { client, server, socket: OnceCell::new(), run: OnceCell::new() }
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
    pub(super) async fn find_run(&self, open: impl FnOnce() -> OpenRuns) -> Option<Arc<RunAccount>> {
        let looked_up = || async {
            // A connection is younger than the run that its program belongs to.
            let open = open();
            if open.is_empty() || !self.client.ip().to_canonical().is_loopback() {
                return None;
            }
            // The socket of a client that has left is not found, and the client gets nothing.
            let inode = self.socket().await.ok()?.inode;
            let found = tokio::task::spawn_blocking(move || open.of_socket(inode)).await;
            found.ok().flatten()
        };
        self.run.get_or_init(looked_up).await.clone()
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
}
