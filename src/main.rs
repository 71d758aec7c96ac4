//! tollpass: a local forward proxy that pays for 402 responses. Exit code and error output; the rest is in the library.

use std::io::{ErrorKind, Write as _};
use std::process::ExitCode;

use clap::FromArgMatches as _;
use tollpass::cli::{Arguments, command, run};

fn main() -> ExitCode {
    let read = command().try_get_matches().and_then(|matches| Arguments::from_arg_matches(&matches));
    let arguments = match read {
        Ok(arguments) => arguments,
        Err(answer) => return shown(&answer),
    };
    let failure = arguments.command.failure();
    match run(arguments) {
        Ok(code) => code,
        Err(error) => {
            // Standard error may be closed or full: the exit code still reports the failure.
            let _ = writeln!(std::io::stderr(), "tollpass: {}", in_words(&error));
            failure.of(&error)
        }
    }
}

/// Prints the help, or what is wrong with the command line. A closed reader is not an error, a full disk is.
fn shown(answer: &clap::Error) -> ExitCode {
    match answer.print() {
        Err(error) if !answer.use_stderr() && error.kind() != ErrorKind::BrokenPipe => {
            let _ = writeln!(std::io::stderr(), "tollpass: cannot write to standard output: {error}");
            ExitCode::FAILURE
        }
        Ok(()) | Err(_) => ExitCode::from(u8::try_from(answer.exit_code()).unwrap_or(2)),
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
