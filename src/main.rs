//! tollpass: a local forward proxy that pays for 402 responses. Exit code and error output; the rest is in the library.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use tollpass::cli::{Arguments, run};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let failure = arguments.command.failure();
    match run(arguments) {
        Ok(code) => code,
        Err(error) => {
            // Standard error may be closed or full: the exit code still reports the failure.
            let _ = writeln!(std::io::stderr(), "tollpass: {}", in_words(&error));
            ExitCode::from(failure)
        }
    }
}

/// The error and its causes in one line, without causes that an error already includes.
fn in_words(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text = text + ": " + &cause;
        }
    }
    text
}
