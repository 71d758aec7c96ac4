//! The admin socket: how the command line talks to a running `serve`. HTTP over a Unix socket in the state folder
//! that only its owner can open.

mod client;
mod server;

use std::path::{Path, PathBuf};

pub use client::{AdminError, channels, operate, plan};
pub use server::serve;

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
/// The largest body of a question, in bytes.
const MAX_QUESTION: usize = 64 << 10;
