//! Prices remembered per method and URL, so that the next request can carry its payment at once.
//!
//! Bounded in number and size, since only a hash of a request is kept, and forgotten with age. A remembered price is
//! only a guess: the rule is checked again each time, and the seller corrects an outdated price. In a scheme with channels
//! that costs nothing. An authorization that was sent in vain can be redeemed until it expires: its price is forgotten, and
//! after a second one in a row, none is sent ahead for a while.

use std::collections::{BTreeSet, HashMap};

use crate::protocol::Offer;

/// What a request cost last time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quote {
    /// The seller's offer, without what it stated of one payment.
    pub offer: Offer,
    /// When it was last confirmed, in seconds since 1970.
    pub seen: u64,
    /// How reliably responses show that they were paid for.
    pub trust: Trust,
}

/// Identifies a request: a keyed hash of its method and URL, which may be long and contain secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub [u8; 32]);

/// How reliably a price is confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Responses contain the seller's state.
    Shown,
    /// Responses show nothing, so the resource may have become free unnoticed. After this many more payments, a request
    /// is sent without one, to learn the price.
    Blind {
        /// Payments until then.
        left: u32,
        /// The initial number.
        of: u32,
    },
}

/// The largest number of consecutive unconfirmed payments.
const MAX_BLIND: u32 = 64;
/// A confirmed price is recorded again after this fraction of its maximum age.
const REFRESH: u64 = 4;
/// After this many authorizations in a row that were sent ahead in vain, none is for a while.
const MOST_FAILURES: u32 = 2;

/// All remembered prices.
#[derive(Debug)]
pub struct Prices {
    limit: usize,
    age: u64,
    known: HashMap<RequestId, Quote>,
    /// Entries that differ from the journal.
    dirty: BTreeSet<RequestId>,
    /// How long nothing is sent ahead after failures, in seconds.
    pause: u64,
    /// At most as many as prices.
    failed: HashMap<RequestId, Failures>,
}

/// Authorizations that were sent ahead in vain.
#[derive(Clone, Copy, Debug)]
struct Failures {
    in_a_row: u32,
    /// When the last one failed, in seconds since 1970.
    last: u64,
}

impl Prices {
    /// Remembers at most `limit` prices, each for `age` seconds. After failures, nothing is sent ahead for `pause` seconds.
    pub fn new(limit: usize, age: u64, pause: u64) -> Self {
        let (known, dirty, failed) = (HashMap::new(), BTreeSet::new(), HashMap::new());
        Self { limit, age, known, dirty, pause, failed }
    }

    /// Loads recorded prices.
    pub fn load(&mut self, records: impl IntoIterator<Item = (RequestId, Quote)>) {
        self.known.extend(records);
        while self.known.len() > self.limit && self.evict() {}
    }

    /// The probable price of `request`; `None` if the seller must be asked first.
    pub fn recall(&mut self, request: &RequestId, now: u64) -> Option<Quote> {
        let known = self.known.get_mut(request)?;
        if now.saturating_sub(known.seen) > self.age {
            self.forget(request);
            return None;
        }
        if self.failed.get(request).is_some_and(|failures| failures.pauses(now, self.pause)) {
            return None;
        }
        if let Trust::Blind { left, .. } = &mut known.trust {
            *left = left.checked_sub(1)?;
        }
        Some(known.clone())
    }

    /// Remembers the price that was just paid for `request`. `is_shown`: the response contained the seller's state;
    /// `was_asked`: the payment answered a 402 with this price.
    pub fn learn(&mut self, request: &RequestId, offer: &Offer, is_shown: bool, was_asked: bool, now: u64) {
        if !was_asked {
            self.failed.remove(request);
        }
        let before = self.known.get(request);
        let trust = match before.map(|known| known.trust) {
            _ if is_shown => Trust::Shown,
            Some(Trust::Blind { left, of }) if !was_asked => Trust::Blind { left, of },
            Some(Trust::Blind { of, .. }) => blind(of.saturating_mul(2)),
            Some(Trust::Shown) | None => blind(1),
        };
        let is_news = before.is_none_or(|known| {
            known.offer.terms() != offer.terms() || now.saturating_sub(known.seen) > self.age / REFRESH
        });
        if before.is_none() && self.known.len() >= self.limit && !self.evict() {
            return;
        }
        match self.known.get_mut(request) {
            // The terms are as they were.
            Some(known) if !is_news => known.trust = trust,
            Some(known) => *known = Quote { offer: offer.as_quote(), seen: now, trust },
            None => {
                self.known.insert(*request, Quote { offer: offer.as_quote(), seen: now, trust });
            }
        }
        if is_news {
            self.dirty.insert(*request);
        }
    }

    /// Forgets an outdated price.
    pub fn forget(&mut self, request: &RequestId) {
        if self.known.remove(request).is_some() {
            self.dirty.insert(*request);
        }
    }

    /// An authorization was sent ahead in vain: forgets its price.
    pub fn fail(&mut self, request: &RequestId, now: u64) {
        self.forget(request);
        if !self.failed.contains_key(request) && self.failed.len() >= self.limit {
            let oldest = self.failed.iter().min_by_key(|(request, failures)| (failures.last, *request));
            let Some(oldest) = oldest.map(|(request, _)| *request) else { return };
            self.failed.remove(&oldest);
        }
        let failures = self.failed.entry(*request).or_insert(Failures { in_a_row: 0, last: now });
        *failures = Failures { in_a_row: failures.in_a_row.saturating_add(1), last: now };
    }

    /// The prices to record, and `None` for forgotten ones.
    pub fn take_news(&mut self) -> Vec<(RequestId, Option<Quote>)> {
        let dirty = std::mem::take(&mut self.dirty);
        let with_price = |request: RequestId| {
            let price = self.known.get(&request).cloned();
            (request, price)
        };
        dirty.into_iter().map(with_price).collect()
    }

    /// Evicts the least recently confirmed price.
    fn evict(&mut self) -> bool {
        let oldest = self.known.iter().min_by_key(|(request, known)| (known.seen, *request));
        let Some(oldest) = oldest.map(|(request, _)| *request) else { return false };
        self.forget(&oldest);
        true
    }
}

impl Failures {
    /// Whether nothing is sent ahead for now; `pause` is in seconds.
    fn pauses(&self, now: u64, pause: u64) -> bool {
        self.in_a_row >= MOST_FAILURES && now < self.last.saturating_add(pause)
    }
}

fn blind(payments: u32) -> Trust {
    let of = payments.min(MAX_BLIND);
    Trust::Blind { left: of, of }
}

#[cfg(test)]
mod tests {
    use crate::protocol::quote::*;
    use crate::protocol::schemes::microraiden;
    use crate::protocol::{Account, Address};

    fn id(request: &str) -> RequestId {
        let mut bytes = [0; 32];
        bytes[..request.len()].copy_from_slice(request.as_bytes());
        RequestId(bytes)
    }

    fn paid(price: u64) -> Offer {
        let address = |byte| Address([byte; 20]);
        let (contract, token, payer) = (address(0xc0), address(0x70), address(0xa1));
        let account = Account { chain_id: 1, contract, token, payer };
        Offer::MicroRaiden(microraiden::ChannelOffer::quoted(price.into(), address(0xbb), &account))
    }

    fn price(quote: &Quote) -> u64 {
        quote.offer.terms().price.amount.to_string().parse().unwrap()
    }

    #[test]
    fn prices_are_recalled_until_they_are_old() {
        let mut prices = Prices::new(10, 100, 60);
        assert_eq!(prices.recall(&id("GET /a"), 0), None);
        prices.learn(&id("GET /a"), &paid(5), true, true, 1000);
        assert_eq!(prices.recall(&id("GET /a"), 1100).as_ref().map(price), Some(5));
        assert_eq!(prices.recall(&id("GET /b"), 1000), None);
        assert_eq!(prices.recall(&id("GET /a"), 1101), None);
        assert_eq!(prices.take_news(), [(id("GET /a"), None)]);
    }

    #[test]
    fn their_number_is_bounded_and_the_oldest_goes() {
        let mut prices = Prices::new(2, 100, 60);
        for (time, request) in [(3, "c"), (1, "a"), (2, "b")] {
            prices.learn(&id(request), &paid(1), true, true, time);
        }
        assert_eq!(prices.known.len(), 2);
        // "a" was added when two were not reached; "c" was the newest then, so "a" is the oldest.
        assert!(prices.recall(&id("a"), 3).is_none() && prices.recall(&id("b"), 3).is_some());
        let known = prices.recall(&id("b"), 3).unwrap();
        prices.load([(id("d"), Quote { seen: 9, ..known })]);
        assert_eq!(prices.known.len(), 2);
        let mut none = Prices::new(0, 100, 60);
        none.learn(&id("a"), &paid(1), true, true, 0);
        assert!(none.known.is_empty());
    }

    #[test]
    fn unconfirmed_prices_are_trusted_for_longer_each_time_up_to_a_limit() {
        let mut prices = Prices::new(10, 1000, 60);
        let mut in_a_row = Vec::new();
        for _ in 0..8 {
            // The seller is asked first.
            prices.learn(&id("GET /a"), &paid(5), false, true, 0);
            let mut count = 0;
            while prices.recall(&id("GET /a"), 0).is_some() {
                prices.learn(&id("GET /a"), &paid(5), false, false, 0);
                count += 1;
            }
            in_a_row.push(count);
        }
        assert_eq!(in_a_row, [1, 2, 4, 8, 16, 32, 64, 64]);
        prices.learn(&id("GET /a"), &paid(5), true, false, 0);
        assert!((0..1000).all(|_| prices.recall(&id("GET /a"), 0).is_some()), "what is shown is trusted");
    }

    #[test]
    fn only_changes_are_recorded() {
        let mut prices = Prices::new(10, 100, 60);
        prices.learn(&id("GET /a"), &paid(5), true, true, 1000);
        assert_eq!(prices.take_news().len(), 1);
        prices.learn(&id("GET /a"), &paid(5), true, false, 1025);
        assert_eq!(prices.take_news(), []);
        prices.learn(&id("GET /a"), &paid(5), true, false, 1026);
        assert_eq!(prices.take_news().len(), 1, "seen again after a quarter of its age");
        prices.learn(&id("GET /a"), &paid(6), true, false, 1026);
        assert_eq!(prices.take_news()[0].1.as_ref().map(price), Some(6));
    }

    /// Each step is a payment at a time: `ahead` if a price is remembered, else `asked`; it ends well or fails.
    #[test]
    fn what_fails_twice_in_a_row_is_not_sent_ahead_for_a_while() {
        let mut prices = Prices::new(10, 1000, 60);
        let request = id("GET /a");
        for (step, (now, is_good, expected)) in [
            (0, true, "asked"),
            (1, true, "ahead"),
            (2, false, "ahead"),
            (3, true, "asked"),
            // A payment that succeeds in between starts again from 0.
            (4, true, "ahead"),
            (5, false, "ahead"),
            (6, false, "asked"),
            (7, true, "asked"),
            (8, false, "ahead"),
            (9, true, "asked"),
            (67, true, "asked"),
            // After the pause, one failure is enough.
            (68, false, "ahead"),
            (69, true, "asked"),
            (127, true, "asked"),
            (128, true, "ahead"),
            (129, false, "ahead"),
            (130, true, "asked"),
            (131, true, "ahead"),
        ]
        .into_iter()
        .enumerate()
        {
            let is_ahead = prices.recall(&request, now).is_some();
            assert_eq!(if is_ahead { "ahead" } else { "asked" }, expected, "{step}");
            match is_good {
                true => prices.learn(&request, &paid(5), true, !is_ahead, now),
                false if is_ahead => prices.fail(&request, now),
                false => prices.forget(&request),
            }
        }
    }

    #[test]
    fn the_number_of_failures_is_bounded_and_the_oldest_goes() {
        let mut prices = Prices::new(2, 1000, 60);
        for (now, request) in [(0, "a"), (1, "a"), (2, "b"), (3, "b"), (4, "c")] {
            prices.fail(&id(request), now);
        }
        assert_eq!(prices.failed.len(), 2);
        for (request, expected) in [("a", true), ("b", false), ("c", true)] {
            prices.learn(&id(request), &paid(5), true, true, 5);
            assert_eq!(prices.recall(&id(request), 5).is_some(), expected, "{request}");
        }
    }
}
