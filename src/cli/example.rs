//! `tollpass example`: prints files that run tollpass as a service or in containers.

use clap::{Args, ValueEnum};

use super::output::print;

/// What `tollpass example --help` shows below the options.
const AFTER_HELP: &str = "\
Each file says in its first lines what to do with it, and what to change.";

/// Print a file that runs tollpass with Docker Compose, Kubernetes or systemd
#[derive(Clone, Copy, Debug, Args)]
#[command(after_long_help = AFTER_HELP)]
pub struct ExampleArgs {
    /// What is to run it
    #[arg(value_enum)]
    pub runner: Runner,
}

/// What runs tollpass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Runner {
    /// Docker Compose: a proxy beside an application
    Compose,
    /// Kubernetes: a sidecar with its CA
    Kubernetes,
    /// systemd: a service of the system
    Systemd,
}

/// Prints the file.
pub fn run(args: ExampleArgs) -> anyhow::Result<()> {
    print(match args.runner {
        Runner::Compose => include_str!("example/compose.yaml"),
        Runner::Kubernetes => include_str!("example/kubernetes.yaml"),
        Runner::Systemd => include_str!("example/tollpass.service"),
    })
}
