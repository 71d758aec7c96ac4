//! Output of commands on standard output and standard error. It never panics and never stops a command: a closed reader
//! (`tollpass channels | head -1`) is not an error.

use std::fmt::Display;
use std::io::{self, Write as _};

use anyhow::Context as _;

/// Writes to standard output and flushes. A closed reader is not an error, a full disk is.
pub(super) fn print(text: impl AsRef<[u8]>) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_ref()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to standard output")
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Quotes a string as one shell word.
pub(super) fn quoted(text: &str) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "/._-+:@%,".contains(letter);
    if !text.is_empty() && text.chars().all(is_plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Prints a line on standard error, ignoring errors.
pub(super) fn tell(text: impl Display) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Prints where a proxy listens. The proxy runs even if that fails.
pub(super) fn announce(text: impl Display) {
    if let Err(error) = print(text.to_string()) {
        tracing::warn!("{error:#}");
    }
}
