//! `tollpass approve` and `tollpass deny`: the operator's decision about a payment that waits.

use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::config_args::{ConfigArgs, not_running};
use super::output::print;
use super::parse::{duration, number};
use crate::admin;
use crate::payments::PendingApproval;

/// What `tollpass approve --help` shows below the options.
const AFTER_HELP: &str = "\
The approval covers one request, and only the price, asset, network and payee shown by
`tollpass pending`: tollpass asks the seller for its offer again before it pays, and a
changed offer waits for another approval.

With --always, further payments to the same host, payee and asset up to this price need
no approval for the time of --for. The limits of the [[pay]] entry still apply.
`tollpass approvals` lists and revokes such approvals.";
/// How long a standing approval may last.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// Approve a payment that waits
#[derive(Clone, Debug, Args)]
#[command(after_long_help = AFTER_HELP)]
pub struct ApproveArgs {
    /// The proxy.
    #[command(flatten)]
    pub place: ConfigArgs,
    /// The ID shown by `tollpass pending`
    #[arg(value_parser = number)]
    pub id: u64,
    /// Write the payment as JSON, with its price in base units
    #[arg(long)]
    pub json: bool,
    /// Also approve further payments to this host, payee and asset up to this price
    #[arg(long)]
    pub always: bool,
    /// How long --always lasts, at most 366 days
    #[arg(
        long = "for",
        value_name = "TIME",
        default_value = "30d",
        value_parser = lasting,
        allow_hyphen_values = true,
        requires = "always"
    )]
    pub lasts: Duration,
}

/// Deny a payment that waits: its client gets the seller's 402
#[derive(Clone, Debug, Args)]
pub struct DenyArgs {
    /// The proxy.
    #[command(flatten)]
    pub place: ConfigArgs,
    /// The ID shown by `tollpass pending`
    #[arg(value_parser = number)]
    pub id: u64,
    /// Write the payment as JSON, with its price in base units
    #[arg(long)]
    pub json: bool,
}

/// Approves a payment.
pub async fn approve(args: ApproveArgs) -> anyhow::Result<()> {
    decide(&args.place, args.id, true, args.always.then_some(args.lasts), args.json).await
}

/// Denies a payment.
pub async fn deny(args: DenyArgs) -> anyhow::Result<()> {
    decide(&args.place, args.id, false, None, args.json).await
}

/// Parses how long a standing approval lasts.
fn lasting(text: &str) -> Result<Duration, String> {
    let lasts = duration(text)?;
    if (SHORTEST..=LONGEST).contains(&lasts) { Ok(lasts) } else { Err("write 1s to 366d".to_owned()) }
}

async fn decide(
    place: &ConfigArgs,
    id: u64,
    is_approved: bool,
    always_for: Option<Duration>,
    as_json: bool,
) -> anyhow::Result<()> {
    let socket = place.socket()?;
    let decided = admin::decide(&socket, id, is_approved, always_for).await?;
    let decided = decided.ok_or_else(|| not_running(&socket))?;
    if as_json {
        let always_for_s = always_for.map(|lasts| lasts.as_secs());
        let result = json!({ "is_approved": is_approved, "always_for_s": always_for_s, "payment": decided });
        return print(result.to_string() + "\n");
    }
    let PendingApproval { shown, method, url, host, payee, .. } = decided;
    let word = if is_approved { "approved" } else { "denied" };
    print(format!("{word}: {shown} for {method} {url}\n"))?;
    match always_for {
        Some(lasts) => print(format!(
            "and for {} every payment of up to {shown} to {payee} for {host}; `tollpass approvals` lists it\n",
            humantime::format_duration(lasts)
        )),
        None => Ok(()),
    }
}
