//! The wall clock for the journal and the spending report.

use std::time::SystemTime;

/// Seconds since 1970; a clock set before 1970 counts as 0.
pub(super) fn unix_time() -> u64 {
    unix_millis() / 1000
}

/// Milliseconds since 1970; a clock set before 1970 counts as 0.
pub(super) fn unix_millis() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    since.as_millis().try_into().unwrap_or(u64::MAX)
}
