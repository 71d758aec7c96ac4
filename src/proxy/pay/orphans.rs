//! Paid exchanges whose clients have left: the next request like theirs gets their response, instead of paying again.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::Response;
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

use crate::mutex::lock;
use crate::protocol::engine::PurchaseKey;
use crate::proxy::Body;
use crate::proxy::handling::Handling;

/// What a request must have in common with another one to get its response: the purchase, and a hash of its headers, which may
/// say whose the response is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct OrphanKey {
    pub(super) purchase: PurchaseKey,
    pub(super) headers: [u8; 32],
}

/// The exchanges, from the moment that their client leaves.
#[derive(Debug)]
pub(super) struct Orphans {
    most: usize,
    kept_for: Duration,
    known: Mutex<KnownOrphans>,
}

#[derive(Debug, Default)]
struct KnownOrphans {
    next: u64,
    count: usize,
    /// The oldest first.
    by_key: BTreeMap<OrphanKey, VecDeque<Orphan>>,
}

#[derive(Debug)]
struct Orphan {
    id: u64,
    answer: oneshot::Receiver<Response<Body>>,
}

/// Where an exchange puts its response.
pub(super) struct OrphanPlace {
    orphans: Arc<Orphans>,
    key: OrphanKey,
    id: u64,
    sender: oneshot::Sender<Response<Body>>,
}

/// An exchange that a request has taken. If that request ends first, the next one can take it.
pub(super) struct ClaimedOrphan {
    orphans: Arc<Orphans>,
    key: OrphanKey,
    orphan: Option<Orphan>,
}

impl Orphans {
    /// Knows at most `most`, and keeps a response for so long.
    pub(super) fn new(most: usize, kept_for: Duration) -> Self {
        Self { most, kept_for, known: Mutex::default() }
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        lock(&self.known).count == 0
    }

    /// Adds one with a number of its own; `None` if there are too many.
    fn add(&self, key: OrphanKey) -> Option<(u64, oneshot::Sender<Response<Body>>)> {
        let mut known = lock(&self.known);
        if known.count >= self.most {
            return None;
        }
        let (sender, answer) = oneshot::channel();
        let id = known.next;
        known.next += 1;
        known.count += 1;
        known.by_key.entry(key).or_default().push_back(Orphan { id, answer });
        Some((id, sender))
    }

    /// Takes the oldest one.
    fn take(&self, key: &OrphanKey) -> Option<Orphan> {
        let mut known = lock(&self.known);
        let orphans = known.by_key.get_mut(key)?;
        let oldest = orphans.pop_front();
        if orphans.is_empty() {
            known.by_key.remove(key);
        }
        known.count -= usize::from(oldest.is_some());
        oldest
    }

    /// Puts back one that was taken.
    fn put_back(&self, key: OrphanKey, orphan: Orphan) {
        let mut known = lock(&self.known);
        known.by_key.entry(key).or_default().push_front(orphan);
        known.count += 1;
    }

    /// Forgets one that no request has taken.
    fn remove(&self, key: &OrphanKey, id: u64) {
        let mut known = lock(&self.known);
        let Some(orphans) = known.by_key.get_mut(key) else { return };
        let before = orphans.len();
        orphans.retain(|orphan| orphan.id != id);
        let removed = before - orphans.len();
        if orphans.is_empty() {
            known.by_key.remove(key);
        }
        known.count -= removed;
    }
}

impl OrphanPlace {
    /// The client of an exchange has left; `None` if `limits.kept_answers` is reached.
    pub(super) fn of(orphans: Arc<Orphans>, key: OrphanKey) -> Option<Self> {
        let (id, sender) = orphans.add(key)?;
        Some(Self { orphans, key, id, sender })
    }

    /// Finishes the exchange, and keeps its response for `limits.retry_window` if it was paid for.
    pub(super) async fn keep(self, exchange: impl Future<Output = Response<Body>>) {
        let Self { orphans, key, id, sender } = self;
        let answer = exchange.await;
        let is_paid = matches!(answer.extensions().get(), Some(Handling::Paid { withheld: None, .. }));
        if !is_paid || sender.send(answer).is_err() {
            return orphans.remove(&key, id);
        }
        let (window, orphans) = (orphans.kept_for, Arc::downgrade(&orphans));
        tokio::spawn(async move {
            tokio::time::sleep(window).await;
            if let Some(orphans) = orphans.upgrade() {
                orphans.remove(&key, id);
            }
        });
    }
}

impl ClaimedOrphan {
    /// The oldest exchange for a request like this.
    pub(super) fn of(orphans: &Arc<Orphans>, key: OrphanKey) -> Option<Self> {
        let orphan = orphans.take(&key)?;
        Some(Self { orphans: Arc::clone(orphans), key, orphan: Some(orphan) })
    }

    /// Waits for its response; `None` if it was not paid.
    pub(super) async fn answer(mut self) -> Option<Response<Body>> {
        let answer = (&mut self.orphan.as_mut()?.answer).await;
        self.orphan = None;
        answer.ok()
    }
}

impl Drop for ClaimedOrphan {
    fn drop(&mut self) {
        let Some(Orphan { id, mut answer }) = self.orphan.take() else { return };
        match answer.try_recv() {
            Ok(arrived) => {
                let (sender, answer) = oneshot::channel();
                // The receiver is here.
                let _ = sender.send(arrived);
                self.orphans.put_back(self.key, Orphan { id, answer });
            }
            Err(TryRecvError::Empty) => self.orphans.put_back(self.key, Orphan { id, answer }),
            Err(TryRecvError::Closed) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_taken_once_the_oldest_first_and_their_number_is_bounded() {
        let orphans = Orphans::new(3, Duration::ZERO);
        let [one, other] =
            [1, 2].map(|byte| OrphanKey { purchase: PurchaseKey([7; 32]), headers: [byte; 32] });
        let (first, to_first) = orphans.add(one).unwrap();
        let (_, to_second) = orphans.add(one).unwrap();
        let (third, _to_third) = orphans.add(other).unwrap();
        assert!(orphans.add(other).is_none());
        let answer = |status: u16| {
            let mut answer = Response::new(Body::Empty);
            *answer.status_mut() = http::StatusCode::from_u16(status).unwrap();
            answer
        };
        to_second.send(answer(202)).unwrap();
        to_first.send(answer(201)).unwrap();
        let taken = orphans.take(&one).unwrap();
        orphans.put_back(one, taken);
        let mut statuses = Vec::new();
        while let Some(mut taken) = orphans.take(&one) {
            statuses.push(taken.answer.try_recv().unwrap().status().as_u16());
        }
        assert_eq!(statuses, [201, 202]);
        // Taken before.
        orphans.remove(&one, first);
        orphans.remove(&other, third);
        assert!(orphans.take(&other).is_none() && orphans.is_empty());
        assert!(orphans.add(one).is_some());
    }
}
