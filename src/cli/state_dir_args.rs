//! The option that names the state directory.

use std::path::PathBuf;

use clap::Args;

use super::config_args::ConfigArgs;

/// Overrides the state directory of the configuration.
#[derive(Clone, Debug, Args)]
pub struct StateDirArgs {
    /// The state directory, overriding the configuration
    #[arg(long, value_name = "DIR", global = true)]
    pub state_dir: Option<PathBuf>,
}

impl StateDirArgs {
    /// The state directory.
    ///
    /// # Errors
    /// The configuration is needed, and invalid.
    pub fn find(&self, config: &ConfigArgs) -> anyhow::Result<PathBuf> {
        match &self.state_dir {
            Some(path) => Ok(path.clone()),
            None => Ok(config.load()?.state_dir),
        }
    }
}
