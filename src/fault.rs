//! Crash points for tests: the process aborts itself after a given number of effects.
//!
//! Only debug builds look at `TOLLPASS_ABORT_AFTER`; in a release build a crash point is nothing.

/// The environment variable that says after how many effects to abort.
pub const VARIABLE: &str = "TOLLPASS_ABORT_AFTER";

/// Marks that one more effect has happened.
#[cfg(debug_assertions)]
pub fn point(name: &'static str) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    static LIMIT: OnceLock<Option<u64>> = OnceLock::new();
    static SEEN: AtomicU64 = AtomicU64::new(0);
    let limit = LIMIT.get_or_init(|| std::env::var(VARIABLE).ok()?.parse().ok());
    let seen = SEEN.fetch_add(1, Ordering::SeqCst) + 1;
    if *limit == Some(seen) {
        eprintln!("aborting after effect {seen}: {name}");
        std::process::abort();
    }
}

/// Marks that one more effect has happened.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn point(_name: &'static str) {}
