//! For tests: a disk as slow as they like.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use crate::mutex::lock;

type BeforeWrite = Arc<dyn Fn() + Send + Sync>;

static HOOKS: Mutex<BTreeMap<PathBuf, BeforeWrite>> = Mutex::new(BTreeMap::new());
static LEDGER_HOOKS: Mutex<BTreeMap<PathBuf, BeforeWrite>> = Mutex::new(BTreeMap::new());

/// Calls `hook` before each write of the journal in this state directory; the write waits for it.
pub fn before_writes(state_dir: &Path, hook: impl Fn() + Send + Sync + 'static) {
    lock(&HOOKS).insert(state_dir.join(super::FILE), Arc::new(hook));
}

/// Calls `hook` before rows are written to the ledger of the journal in this state directory; the write waits for it.
pub fn before_ledger(state_dir: &Path, hook: impl Fn() + Send + Sync + 'static) {
    lock(&LEDGER_HOOKS).insert(state_dir.join(super::FILE), Arc::new(hook));
}

pub(super) fn call(journal: &Path) {
    let hook = lock(&HOOKS).get(journal).cloned();
    if let Some(hook) = hook {
        hook();
    }
}

pub(super) fn call_for_ledger(journal: &Path) {
    let hook = lock(&LEDGER_HOOKS).get(journal).cloned();
    if let Some(hook) = hook {
        hook();
    }
}
