//! `tollpass pending`: the payments that wait for approval.

use std::time::Duration;

use clap::Args;

use super::config_args::{ConfigArgs, not_running};
use super::output::print;
use super::table::{Column, table};
use crate::admin;
use crate::payments::PendingApproval;

/// What `tollpass pending --help` shows below the options.
const AFTER_HELP: &str = "\
A request waits here if its [[pay]] entry asks before it pays (ask_above, or
payment_requested = { action = \"ask\" }, without a webhook). `tollpass approve ID` pays
it, `tollpass deny ID` does not. A request that is not decided within
limits.approval_timeout gets the seller's 402, and asks again when it is sent again.";

/// List the payments that wait for approval
#[derive(Clone, Debug, Args)]
#[command(after_long_help = AFTER_HELP)]
pub struct PendingArgs {
    /// The proxy.
    #[command(flatten)]
    pub place: ConfigArgs,
    /// Write the result as JSON, with prices in base units and times in seconds
    #[arg(long)]
    pub json: bool,
}

/// Lists the payments that wait.
pub async fn run(args: PendingArgs) -> anyhow::Result<()> {
    let socket = args.place.socket()?;
    let pending = admin::pending(&socket).await?.ok_or_else(|| not_running(&socket))?;
    if args.json {
        return print(serde_json::to_string_pretty(&pending)? + "\n");
    }
    if pending.is_empty() {
        return print("no payment waits for approval\n");
    }
    print(rows(&pending))
}

fn rows(pending: &[PendingApproval]) -> String {
    let head = ["ID", "PRICE", "HOST", "CLIENT", "AGE", "LEFT", "REQUEST"].map(str::to_owned);
    let rows = pending.iter().map(|one| {
        let client = one.client.clone().unwrap_or_else(|| "-".to_owned());
        let [age, left] = [one.age, one.left]
            .map(|seconds| humantime::format_duration(Duration::from_secs(seconds)).to_string());
        let request = format!("{} {}", one.method, one.url);
        [one.id.to_string(), one.shown.clone(), one.host.clone(), client, age, left, request]
    });
    let columns = [
        Column::Right,
        Column::Right,
        Column::Left,
        Column::Left,
        Column::Right,
        Column::Right,
        Column::Left,
    ];
    table(columns, &std::iter::once(head).chain(rows).collect::<Vec<_>>())
}
