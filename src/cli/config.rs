//! `tollpass config`: describes the configuration format. Reads no configuration.

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
    /// The action.
    #[command(subcommand)]
    pub action: ConfigAction,
}

/// The actions of `tollpass config`.
#[derive(Clone, Copy, Debug, Subcommand)]
pub enum ConfigAction {
    /// Print a JSON Schema of the configuration file
    #[command(after_long_help = AFTER_HELP)]
    Schema,
}

/// Prints the schema.
///
/// # Errors
/// Standard output cannot be written.
pub fn run(command: &ConfigCommand) -> anyhow::Result<()> {
    match command.action {
        ConfigAction::Schema => print(format!("{:#}\n", schema())),
    }
}
