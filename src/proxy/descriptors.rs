//! Idle connections to origins, which are closed when the process runs out of file descriptors.

use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::mutex::lock;

/// Pauses between attempts, while closed connections release their descriptors.
const PAUSES: [Duration; 5] = [
    Duration::from_millis(5),
    Duration::from_millis(20),
    Duration::from_millis(80),
    Duration::from_millis(320),
    Duration::from_millis(640),
];

/// A pool that can close its idle connections.
pub(super) trait EvictIdle: std::fmt::Debug + Send + Sync {
    /// When each idle connection became idle.
    fn idle_since(&self) -> Vec<Instant>;

    /// Closes the connections that have been idle since `until` or longer; returns how many.
    fn evict(&self, until: Instant) -> usize;
}

/// The idle connections of several pools.
#[derive(Clone, Debug, Default)]
pub struct IdleConnections(Arc<Mutex<Vec<Weak<dyn EvictIdle>>>>);

impl IdleConnections {
    /// Adds a pool, for as long as it exists.
    pub(super) fn add(&self, pool: Weak<dyn EvictIdle>) {
        let mut pools = lock(&self.0);
        pools.retain(|pool| pool.strong_count() > 0);
        pools.push(pool);
    }

    /// Closes the half that has been idle longest. One would not do: resolving a name and racing its addresses take several
    /// descriptors, and other requests may need some at the same time.
    pub(super) fn evict(&self) {
        let pools: Vec<Arc<dyn EvictIdle>> = {
            let pools = lock(&self.0);
            pools.iter().filter_map(Weak::upgrade).collect()
        };
        let mut since: Vec<_> = pools.iter().flat_map(|pool| pool.idle_since()).collect();
        since.sort_unstable();
        let Some(until) = since.get(since.len().saturating_sub(1) / 2) else { return };
        let evicted: usize = pools.iter().map(|pool| pool.evict(*until)).sum();
        tracing::debug!(evicted, "out of file descriptors: closed idle connections to origins");
    }

    /// For an operation that needs a descriptor and can be retried.
    pub(super) fn retries(&self) -> EvictionRetries<'_> {
        EvictionRetries { idle: self, pauses: PAUSES.iter() }
    }
}

/// The attempts to free descriptors for one operation.
pub(super) struct EvictionRetries<'a> {
    idle: &'a IdleConnections,
    pauses: std::slice::Iter<'static, Duration>,
}

impl EvictionRetries<'_> {
    /// Closes idle connections if the operation failed for lack of descriptors; returns whether to retry it.
    pub(super) async fn free_descriptors(&mut self, error: &io::Error) -> bool {
        if !is_exhausted(error) {
            return false;
        }
        let Some(pause) = self.pauses.next() else { return false };
        self.idle.evict();
        sleep(*pause).await;
        true
    }
}

/// Whether the process or the system is out of file descriptors. A resolver does not always report that.
pub(super) fn is_exhausted(error: &io::Error) -> bool {
    let is_said = |error: &io::Error| {
        error
            .raw_os_error()
            .map(rustix::io::Errno::from_raw_os_error)
            .is_some_and(|error| matches!(error, rustix::io::Errno::MFILE | rustix::io::Errno::NFILE))
    };
    let is_of_the_network = || error.raw_os_error().is_some();
    is_said(error)
        || (!is_of_the_network()
            && UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).is_err_and(|error| is_said(&error)))
}
