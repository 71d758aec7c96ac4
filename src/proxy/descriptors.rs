//! Connections to origins that rest in their pools, and what becomes of them when the process runs out of descriptors:
//! they make room. A descriptor that nobody uses must not stand in the way of a request.

use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::sleep;

use super::upstream::pool::{Pool, WeakPool};
use crate::mutex::lock;

/// How long closed connections get to be gone, each time that there is no descriptor.
const PAUSES: [Duration; 5] = [
    Duration::from_millis(5),
    Duration::from_millis(20),
    Duration::from_millis(80),
    Duration::from_millis(320),
    Duration::from_millis(640),
];

/// All connections to origins, of which some may rest.
#[derive(Clone, Debug, Default)]
pub struct Resting(Arc<Mutex<Vec<WeakPool>>>);

impl Resting {
    /// Makes room in this pool, too, for as long as it is there.
    pub(super) fn add(&self, pool: &Pool) {
        let mut pools = lock(&self.0);
        pools.retain(|pool| pool.upgrade().is_some());
        pools.push(pool.downgrade());
    }

    /// Closes the half of them that has rested longest. A name to resolve and the addresses to try take several
    /// descriptors, and other requests may need some at the same time, so that one would not do.
    pub(super) fn evict(&self) {
        let pools: Vec<Pool> = {
            let pools = lock(&self.0);
            pools.iter().filter_map(WeakPool::upgrade).collect()
        };
        let mut since: Vec<_> = pools.iter().flat_map(Pool::resting_since).collect();
        since.sort_unstable();
        let Some(until) = since.get(since.len().saturating_sub(1) / 2) else { return };
        let evicted: usize = pools.iter().map(|pool| pool.evict(*until)).sum();
        tracing::debug!(evicted, "out of descriptors: closing connections that rest in the pool");
    }

    /// For something that takes a descriptor and may be tried again.
    pub(super) fn turns(&self) -> Turns<'_> {
        Turns { resting: self, pauses: PAUSES.iter() }
    }
}

/// How often room is made for one and the same thing.
pub(super) struct Turns<'a> {
    resting: &'a Resting,
    pauses: std::slice::Iter<'static, Duration>,
}

impl Turns<'_> {
    /// Makes room if it failed for want of a descriptor; whether to try again.
    pub(super) async fn make_room(&mut self, error: &io::Error) -> bool {
        if !is_exhausted(error) {
            return false;
        }
        let Some(pause) = self.pauses.next() else { return false };
        self.resting.evict();
        sleep(*pause).await;
        true
    }
}

/// Whether the process, or the system, has no descriptor left. A resolver does not always say so.
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
