//! The wall clock for the journal and the spending report, and the time that budgets and runs go by.

use std::time::{Duration, SystemTime};

use rustix::time::{ClockId, clock_gettime};

use crate::protocol::engine::AuthorizationTime;

/// A clock that runs while the machine sleeps, and that setting the time does not change.
#[cfg(target_os = "linux")]
const RUNNING: ClockId = ClockId::Boottime;
#[cfg(not(target_os = "linux"))]
const RUNNING: ClockId = ClockId::Monotonic;

/// The time that budgets go by: set once at the start, it only runs on, whatever the wall clock does.
#[derive(Clone, Copy, Debug)]
pub(super) struct BudgetClock {
    /// The time at the start, in minutes since 1970.
    start: u64,
    /// What the running clock showed then, in seconds.
    shown: u64,
}

impl BudgetClock {
    pub(super) fn starting_at(minute: u64) -> Self {
        Self { start: minute, shown: running().as_secs() }
    }

    /// Minutes since 1970.
    pub(super) fn minute(&self) -> u64 {
        self.start.saturating_add(running().as_secs().saturating_sub(self.shown) / 60)
    }
}

/// The time since some moment before the start.
pub(super) fn running() -> Duration {
    let time = clock_gettime(RUNNING);
    let (seconds, nanos) = (time.tv_sec.try_into().unwrap_or_default(), time.tv_nsec.try_into());
    Duration::new(seconds, nanos.unwrap_or_default())
}

/// The time that authorizations expire by.
pub(super) fn authorization_time() -> AuthorizationTime {
    AuthorizationTime { wall: unix_time(), running: running().as_secs() }
}

/// Seconds since 1970; a clock set before 1970 counts as 0.
pub(super) fn unix_time() -> u64 {
    unix_millis() / 1000
}

/// Milliseconds since 1970; a clock set before 1970 counts as 0.
pub(super) fn unix_millis() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    since.as_millis().try_into().unwrap_or(u64::MAX)
}
