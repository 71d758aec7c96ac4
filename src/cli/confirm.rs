//! Asks for confirmation.

use std::io::{BufRead as _, IsTerminal as _, Write as _};

use anyhow::bail;

/// Asks for confirmation on the terminal.
pub(super) fn agreed() -> anyhow::Result<bool> {
    if !std::io::stdin().is_terminal() {
        bail!("not a terminal; pass --yes to confirm");
    }
    // If the prompt cannot be written, the answer may still be read.
    let mut err = std::io::stderr();
    let _ = write!(err, "Proceed? [y/N] ").and_then(|()| err.flush());
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    Ok(matches!(line.trim(), "y" | "Y" | "yes"))
}
