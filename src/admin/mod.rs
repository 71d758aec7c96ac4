//! The admin socket, over which the command line controls a running `serve`: HTTP over a Unix socket in the state
//! directory that only its owner can open.

mod client;
mod client_count;
mod endpoints;
mod links;
mod obstacles;
mod reloads;
mod runs;
mod server;
mod socket;

pub use client::{
    AdminError, Session, allowance, approvals, budgets, channels, dashboard, decide, end_run, freeze, holds,
    open_run, operate, paused, pending, plan, plan_allowance, reload, resume, revoke, run_report,
    set_allowance, status,
};
pub use client_count::ClientCount;
#[cfg(feature = "mcp")]
pub use endpoints::RunOpened;
pub use endpoints::{CaLocation, DashboardLink, ReloadReport, RunName, RunRequest, Status};
pub use links::LinkIssuer;
pub use obstacles::ObstacleSource;
pub use reloads::{ReloadOrder, ReloadRefused, Reloads};
pub use runs::{OpenRun, RunOrder, RunPort, RunRefused, Runs};
pub use server::{Listening, serve, serve_status};
pub use socket::{check_path, socket};
