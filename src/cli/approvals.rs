//! `tollpass approvals`: lists and revokes standing approvals, through the running proxy or, if none is running, in the
//! journal itself.

use std::time::{Duration, SystemTime};

use anyhow::bail;
use clap::{Args, Subcommand};
use serde_json::json;

use super::config_args::ConfigArgs;
use super::output::print;
use super::parse::number;
use super::table::{Column, table};
use crate::payments::journal::{FILE, Journal};
use crate::payments::{ListedApproval, listed_approvals};
use crate::{admin, app};

/// What `tollpass approvals --help` shows below the options.
const AFTER_HELP: &str = "\
Standing approvals come from `tollpass approve ID --always`. Each covers payments to one
payee in one asset for one host, up to a price and until a time. `tollpass approvals
revoke ID` ends one at once.";

/// List and revoke the approvals of `tollpass approve --always`
#[derive(Clone, Debug, Args)]
#[command(after_long_help = AFTER_HELP)]
pub struct ApprovalsArgs {
    /// The proxy.
    #[command(flatten)]
    pub place: ConfigArgs,
    /// Write the result as JSON, with prices in base units and times in seconds since 1970
    #[arg(long, global = true)]
    pub json: bool,
    /// The subcommand; lists if omitted.
    #[command(subcommand)]
    pub command: Option<ApprovalsCommand>,
}

/// What to do with standing approvals.
#[derive(Clone, Debug, Subcommand)]
pub enum ApprovalsCommand {
    /// End a standing approval at once
    Revoke {
        /// The ID shown by `tollpass approvals`
        #[arg(value_parser = number)]
        id: u64,
    },
}

/// Lists standing approvals, or revokes one.
pub async fn run(args: ApprovalsArgs) -> anyhow::Result<()> {
    let state_dir = args.place.state_dir()?;
    let socket = admin::socket(&state_dir);
    if let Some(ApprovalsCommand::Revoke { id }) = args.command {
        if admin::revoke(&socket, id).await?.is_none() && !app::revoke_approval(&state_dir, id)? {
            bail!("standing approval {id} not found: see `tollpass approvals`");
        }
        return print(match args.json {
            true => json!({ "revoked": id }).to_string() + "\n",
            false => format!("revoked: {id}\n"),
        });
    }
    let listed = match admin::approvals(&socket).await? {
        Some(listed) => listed,
        None if state_dir.join(FILE).exists() => {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
            let mut standing = Journal::open(&state_dir)?.standing_approvals()?;
            standing.retain(|approval| now < approval.until);
            // With only a state directory, or while the configuration is invalid, nothing names tokens.
            let config = args.place.load_unless_state_is_given().ok().flatten();
            listed_approvals(standing, &config.map(|config| config.assets).unwrap_or_default())
        }
        None => Vec::new(),
    };
    if args.json {
        return print(serde_json::to_string_pretty(&listed)? + "\n");
    }
    if listed.is_empty() {
        return print("no standing approvals\n");
    }
    print(rows(&listed))
}

fn rows(listed: &[ListedApproval]) -> String {
    let head = ["ID", "UP TO", "HOST", "PAYEE", "UNTIL"].map(str::to_owned);
    let rows = listed.iter().map(|ListedApproval { approval, shown }| {
        let until = SystemTime::UNIX_EPOCH + Duration::from_secs(approval.until.min(MAX_TIME));
        let until = humantime::format_rfc3339_seconds(until).to_string();
        let payee = approval.payee.to_string();
        [approval.id.to_string(), shown.clone(), approval.host.clone(), payee, until]
    });
    let (left, right) = (Column::Left, Column::Right);
    table([right, right, left, left, left], &std::iter::once(head).chain(rows).collect::<Vec<_>>())
}

/// The end of the year 9999, the latest time that is shown.
const MAX_TIME: u64 = 253_402_300_799;
