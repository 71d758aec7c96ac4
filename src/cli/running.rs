//! The options that name a proxy and its state directory, whether or not it runs.

use std::path::{Path, PathBuf};

use clap::Args;

use super::config_args::ConfigArgs;
use crate::admin;

/// Which proxy a command is for.
#[derive(Clone, Debug, Args)]
pub struct RunningArgs {
    /// The configuration.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// The state directory, overriding the configuration
    #[arg(long, value_name = "DIR", global = true)]
    pub state_dir: Option<PathBuf>,
}

impl RunningArgs {
    /// The state directory of the proxy.
    ///
    /// # Errors
    /// The configuration cannot be loaded.
    pub(super) fn state_dir(&self) -> anyhow::Result<PathBuf> {
        match &self.state_dir {
            Some(path) => Ok(path.clone()),
            None => Ok(self.config.load()?.state_dir),
        }
    }

    /// The admin socket of the proxy.
    ///
    /// # Errors
    /// The configuration cannot be loaded.
    pub(super) fn socket(&self) -> anyhow::Result<PathBuf> {
        Ok(admin::socket(&self.state_dir()?))
    }
}

/// The error if no proxy listens on `socket`.
pub(super) fn not_running(socket: &Path) -> anyhow::Error {
    let directory = socket.parent().unwrap_or(socket).display();
    anyhow::anyhow!(
        "no proxy is running on {directory}; name its configuration with --config, or its state directory"
    )
}
