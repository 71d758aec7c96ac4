//! `tollpass approve` and `tollpass deny`: the operator's decision about a payment that waits.

use clap::Args;

use super::output::print;
use super::running::{RunningArgs, not_running};
use crate::admin;

/// What `tollpass approve --help` shows below the options.
const AFTER_HELP: &str = "\
The approval covers one request, and only the price, asset, network and payee shown by
`tollpass pending`: tollpass asks the seller for its offer again before it pays, and a
changed offer waits for another approval.";

/// Approve a payment that waits
#[derive(Clone, Debug, Args)]
#[command(after_long_help = AFTER_HELP)]
pub struct ApproveArgs {
    /// The proxy.
    #[command(flatten)]
    pub running: RunningArgs,
    /// The ID shown by `tollpass pending`
    pub id: u64,
}

/// Deny a payment that waits: its client gets the seller's 402
#[derive(Clone, Debug, Args)]
pub struct DenyArgs {
    /// The proxy.
    #[command(flatten)]
    pub running: RunningArgs,
    /// The ID shown by `tollpass pending`
    pub id: u64,
}

/// Approves a payment.
pub async fn approve(args: ApproveArgs) -> anyhow::Result<()> {
    decide(&args.running, args.id, true).await
}

/// Denies a payment.
pub async fn deny(args: DenyArgs) -> anyhow::Result<()> {
    decide(&args.running, args.id, false).await
}

async fn decide(running: &RunningArgs, id: u64, is_approved: bool) -> anyhow::Result<()> {
    let socket = running.socket()?;
    let decided = admin::decide(&socket, id, is_approved).await?.ok_or_else(|| not_running(&socket))?;
    let word = if is_approved { "approved" } else { "denied" };
    print(format!("{word}: {} for {} {}\n", decided.shown, decided.method, decided.url))
}
