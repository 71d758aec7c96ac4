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
use self::socket::SocketPair;
use crate::payments::RunAccount;

/// A connection that a client has made to the proxy.
#[derive(Debug)]
pub(crate) struct ClientConnection {
    pub(crate) client: SocketAddr,
    /// The address that the client connected to.
    server: Option<SocketAddr>,
    /// The user ID of the client socket's owner, once it has been looked up.
    owner: OnceCell<u32>,
    /// The run whose port it came to.
    run: Option<Arc<RunAccount>>,
}

impl ClientConnection {
    /// The connection from `client` to `server`, if that is known.
    pub(crate) fn new(client: SocketAddr, server: Option<SocketAddr>) -> Self {
        Self { client, server, owner: OnceCell::new(), run: None }
    }

    /// The same, to the port of a run.
    pub(crate) fn of_run(self, run: Option<Arc<RunAccount>>) -> Self {
        Self { run, ..self }
    }

    /// The run whose port it came to.
    pub(super) fn run(&self) -> Option<&Arc<RunAccount>> {
        self.run.as_ref()
    }

    /// The user ID of the user who created the client's socket. Looks it up once, outside of the runtime's threads, and
    /// remembers it.
    ///
    /// # Errors
    /// The client is on another machine, its socket no longer exists, or the system does not say who owns it.
    pub(super) async fn owner(&self) -> Result<u32, OwnerError> {
        let pair = SocketPair { local: self.client, remote: self.server.ok_or(OwnerError::NotFound)? };
        let looked_up = || async move {
            let found = tokio::task::spawn_blocking(move || owner::owner(pair)).await;
            found.map_err(|_| OwnerError::NotFound).flatten()
        };
        self.owner.get_or_try_init(looked_up).await.copied()
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
