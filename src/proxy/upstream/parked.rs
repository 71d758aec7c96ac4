//! Origin connections dialled for a `CONNECT`, parked until the pool dials that host and port: so that one client does not
//! cause two connections.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};

use tokio::net::TcpStream;

use super::egress::Reach;
use crate::mutex::lock;

/// The host in lower case without brackets, the port, and the reach of the request that opened the connection.
type OriginKey = (Box<str>, u16, Reach);

/// The parked connections of a worker, and how many live connections the pools of all workers have to each TLS origin.
#[derive(Clone, Debug, Default)]
pub(crate) struct ParkedConnections {
    waiting: Arc<Mutex<HashMap<OriginKey, Vec<Weak<ParkedSlot>>>>>,
    live: Arc<Mutex<HashMap<OriginKey, usize>>>,
}

#[derive(Debug)]
struct ParkedSlot(Mutex<Option<TcpStream>>);

/// A connection that is offered to the pool. Dropping this closes it, unless the pool took it.
#[derive(Debug)]
pub(crate) struct ParkedConnection {
    slot: Arc<ParkedSlot>,
    key: OriginKey,
    parked: ParkedConnections,
}

/// Counts one TLS connection of the pool to an origin.
#[derive(Debug)]
pub(crate) struct LiveOrigin {
    key: OriginKey,
    parked: ParkedConnections,
}

impl ParkedConnections {
    /// The same for another worker.
    pub(crate) fn for_worker(&self) -> Self {
        Self { waiting: Arc::default(), live: Arc::clone(&self.live) }
    }

    /// Offers a connection to the next request for this origin.
    pub(crate) fn park(&self, host: &str, port: u16, reach: Reach, stream: TcpStream) -> ParkedConnection {
        let key = key(host, port, reach);
        let slot = Arc::new(ParkedSlot(Mutex::new(Some(stream))));
        lock(&self.waiting).entry(key.clone()).or_default().push(Arc::downgrade(&slot));
        ParkedConnection { slot, key, parked: self.clone() }
    }

    /// Takes a parked connection to this origin.
    pub(crate) fn take(&self, host: &str, port: u16, reach: Reach) -> Option<TcpStream> {
        let mut waiting = lock(&self.waiting);
        if waiting.is_empty() {
            return None;
        }
        let waiting = waiting.get_mut(&key(host, port, reach))?;
        std::iter::from_fn(|| waiting.pop()).find_map(|slot| take(&*slot.upgrade()?))
    }

    /// Counts a TLS connection for as long as the result is kept.
    pub(crate) fn mark_live(&self, host: &str, port: u16, reach: Reach) -> LiveOrigin {
        let key = key(host, port, reach);
        *lock(&self.live).entry(key.clone()).or_default() += 1;
        LiveOrigin { key, parked: self.clone() }
    }

    /// Whether a worker has a TLS connection to this origin.
    pub(crate) fn is_live(&self, host: &str, port: u16, reach: Reach) -> bool {
        lock(&self.live).contains_key(&key(host, port, reach))
    }
}

fn key(host: &str, port: u16, reach: Reach) -> OriginKey {
    (host.to_ascii_lowercase().into_boxed_str(), port, reach)
}

fn take(slot: &ParkedSlot) -> Option<TcpStream> {
    lock(&slot.0).take()
}

impl Drop for ParkedConnection {
    fn drop(&mut self) {
        let mut parked = lock(&self.parked.waiting);
        let Some(waiting) = parked.get_mut(&self.key) else { return };
        waiting.retain(|slot| slot.as_ptr() != Arc::as_ptr(&self.slot));
        if waiting.is_empty() {
            parked.remove(&self.key);
        }
    }
}

impl Drop for LiveOrigin {
    fn drop(&mut self) {
        let mut live = lock(&self.parked.live);
        if let Some(count) = live.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                live.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::proxy::upstream::parked::*;
    use tokio::net::TcpListener;

    async fn stream() -> TcpStream {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        TcpStream::connect(listener.local_addr().unwrap()).await.unwrap()
    }

    #[tokio::test]
    async fn a_parked_connection_is_taken_once_and_dropped_with_its_owner() {
        let parked = ParkedConnections::default();
        let first = parked.park("Bob.Example", 443, Reach::default(), stream().await);
        let second = parked.park("bob.example", 443, Reach::default(), stream().await);
        assert!(parked.take("bob.example", 444, Reach::default()).is_none());
        assert!(parked.take("BOB.example", 443, Reach::default()).is_some());
        drop(second);
        drop(first);
        assert!(parked.take("bob.example", 443, Reach::default()).is_none());
        assert!(lock(&parked.waiting).is_empty());
    }

    #[test]
    fn an_origin_is_live_as_long_as_one_connection_of_any_worker_is() {
        let parked = ParkedConnections::default();
        let one = parked.mark_live("bob.example", 443, Reach::default());
        let two = parked.for_worker().mark_live("BOB.example", 443, Reach::default());
        drop(one);
        assert!(parked.is_live("bob.example", 443, Reach::default()));
        assert!(!parked.is_live("bob.example", 8443, Reach::default()));
        drop(two);
        assert!(!parked.is_live("bob.example", 443, Reach::default()));
    }
}
