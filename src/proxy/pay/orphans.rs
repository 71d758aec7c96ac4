//! Paid exchanges whose clients have left: the next request like theirs gets their response, instead of paying again.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::Response;
use tokio::sync::oneshot::error::TryRecvError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::Instant;

use crate::mutex::lock;
use crate::protocol::engine::PurchaseKey;
use crate::proxy::Body;
use crate::proxy::handling::Handling;

/// What a request must have in common with another one to get its response: all of this, since any header may say whose the
/// response is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OrphanKey {
    pub(super) bought: Bought,
    /// A hash of the headers.
    pub(super) headers: [u8; 32],
}

/// What two requests have in common if the second one may be a repetition of the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Bought {
    pub(super) purchase: PurchaseKey,
    /// A hash of the cookies: with others, it comes from another user of the same client.
    pub(super) cookies: [u8; 32],
}

/// In a paid response: its seller would serve the same payment again.
#[derive(Clone, Copy, Debug)]
pub(super) struct ServedAgain;

/// In a paid response that came after its client had left: whether another request has got it.
#[derive(Clone, Debug, Default)]
pub(super) struct Handover(Arc<AtomicBool>);

impl Handover {
    pub(super) fn is_done(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The exchanges, from the moment that their client leaves.
#[derive(Debug)]
pub(super) struct Orphans {
    kept_for: Duration,
    /// One for each response that can still be kept.
    places: Arc<Semaphore>,
    known: Mutex<KnownOrphans>,
}

/// Each exchange holds a payment, so that the limits on these also bound their number.
#[derive(Debug, Default)]
struct KnownOrphans {
    next: u64,
    /// The oldest first.
    by_purchase: BTreeMap<Bought, VecDeque<Orphan>>,
}

#[derive(Debug)]
struct Orphan {
    id: u64,
    headers: [u8; 32],
    answer: oneshot::Receiver<KeptAnswer>,
}

/// The response of an exchange that was paid for.
#[derive(Debug)]
struct KeptAnswer {
    answer: Response<Body>,
    /// From then on, the purchase may be repeated.
    until: Instant,
    /// Absent if a request waits for it.
    place: Option<OwnedSemaphorePermit>,
}

/// Where an exchange puts its response.
pub(super) struct OrphanPlace {
    orphans: Arc<Orphans>,
    key: OrphanKey,
    id: u64,
    sender: oneshot::Sender<KeptAnswer>,
}

/// An exchange that a request has taken. If that request ends first, the next one can take it.
pub(super) struct ClaimedOrphan {
    orphans: Arc<Orphans>,
    key: OrphanKey,
    orphan: Option<Orphan>,
}

impl Orphans {
    /// Keeps at most `most` responses, each for so long.
    pub(super) fn new(most: usize, kept_for: Duration) -> Self {
        let places = Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS)));
        Self { kept_for, places, known: Mutex::default() }
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        lock(&self.known).by_purchase.is_empty()
    }

    /// Adds one with a number of its own.
    fn add(&self, key: OrphanKey) -> (u64, oneshot::Sender<KeptAnswer>) {
        let mut known = lock(&self.known);
        let (sender, answer) = oneshot::channel();
        let id = known.next;
        known.next += 1;
        let orphan = Orphan { id, headers: key.headers, answer };
        known.by_purchase.entry(key.bought).or_default().push_back(orphan);
        (id, sender)
    }

    /// Takes one of the purchase: the oldest one with the same headers, or else the oldest one.
    fn take(&self, key: &OrphanKey) -> Option<Orphan> {
        let mut known = lock(&self.known);
        let orphans = known.by_purchase.get_mut(&key.bought)?;
        let same = orphans.iter().position(|orphan| orphan.headers == key.headers);
        let taken = orphans.remove(same.unwrap_or_default());
        if orphans.is_empty() {
            known.by_purchase.remove(&key.bought);
        }
        taken
    }

    /// Puts back one that was taken.
    fn put_back(&self, bought: Bought, orphan: Orphan) {
        lock(&self.known).by_purchase.entry(bought).or_default().push_front(orphan);
    }

    /// Puts back one whose response has arrived, if that can be kept and its purchase may not be repeated yet.
    fn put_back_with(&self, bought: Bought, (id, headers): (u64, [u8; 32]), mut kept: KeptAnswer) {
        if kept.place.is_none() {
            kept.place = Arc::clone(&self.places).try_acquire_owned().ok();
        }
        if kept.place.is_none() || kept.until <= Instant::now() {
            return;
        }
        let (sender, answer) = oneshot::channel();
        // The receiver is here.
        let _ = sender.send(kept);
        self.put_back(bought, Orphan { id, headers, answer });
    }

    /// Whether no request has taken one.
    fn has(&self, bought: Bought, id: u64) -> bool {
        let known = lock(&self.known);
        known.by_purchase.get(&bought).is_some_and(|orphans| orphans.iter().any(|orphan| orphan.id == id))
    }

    /// Forgets one that no request has taken.
    fn remove(&self, bought: Bought, id: u64) {
        let mut known = lock(&self.known);
        let Some(orphans) = known.by_purchase.get_mut(&bought) else { return };
        let removed = orphans.iter().position(|orphan| orphan.id == id).and_then(|at| orphans.remove(at));
        if orphans.is_empty() {
            known.by_purchase.remove(&bought);
        }
        drop(known);
        // Its response tells the payment service how its delivery ended.
        drop(removed);
    }
}

impl OrphanPlace {
    /// The client of an exchange has left.
    pub(super) fn of(orphans: Arc<Orphans>, key: OrphanKey) -> Self {
        let (id, sender) = orphans.add(key);
        Self { orphans, key, id, sender }
    }

    /// Finishes the exchange, and keeps its response for `limits.retry_window` if it was paid for. Without a place for it, the
    /// payment service knows that it was lost: a request for the same purchase presents the payment again.
    pub(super) async fn keep(self, exchange: impl Future<Output = Response<Body>>) {
        let Self { orphans, key: OrphanKey { bought, .. }, id, sender } = self;
        let answer = exchange.await;
        let is_paid = matches!(answer.extensions().get(), Some(Handling::Paid { withheld: None, .. }));
        let place = Arc::clone(&orphans.places).try_acquire_owned().ok();
        let can_be_kept = place.is_some() || !orphans.has(bought, id);
        let window = orphans.kept_for;
        let until = Instant::now() + window;
        if !is_paid || !can_be_kept || sender.send(KeptAnswer { answer, until, place }).is_err() {
            return orphans.remove(bought, id);
        }
        let orphans = Arc::downgrade(&orphans);
        tokio::spawn(async move {
            tokio::time::sleep(window).await;
            if let Some(orphans) = orphans.upgrade() {
                orphans.remove(bought, id);
            }
        });
    }
}

impl ClaimedOrphan {
    /// The oldest exchange for a request like this; if there is none, the oldest one of its purchase.
    pub(super) fn of(orphans: &Arc<Orphans>, key: OrphanKey) -> Option<Self> {
        let orphan = orphans.take(&key)?;
        Some(Self { orphans: Arc::clone(orphans), key, orphan: Some(orphan) })
    }

    /// Waits for its response; `None` if it was not paid, or if the seller serves the same payment again.
    ///
    /// # Errors
    /// It was paid, and the response may be for another client. The error is the time until the purchase may be repeated.
    pub(super) async fn answer(mut self) -> Result<Option<Response<Body>>, Duration> {
        let Some(orphan) = &mut self.orphan else { return Ok(None) };
        let arrived = (&mut orphan.answer).await;
        let (id, headers) = (orphan.id, orphan.headers);
        self.orphan = None;
        let Ok(kept) = arrived else { return Ok(None) };
        if headers == self.key.headers {
            if let Some(Handover(is_done)) = kept.answer.extensions().get() {
                is_done.store(true, Ordering::Relaxed);
            }
            return Ok(Some(kept.answer));
        }
        if kept.answer.extensions().get::<ServedAgain>().is_some() {
            return Ok(None);
        }
        let left = kept.until.saturating_duration_since(Instant::now());
        self.orphans.put_back_with(self.key.bought, (id, headers), kept);
        if left.is_zero() { Ok(None) } else { Err(left) }
    }
}

impl Drop for ClaimedOrphan {
    fn drop(&mut self) {
        let Some(Orphan { id, headers, mut answer }) = self.orphan.take() else { return };
        let bought = self.key.bought;
        match answer.try_recv() {
            Ok(arrived) => self.orphans.put_back_with(bought, (id, headers), arrived),
            Err(TryRecvError::Empty) => self.orphans.put_back(bought, Orphan { id, headers, answer }),
            Err(TryRecvError::Closed) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Money;

    fn key(purchase: u8, headers: u8) -> OrphanKey {
        let bought = Bought { purchase: PurchaseKey([purchase; 32]), cookies: [0; 32] };
        OrphanKey { bought, headers: [headers; 32] }
    }

    fn paid(status: u16) -> Response<Body> {
        let mut answer = Response::new(Body::Empty);
        *answer.status_mut() = http::StatusCode::from_u16(status).unwrap();
        let price = Money::channel_token(1.into());
        answer.extensions_mut().insert(Handling::Paid { price, withheld: None });
        answer
    }

    async fn status_for(orphans: &Arc<Orphans>, key: OrphanKey) -> Option<Result<Option<u16>, u64>> {
        let found = ClaimedOrphan::of(orphans, key)?.answer().await;
        Some(found.map(|answer| Some(answer?.status().as_u16())).map_err(|left| left.as_secs()))
    }

    fn leave(orphans: &Arc<Orphans>, key: OrphanKey) -> OrphanPlace {
        OrphanPlace::of(Arc::clone(orphans), key)
    }

    #[tokio::test(start_paused = true)]
    async fn each_is_taken_once_the_oldest_first() {
        let orphans = Arc::new(Orphans::new(3, Duration::from_secs(60)));
        let (first, second) = (leave(&orphans, key(7, 1)), leave(&orphans, key(7, 1)));
        second.keep(async { paid(202) }).await;
        first.keep(async { paid(201) }).await;
        // A request that ends first leaves it to the next one.
        drop(ClaimedOrphan::of(&orphans, key(7, 1)));
        assert_eq!(status_for(&orphans, key(7, 1)).await, Some(Ok(Some(201))));
        assert_eq!(status_for(&orphans, key(7, 1)).await, Some(Ok(Some(202))));
        assert_eq!(status_for(&orphans, key(7, 1)).await, None);
        // One that was not paid is none.
        leave(&orphans, key(7, 1)).keep(async { Response::new(Body::Empty) }).await;
        assert!(orphans.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_with_other_headers_gets_no_response_and_the_next_one_still_does() {
        let orphans = Arc::new(Orphans::new(3, Duration::from_secs(60)));
        leave(&orphans, key(7, 1)).keep(async { paid(201) }).await;
        tokio::time::advance(Duration::from_secs(10)).await;
        for _ in 0..2 {
            assert_eq!(status_for(&orphans, key(7, 2)).await, Some(Err(50)));
        }
        assert_eq!(status_for(&orphans, key(8, 1)).await, None, "another purchase");
        assert_eq!(status_for(&orphans, key(7, 1)).await, Some(Ok(Some(201))));
        // While it runs, one request waits for it, and the next one is another purchase.
        let (place, (sent, to_send)) = (leave(&orphans, key(7, 1)), oneshot::channel());
        let waiting = ClaimedOrphan::of(&orphans, key(7, 2)).unwrap();
        assert!(ClaimedOrphan::of(&orphans, key(7, 2)).is_none());
        let keeping = place.keep(async { to_send.await.unwrap() });
        sent.send(paid(203)).unwrap();
        assert_eq!(tokio::join!(waiting.answer(), keeping).0.unwrap_err(), Duration::from_secs(60));
        assert_eq!(status_for(&orphans, key(7, 1)).await, Some(Ok(Some(203))));
        // A seller that serves again is asked again.
        let mut answer = paid(204);
        answer.extensions_mut().insert(ServedAgain);
        leave(&orphans, key(7, 1)).keep(async { answer }).await;
        assert_eq!(status_for(&orphans, key(7, 2)).await, Some(Ok(None)));
        assert!(orphans.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn the_number_of_responses_is_bounded_and_each_is_forgotten_after_the_window() {
        let orphans = Arc::new(Orphans::new(1, Duration::from_secs(60)));
        let waiting = leave(&orphans, key(9, 1));
        let claimed = ClaimedOrphan::of(&orphans, key(9, 1)).unwrap();
        leave(&orphans, key(7, 1)).keep(async { paid(201) }).await;
        leave(&orphans, key(8, 1)).keep(async { paid(202) }).await;
        assert_eq!(status_for(&orphans, key(8, 1)).await, None, "there is no place for it");
        // A request that waits needs none.
        let (answer, ()) = tokio::join!(claimed.answer(), waiting.keep(async { paid(203) }));
        assert_eq!(answer.unwrap().unwrap().status(), 203);
        tokio::time::sleep(Duration::from_secs(59)).await;
        assert!(!orphans.is_empty());
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(orphans.is_empty());
        leave(&orphans, key(8, 1)).keep(async { paid(202) }).await;
        assert_eq!(status_for(&orphans, key(8, 1)).await, Some(Ok(Some(202))));
    }
}
