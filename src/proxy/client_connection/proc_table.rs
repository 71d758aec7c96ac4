//! Looks up a socket in /proc/net/tcp and tcp6, proc_net_tcp(5): slower than sock_diag, and available nearly everywhere.

use std::io;
use std::net::SocketAddr;

use procfs::net::{TcpNetEntry, tcp, tcp6};

use super::socket::{OPEN, OpenSocket, SocketPair};

/// A connected socket, if one of the tables lists it.
pub(super) fn find(pair: SocketPair) -> io::Result<Option<OpenSocket>> {
    let canonical = |address: SocketAddr| (address.ip().to_canonical(), address.port());
    let is_it = |entry: &TcpNetEntry| {
        canonical(entry.local_address) == canonical(pair.local)
            && canonical(entry.remote_address) == canonical(pair.remote)
            && entry.inode != 0
            && OPEN.contains(&entry.state.to_u8())
    };
    let find = |table: Vec<TcpNetEntry>| {
        let found = table.into_iter().find(is_it);
        found.map(|entry| OpenSocket { owner: entry.uid, inode: entry.inode })
    };
    if pair.local.ip().to_canonical().is_ipv4()
        && let Some(found) = find(tcp().map_err(io::Error::other)?)
    {
        return Ok(Some(found));
    }
    // A socket for IPv6 that is connected to an IPv4 address is in the second table.
    Ok(find(tcp6().map_err(io::Error::other)?))
}
