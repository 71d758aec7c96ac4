//! What processes use, from `/proc`.

use std::collections::BTreeMap;
use std::fs;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

/// The CPU time of each thread of a process, in nanoseconds, by thread ID.
pub type Threads = BTreeMap<u32, Thread>;

#[derive(Clone, Serialize, Deserialize)]
pub struct Thread {
    pub name: String,
    pub nanoseconds: u64,
}

/// The CPU time of a process so far.
pub fn threads_of(process: u32) -> anyhow::Result<Threads> {
    let mut threads = Threads::new();
    for thread in fs::read_dir(format!("/proc/{process}/task")).context("only Linux tells the CPU time")? {
        let thread = thread?;
        // A thread may end between the calls; threads that serve requests do not.
        let Ok(stat) = fs::read_to_string(thread.path().join("schedstat")) else { continue };
        let Ok(name) = fs::read_to_string(thread.path().join("comm")) else { continue };
        let id = thread.file_name().to_string_lossy().parse()?;
        let nanoseconds = stat.split_ascii_whitespace().next().context("an empty schedstat")?.parse()?;
        threads.insert(id, Thread { name: name.trim_end().to_owned(), nanoseconds });
    }
    Ok(threads)
}

/// The CPU time between two calls of [`threads_of`], by thread.
pub fn difference(before: &Threads, mut after: Threads) -> Threads {
    for (id, thread) in &mut after {
        if let Some(before) = before.get(id) {
            thread.nanoseconds = thread.nanoseconds.saturating_sub(before.nanoseconds);
        }
    }
    after
}

/// The CPU time of all threads together, in nanoseconds.
pub fn sum(threads: &Threads) -> u64 {
    threads.values().map(|thread| thread.nanoseconds).sum()
}

/// The memory of a process that is resident, in MiB.
pub fn resident(process: u32) -> anyhow::Result<f64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("the process has ended")?;
    let kib: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib / 1024.0)
}
