//! `tollpass completions`: prints a script that completes commands and options in a shell.

use clap::{Args, Command};
use clap_complete::Shell;

use super::output::print;

/// What `tollpass completions --help` shows below the options.
const AFTER_HELP: &str = "\
Start a new shell after you have installed the script. zsh reads it if its directory is in
fpath before compinit runs.";

/// Print a script that completes commands and options in a shell
#[derive(Clone, Debug, Args)]
#[command(after_long_help = AFTER_HELP)]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    pub shell: Shell,
}

/// Prints the script for this command line.
///
/// # Errors
/// Standard output cannot be written.
pub fn run(args: &CompletionsArgs, mut command: Command) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "tollpass", &mut script);
    print(script)
}
