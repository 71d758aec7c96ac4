//! The admin socket: how the command line talks to a running `serve`. HTTP over a Unix socket in the state folder
//! that only its owner can open.

mod attendance;
mod client;
mod server;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use http::StatusCode;
use serde::{Deserialize, Serialize};

pub use attendance::Attendance;
pub use client::{AdminError, Attended, about, attend, channels, operate, plan};
pub use server::serve;

use crate::manager::Bill;

/// What a running proxy says of itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct About {
    /// Where clients connect.
    pub listen: SocketAddr,
    /// What it has paid so far.
    pub bill: Bill,
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
const ABOUT: &str = "/about";
/// Says the same, and goes on as long as the proxy runs: who asks attends for so long.
const ATTEND: &str = "/attend";
/// The largest body of a question, in bytes.
const MAX_QUESTION: usize = 64 << 10;
