//! The admin socket: how the command line talks to a running `serve`. HTTP over a Unix socket in the state folder
//! that only its owner can open.

mod client;
mod server;

use std::path::{Path, PathBuf};

pub use client::{AdminError, channels};
pub use server::serve;

/// The path of the socket in a state folder.
#[must_use]
pub fn socket(state_dir: &Path) -> PathBuf {
    state_dir.join("admin.sock")
}

/// Where the list of channels is.
const CHANNELS: &str = "/channels";
