//! `tollpass budget`: what each budget has spent and what is left.

use std::time::{Duration, SystemTime};

use anyhow::bail;
use clap::{Args, Subcommand};

use super::config_args::ConfigArgs;
use super::output::print;
use crate::payments::BudgetView;
use crate::payments::journal::{FILE, Journal};
use crate::{admin, app};

/// What `tollpass budget --help` shows below the options.
const AFTER_HELP: &str = "\
SPENT is what was signed within the period; after a crash, also what may have been
signed. HELD is what channels may sign without another record on disk: `serve` keeps a
little of each budget ready there, and takes it back when the budget runs short. LEFT is
the rest. FREE IN is the time until everything spent so far no longer counts.

The figures come from the running proxy or, without one, from the journal. Time goes on
while the proxy does not run. Setting the clock back frees nothing: if the journal has
payments in the future because the clock was wrong, `tollpass budget reset-clock` counts
them as made now.";

/// Show what each budget has spent and what is left
#[derive(Clone, Debug, Args)]
#[command(after_long_help = AFTER_HELP)]
pub struct BudgetArgs {
    /// The configuration and the state directory.
    #[command(flatten)]
    pub place: ConfigArgs,
    /// Write the result as JSON
    #[arg(long, global = true)]
    pub json: bool,
    /// The subcommand; shows the budgets if omitted.
    #[command(subcommand)]
    pub command: Option<BudgetCommand>,
}

/// The subcommands.
#[derive(Clone, Copy, Debug, Subcommand)]
pub enum BudgetCommand {
    /// Count payments in the future as made now; stop the proxy first
    ResetClock,
}

/// Shows the budgets, or resets their clock.
pub async fn run(args: BudgetArgs) -> anyhow::Result<()> {
    let state_dir = args.place.state_dir()?;
    if let Some(BudgetCommand::ResetClock) = args.command {
        let (mut journal, _lock) = app::open_journal(&state_dir)?;
        journal.reset_budget_clock(minute())?;
        return print(match args.json {
            true => "{\"reset\":true}\n",
            false => "payments in the future now count as made at this time\n",
        });
    }
    let views = match admin::budgets(&admin::socket(&state_dir)).await? {
        Some(views) => views,
        None => {
            if !state_dir.join(FILE).exists() {
                bail!(
                    "{} contains no journal, and no proxy is running on it; give the state directory of your proxy with \
                     --state-dir, or its configuration with --config",
                    state_dir.display()
                );
            }
            let mut budgets = Journal::open(&state_dir)?.budgets(minute())?;
            budgets.define(&args.place.load()?.policy.budgets);
            budgets.views()
        }
    };
    if args.json { print(serde_json::to_string_pretty(&views)? + "\n") } else { print(table(&views)) }
}

/// Minutes since 1970.
fn minute() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs() / 60
}

fn table(views: &[BudgetView]) -> String {
    if views.is_empty() {
        return "no budgets: write a [[budget]], or name the configuration that has one with --config\n"
            .to_owned();
    }
    let mut rows = vec![["BUDGET", "LIMIT", "", "SPENT", "HELD", "LEFT", "FREE IN"].map(String::from)];
    for view in views {
        let name = match &view.host {
            Some(host) => format!("{} ({host})", view.name),
            None => view.name.clone(),
        };
        for window in &view.windows {
            let free_in = window
                .free_in_s
                .map(|seconds| humantime::format_duration(Duration::from_secs(seconds)).to_string());
            rows.push([
                name.clone(),
                window.key.clone(),
                window.limit.clone(),
                window.spent.clone(),
                window.held.clone(),
                window.left.clone(),
                free_in.unwrap_or_default(),
            ]);
        }
        if let Some(most) = view.max_payments {
            let left = most.saturating_sub(view.payments);
            rows.push([
                name,
                "payments".to_owned(),
                most.to_string(),
                view.payments.to_string(),
                String::new(),
                left.to_string(),
                String::new(),
            ]);
        }
    }
    columns(&rows)
}

fn columns(rows: &[[String; 7]]) -> String {
    let mut widths = [0; 7];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> =
            row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text += cells.join("  ").trim_end();
        text.push('\n');
    }
    text
}
