//! Messages of tollpass among those of the command.

use std::fmt::Display;

use crate::cli::output::tell;

/// Prints a line on standard error.
pub(super) fn say(text: impl Display) {
    tell(format_args!("tollpass: {text}"));
}
