//! `tollpass reload`: has the running proxy read its configuration again.

use clap::Args;

use super::config_args::{ConfigArgs, not_running};
use super::output::print;
use crate::admin;
use crate::admin::ReloadReport;

/// What `tollpass reload --help` shows below the options.
const AFTER_HELP: &str = "\
The proxy reads the same file and variables as at its start, and applies [[pay]],
[[budget]], [[client]] with their tokens, [[asset]], [hooks], [deposit], local,
intercept.hosts, log.filter and log.access. All of it applies, or nothing if anything is
invalid. No connection is closed, and requests in progress go on by the rules that they
began with; budgets apply to their next payment, and a client that was removed gets none.
What a budget has spent stays with its name. All other keys need a restart; those that
have changed are named. SIGHUP does the same if the proxy has no terminal.";

/// Read the configuration of the running proxy again
#[derive(Clone, Debug, Args)]
#[command(after_long_help = AFTER_HELP)]
pub struct ReloadArgs {
    /// The proxy.
    #[command(flatten)]
    pub place: ConfigArgs,
    /// Write the result as JSON
    #[arg(long)]
    pub json: bool,
}

/// Has the configuration read again, and prints what has changed.
///
/// # Errors
/// No proxy is running, or the configuration is invalid.
pub async fn run(args: ReloadArgs) -> anyhow::Result<()> {
    let socket = args.place.socket()?;
    let report = admin::reload(&socket).await?.ok_or_else(|| not_running(&socket))?;
    print(if args.json { serde_json::to_string_pretty(&report)? + "\n" } else { in_words(&report) })
}

fn in_words(ReloadReport { changed, needs_restart, warnings }: &ReloadReport) -> String {
    let mut text = match &changed[..] {
        [] => "reloaded: nothing has changed\n".to_owned(),
        changed => format!("reloaded: {}\n", changed.join(", ")),
    };
    if !needs_restart.is_empty() {
        text += &format!("applies after a restart only: {}\n", needs_restart.join(", "));
    }
    for warning in warnings {
        text += &format!("warning: {warning}\n");
    }
    text
}
