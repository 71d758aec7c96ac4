//! The admin socket: how the command line talks to a running `serve`. HTTP over a Unix socket in the state folder
//! that only its owner can open.

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

/// What a running proxy says of itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// Where clients connect.
    pub listen: SocketAddr,
    /// What it has paid so far.
    pub bill: SpendingReport,
}

/// The longest path of a Unix socket that every system takes, in bytes.
const LONGEST: usize = 103;

/// A path for the system's calls: itself, or a short one that leads there for as long as the file is held.
fn short(path: &Path) -> io::Result<(PathBuf, Option<File>)> {
    if path.as_os_str().len() <= LONGEST {
        return Ok((path.to_owned(), None));
    }
    if !cfg!(target_os = "linux") {
        let text = format!("its path has more than {LONGEST} bytes; choose a shorter state_dir");
        return Err(io::Error::new(io::ErrorKind::InvalidFilename, text));
    }
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidFilename.into());
    };
    let folder = File::open(folder)?;
    let path = Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(name);
    Ok((path, Some(folder)))
}

/// Whether a socket could be made there, as far as its path says.
///
/// # Errors
/// What the system cannot do, with what to do about it.
pub fn check_path(path: &Path) -> io::Result<()> {
    match short(path) {
        // It is made with the first start.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        checked => checked.map(drop),
    }
}

/// The path of the socket in a state folder.
#[must_use]
pub fn socket(state_dir: &Path) -> PathBuf {
    state_dir.join("admin.sock")
}

/// Where the list of channels is.
const CHANNELS: &str = "/channels";
/// Says what an operation would do.
const PLAN: &str = "/plan";
/// Does it.
const OPERATE: &str = "/operate";
/// A seller did not sign that a channel be closed, and the policy says to stop there.
const DENIED: StatusCode = StatusCode::FAILED_DEPENDENCY;
/// Says where the proxy listens and what it has paid.
const STATUS: &str = "/about";
/// Says the same, and goes on as long as the proxy runs: who asks attends for so long.
const SESSION: &str = "/attend";
/// The largest body of a question, in bytes.
const MAX_QUESTION: usize = 64 << 10;
