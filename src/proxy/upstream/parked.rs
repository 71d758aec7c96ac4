//! Connections that were opened before it was known what for: a `CONNECT` is answered only once its origin is reached,
//! and what then comes through may be a request that the pool carries. So that no origin is connected to twice for one
//! client, the pool takes what waits here; and where it has a connection already, nobody dials to find that out.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use tokio::net::TcpStream;

use crate::mutex::lock;

/// Host in lower case without brackets, and port.
type Place = (Box<str>, u16);

/// What waits and what lives, by origin.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lobby(Arc<Mutex<Places>>);

#[derive(Debug, Default)]
struct Places {
    waiting: HashMap<Place, Vec<Weak<Slot>>>,
    live: HashMap<Place, usize>,
}

#[derive(Debug)]
struct Slot(Mutex<Option<TcpStream>>);

/// A connection that waits for the pool to take it; whoever drops this closes what was not taken.
#[derive(Debug)]
pub(crate) struct Waiting {
    slot: Arc<Slot>,
    place: Place,
    lobby: Lobby,
}

/// One connection over TLS that the pool has to an origin.
#[derive(Debug)]
pub(crate) struct Live {
    place: Place,
    lobby: Lobby,
}

impl Lobby {
    /// Lets a connection wait for whoever asks for this origin next.
    pub(crate) fn wait(&self, host: &str, port: u16, stream: TcpStream) -> Waiting {
        let place = place(host, port);
        let slot = Arc::new(Slot(Mutex::new(Some(stream))));
        self.places().waiting.entry(place.clone()).or_default().push(Arc::downgrade(&slot));
        Waiting { slot, place, lobby: self.clone() }
    }

    /// A connection that waits for this origin.
    pub(crate) fn take(&self, host: &str, port: u16) -> Option<TcpStream> {
        let mut places = self.places();
        if places.waiting.is_empty() {
            return None;
        }
        let waiting = places.waiting.get_mut(&place(host, port))?;
        std::iter::from_fn(|| waiting.pop()).find_map(|slot| take(&*slot.upgrade()?))
    }

    /// Counts a connection over TLS for as long as the result is kept.
    pub(crate) fn live(&self, host: &str, port: u16) -> Live {
        let place = place(host, port);
        *self.places().live.entry(place.clone()).or_default() += 1;
        Live { place, lobby: self.clone() }
    }

    /// Whether the pool has a connection over TLS to this origin.
    pub(crate) fn is_live(&self, host: &str, port: u16) -> bool {
        self.places().live.contains_key(&place(host, port))
    }

    // No code that holds this lock can leave the maps half changed.
    fn places(&self) -> MutexGuard<'_, Places> {
        lock(&self.0)
    }
}

fn place(host: &str, port: u16) -> Place {
    (host.to_ascii_lowercase().into_boxed_str(), port)
}

fn take(slot: &Slot) -> Option<TcpStream> {
    lock(&slot.0).take()
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut places = self.lobby.places();
        let Some(waiting) = places.waiting.get_mut(&self.place) else { return };
        waiting.retain(|slot| slot.as_ptr() != Arc::as_ptr(&self.slot));
        if waiting.is_empty() {
            places.waiting.remove(&self.place);
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        let mut places = self.lobby.places();
        if let Some(count) = places.live.get_mut(&self.place) {
            *count -= 1;
            if *count == 0 {
                places.live.remove(&self.place);
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
    async fn what_waits_is_taken_once_and_leaves_with_its_owner() {
        let lobby = Lobby::default();
        let first = lobby.wait("Bob.Example", 443, stream().await);
        let second = lobby.wait("bob.example", 443, stream().await);
        assert!(lobby.take("bob.example", 444).is_none());
        assert!(lobby.take("BOB.example", 443).is_some());
        drop(second);
        drop(first);
        assert!(lobby.take("bob.example", 443).is_none());
        assert!(lobby.places().waiting.is_empty());
    }

    #[test]
    fn an_origin_is_live_as_long_as_one_connection_is() {
        let lobby = Lobby::default();
        let one = lobby.live("bob.example", 443);
        let two = lobby.live("BOB.example", 443);
        drop(one);
        assert!(lobby.is_live("bob.example", 443));
        assert!(!lobby.is_live("bob.example", 8443));
        drop(two);
        assert!(!lobby.is_live("bob.example", 443));
    }
}
