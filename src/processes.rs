//! The processes of this machine, as far as the system tells: which one descends from which, and which one has a socket.

use std::io;

/// No process has more ancestors; the list could have a loop while processes end and their numbers are used again.
#[cfg(target_os = "linux")]
const MOST: usize = 4096;
/// How often to look through all processes for one: those that start meanwhile are not seen.
#[cfg(target_os = "linux")]
const LOOKS: usize = 3;

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

/// The process that has the socket with this inode open, which the user `owner` has created, if it descends from one of
/// `roots`.
///
/// # Errors
/// The processes cannot be listed; or none is found, and a process within could have created the socket: it may hide its files
/// from this process, or pass the socket on while this one looks.
#[cfg(target_os = "linux")]
pub(crate) fn holder(inode: u64, owner: u32, roots: &[i32]) -> io::Result<Option<i32>> {
    use std::collections::HashMap;

    use procfs::process::{FDTarget, Process, all_processes};

    let has_it = |pid: &&i32| {
        let files = Process::new(**pid).and_then(|process| process.fd());
        let mut targets = files.into_iter().flatten().filter_map(|file| Some(file.ok()?.target));
        targets.any(|target| matches!(target, FDTarget::Socket(other) if other == inode))
    };
    // Those of root may become any user's, and those that cannot be asked may be anybody's.
    let user = |pid: &i32| Process::new(*pid).and_then(|process| process.status()).map(|status| status.euid);
    let may_be_within = roots.iter().any(|root| user(root).map_or(true, |user| user == 0 || user == owner));
    for _ in 0..LOOKS {
        let all = all_processes().map_err(io::Error::other)?;
        let stats = all.filter_map(|one| one.ok()?.stat().ok());
        let parents: HashMap<i32, i32> = stats.map(|stat| (stat.pid, stat.ppid)).collect();
        let descends = |pid: &&i32| {
            let line = std::iter::successors(parents.get(pid), |parent| parents.get(parent));
            line.take(MOST).any(|ancestor| roots.contains(ancestor))
        };
        let (within, outside): (Vec<&i32>, Vec<&i32>) = parents.keys().partition(descends);
        if let Some(pid) = within.iter().find(|pid| has_it(pid)) {
            return Ok(Some(**pid));
        }
        if !may_be_within || outside.iter().any(&has_it) {
            return Ok(None);
        }
    }
    Err(io::Error::other("no process is found that has its connection open"))
}

/// Only Linux tells; elsewhere, no process is found.
///
/// # Errors
/// None.
#[cfg(not(target_os = "linux"))]
pub(crate) fn holder(_inode: u64, _owner: u32, _roots: &[i32]) -> io::Result<Option<i32>> {
    Ok(None)
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_holder_of_a_socket_is_within_or_outside_or_not_known() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let inode = |socket: &std::net::TcpListener| rustix::fs::fstat(socket).unwrap().st_ino;
        let (own, user) = (std::process::id().cast_signed(), rustix::process::geteuid().as_raw());
        let parent = ancestors(own).unwrap()[0];
        assert_eq!(holder(inode(&listener), user, &[parent]).unwrap(), Some(own));
        assert_eq!(holder(inode(&listener), user, &[own]).unwrap(), None, "it does not descend from itself");
        let gone = inode(&listener);
        drop(listener);
        assert!(holder(gone, user, &[parent]).is_err(), "a process within may hide it");
        let others = holder(gone, user + 1, &[parent]);
        assert_eq!(others.is_err(), user == 0, "only root's processes become another user's: {others:?}");
    }

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
