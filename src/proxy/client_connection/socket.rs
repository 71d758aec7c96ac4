//! How a socket is identified, and which ones count.

use std::net::SocketAddr;

/// The addresses of a socket, as the process that has it open sees them.
#[derive(Clone, Copy, Debug)]
pub(super) struct SocketPair {
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
}

/// An open socket of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OpenSocket {
    /// The user who created it.
    pub(super) owner: u32,
    /// Identifies it among the open files of its process.
    pub(super) inode: u64,
}

/// The states of a socket whose process may still expect a response, numbered as in the kernel: ESTABLISHED, FIN_WAIT1,
/// FIN_WAIT2 and CLOSE_WAIT.
#[cfg(target_os = "linux")]
pub(super) const OPEN: [u8; 4] = [1, 4, 5, 8];
