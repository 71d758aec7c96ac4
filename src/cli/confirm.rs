//! Asks for confirmation.

use std::io::{BufRead as _, IsTerminal as _, Write as _};

/// The exit code if nothing was done because the user did not agree.
pub(super) const DECLINED: u8 = 3;

/// Nothing was done, because the user did not agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Declined {
    #[error("declined: nothing was done")]
    ByUser,
    #[error("nothing was done: standard input is not a terminal; pass --yes to confirm")]
    NoTerminal,
}

/// Asks for confirmation on the terminal.
///
/// # Errors
/// [`Declined`], or the terminal cannot be read.
pub(super) fn confirm() -> anyhow::Result<()> {
    if !std::io::stdin().is_terminal() {
        return Err(Declined::NoTerminal.into());
    }
    // If the prompt cannot be written, the answer may still be read.
    let mut err = std::io::stderr();
    let _ = write!(err, "Proceed? [y/N] ").and_then(|()| err.flush());
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    if matches!(line.trim(), "y" | "Y" | "yes") { Ok(()) } else { Err(Declined::ByUser.into()) }
}
