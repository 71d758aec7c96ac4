//! The processes of this machine, as far as the system tells: which one descends from which.

use std::io;

/// No process has more ancestors; the list could have a loop while processes end and their numbers are used again.
#[cfg(target_os = "linux")]
const MOST: usize = 4096;

/// The processes that a process descends from, its parent first. A process whose parent has ended has another one: the
/// nearest ancestor that adopts orphans, or the first process.
///
/// # Errors
/// A process has ended, or the system does not tell about it.
#[cfg(target_os = "linux")]
pub(crate) fn ancestors(pid: i32) -> io::Result<Vec<i32>> {
    use procfs::process::Process;

    let parent_of = |pid| Process::new(pid).and_then(|process| process.stat()).map_err(io::Error::other);
    let mut ancestors = Vec::new();
    let mut next = parent_of(pid)?.ppid;
    // The first process has the parent 0, and so has one that another namespace has started.
    while next > 0 {
        if ancestors.len() == MOST {
            return Err(io::Error::other("too many ancestors"));
        }
        ancestors.push(next);
        next = parent_of(next)?.ppid;
    }
    Ok(ancestors)
}

/// Only Linux tells; elsewhere, no process descends from another.
///
/// # Errors
/// None.
#[cfg(not(target_os = "linux"))]
pub(crate) fn ancestors(_pid: i32) -> io::Result<Vec<i32>> {
    Ok(Vec::new())
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_process_descends_from_its_parent_and_the_parents_of_that() {
        let own = std::process::id().cast_signed();
        let mut command = Command::new("sh");
        let mut child = command.args(["-c", "read line"]).stdin(Stdio::piped()).spawn().unwrap();
        let found = ancestors(child.id().cast_signed()).unwrap();
        assert_eq!(found[0], own);
        assert_eq!(found[1..], ancestors(own).unwrap());
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(ancestors(child.id().cast_signed()).is_err());
    }
}
