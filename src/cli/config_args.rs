//! The option that names the configuration file.

use std::path::PathBuf;

use clap::Args;

use crate::app;
use crate::config::Config;

#[derive(Clone, Debug, Args)]
pub struct ConfigArgs {
    /// The configuration file; if omitted, only environment variables are used
    #[arg(long, value_name = "FILE", env = "TOLLPASS_CONFIG")]
    pub config: Option<PathBuf>,
}

impl ConfigArgs {
    /// Loads the configuration.
    pub fn load(&self) -> anyhow::Result<Config> {
        let mut config = Config::load(self.config.as_deref())?;
        app::check_writers(self.config.as_deref(), &mut config)?;
        let runtime_dir = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        config.runtime_dir = runtime_dir.filter(|path| path.is_absolute());
        Ok(config)
    }
}
