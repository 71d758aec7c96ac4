//! Crash points for tests: the process aborts after a given number of effects, or a task panics at a named point.
//!
//! Only debug builds read `TOLLPASS_ABORT_AFTER` and `TOLLPASS_PANIC_AT`; in a release build a crash point is a no-op.

/// The environment variable with the number of effects after which to abort.
pub const VARIABLE: &str = "TOLLPASS_ABORT_AFTER";
/// The environment variable with the name of a point at which to panic.
pub const PANIC_VARIABLE: &str = "TOLLPASS_PANIC_AT";

/// Counts an effect.
#[cfg(debug_assertions)]
pub fn point(name: &'static str) {
    use std::io::Write as _;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    static LIMIT: OnceLock<Option<u64>> = OnceLock::new();
    static SEEN: AtomicU64 = AtomicU64::new(0);
    static PANIC_AT: OnceLock<Option<String>> = OnceLock::new();
    let limit = LIMIT.get_or_init(|| std::env::var(VARIABLE).ok()?.parse().ok());
    let seen = SEEN.fetch_add(1, Ordering::SeqCst) + 1;
    if *limit == Some(seen) {
        let _ = writeln!(std::io::stderr(), "aborting after effect {seen}: {name}");
        std::process::abort();
    }
    let wanted = PANIC_AT.get_or_init(|| std::env::var(PANIC_VARIABLE).ok());
    assert!(wanted.as_deref() != Some(name), "a panic at {name} was requested");
}

/// Counts an effect.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn point(_name: &'static str) {}
