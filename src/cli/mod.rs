//! The subcommands, one module each: arguments and output. Other modules do the work.

pub mod approvals;
pub mod approve;
pub mod approve_token;
pub mod budget;
pub mod ca;
pub mod channels;
pub mod check;
mod client_args;
pub mod completions;
pub mod config;
mod config_args;
mod confirm;
pub mod dashboard;
#[cfg(feature = "demo")]
pub mod demo;
pub mod env;
mod environment;
pub mod example;
mod examples;
pub mod freeze;
pub mod healthcheck;
pub mod init;
pub mod inspect;
pub mod ledger;
pub mod man;
#[cfg(feature = "mcp")]
pub mod mcp;
mod output;
mod parse;
pub mod pending;
mod process;
mod progress;
#[cfg(feature = "demo")]
mod rehearsal;
pub mod reload;
pub mod report;
pub mod resume;
pub mod run;
pub mod serve;
mod service_manager;
pub mod status;
mod table;
mod trust;

use std::ffi::OsStr;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::{CommandFactory as _, Parser, Subcommand};

pub use self::config_args::ConfigArgs;
use crate::app;
use crate::config::LogConfig;
use crate::telemetry;
use crate::telemetry::{LogFormat, LogOutput};

/// What `tollpass --help` shows below the options.
const AFTER_HELP: &str = "\
Environment variables:
  TOLLPASS_CONFIG           The configuration file; --config overrides it
  TOLLPASS_WALLET_PASSWORD  The password of the keystore
  TOLLPASS_WALLET_PASSWORD_FILE
                            A file with that password
  TOLLPASS_LOG              The log filter, which overrides log.filter, such as \"debug\" or \"warn,tollpass::chain=trace\";
                            libraries log at \"info\" at most unless named: \"debug,h2=debug\"
  TOLLPASS_LOG_FORMAT       The log format, \"text\" or \"json\"
  TOLLPASS_...              Any other key of the configuration, which overrides the file:
                            see the comments in proxy.toml; with _FILE at the end of the
                            name, a file that contains the value

Exit codes:
  0  Done
  1  Failed; the last line on standard error says why
  2  The command line is wrong
  3  Nothing was done, because you declined, or there was no terminal to ask on
  `tollpass run` has those of its command, and 125, 126 and 127: see its help

Logging never delays payments: lines that cannot be written are dropped, and a later
line reports how many.";

/// A local HTTP forward proxy that pays for 402 Payment Required responses, within rules that you write
#[derive(Debug, Parser)]
#[command(version, propagate_version = true, after_long_help = AFTER_HELP)]
pub struct Arguments {
    /// The configuration and the state directory, if they stand before the subcommand; it has the same options.
    #[command(flatten)]
    pub place: ConfigArgs,
    /// Format of the log; TOLLPASS_LOG filters it, and log.file in the configuration moves it to a file
    #[arg(long, global = true, value_enum, env = "TOLLPASS_LOG_FORMAT", default_value = "text")]
    pub log_format: LogFormat,
    /// The subcommand.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a local demo: chain, seller, funded wallet and proxy
    #[cfg(feature = "demo")]
    Demo(demo::DemoArgs),
    /// Run the proxy
    Serve(serve::ServeArgs),
    /// Run a command through the proxy and print what it cost
    Run(run::RunArgs),
    /// Show what this `tollpass run` has cost so far
    Report(report::ReportArgs),
    /// Print shell commands that make programs use the proxy
    Env(env::EnvArgs),
    /// Create a key and a configuration
    Init(init::InitArgs),
    /// Show what a URL costs and what the proxy would do, without paying
    Inspect(inspect::InspectArgs),
    /// List the payments that wait for approval
    Pending(pending::PendingArgs),
    /// Approve a payment that waits
    Approve(approve::ApproveArgs),
    /// Deny a payment that waits
    Deny(approve::DenyArgs),
    /// List and revoke the approvals of `tollpass approve --always`
    Approvals(approvals::ApprovalsArgs),
    /// Let Permit2 move a stated amount of a token, or show how much it may move
    ApproveToken(approve_token::ApproveTokenArgs),
    /// List, open, top up, close and settle payment channels
    Channels(channels::ChannelsArgs),
    /// List payments, add them up, and verify that no row was changed
    Ledger(ledger::LedgerArgs),
    /// Show what each budget has spent and what is left
    Budget(budget::BudgetArgs),
    /// Show whether the proxy pays, and what it holds for payments without a certain outcome
    Status(status::StatusArgs),
    /// Print a link to the dashboard, on which you see payments and approve them
    Dashboard(dashboard::DashboardArgs),
    /// Sign nothing from now on, also after a restart
    Freeze(freeze::FreezeArgs),
    /// Sign again after `freeze`
    Thaw(freeze::FreezeArgs),
    /// Pay a paused host again
    Resume(resume::ResumeArgs),
    /// Read the configuration of the running proxy again
    Reload(reload::ReloadArgs),
    /// Show, export, renew and trust the local CA for HTTPS interception
    Ca(ca::CaArgs),
    /// Offer paid fetching to an agent, as an MCP server on standard input and output
    #[cfg(feature = "mcp")]
    Mcp(mcp::McpArgs),
    /// Ask a proxy on this machine whether it serves, or is ready to pay
    Healthcheck(healthcheck::HealthcheckArgs),
    /// Validate the configuration, wallet, node and contract
    Check(check::CheckArgs),
    /// Print a file that runs tollpass with Docker Compose, Kubernetes or systemd
    Example(example::ExampleArgs),
    /// Show, change and document the configuration
    Config(config::ConfigCommand),
    /// Print a script that completes commands and options in a shell
    Completions(completions::CompletionsArgs),
    /// Write the manual pages
    Man(man::ManArgs),
}

impl Command {
    /// The log filter if TOLLPASS_LOG is not set.
    fn default_filter(&self) -> &'static str {
        match self {
            #[cfg(feature = "demo")]
            Self::Demo(_) => "warn,tollpass::paid=info,tollpass::payments=info,tollpass::proxy::pay=info",
            Self::Serve(_) => app::DEFAULT_FILTER,
            #[cfg(feature = "mcp")]
            Self::Mcp(_) => "warn",
            Self::Run(_)
            | Self::Report(_)
            | Self::Env(_)
            | Self::Init(_)
            | Self::Inspect(_)
            | Self::Pending(_)
            | Self::Approve(_)
            | Self::Deny(_)
            | Self::Approvals(_)
            | Self::ApproveToken(_)
            | Self::Channels(_)
            | Self::Ledger(_)
            | Self::Budget(_)
            | Self::Status(_)
            | Self::Dashboard(_)
            | Self::Freeze(_)
            | Self::Thaw(_)
            | Self::Resume(_)
            | Self::Reload(_)
            | Self::Ca(_)
            | Self::Healthcheck(_)
            | Self::Example(_)
            | Self::Check(_)
            | Self::Config(_)
            | Self::Completions(_)
            | Self::Man(_) => "warn",
        }
    }

    /// Whether it operates tollpass, or shows what concerns others: programs within `tollpass run` must not.
    fn operates(&self) -> bool {
        match self {
            #[cfg(feature = "demo")]
            Self::Demo(_) => false,
            #[cfg(feature = "mcp")]
            Self::Mcp(_) => false,
            Self::Pending(_)
            | Self::Approve(_)
            | Self::Deny(_)
            | Self::Approvals(_)
            | Self::ApproveToken(_)
            | Self::Channels(_)
            | Self::Ledger(_)
            | Self::Status(_)
            | Self::Dashboard(_)
            | Self::Freeze(_)
            | Self::Thaw(_)
            | Self::Resume(_)
            | Self::Reload(_)
            // Beside the run, it would pay without its limits.
            | Self::Serve(_) => true,
            Self::Budget(args) => args.command.is_some(),
            Self::Run(_)
            | Self::Report(_)
            | Self::Env(_)
            | Self::Init(_)
            | Self::Inspect(_)
            | Self::Ca(_)
            | Self::Healthcheck(_)
            | Self::Example(_)
            | Self::Check(_)
            | Self::Completions(_)
            | Self::Man(_) => false,
            Self::Config(command) => matches!(command.action, config::ConfigAction::Set { .. }),
        }
    }

    /// The exit code of a failure. `run` differs, because the command has exit codes of its own.
    #[must_use]
    pub fn failure(&self) -> FailureCode {
        match self {
            Self::Run(_) => FailureCode(run::FAILED),
            _ => FailureCode(1),
        }
    }
}

/// The command line, with examples in its help.
#[must_use]
pub fn command() -> clap::Command {
    examples::with_all(without_empty_variables(Arguments::command()))
}

/// Empty variables count as unset, also those that stand for options.
fn without_empty_variables(command: clap::Command) -> clap::Command {
    let is_empty = |name: &OsStr| std::env::var_os(name).is_some_and(|value| value.is_empty());
    command
        .mut_args(|arg| if arg.get_env().is_some_and(is_empty) { arg.env(None::<&str>) } else { arg })
        .mut_subcommands(without_empty_variables)
}

/// The exit code of a failure.
#[derive(Clone, Copy, Debug)]
pub struct FailureCode(u8);

impl FailureCode {
    /// The code for this error: one of its own if nothing was done because the user did not agree.
    #[must_use]
    pub fn of(self, error: &anyhow::Error) -> ExitCode {
        ExitCode::from(if error.is::<confirm::Declined>() { confirm::DECLINED } else { self.0 })
    }
}

/// Runs one command and returns the exit code.
pub fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    process::keep_secrets();
    process::raise_descriptors();
    // Also without a running proxy, which would refuse it.
    if arguments.command.operates() && environment::is_in_run() {
        bail!(
            "programs within `tollpass run` cannot operate tollpass ({} is set); `tollpass report` shows and ends their own \
             report",
            environment::RUN
        );
    }
    // Once: what it is read from may be a pipe.
    let loaded = match &arguments.command {
        Command::Serve(args) => Some(args.load()?),
        _ => None,
    };
    let output = match &loaded {
        Some(config) => app::log_output(config)?,
        None => LogOutput { file: None, queue: LogConfig::DEFAULT_QUEUE, filter: None, traces: None },
    };
    let log = telemetry::start(arguments.log_format, arguments.command.default_filter(), output)?;
    let ended = match arguments.command {
        #[cfg(feature = "demo")]
        Command::Demo(args) => wait_for(demo::run(args)),
        Command::Serve(args) => {
            let config = loaded.map_or_else(|| args.load(), Ok)?;
            wait_for(serve::run(args, config))
        }
        Command::Run(args) => {
            let ending = wait_for(run::run(args));
            // `code` may end this process with a signal.
            log.finish();
            return Ok(ExitCode::from(ending?.code()));
        }
        Command::Report(args) => wait_for(report::run(args)),
        Command::Env(args) => wait_for(env::run(args)),
        Command::Init(args) => init::run(&args),
        Command::Inspect(args) => wait_for(inspect::run(args)),
        Command::Pending(args) => wait_for(pending::run(args)),
        Command::Approve(args) => wait_for(approve::approve(args)),
        Command::Deny(args) => wait_for(approve::deny(args)),
        Command::Approvals(args) => wait_for(approvals::run(args)),
        Command::ApproveToken(args) => wait_for(approve_token::run(args)),
        Command::Channels(args) => wait_for(channels::run(args)),
        Command::Ledger(args) => wait_for(ledger::run(args)),
        Command::Budget(args) => wait_for(budget::run(args)),
        Command::Status(args) => wait_for(status::run(args)),
        Command::Dashboard(args) => wait_for(dashboard::run(args)),
        Command::Freeze(args) => wait_for(freeze::run(args, true)),
        Command::Thaw(args) => wait_for(freeze::run(args, false)),
        Command::Resume(args) => wait_for(resume::run(args)),
        Command::Reload(args) => wait_for(reload::run(args)),
        Command::Ca(args) => wait_for(async move { ca::run(&args).await }),
        #[cfg(feature = "mcp")]
        Command::Mcp(args) => wait_for(mcp::run(args)),
        Command::Healthcheck(args) => wait_for(healthcheck::run(args)),
        Command::Check(args) => wait_for(check::run(args)),
        Command::Example(args) => example::run(args),
        Command::Config(command) => config::run(&command),
        Command::Completions(args) => completions::run(&args, command()),
        Command::Man(args) => man::run(&args, command()),
    };
    telemetry::finish(&log);
    ended.map(|()| ExitCode::SUCCESS)
}

fn wait_for<T>(command: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().build().context("cannot start the asynchronous runtime")?;
    let result = runtime.block_on(command);
    // A password prompt blocks its thread; do not wait for it.
    runtime.shutdown_background();
    result
}
