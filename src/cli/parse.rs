//! Parses arguments. The errors say what is expected, where a library would say at which letter it failed.

use std::time::Duration;

/// A time with its unit, such as `1h`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let parsed = humantime::parse_duration(text);
    parsed.map_err(|_| "write a number and its unit, such as 30s, 1h or 7d".to_owned())
}

/// The number of an entry in a list that another command shows.
pub(super) fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| "write the number in the column ID of the list".to_owned())
}
