//! `tollpass status`: whether the proxy runs and pays, and what it holds for payments without a certain outcome.

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::config_args::{ConfigArgs, not_running};
use super::output::print;
use super::table::{Column, table};
use crate::admin;
use crate::payments::{ListedHold, UnsupportedOffers};
use crate::protocol::policy::{KnownAsset, shown_price};
use crate::protocol::{AssetId, Money};

/// What `tollpass status --help` shows below the options.
const AFTER_HELP: &str = "\
A hold is money that can be spent on nothing else until its outcome is certain:
in-flight (the seller has not responded yet), in-doubt (its response was lost),
after-crash (what may have been signed before a crash) or ready (what a channel may sign
without another record on disk; only with budgets). Each ends by itself as ENDS says.
What is in doubt or after a crash counts as spent in its budgets, and leaves their
periods like any payment; of an x402 payment, the chain can show that it was never
taken, if a [[network]] has its node. For what an earlier run left, AGE counts from this start.";

/// Show whether the proxy pays, and each hold with its reason, age and end
#[derive(Clone, Debug, Args)]
#[command(after_long_help = AFTER_HELP)]
pub struct StatusArgs {
    /// The proxy.
    #[command(flatten)]
    pub place: ConfigArgs,
    /// Write the result as JSON, with amounts in base units and times in seconds
    #[arg(long)]
    pub json: bool,
}

/// Shows the status of a running proxy.
///
/// # Errors
/// No proxy is running.
pub async fn run(args: StatusArgs) -> anyhow::Result<()> {
    let socket = args.place.socket()?;
    let status = admin::status(&socket).await?.ok_or_else(|| not_running(&socket))?;
    // A proxy without a wallet holds nothing.
    let holds = match status.never_pays {
        true => Vec::new(),
        false => admin::holds(&socket).await?.ok_or_else(|| not_running(&socket))?,
    };
    if args.json {
        let shown = json!({ "listen": status.listen, "is_tls": status.is_tls, "never_pays": status.never_pays,
            "is_frozen": status.is_frozen, "obstacles": status.obstacles, "holds": holds, "unsupported_offers": status.unsupported });
        return print(serde_json::to_string_pretty(&shown)? + "\n");
    }
    let assets = args.place.known_assets();
    let obstacles: Vec<&str> = status.obstacles.iter().map(|obstacle| obstacle.details.as_str()).collect();
    let pays = match (status.never_pays, status.is_frozen, obstacles.as_slice()) {
        (true, ..) => "has no [wallet] and never pays".to_owned(),
        (false, true, _) => "signs nothing: `tollpass thaw` ends that".to_owned(),
        (false, false, []) => "pays".to_owned(),
        (false, false, obstacles) => format!("not ready to pay: {}", obstacles.join("; ")),
    };
    let held = if holds.is_empty() { "nothing is held\n".to_owned() } else { rows(&holds, &assets) };
    let tls = if status.is_tls { " with TLS" } else { "" };
    let unsupported = status.unsupported.iter().map(|UnsupportedOffers { offer, count }| {
        let times = if *count == 1 { "once".to_owned() } else { format!("{count} times") };
        format!("cannot pay, offered {times}: {offer}\n")
    });
    print(format!("listening on {}{tls}, {pays}\n{held}{}", status.listen, unsupported.collect::<String>()))
}

fn rows(holds: &[ListedHold], assets: &Arc<[KnownAsset]>) -> String {
    let head = ["HELD", "AMOUNT", "HOST", "CHANNEL", "BUDGETS", "AGE", "ENDS"].map(str::to_owned);
    let time = |seconds| humantime::format_duration(Duration::from_secs(seconds)).to_string();
    let rows = holds.iter().map(|hold| {
        let asset = match (&hold.network, &hold.token) {
            (Some(network), Some(token)) => AssetId::token(network, token),
            _ => AssetId::ChannelToken,
        };
        let known = assets.iter().any(|known| known.asset == asset);
        let amount = match known {
            true => shown_price(&Money { amount: hold.amount, asset }, assets),
            false => format!("{} units", hold.amount),
        };
        let end = match hold.free_in_s {
            Some(left) => format!("{} (in {} at the latest)", hold.until, time(left)),
            None => hold.until.clone(),
        };
        let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        let budgets = if hold.budgets.is_empty() { "-".to_owned() } else { hold.budgets.join(", ") };
        let reason = hold.reason.name().to_owned();
        [reason, amount, text(&hold.host), text(&hold.channel), budgets, time(hold.age_s), end]
    });
    let columns =
        [Column::Left, Column::Right, Column::Left, Column::Left, Column::Left, Column::Right, Column::Left];
    table(columns, &std::iter::once(head).chain(rows).collect::<Vec<_>>())
}
