//! tollpass: a local forward proxy that pays paywalls. Arguments, log and exit code; the work is in the library.

use std::process::ExitCode;

use clap::Parser as _;
use tollpass::cli::{Arguments, run};

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tollpass: {error:#}");
            ExitCode::FAILURE
        }
    }
}
