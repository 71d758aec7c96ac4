//! Paid exchanges whose clients have left: the next request for the same purchase gets their response, instead of paying
//! again.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;

use http::Response;
use tokio::sync::oneshot;

use crate::mutex::lock;
use crate::protocol::engine::PurchaseKey;
use crate::proxy::Body;

/// The exchanges, from the moment that their client leaves.
#[derive(Debug)]
pub(super) struct Orphans {
    most: usize,
    known: Mutex<KnownOrphans>,
}

#[derive(Debug, Default)]
struct KnownOrphans {
    next: u64,
    count: usize,
    /// The oldest first.
    by_purchase: BTreeMap<PurchaseKey, VecDeque<Orphan>>,
}

#[derive(Debug)]
struct Orphan {
    id: u64,
    answer: oneshot::Receiver<Response<Body>>,
}

impl Orphans {
    /// Knows at most `most`.
    pub(super) fn new(most: usize) -> Self {
        Self { most, known: Mutex::default() }
    }

    /// The client of an exchange has left. Returns where to put its response, and the number with which to remove it; `None`
    /// if there are too many.
    pub(super) fn add(&self, purchase: PurchaseKey) -> Option<(u64, oneshot::Sender<Response<Body>>)> {
        let mut known = lock(&self.known);
        if known.count >= self.most {
            return None;
        }
        let (sender, answer) = oneshot::channel();
        let id = known.next;
        known.next += 1;
        known.count += 1;
        known.by_purchase.entry(purchase).or_default().push_back(Orphan { id, answer });
        Some((id, sender))
    }

    /// Takes the oldest exchange of a purchase.
    pub(super) fn claim(&self, purchase: &PurchaseKey) -> Option<oneshot::Receiver<Response<Body>>> {
        let mut known = lock(&self.known);
        let orphans = known.by_purchase.get_mut(purchase)?;
        let oldest = orphans.pop_front();
        if orphans.is_empty() {
            known.by_purchase.remove(purchase);
        }
        known.count -= usize::from(oldest.is_some());
        oldest.map(|orphan| orphan.answer)
    }

    /// Forgets an exchange that no request has taken.
    pub(super) fn remove(&self, purchase: &PurchaseKey, id: u64) {
        let mut known = lock(&self.known);
        let Some(orphans) = known.by_purchase.get_mut(purchase) else { return };
        let before = orphans.len();
        orphans.retain(|orphan| orphan.id != id);
        let removed = before - orphans.len();
        if orphans.is_empty() {
            known.by_purchase.remove(purchase);
        }
        known.count -= removed;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_taken_once_the_oldest_first_and_their_number_is_bounded() {
        let orphans = Orphans::new(3);
        let [one, other] = [1, 2].map(|byte| PurchaseKey([byte; 32]));
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
        let mut statuses = Vec::new();
        while let Some(mut taken) = orphans.claim(&one) {
            statuses.push(taken.try_recv().unwrap().status().as_u16());
        }
        assert_eq!(statuses, [201, 202]);
        // Taken before.
        orphans.remove(&one, first);
        orphans.remove(&other, third);
        assert!(orphans.claim(&other).is_none());
        assert_eq!(lock(&orphans.known).count, 0);
        assert!(orphans.add(one).is_some());
    }
}
