//! Looks up a socket in /proc/net/tcp and tcp6, proc_net_tcp(5): slower than sock_diag, and available nearly everywhere.

use std::io;
use std::net::SocketAddr;

use procfs::net::{TcpNetEntry, tcp, tcp6};

use super::socket::{OPEN, SocketPair};

/// The user ID of a connected socket's owner, if one of the tables lists it.
pub(super) fn owner(pair: SocketPair) -> io::Result<Option<u32>> {
    let canonical = |address: SocketAddr| (address.ip().to_canonical(), address.port());
    let is_it = |entry: &TcpNetEntry| {
        canonical(entry.local_address) == canonical(pair.local)
            && canonical(entry.remote_address) == canonical(pair.remote)
            && entry.inode != 0
            && OPEN.contains(&entry.state.to_u8())
    };
    let find = |table: Vec<TcpNetEntry>| table.into_iter().find(is_it).map(|entry| entry.uid);
    if pair.local.ip().to_canonical().is_ipv4()
        && let Some(owner) = find(tcp().map_err(io::Error::other)?)
    {
        return Ok(Some(owner));
    }
    // A socket for IPv6 that is connected to an IPv4 address is in the second table.
    Ok(find(tcp6().map_err(io::Error::other)?))
}
