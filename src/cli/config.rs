//! `tollpass config`: about configuration files in general. Reads none.

use clap::{Args, Subcommand};

use super::output::print;
use crate::config::schema;

/// What `tollpass config schema --help` shows below the options.
const AFTER_HELP: &str = "\
Editors and validators can check a configuration file with it: every key, its type,
default, bounds and description (JSON Schema, draft 2020-12). With Taplo, for example,
save it as schema.json and begin proxy.toml with the line:  #:schema ./schema.json

`tollpass check` checks more, such as files, the node and the contract.";

/// Describe the configuration file
#[derive(Clone, Debug, Args)]
pub struct ConfigCommand {
    /// What to print.
    #[command(subcommand)]
    pub action: ConfigAction,
}

/// What to print.
#[derive(Clone, Copy, Debug, Subcommand)]
pub enum ConfigAction {
    /// Print a JSON Schema of the configuration file
    #[command(after_long_help = AFTER_HELP)]
    Schema,
}

/// Prints it.
///
/// # Errors
/// If standard output cannot be written.
pub fn run(command: &ConfigCommand) -> anyhow::Result<()> {
    match command.action {
        ConfigAction::Schema => print(format!("{:#}\n", schema())),
    }
}
