//! What this process asks of the system before it does anything else.

/// Keeps key and password out of core files and away from the other processes of this user, among them the program that
/// `run` runs: they can neither attach to this process nor read its memory or `/proc/PID/environ`.
#[cfg(target_os = "linux")]
pub(super) fn keep_secrets() {
    use rustix::process::{DumpableBehavior, set_dumpable_behavior};

    // A system that refuses it is no worse off than before.
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
}

/// Other systems have no such switch.
#[cfg(not(target_os = "linux"))]
pub(super) fn keep_secrets() {}
