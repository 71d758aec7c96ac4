//! What the transactions of one day may cost together.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use ethers_core::types::U256;

use super::error::ChainError;
use crate::mutex::lock;
use crate::protocol::Wei;

/// How long a fee counts.
const DAY: Duration = Duration::from_secs(24 * 3600);

/// The fees of the transactions that were signed within a day: the most that each can cost, whether it is mined or not.
#[derive(Debug)]
pub(super) struct DailyFees {
    /// The table of the configuration that the limit is in.
    table: &'static str,
    most: Wei,
    counted: Mutex<CountedFees>,
}

#[derive(Debug, Default)]
struct CountedFees {
    /// When each stops counting, and the fee.
    fees: Vec<(Instant, U256)>,
    /// Whether those of earlier runs are among them.
    is_restored: bool,
}

impl DailyFees {
    /// Allows fees of `most` within a day.
    pub(super) fn new(table: &'static str, most: Wei) -> Self {
        Self { table, most, counted: Mutex::default() }
    }

    /// Counts transactions that were signed before this start, by their age; once, however often the start is tried.
    pub(super) fn restore(&self, earlier: &[(Duration, U256)], now: Instant) {
        let mut counted = lock(&self.counted);
        if !std::mem::replace(&mut counted.is_restored, true) {
            let until = |(age, fee): &(Duration, U256)| (now + DAY.saturating_sub(*age), *fee);
            counted.fees.extend(earlier.iter().map(until));
        }
    }

    /// Counts a transaction that is about to be signed.
    ///
    /// # Errors
    /// [`ChainError::DayTooDear`] if it does not fit.
    pub(super) fn count(&self, fee: U256, now: Instant) -> Result<(), ChainError> {
        let fees = &mut lock(&self.counted).fees;
        fees.retain(|(until, _)| *until > now);
        let sum = fees.iter().fold(fee, |sum, (_, fee)| sum.saturating_add(*fee));
        let most = U256::from(self.most.0);
        if sum > most {
            fees.sort_unstable_by_key(|(until, _)| *until);
            let mut left = sum;
            let is_enough = |(until, fee): &(Instant, U256)| {
                left = left.saturating_sub(*fee);
                (left <= most).then_some(until.saturating_duration_since(now))
            };
            let free_in = if fee > most { None } else { fees.iter().find_map(is_enough) };
            return Err(ChainError::DayTooDear {
                table: self.table,
                asked: Wei(u128::try_from(sum).unwrap_or(u128::MAX)),
                allowed: self.most,
                free_in,
            });
        }
        fees.push((now + DAY, fee));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn fees_count_for_a_day_also_across_a_restart() {
        let start = Instant::now();
        let fees = DailyFees::new("chain", Wei(100));
        for _ in 0..2 {
            fees.restore(&[(20 * HOUR, 30.into()), (30 * HOUR, 99.into())], start);
        }
        let later = start + 10 * Duration::from_secs(1);
        for (fee, at, fits) in [
            (71, later, false),
            (70, later, true),
            (1, later, false),
            (1, start + 4 * HOUR - Duration::from_secs(1), false),
            (30, start + 4 * HOUR, true),
            (0, start + 4 * HOUR, true),
            (1, start + 4 * HOUR, false),
            (70, start + 25 * HOUR, true),
            (u64::MAX, start + 100 * HOUR, false),
            (100, start + 100 * HOUR, true),
        ] {
            assert_eq!(fees.count(fee.into(), at).is_ok(), fits, "{fee} at {:?}", at - start);
        }
        let error = fees.count(U256::MAX, start + 100 * HOUR).unwrap_err().to_string();
        assert!(
            error.contains("all transactions of one day") && error.contains("This one alone costs more"),
            "{error}"
        );
        // Until enough of the earlier ones no longer count.
        let fees = DailyFees::new("chain", Wei(100));
        fees.restore(&[(20 * HOUR, 30.into()), (23 * HOUR, 20.into())], start);
        for (fee, expected) in [(60, "wait 1h"), (71, "wait 4h"), (100, "wait 4h")] {
            let error = fees.count(fee.into(), start).unwrap_err().to_string();
            let told = format!(
                "Earlier fees stop counting after 24 hours: {expected}, or raise chain.max_fees_per_day"
            );
            assert!(error.ends_with(&told), "{fee}: {error}");
        }
    }
}
