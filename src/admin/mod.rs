//! The admin socket, over which the command line controls a running `serve`: HTTP over a Unix socket in the state
//! directory that only its owner can open.

mod client;
mod client_count;
mod server;

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use http::StatusCode;
use serde::{Deserialize, Serialize};

pub use client::{AdminError, Session, channels, open_session, operate, plan, status};
pub use client_count::ClientCount;
pub use server::serve;

use crate::payments::SpendingReport;

/// The status of a running proxy.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// The address for clients.
    pub listen: SocketAddr,
    /// What it has paid so far.
    pub bill: SpendingReport,
}

/// The longest socket path that every system supports, in bytes.
const LONGEST: usize = 103;

/// A path short enough for the system: `path` itself, or an alias that is valid while the returned file is open.
fn short(path: &Path) -> io::Result<(PathBuf, Option<File>)> {
    if path.as_os_str().len() <= LONGEST {
        return Ok((path.to_owned(), None));
    }
    if !cfg!(target_os = "linux") {
        let text = format!("its path has more than {LONGEST} bytes; choose a shorter state_dir");
        return Err(io::Error::new(io::ErrorKind::InvalidFilename, text));
    }
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidFilename.into());
    };
    let directory = File::open(directory)?;
    let path = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name);
    Ok((path, Some(directory)))
}

/// Whether a socket could be created at this path, judging by the path alone.
///
/// # Errors
/// The path is too long for the system, with the remedy.
pub fn check_path(path: &Path) -> io::Result<()> {
    match short(path) {
        // The first start creates the directory.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        checked => checked.map(drop),
    }
}

/// The path of the socket in a state directory.
#[must_use]
pub fn socket(state_dir: &Path) -> PathBuf {
    state_dir.join("admin.sock")
}

/// Returns the list of channels.
const CHANNELS: &str = "/channels";
/// Returns what an operation would do.
const PLAN: &str = "/plan";
/// Performs an operation.
const OPERATE: &str = "/operate";
/// The status if a seller did not sign that a channel be closed, and the policy says to stop there.
const DENIED: StatusCode = StatusCode::FAILED_DEPENDENCY;
/// Returns the proxy's address and what it has paid.
const STATUS: &str = "/about";
/// Returns the same, and stays open while the proxy runs; the connection counts as a session.
const SESSION: &str = "/attend";
/// The largest request body, in bytes.
const MAX_REQUEST: usize = 64 << 10;
