//! A listening socket whose connections are served on other threads.

use std::io;
use std::net::SocketAddr;

use tokio::net::TcpListener;

/// Accepts connections and hands them over without a tie to the runtime that it runs on. No other process shares the
/// socket, so a second one that listens on the same address fails.
#[derive(Debug)]
pub struct Acceptor {
    listener: TcpListener,
    address: SocketAddr,
}

impl Acceptor {
    /// Listens on `address`; port 0 stands for any free port.
    ///
    /// # Errors
    /// The address cannot be used.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        Ok(Self { address: listener.local_addr()?, listener })
    }

    /// The address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The next connection, in non-blocking mode, and the address of its client.
    pub(super) async fn accept(&self) -> io::Result<(std::net::TcpStream, SocketAddr)> {
        let (stream, client) = self.listener.accept().await?;
        Ok((stream.into_std()?, client))
    }
}
