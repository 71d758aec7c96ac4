//! Process-wide settings at startup.

use std::sync::OnceLock;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Keeps key and password out of core files and away from this user's other processes, including the command of `run`:
/// they can neither attach to this process nor read its memory or `/proc/PID/environ`.
#[cfg(target_os = "linux")]
pub(super) fn keep_secrets() {
    use rustix::process::{DumpableBehavior, set_dumpable_behavior};

    // If the system refuses, nothing is worse than before.
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
}

/// Other systems have no such setting.
#[cfg(not(target_os = "linux"))]
pub(super) fn keep_secrets() {}

/// The limits on open files at startup.
static INHERITED: OnceLock<Rlimit> = OnceLock::new();

/// Raises the soft limit on open files to the hard limit: each client and each origin needs a descriptor, and the inherited
/// soft limit only exists for programs that use `select`.
pub(super) fn raise_descriptors() {
    let inherited = *INHERITED.get_or_init(|| getrlimit(Resource::Nofile));
    // If that fails, the limit stays.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: inherited.maximum, ..inherited });
}

/// Runs `start` with the limit on open files that this process inherited.
pub(super) fn with_usual_descriptors<T>(start: impl FnOnce() -> T) -> T {
    let Some(inherited) = INHERITED.get().copied() else { return start() };
    // Descriptors that are open stay open.
    let _ = setrlimit(Resource::Nofile, inherited);
    let started = start();
    raise_descriptors();
    started
}
