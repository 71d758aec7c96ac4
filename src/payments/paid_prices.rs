//! What was paid for the same method, path and asset before: a host that raises such a price by too much is paused.

use std::sync::Mutex;

use hashlink::LruCache;

use crate::limits::Limits;
use crate::mutex::lock;
use crate::protocol::Amount;
use crate::protocol::engine::HostName;
use crate::protocol::quote::RequestId;

/// The lowest price that was paid for each method, path and asset.
#[derive(Debug)]
pub(super) struct PaidPrices {
    /// By how many percent a price may rise; 0 for any.
    rise: u32,
    lowest: Mutex<LruCache<RequestId, PaidPrice>>,
}

/// The lowest price that a host was paid for a method, path and asset since it was last resumed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PaidPrice {
    /// The host, without a port.
    pub host: HostName,
    /// The price, in base units of the asset.
    pub lowest: Amount,
}

impl PaidPrices {
    /// `paid` comes from the journal, the oldest price first.
    pub(super) fn new(limits: &Limits, paid: Vec<(RequestId, PaidPrice)>) -> Self {
        let mut lowest = LruCache::new(limits.paid_prices);
        if limits.price_rise_percent > 0 {
            for (request, price) in paid {
                lowest.insert(request, price);
            }
        }
        Self { rise: limits.price_rise_percent, lowest: Mutex::new(lowest) }
    }

    /// How many prices are remembered.
    pub(super) fn most(&self) -> usize {
        lock(&self.lowest).capacity()
    }

    /// Whether prices are compared at all.
    pub(super) fn is_watching(&self) -> bool {
        self.rise > 0
    }

    /// The lowest price so far, if this one is too much above it.
    pub(super) fn too_far_above(&self, request: &RequestId, price: Amount) -> Option<Amount> {
        let lowest = lock(&self.lowest).get(request)?.lowest;
        // Amounts end far above any real price, so saturating cannot hide a rise.
        let most = lowest.saturating_mul(100 + u64::from(self.rise));
        (price.saturating_mul(100) > most).then_some(lowest)
    }

    /// Remembers a price that was paid. True if it is the first or a lower one, which is to be recorded.
    pub(super) fn learn(&self, request: RequestId, paid: &PaidPrice) -> bool {
        let mut lowest = lock(&self.lowest);
        if lowest.get(&request).is_some_and(|known| known.lowest <= paid.lowest) {
            return false;
        }
        lowest.insert(request, paid.clone());
        true
    }

    /// Forgets the prices of a host: from now on, it may have what it next asks for.
    pub(super) fn forget(&self, host: &str) {
        lock(&self.lowest).retain(|_, paid| *paid.host != *host);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prices(rise: u32, most: usize) -> PaidPrices {
        let limits = Limits { price_rise_percent: rise, paid_prices: most, ..Limits::default() };
        PaidPrices::new(&limits, Vec::new())
    }

    fn paid(host: &str, lowest: impl Into<Amount>) -> PaidPrice {
        PaidPrice { host: host.into(), lowest: lowest.into() }
    }

    const REQUEST: RequestId = RequestId([7; 32]);

    #[test]
    fn a_price_is_compared_with_the_lowest_one_paid() {
        for (rise, learned, asked, is_too_much) in [
            (50, &[][..], u64::MAX, false),
            (50, &[100], 150, false),
            (50, &[100], 151, true),
            // Rising slowly does not help.
            (50, &[100, 140], 151, true),
            (50, &[140, 100], 151, true),
            (50, &[100], 1, false),
            (1, &[100], 101, false),
            (1, &[100], 102, true),
            // Free before.
            (50, &[0], 1, true),
            (1_000_000, &[3], 30_003, false),
            (1_000_000, &[3], 30_004, true),
        ] {
            let prices = prices(rise, 10);
            for price in learned {
                prices.learn(REQUEST, &paid("a", *price));
            }
            let found = prices.too_far_above(&REQUEST, asked.into());
            let lowest = learned.iter().min().map(|lowest| Amount::from(*lowest));
            assert_eq!(found, lowest.filter(|_| is_too_much), "{rise}: {learned:?} {asked}");
        }
        let largest = prices(1_000_000, 10);
        largest.learn(REQUEST, &paid("a", Amount::MAX));
        assert_eq!(largest.too_far_above(&REQUEST, Amount::MAX), None);
    }

    #[test]
    fn only_news_are_recorded_and_a_resumed_host_starts_again() {
        let prices = prices(50, 2);
        let [one, two, three] = [1, 2, 3].map(|byte| RequestId([byte; 32]));
        assert!(prices.learn(one, &paid("a", 5_u64)) && !prices.learn(one, &paid("a", 5_u64)));
        assert!(prices.learn(one, &paid("a", 4_u64)) && !prices.learn(one, &paid("a", 6_u64)));
        assert!(prices.learn(two, &paid("b", 4_u64)));
        prices.forget("a");
        assert_eq!(prices.too_far_above(&one, 1000.into()), None);
        assert_eq!(prices.too_far_above(&two, 1000.into()), Some(4.into()));
        // Bounded: the one that was used longest ago goes.
        assert!(prices.learn(one, &paid("a", 5_u64)) && prices.learn(three, &paid("a", 5_u64)));
        assert_eq!(prices.too_far_above(&two, 1000.into()), None);
        assert_eq!(prices.too_far_above(&one, 1000.into()), Some(5.into()));
    }

    #[test]
    fn recorded_prices_count_only_if_prices_are_compared() {
        for (rise, expected) in [(0, None), (50, Some(4.into()))] {
            let limits = Limits { price_rise_percent: rise, ..Limits::default() };
            let prices = PaidPrices::new(&limits, vec![(REQUEST, paid("a", 4_u64))]);
            assert_eq!(prices.is_watching(), rise > 0);
            assert_eq!(prices.too_far_above(&REQUEST, 1000.into()), expected);
        }
    }
}
