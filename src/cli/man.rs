//! `tollpass man`: writes the manual pages.

use std::fs;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Command};

use super::output::print;

/// Write the manual pages, one for each subcommand
#[derive(Clone, Debug, Args)]
pub struct ManArgs {
    /// The directory for the pages, such as ~/.local/share/man/man1; created if it does not exist
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
}

/// Writes the pages of this command line.
///
/// # Errors
/// A page cannot be written.
pub fn run(args: &ManArgs, command: Command) -> anyhow::Result<()> {
    let directory = args.directory.display();
    let written = fs::create_dir_all(&args.directory)
        .and_then(|()| clap_mangen::generate_to(command.disable_help_subcommand(true), &args.directory));
    written.with_context(|| format!("cannot write the manual pages to {directory}"))?;
    print(format!("wrote the manual pages to {directory}: see `man tollpass`\n"))
}
