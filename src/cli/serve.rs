//! `tollpass serve`: the proxy, until it is told to stop.

use std::net::SocketAddr;

use clap::Args;

use super::ConfigArgs;
use super::output::announce;
use crate::app::App;
use crate::shutdown::Shutdown;

/// Run the proxy
#[derive(Clone, Debug, Args)]
pub struct ServeArgs {
    /// The configuration.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Where to listen, instead of what the configuration says
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<SocketAddr>,
}

/// Runs the proxy; its first line on standard output says where it listens.
pub async fn run(args: ServeArgs) -> anyhow::Result<()> {
    let mut config = args.config.load()?;
    if let Some(address) = args.listen {
        config.listen_on(address)?;
    }
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let shutdown = Shutdown::new();
    shutdown.on_signals()?;
    let app = App::build(config, None, shutdown).await?;
    announce(format_args!("listening on {}\n", app.address()));
    app.run().await?;
    Ok(())
}
