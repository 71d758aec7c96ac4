//! What commands say, on standard output and to whoever started them. Neither may panic: a reader that has left
//! (`tollpass channels | head -1`) is no fault, and what was begun is finished without it.

use std::fmt::Display;
use std::io::{self, Write as _};

use anyhow::Context as _;

/// Writes to standard output at once. A reader that has left is no error; a full disk is one.
pub(super) fn print(text: impl AsRef<[u8]>) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_ref()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to standard output")
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Says a line on standard error, where that works.
pub(super) fn tell(text: impl Display) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Writes to standard output where a proxy listens. It serves whether that can be read or not.
pub(super) fn announce(text: impl Display) {
    if let Err(error) = print(text.to_string()) {
        tracing::warn!("{error:#}");
    }
}
