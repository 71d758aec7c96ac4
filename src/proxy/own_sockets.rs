//! The sockets by which this process has connected to this machine for its clients. A request that comes back through one of
//! them is some client's: who that is, and which run it belongs to, is not known here.

use std::collections::BTreeSet;
use std::io;
use std::sync::Mutex;

use procfs::process::{FDTarget, Process};
use tokio::net::TcpStream;

use crate::mutex::lock;

/// How many sockets are remembered before those that are closed are first looked for.
const ENOUGH: usize = 1024;

/// Those that are open, and some that were.
static SOCKETS: Mutex<OwnSockets> = Mutex::new(OwnSockets { inodes: BTreeSet::new(), kept: 0 });

#[derive(Debug)]
struct OwnSockets {
    /// The kernel gives no other socket the same number before it has used all others.
    inodes: BTreeSet<u64>,
    /// How many were open when that was last looked up.
    kept: usize,
}

/// Remembers the socket of a connection if it ends on this machine, before anything is sent on it.
///
/// # Errors
/// The system does not say which socket it is.
pub(super) fn remember(stream: &TcpStream) -> io::Result<()> {
    let (local, remote) = (stream.local_addr()?.ip().to_canonical(), stream.peer_addr()?.ip().to_canonical());
    // An address of this machine is also the source of what is sent to it.
    if !remote.is_loopback() && local != remote {
        return Ok(());
    }
    let inode = rustix::fs::fstat(stream)?.st_ino;
    let mut own = lock(&SOCKETS);
    if own.inodes.len() >= own.kept.saturating_mul(2).saturating_add(ENOUGH) {
        own.forget_closed();
    }
    own.inodes.insert(inode);
    Ok(())
}

/// Whether this process has opened the socket with this inode for a client.
pub(super) fn has(inode: u64) -> bool {
    lock(&SOCKETS).inodes.contains(&inode)
}

impl OwnSockets {
    /// Forgets those that are closed. Without a list of the open ones, all stay: none may be taken for somebody else's.
    fn forget_closed(&mut self) {
        if let Ok(files) = Process::myself().and_then(|process| process.fd()) {
            let targets = files.filter_map(|file| Some(file.ok()?.target));
            let open: BTreeSet<u64> = targets
                .filter_map(|target| if let FDTarget::Socket(inode) = target { Some(inode) } else { None })
                .collect();
            self.inodes.retain(|inode| open.contains(inode));
        }
        self.kept = self.inodes.len();
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn only_open_sockets_to_this_machine_stay_remembered() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let inode = |stream: &TcpStream| rustix::fs::fstat(stream).unwrap().st_ino;
        let [open, other] =
            [TcpStream::connect(address).await.unwrap(), TcpStream::connect(address).await.unwrap()];
        remember(&open).unwrap();
        assert!(has(inode(&open)) && !has(inode(&other)));
        let closed = TcpStream::connect(address).await.unwrap();
        remember(&closed).unwrap();
        let number = inode(&closed);
        drop(closed);
        assert!(has(number), "nothing is looked up each time");
        lock(&SOCKETS).forget_closed();
        assert!(has(inode(&open)) && !has(number));
    }
}
