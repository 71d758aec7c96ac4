//! Orphans of the command: processes whose parent has ended. Adopted by this process, they stay in the tree of the run,
//! which decides what they may do.

/// Adopts the orphans among the processes that this process starts from now on.
#[cfg(target_os = "linux")]
pub(super) fn adopt() {
    let own = rustix::process::getpid();
    if let Err(error) = rustix::process::set_child_subreaper(Some(own)) {
        tracing::warn!(%error, "cannot adopt orphans of the command: they are not part of the run");
    }
}

/// Reaps orphans when they end; `command` is reaped by its own waiter.
#[cfg(target_os = "linux")]
pub(super) fn reap_others_than(command: Option<u32>) {
    use tokio::signal::unix::{SignalKind, signal};

    let Ok(mut ends) = signal(SignalKind::child()) else { return };
    tokio::spawn(async move {
        while ends.recv().await.is_some() {
            // Long enough for those who wait for a process that they have started themselves.
            tokio::time::sleep(REAP_AFTER).await;
            reap(command);
        }
    });
}

/// How long an ended process may wait for its own waiter.
#[cfg(target_os = "linux")]
const REAP_AFTER: std::time::Duration = std::time::Duration::from_secs(1);

/// Reaps the ended children of this process.
#[cfg(target_os = "linux")]
fn reap(command: Option<u32>) {
    use procfs::process::all_processes;
    use rustix::process::{Pid, WaitOptions, waitpid};

    let own = std::process::id().cast_signed();
    let Ok(all) = all_processes() else { return };
    for stat in all.filter_map(|one| one.ok()?.stat().ok()) {
        let is_ended = stat.ppid == own && stat.state == 'Z';
        if is_ended && Some(stat.pid.cast_unsigned()) != command {
            // It may have been reaped meanwhile.
            let _ = waitpid(Pid::from_raw(stat.pid), WaitOptions::NOHANG);
        }
    }
}

/// Other systems do not tell which process descends from which.
#[cfg(not(target_os = "linux"))]
pub(super) fn adopt() {}

/// Without adopted ones, there is nothing to reap.
#[cfg(not(target_os = "linux"))]
pub(super) fn reap_others_than(_command: Option<u32>) {}
