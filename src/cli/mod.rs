//! The subcommands, one file each. They talk to people; what they do is done in other rooms.

pub mod ca;
pub mod channels;
pub mod check;
#[cfg(feature = "demo")]
pub mod demo;
pub mod env;
mod environment;
pub mod init;
mod output;
mod process;
pub mod run;
pub mod serve;
mod trust;

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::{Args, Parser, Subcommand};

use crate::app;
use crate::config::Config;
use crate::telemetry;
use crate::telemetry::LogFormat;

/// A local HTTP forward proxy that pays paywalls
#[derive(Debug, Parser)]
#[command(version, about, propagate_version = true)]
pub struct Arguments {
    /// How log lines are written to standard error; TOLLPASS_LOG chooses which (info)
    #[arg(long, global = true, value_enum, env = "TOLLPASS_LOG_FORMAT", default_value = "text")]
    pub log_format: LogFormat,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a local demo: chain, seller, funded wallet and proxy: a development chain, a seller, a wallet with play money, and the proxy
    #[cfg(feature = "demo")]
    Demo(demo::DemoArgs),
    /// Run the proxy
    Serve(serve::ServeArgs),
    /// Run a command through the proxy and print what it cost
    Run(run::RunArgs),
    /// Print the environment for programs that use the proxy, for a shell to evaluate
    Env(env::EnvArgs),
    /// Make a key and a configuration
    Init(init::InitArgs),
    /// List the payment channels
    Channels(channels::ChannelsArgs),
    /// Show, export, renew and trust the CA that signs for intercepted hosts
    Ca(ca::CaArgs),
    /// Validate the configuration, wallet, node and contract
    Check(check::CheckArgs),
}

impl Command {
    /// What is logged where TOLLPASS_LOG does not say.
    fn default_filter(&self) -> &'static str {
        match self {
            #[cfg(feature = "demo")]
            Self::Demo(_) => "warn,tollpass::paid=info,tollpass::payments=info,tollpass::proxy::pay=info",
            Self::Serve(_) => "info",
            Self::Run(_)
            | Self::Env(_)
            | Self::Init(_)
            | Self::Channels(_)
            | Self::Ca(_)
            | Self::Check(_) => "warn",
        }
    }

    /// The exit code where it cannot be done. A program that is run has codes of its own.
    #[must_use]
    pub fn failure(&self) -> u8 {
        match self {
            Self::Run(_) => run::FAILED,
            _ => 1,
        }
    }
}

/// Where the configuration is.
#[derive(Clone, Debug, Args)]
pub struct ConfigArgs {
    /// The configuration file; if omitted, only environment variables are used
    #[arg(long, value_name = "FILE", env = "TOLLPASS_CONFIG")]
    pub config: Option<PathBuf>,
}

impl ConfigArgs {
    /// Reads the configuration.
    pub fn load(&self) -> anyhow::Result<Config> {
        let mut config = Config::load(self.config.as_deref())?;
        app::check_writers(self.config.as_deref(), &mut config)?;
        Ok(config)
    }
}

/// Runs one command to its end; the exit code.
pub fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    process::keep_secrets();
    process::raise_descriptors();
    let log = telemetry::start(arguments.log_format, arguments.command.default_filter())?;
    let ended = match arguments.command {
        #[cfg(feature = "demo")]
        Command::Demo(args) => wait_for(demo::run(args)),
        Command::Serve(args) => wait_for(serve::run(args)),
        Command::Run(args) => {
            let ending = wait_for(run::run(args));
            // The code may be that of a signal, by which this process then dies.
            log.finish();
            return Ok(ExitCode::from(ending?.code()));
        }
        Command::Env(args) => wait_for(env::run(args)),
        Command::Init(args) => init::run(&args),
        Command::Channels(args) => wait_for(channels::run(args)),
        Command::Ca(args) => ca::run(&args),
        Command::Check(args) => wait_for(check::run(args)),
    };
    log.finish();
    ended.map(|()| ExitCode::SUCCESS)
}

fn wait_for<T>(command: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.enable_all().build().context("cannot start the asynchronous runtime")?;
    let result = runtime.block_on(command);
    // A terminal that is asked for a password blocks its thread; the end does not wait for it.
    runtime.shutdown_background();
    result
}

/// Asks on the terminal whether to go on.
fn agreed() -> anyhow::Result<bool> {
    if !std::io::stdin().is_terminal() {
        bail!("not a terminal; pass --yes to confirm");
    }
    // A question that cannot be read is not agreed to, but for a terminal the answer may still come.
    let mut err = std::io::stderr();
    let _ = write!(err, "Proceed? [y/N] ").and_then(|()| err.flush());
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    Ok(matches!(line.trim(), "y" | "Y" | "yes"))
}
