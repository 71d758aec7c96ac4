//! `tollpass serve`: runs the proxy.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::bail;
use clap::Args;
use tokio::sync::mpsc;

use super::config_args::ConfigArgs;
use super::output::announce;
use super::service_manager;
use crate::app::{App, ReloadSource, ReloadStage};
use crate::config::{Config, listen_address};
use crate::shutdown::Shutdown;

/// What `tollpass serve --help` shows below the options.
const AFTER_HELP: &str = "\
The first line of output is \"listening on ADDRESS\". Without [wallet] in the
configuration, tollpass is a plain proxy that never pays. Open http://tollpass.local/
through the proxy, or the proxy's address itself, for a page with instructions for each
kind of program.

With --dry-run, tollpass does everything except signing: it reads offers, applies the
[[pay]] entries and asks for approval. Where it would pay, the client gets the seller's
402 with \"dry run: would pay ...\" in Proxy-Status. The sum is printed and logged at the
end. The key is not opened and the node not contacted, so the channel contract's token
is not known: prices in it are base units, and pass a max_price with a symbol.

SIGTERM and SIGINT shut down gracefully, within limits.drain_timeout; a second one stops
at once. So does SIGHUP if there is a terminal: it was closed. Without a terminal, SIGHUP
reads the configuration again, like `tollpass reload`.";

/// Run the proxy
#[derive(Clone, Debug, Args)]
#[command(after_long_help = AFTER_HELP)]
pub struct ServeArgs {
    /// The configuration.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Listen on this IP address and port, or on this port of 127.0.0.1, overriding the configuration
    #[arg(long, value_name = "ADDRESS", value_parser = listen_address)]
    pub listen: Option<SocketAddr>,
    /// Sign nothing, and report what it would have cost
    #[arg(long)]
    pub dry_run: bool,
}

impl ServeArgs {
    /// Loads the configuration.
    pub fn load(&self) -> anyhow::Result<Config> {
        let mut config = self.config.load()?;
        if let Some(address) = self.listen {
            config.listen_on(address)?;
        }
        Ok(config)
    }

    /// Loads it again, from the same file.
    fn load_again(&self) -> anyhow::Result<Config> {
        if let Some(file) = &self.config.config {
            match std::fs::metadata(file) {
                Ok(found) if found.is_file() => {}
                Ok(_) => bail!(
                    "{} is not a regular file, so it cannot be read again; start the proxy with a file",
                    file.display()
                ),
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    bail!("{} no longer exists", file.display())
                }
                // Loading it says why.
                Err(_) => {}
            }
        }
        self.load()
    }
}

/// Whether this process has a terminal, which sends a SIGHUP when it is closed.
fn has_terminal() -> bool {
    std::fs::File::open("/dev/tty").is_ok()
}

/// Runs the proxy with the configuration that was loaded. The first line on standard output is the address that it listens on.
pub async fn run(args: ServeArgs, config: Config) -> anyhow::Result<()> {
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    if let Some(file) = args.config.file() {
        tracing::info!("read the configuration {}", file.display());
    }
    if let Some(hint) = args.config.unused() {
        tracing::info!("{hint}");
    }
    if config.wallet.is_none() {
        tracing::info!("{}", args.config.without_wallet());
    }
    let shutdown = Shutdown::new();
    // One is enough: what is read once it is handled is newer than all of them.
    let (hang_up, mut hang_ups) = mpsc::channel::<()>(1);
    let reloads_on_hang_up = !has_terminal();
    shutdown.on_signals(reloads_on_hang_up.then(|| -> Box<dyn Fn() + Send> {
        Box::new(move || {
            let _ = hang_up.try_send(());
        })
    }))?;
    let mut app = App::build(config, None, shutdown.clone()).await?;
    if let Err(error) = app.open_status() {
        tracing::info!("commands such as `tollpass env` cannot find this proxy by themselves: {error}");
    }
    // That of the start, also if it is gone by then.
    let file = args.config.file();
    let again = ServeArgs { config: ConfigArgs { config: file, ..args.config.clone() }, ..args.clone() };
    let load = move || again.load_again().map_err(|error| format!("{error:#}"));
    let tell = |stage| match stage {
        ReloadStage::Begins => service_manager::tell_of_reload(),
        ReloadStage::HasEnded => service_manager::tell_of_readiness(),
    };
    let reloads = app.reload_from(ReloadSource { load: Arc::new(load), tell });
    let stopping = shutdown.clone();
    shutdown.spawn(async move {
        loop {
            tokio::select! {
                Some(()) = hang_ups.recv() => {
                    tracing::info!("SIGHUP: reading the configuration again");
                    reloads.request();
                }
                () = stopping.stopping() => return,
                else => return,
            }
        }
    });
    let dry_run = args.dry_run.then(|| app.dry_run());
    if dry_run.is_none() {
        tokio::select! {
            opened = app.unlock() => opened?,
            // While it waits for the password.
            () = shutdown.stopping() => return Ok(()),
        }
    }
    announce(format_args!("listening on {}\n", app.address()));
    service_manager::tell_until(&shutdown);
    let ended = app.run().await;
    if let Some(dry_run) = dry_run {
        let summary = dry_run.summary();
        tracing::info!("{summary}");
        announce(format_args!("{summary}\n"));
    }
    Ok(ended?)
}
