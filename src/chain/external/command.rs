//! A signer that is a program, started for each signature.

use std::os::unix::process::ExitStatusExt as _;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;

use super::reply::readable;
use super::transport::{MAX_ANSWER, Unanswered};

/// The prefix of environment variables that may contain our secrets.
const OWN_VARIABLES: &str = "TOLLPASS_";
/// How much of what the program writes to standard error is logged, in bytes.
const MAX_ERRORS: usize = 4 * 1024;

/// A program with its arguments.
pub(super) struct CommandSigner {
    program: String,
    arguments: Vec<String>,
}

/// The process group of a program, which is killed unless the program has ended by itself.
struct RunningGroup(Option<Pid>);

impl CommandSigner {
    pub(super) fn new(command: Vec<String>) -> Self {
        let mut words = command.into_iter();
        Self { program: words.next().unwrap_or_default(), arguments: words.collect() }
    }

    pub(super) fn name(&self) -> &str {
        &self.program
    }

    /// Runs the program. If this is dropped, it is killed.
    pub(super) async fn ask(&self, body: &[u8]) -> Result<Vec<u8>, Unanswered> {
        let mut command = Command::new(&self.program);
        let inherited = std::env::vars_os();
        let harmless =
            inherited.filter(|(name, _)| !name.as_encoded_bytes().starts_with(OWN_VARIABLES.as_bytes()));
        command.args(&self.arguments).env_clear().envs(harmless);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        // A signal from the terminal is for tollpass, which waits for signatures in progress.
        command.process_group(0);
        let mut child = command
            .spawn()
            .map_err(|error| Unanswered::NotAsked(format!("it cannot be started: {error}")))?;
        let mut group = RunningGroup(child.id().and_then(|id| Pid::from_raw(id.cast_signed())));
        let (Some(mut input), Some(output), Some(errors)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(Unanswered::Unclear("it has no standard streams".to_owned()));
        };
        let write = async {
            // A program that does not read its input may answer nevertheless.
            let _ = input.write_all(body).await;
            drop(input);
        };
        let ((), answer, errors) = tokio::join!(write, read(output, MAX_ANSWER), read(errors, MAX_ERRORS));
        let ended = child.wait().await;
        group.0 = None;
        let signal = ended.as_ref().ok().and_then(|status| status.signal());
        let failed = match signal {
            Some(signal) => Some(format!("the signal {signal} ended it")),
            None if answer.is_cut => Some(format!("its answer is larger than {MAX_ANSWER} bytes")),
            None if answer.bytes.is_empty() => {
                let how = ended.map_or_else(|error| error.to_string(), |status| status.to_string());
                Some(format!("it ended without an answer, {how}; see the log of tollpass"))
            }
            None => None,
        };
        let errors = readable(&String::from_utf8_lossy(&errors.bytes));
        match (&failed, errors.as_str()) {
            (_, "") => {}
            (None, said) => tracing::debug!(signer = self.program, "output of the signer: {said}"),
            // Not part of the reason, which clients see.
            (Some(_), said) => tracing::warn!(signer = self.program, "output of the signer: {said}"),
        }
        if let Some(why) = failed {
            return Err(Unanswered::Unclear(why));
        }
        Ok(answer.bytes)
    }
}

impl Drop for RunningGroup {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // It has not been reaped, so that the number still belongs to it.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// The beginning of what a program wrote.
struct ReadOutput {
    bytes: Vec<u8>,
    is_cut: bool,
}

/// Reads to the end, and keeps at most `most` bytes.
async fn read(mut from: impl AsyncRead + Unpin, most: usize) -> ReadOutput {
    let mut bytes = Vec::new();
    // What cannot be read is not there.
    let _ = (&mut from).take(most as u64).read_to_end(&mut bytes).await;
    let rest = tokio::io::copy(&mut from, &mut tokio::io::sink()).await;
    ReadOutput { bytes, is_cut: rest.is_ok_and(|rest| rest > 0) }
}
