//! The open runs, and the programs that belong to them: those that descend from the process of `tollpass run`.

use std::io;
use std::sync::Arc;

use super::run_account::RunAccount;
use crate::processes;

/// The runs that were open at some moment.
#[derive(Clone, Debug)]
pub struct OpenRuns(Vec<Arc<RunAccount>>);

impl OpenRuns {
    pub(super) fn new(runs: Vec<Arc<RunAccount>>) -> Self {
        Self(runs)
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The one with this number.
    #[must_use]
    pub fn find(&self, id: u64) -> Option<Arc<RunAccount>> {
        self.0.iter().find(|run| run.id() == id).cloned()
    }

    /// Whether `run` is within all of them, so that every program may spend in it.
    #[must_use]
    pub fn are_around(&self, run: &RunAccount) -> bool {
        self.0.iter().all(|other| run.is_within(other))
    }

    /// The innermost run that a process belongs to.
    ///
    /// # Errors
    /// The process has ended, or the system does not tell about it.
    pub fn of_process(&self, pid: i32) -> io::Result<Option<Arc<RunAccount>>> {
        let ancestors = processes::ancestors(pid)?;
        let run_of = |ancestor: &i32| self.0.iter().find(|run| run.root() == Some(*ancestor)).cloned();
        Ok(ancestors.iter().find_map(run_of))
    }

    /// The innermost run of which a program has the socket with this inode open, which the user `owner` has created. Blocks.
    ///
    /// # Errors
    /// The program is not found, has ended, or the processes cannot be listed.
    pub fn of_socket(&self, inode: u64, owner: u32) -> io::Result<Option<Arc<RunAccount>>> {
        let roots: Vec<i32> = self.0.iter().filter_map(|run| run.root()).collect();
        let holder = processes::holder(inode, owner, &roots)?;
        holder.map_or(Ok(None), |holder| self.of_process(holder))
    }
}
