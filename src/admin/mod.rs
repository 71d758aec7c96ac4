//! The admin socket, over which the command line controls a running `serve`: HTTP over a Unix socket in the state
//! directory that only its owner can open.

mod client;
mod client_count;
mod endpoints;
mod server;
mod socket;

pub use client::{
    AdminError, Session, approvals, budgets, channels, decide, freeze, open_session, operate, paused,
    pending, plan, resume, revoke, status,
};
pub use client_count::ClientCount;
#[cfg(feature = "testing")]
pub use endpoints::Status;
pub use server::serve;
pub use socket::{check_path, socket};
