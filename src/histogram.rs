//! How long things take, as a histogram that any thread can add to without a lock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The upper bounds of the buckets, in microseconds; the last bucket has none.
const BOUNDS: [u64; 14] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000, 10_000_000,
];

/// Durations, by bucket.
#[derive(Debug)]
pub struct Histogram {
    /// The last one is for longer durations.
    buckets: [AtomicU64; BOUNDS.len() + 1],
    /// The sum, in microseconds.
    sum: AtomicU64,
}

/// What a [`Histogram`] has counted.
#[derive(Clone, Debug, PartialEq)]
pub struct HistogramReading {
    /// The sum of all durations, in seconds.
    pub sum: f64,
    /// How many there are.
    pub count: u64,
    /// The upper bound of each bucket, in seconds, and how many durations are in it and in no earlier one.
    pub buckets: Vec<(f64, u64)>,
}

impl Histogram {
    /// One without durations.
    pub const fn new() -> Self {
        Self { buckets: [const { AtomicU64::new(0) }; BOUNDS.len() + 1], sum: AtomicU64::new(0) }
    }

    /// Adds a duration.
    pub fn add(&self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let place = BOUNDS.partition_point(|bound| *bound < micros);
        if let Some(bucket) = self.buckets.get(place) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.sum.fetch_add(micros, Ordering::Relaxed);
    }

    /// What was added so far.
    pub fn read(&self) -> HistogramReading {
        let counts = self.buckets.each_ref().map(|bucket| bucket.load(Ordering::Relaxed));
        let buckets = BOUNDS.iter().zip(counts).map(|(bound, count)| (seconds(*bound), count)).collect();
        let (sum, count) = (seconds(self.sum.load(Ordering::Relaxed)), counts.iter().sum());
        HistogramReading { sum, count, buckets }
    }
}

#[expect(clippy::cast_precision_loss, reason = "2^53 microseconds are 285 years")]
fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use crate::histogram::*;

    #[test]
    fn durations_are_in_the_first_bucket_that_can_hold_them() {
        let histogram = Histogram::new();
        for micros in [0, 500, 501, 10_000_000, 10_000_001, 3_600_000_000] {
            histogram.add(Duration::from_micros(micros));
        }
        let HistogramReading { sum, count, buckets } = histogram.read();
        assert_eq!((count, buckets.iter().map(|(_, count)| count).sum::<u64>()), (6, 4), "two are longer");
        assert_eq!((buckets[0], buckets[1], buckets[13]), ((0.0005, 2), (0.001, 1), (10.0, 1)));
        assert!((sum - 3620.001002).abs() < 1e-6, "{sum}");
    }
}
