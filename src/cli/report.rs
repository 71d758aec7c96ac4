//! `tollpass report`: what the surrounding `tollpass run` has cost so far, for its command.

use anyhow::bail;
use clap::Args;

use super::config_args::{ConfigArgs, not_running};
use super::environment::surrounding_run;
use super::output::print;
use super::run::Statement;
use crate::admin;

/// What `tollpass report --help` shows below the options.
const AFTER_HELP: &str = "\
For the command of `tollpass run` and the programs that it starts. With --end, nothing
more is paid for this run, and the report is final.

These programs can show and end the report of their own run, and start `tollpass run`
within it, which never exceeds it. They cannot operate tollpass: approve, freeze, thaw,
close channels, or read the reports of others.";

/// Show what this `tollpass run` has cost so far
#[derive(Clone, Debug, Args)]
#[command(after_long_help = AFTER_HELP)]
pub struct ReportArgs {
    /// The configuration and the state directory.
    #[command(flatten)]
    pub place: ConfigArgs,
    /// Pay nothing more for this run
    #[arg(long)]
    pub end: bool,
    /// Write the report as JSON
    #[arg(long)]
    pub json: bool,
}

/// Prints the report.
pub async fn run(args: ReportArgs) -> anyhow::Result<()> {
    let Some(name) = surrounding_run()? else {
        bail!("not inside a `tollpass run`; start the program with `tollpass run -- COMMAND`");
    };
    let socket = args.place.socket()?;
    let report = match args.end {
        true => admin::end_run(&socket, name).await?,
        false => admin::run_report(&socket, name).await?,
    };
    let statement = Statement::complete(report.ok_or_else(|| not_running(&socket))?);
    if args.json {
        return print(serde_json::to_string_pretty(&statement)? + "\n");
    }
    print(statement.line(&args.place.known_assets()) + "\n")
}
