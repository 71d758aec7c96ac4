//! What this process asks of the system before it does anything else.

use std::sync::OnceLock;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

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

/// The limit on open files that this process was started with.
static USUAL: OnceLock<Rlimit> = OnceLock::new();

/// Raises the soft limit on open files to the hard one: each client and each origin takes one, and the usual soft limit is
/// there for programs that use `select`.
pub(super) fn raise_descriptors() {
    let usual = *USUAL.get_or_init(|| getrlimit(Resource::Nofile));
    // What cannot be raised stays, and is run into as before.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: usual.maximum, ..usual });
}

/// Starts something that is to have the limit on open files that this process was started with.
pub(super) fn with_usual_descriptors<T>(start: impl FnOnce() -> T) -> T {
    let Some(usual) = USUAL.get().copied() else { return start() };
    // What is open already stays so.
    let _ = setrlimit(Resource::Nofile, usual);
    let started = start();
    raise_descriptors();
    started
}
