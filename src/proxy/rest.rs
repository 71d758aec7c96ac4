//! Connections to origins that rest in the pool, and what becomes of them when the process runs out of descriptors: they
//! make room. A descriptor that nobody uses must not stand in the way of a request.

use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::sleep;

use super::wire::{History, WeakHistory};

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
pub struct Resting(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    connections: Vec<WeakHistory>,
    /// At so many, those that are gone are forgotten.
    full: usize,
}

impl Resting {
    /// Remembers a connection for as long as it is there.
    pub(super) fn add(&self, connection: &History) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.connections.len() >= known.full {
            known.connections.retain(|connection| connection.upgrade().is_some());
            known.full = (2 * known.connections.len()).max(64);
        }
        known.connections.push(connection.downgrade());
    }

    /// Closes all that rest.
    pub(super) fn evict(&self) {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let evicted =
            known.connections.iter().filter_map(WeakHistory::upgrade).filter(History::evict).count();
        drop(known);
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
