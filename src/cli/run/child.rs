//! The command that `tollpass run` runs: its start, signals passed on to it, and its end.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::ExitStatus;

use tokio::process::Command;

use super::orphans;
use super::signals::{SignalListener, die_by};
use crate::chain::keystore::PASSWORD_VARIABLE;
use crate::cli::process::with_usual_descriptors;

/// The exit code if the command is not found, as in shells.
const NOT_FOUND: u8 = 127;
/// The exit code if the command cannot be executed.
const NOT_RUN: u8 = 126;

/// How the command ended.
#[derive(Clone, Copy, Debug)]
pub enum ProgramExit {
    /// It exited with this code.
    Code(u8),
    /// This signal ended it.
    Signal(i32),
}

impl ProgramExit {
    /// The corresponding exit code. For a fatal signal, ends this process with the same signal instead.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Code(code) => code,
            Self::Signal(number) => die_by(number),
        }
    }
}

impl From<ExitStatus> for ProgramExit {
    fn from(status: ExitStatus) -> Self {
        match (status.code().map(u8::try_from), status.signal()) {
            (Some(Ok(code)), _) => Self::Code(code),
            (_, Some(signal)) => Self::Signal(signal),
            // On Unix, exit codes have one byte.
            _ => Self::Code(u8::MAX),
        }
    }
}

/// The command could not be started.
#[derive(Debug, thiserror::Error)]
#[error("cannot run {}: {}", command.display(), cause(command, source))]
pub(super) struct NotStarted {
    command: OsString,
    source: io::Error,
}

impl NotStarted {
    pub(super) fn code(&self) -> u8 {
        if self.source.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { NOT_RUN }
    }
}

/// Why the command could not be started, and what to do.
fn cause(command: &OsStr, source: &io::Error) -> String {
    let is_path = command.as_bytes().contains(&b'/');
    match source.kind() {
        io::ErrorKind::NotFound if !is_path => {
            "no program of this name is in PATH; check its spelling, or give its path".to_owned()
        }
        // The file may be there: a script whose interpreter is missing gets the same error.
        io::ErrorKind::NotFound if Path::new(command).exists() => {
            "the interpreter that its first line names does not exist".to_owned()
        }
        io::ErrorKind::NotFound => "this file does not exist; check the path".to_owned(),
        io::ErrorKind::PermissionDenied => {
            format!("{source}; is it a program, and may this user execute it (chmod +x)?")
        }
        _ => source.to_string(),
    }
}

/// Runs a command with these variables added to the environment, and waits for its end. Removes the wallet's password
/// from the environment.
pub(super) async fn run(
    command: &[OsString],
    variables: &[(&str, OsString)],
    signals: &mut SignalListener,
) -> Result<ProgramExit, NotStarted> {
    let (name, arguments) = command
        .split_first()
        .map_or((OsString::new(), &[][..]), |(name, arguments)| (name.clone(), arguments));
    let failed = |source| NotStarted { command: name.clone(), source };
    let mut program = Command::new(&name);
    program.args(arguments).envs(variables.iter().map(|(name, value)| (name, value)));
    program.env_remove(PASSWORD_VARIABLE);
    // First, as the command may leave orphans at once.
    orphans::adopt();
    let mut child = with_usual_descriptors(|| program.spawn()).map_err(failed)?;
    orphans::reap_others_than(child.id());
    loop {
        tokio::select! {
            biased;
            ended = child.wait() => return ended.map(ProgramExit::from).map_err(failed),
            received = signals.next() => {
                if let Some(id) = child.id() {
                    received.pass_on(id);
                }
            }
        }
    }
}
