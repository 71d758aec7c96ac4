//! Looks up the owner of a TCP socket of this machine by its two addresses.
//!
//! The kernel reports the user who created the socket. It says user 0 for a socket that no process has open any more, such
//! as one in TIME_WAIT, so only sockets with an inode count. In a user namespace, it reports users outside of the
//! namespace as the overflow user.

use super::socket::{OpenSocket, SocketPair};
#[cfg(target_os = "linux")]
use super::{proc_table, sock_diag};
#[cfg(target_os = "linux")]
use crate::proxy::own_sockets;

/// Why the owner of a socket is not known.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OwnerError {
    /// No process of this machine has such a socket open.
    #[error("its connection is closed, or comes from another machine")]
    NotFound,
    /// This process has opened it for a client.
    #[cfg(target_os = "linux")]
    #[error("its connection comes through this proxy, from a client that is not known")]
    Itself,
    /// The user namespace of this process hides the owner.
    #[cfg(target_os = "linux")]
    #[error("in this user namespace, the user {0} stands for many users")]
    Hidden(u32),
    /// The list of sockets cannot be read.
    #[cfg(target_os = "linux")]
    #[error("cannot read the sockets of this machine: {0}")]
    Unreadable(std::io::Error),
    /// Only Linux tells.
    #[cfg(not(target_os = "linux"))]
    #[error("only Linux tells that")]
    Unsupported,
}

/// A connected socket with its owner. Blocks.
#[cfg(target_os = "linux")]
pub(super) fn find(pair: SocketPair) -> Result<OpenSocket, OwnerError> {
    // sock_diag may be missing, and then says the same as if there were no such socket.
    let found = match sock_diag::find(pair) {
        Ok(Some(found)) => found,
        Ok(None) | Err(_) => {
            proc_table::find(pair).map_err(OwnerError::Unreadable)?.ok_or(OwnerError::NotFound)?
        }
    };
    if own_sockets::has(found.inode) {
        return Err(OwnerError::Itself);
    }
    if is_overflow(found.owner) { Err(OwnerError::Hidden(found.owner)) } else { Ok(found) }
}

/// A connected socket with its owner, which no portable interface reveals.
#[cfg(not(target_os = "linux"))]
pub(super) fn find(_pair: SocketPair) -> Result<OpenSocket, OwnerError> {
    Err(OwnerError::Unsupported)
}

/// Whether this user ID stands for all users that the user namespace of this process does not contain.
#[cfg(target_os = "linux")]
fn is_overflow(owner: u32) -> bool {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let overflow = read("/proc/sys/kernel/overflowuid").trim().parse().unwrap_or(65534);
    // The initial namespace contains every user.
    owner == overflow
        && !read("/proc/self/uid_map").split_ascii_whitespace().eq(["0", "0", &u32::MAX.to_string()])
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};

    use super::*;

    fn us() -> u32 {
        rustix::process::geteuid().as_raw()
    }

    /// A client's socket, the server's end of its connection, and the addresses that the client sees.
    fn connected(listen: &str, connect: &str) -> (TcpStream, TcpStream, SocketPair) {
        let listener = TcpListener::bind(listen).unwrap();
        let port = listener.local_addr().unwrap().port();
        let client = TcpStream::connect(format!("{connect}:{port}")).unwrap();
        let (server, peer) = listener.accept().unwrap();
        let pair = SocketPair { local: peer, remote: server.local_addr().unwrap() };
        (client, server, pair)
    }

    /// By sock_diag, by the tables, and by what uses both.
    fn owners(pair: SocketPair) -> [Option<u32>; 3] {
        // Without such a socket, sock_diag reports an error.
        let found = [sock_diag::find(pair).unwrap_or(None), proc_table::find(pair).unwrap(), find(pair).ok()];
        assert!(found.iter().all(|one| *one == found[0]), "{found:?}");
        found.map(|one| Some(one?.owner))
    }

    #[test]
    fn the_owner_of_an_open_socket_is_found_in_each_family() {
        for (listen, connect) in [
            ("127.0.0.1:0", "127.0.0.1"),
            ("[::1]:0", "[::1]"),
            ("[::]:0", "127.0.0.1"),
            ("[::]:0", "[::1]"),
            ("[::]:0", "[::ffff:127.0.0.1]"),
            ("0.0.0.0:0", "127.0.0.2"),
        ] {
            let (_client, _server, pair) = connected(listen, connect);
            assert_eq!(owners(pair), [Some(us()); 3], "{listen} {connect} {pair:?}");
        }
    }

    #[test]
    fn a_half_closed_socket_still_has_its_owner() {
        let (client, _server, pair) = connected("127.0.0.1:0", "127.0.0.1");
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(owners(pair), [Some(us()); 3]);
    }

    #[test]
    fn a_socket_that_no_process_has_open_has_no_owner() {
        for listen in ["127.0.0.1:0", "[::1]:0"] {
            // In FIN_WAIT2, the kernel would say that root owns it.
            let (client, server, pair) = connected(listen, listen.strip_suffix(":0").unwrap());
            drop(client);
            assert_eq!(owners(pair), [None; 3], "{listen}");
            // In TIME_WAIT, too.
            drop(server);
            assert_eq!(owners(pair), [None; 3], "{listen}");
        }
    }

    #[test]
    fn a_listener_at_the_clients_address_is_not_the_client() {
        for listen in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(listen).unwrap();
            let local = listener.local_addr().unwrap();
            let remote = SocketAddr::new(local.ip(), 1);
            assert_eq!(owners(SocketPair { local, remote }), [None; 3], "{listen}");
        }
    }

    #[test]
    fn root_in_a_complete_namespace_is_not_hidden() {
        assert!(!is_overflow(0));
        assert!(!is_overflow(1000));
    }
}
