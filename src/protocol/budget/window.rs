//! Sums over a sliding window of time.

use std::collections::VecDeque;

use super::amount::BudgetAmount;
use super::calendar::{Calendar, CalendarPeriod};

/// The period that a limit of a budget applies to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Window {
    /// The last hour.
    Hour,
    /// The last 24 hours.
    Day,
    /// The last 30 days.
    ThirtyDays,
    /// Today.
    CalendarDay,
    /// This week.
    CalendarWeek,
    /// This month.
    CalendarMonth,
    /// Ever.
    Total,
}

/// How many windows there are.
pub(in crate::protocol) const WINDOWS: usize = Window::ALL.len();

impl Window {
    /// All windows.
    pub const ALL: [Self; 7] = [
        Self::Hour,
        Self::Day,
        Self::ThirtyDays,
        Self::CalendarDay,
        Self::CalendarWeek,
        Self::CalendarMonth,
        Self::Total,
    ];

    /// The key of its limit in a `[[budget]]`.
    pub fn key(self) -> &'static str {
        match self {
            Self::Hour => "per_hour",
            Self::Day => "per_day",
            Self::ThirtyDays => "per_30_days",
            Self::CalendarDay => "per_calendar_day",
            Self::CalendarWeek => "per_calendar_week",
            Self::CalendarMonth => "per_calendar_month",
            Self::Total => "total",
        }
    }

    /// The window with this key.
    pub fn from_key(key: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|window| window.key() == key)
    }

    /// The period of the calendar that it is.
    fn period(self) -> Option<CalendarPeriod> {
        match self {
            Self::CalendarDay => Some(CalendarPeriod::Day),
            Self::CalendarWeek => Some(CalendarPeriod::Week),
            Self::CalendarMonth => Some(CalendarPeriod::Month),
            Self::Hour | Self::Day | Self::ThirtyDays | Self::Total => None,
        }
    }

    /// Its length, in minutes, or the most that it can be; `None` if it never ends.
    fn minutes(self) -> Option<u64> {
        match self {
            Self::Hour => Some(60),
            Self::Day => Some(24 * 60),
            Self::ThirtyDays => Some(30 * 24 * 60),
            Self::CalendarDay | Self::CalendarWeek | Self::CalendarMonth => {
                self.period().map(CalendarPeriod::most_minutes)
            }
            Self::Total => None,
        }
    }

    /// The length of its buckets, in minutes: payments within one leave the window together, with the last of them.
    fn bucket(self) -> u64 {
        match self {
            Self::Hour => 1,
            // All time zones are whole quarters of an hour from UTC.
            Self::Day | Self::CalendarDay | Self::CalendarWeek | Self::CalendarMonth => 15,
            Self::ThirtyDays => 6 * 60,
            Self::Total => u64::MAX,
        }
    }

    /// The start of the bucket with this minute.
    pub fn start(self, minute: u64) -> u64 {
        minute - minute % self.bucket()
    }

    /// The first minute at which payments of this minute no longer count; `None` if they always do. In an unknown calendar
    /// they count as long as they could in any.
    fn leaves(self, minute: u64, calendar: Option<&Calendar>) -> Option<u64> {
        let after = self.start(minute).saturating_add(self.bucket());
        match (self.period(), calendar) {
            (Some(period), Some(calendar)) => Some(calendar.end(period, after.saturating_sub(1))),
            // Everything in the minutes of its bucket has left once the last one has, which itself ends a minute later.
            _ => Some(after.saturating_add(self.minutes()?)),
        }
    }

    /// The start of the oldest bucket that still counts; `None` if all do.
    pub fn oldest(self, now: u64) -> Option<u64> {
        Some(self.start((now + 1).saturating_sub(self.bucket()).saturating_sub(self.minutes()?)))
    }
}

/// What was spent within a window.
#[derive(Clone, Debug)]
pub(super) struct WindowSum {
    window: Window,
    /// When its periods begin, once that is known.
    calendar: Option<Calendar>,
    /// By the start of each bucket, oldest first.
    buckets: VecDeque<Bucket>,
    sum: BudgetAmount,
}

/// What was spent within some minutes.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// Its first minute.
    start: u64,
    spent: BudgetAmount,
    /// The part of it that the journal knows besides what it knows of holds.
    recorded: BudgetAmount,
}

impl WindowSum {
    pub(super) fn new(window: Window) -> Self {
        Self { window, calendar: None, buckets: VecDeque::new(), sum: BudgetAmount::ZERO }
    }

    pub(super) fn sum(&self) -> BudgetAmount {
        self.sum
    }

    /// Sets when its periods begin.
    pub(super) fn set_calendar(&mut self, calendar: &Calendar, now: u64) {
        if self.window.period().is_some() {
            self.calendar = Some(calendar.clone());
            self.advance(now);
        }
    }

    /// Whether payments of this minute still count.
    pub(super) fn has(&self, minute: u64, now: u64) -> bool {
        self.leaves(minute).is_none_or(|leaves| now < leaves)
    }

    fn leaves(&self, minute: u64) -> Option<u64> {
        self.window.leaves(minute, self.calendar.as_ref())
    }

    /// Removes what has left the window.
    pub(super) fn advance(&mut self, now: u64) {
        while let Some(first) = self.buckets.front().copied().filter(|first| !self.has(first.start, now)) {
            self.sum = self.sum.minus(first.spent);
            self.buckets.pop_front();
        }
    }

    /// Counts a payment of this minute.
    pub(super) fn add(&mut self, minute: u64, cost: BudgetAmount) {
        let bucket = self.bucket(minute);
        bucket.spent = bucket.spent.plus(cost);
        self.sum = self.sum.plus(cost);
    }

    /// Stops counting a payment of this minute, if it still counts.
    pub(super) fn subtract(&mut self, minute: u64, cost: BudgetAmount, now: u64) {
        if self.has(minute, now) {
            let bucket = self.bucket(minute);
            // An older version may have counted it in another bucket, whose end it waits for.
            let cost = cost.min(bucket.spent);
            bucket.spent = bucket.spent.minus(cost);
            self.sum = self.sum.minus(cost);
        }
    }

    /// Notes that the journal is about to learn of a change; returns the bucket's start and what it then contains.
    pub(super) fn record(
        &mut self,
        minute: u64,
        plus: BudgetAmount,
        minus: BudgetAmount,
    ) -> (u64, BudgetAmount) {
        let bucket = self.bucket(minute);
        bucket.recorded = bucket.recorded.plus(plus).minus(minus);
        (bucket.start, bucket.recorded)
    }

    /// What the journal knows of a bucket.
    pub(super) fn recorded(&self, start: u64) -> BudgetAmount {
        let found = self.buckets.binary_search_by_key(&start, |bucket| bucket.start);
        found.map_or(BudgetAmount::ZERO, |place| self.buckets[place].recorded)
    }

    /// Sets what the journal contains.
    pub(super) fn restore(&mut self, start: u64, spent: BudgetAmount) {
        self.add(start, spent);
        self.bucket(start).recorded = spent;
    }

    /// The start of the newest bucket, if there is one.
    pub(super) fn newest(&self) -> Option<u64> {
        self.buckets.back().map(|bucket| bucket.start)
    }

    /// The first minute at which at most `most` counts, if nothing is spent meanwhile.
    pub(super) fn falls_to(&self, most: BudgetAmount) -> Option<u64> {
        let mut left = self.sum;
        for bucket in &self.buckets {
            left = left.minus(bucket.spent);
            if left <= most {
                return self.leaves(bucket.start);
            }
        }
        None
    }

    fn bucket(&mut self, minute: u64) -> &mut Bucket {
        let start = self.window.start(minute);
        let place = self.buckets.partition_point(|bucket| bucket.start < start);
        if self.buckets.get(place).is_none_or(|bucket| bucket.start != start) {
            self.buckets
                .insert(place, Bucket { start, spent: BudgetAmount::ZERO, recorded: BudgetAmount::ZERO });
        }
        &mut self.buckets[place]
    }
}

#[cfg(test)]
mod tests {
    use crate::protocol::budget::window::*;

    fn cost(units: u64) -> BudgetAmount {
        ethers_core::types::U256::from(units).into()
    }

    #[test]
    fn a_payment_leaves_its_window_once_and_never_early() {
        for (window, minutes, bucket) in
            [(Window::Hour, 60, 1), (Window::Day, 1440, 15), (Window::ThirtyDays, 43_200, 360)]
        {
            for minute in [1_000_000, 1_000_007, 1_000_800] {
                let mut sum = WindowSum::new(window);
                sum.add(minute, cost(5));
                sum.advance(minute + minutes);
                assert_eq!(sum.sum(), cost(5), "{window:?}: {minute}");
                let leaves = sum.falls_to(BudgetAmount::ZERO).unwrap();
                assert!(
                    leaves > minute + minutes && leaves <= minute + minutes + bucket,
                    "{leaves} {minute}"
                );
                sum.advance(leaves - 1);
                assert_eq!(sum.sum(), cost(5));
                sum.advance(leaves);
                assert_eq!(sum.sum(), BudgetAmount::ZERO);
            }
        }
        let mut sum = WindowSum::new(Window::Total);
        sum.add(7, cost(5));
        sum.advance(u64::MAX);
        assert_eq!((sum.sum(), sum.falls_to(BudgetAmount::ZERO)), (cost(5), None));
    }

    #[test]
    fn only_what_still_counts_can_be_taken_back() {
        let mut sum = WindowSum::new(Window::Hour);
        sum.add(100, cost(5));
        sum.add(150, cost(7));
        sum.subtract(150, cost(2), 150);
        assert_eq!(sum.sum(), cost(10));
        sum.advance(161);
        assert_eq!(sum.sum(), cost(5));
        sum.subtract(100, cost(5), 161);
        assert_eq!(sum.sum(), cost(5), "it has left");
    }

    #[test]
    fn what_must_leave_first_decides_when_enough_is_free() {
        let mut sum = WindowSum::new(Window::Hour);
        for (minute, spent) in [(100, 5), (110, 1), (120, 7)] {
            sum.add(minute, cost(spent));
        }
        for (most, expected) in [(8, 161), (7, 171), (6, 181), (0, 181)] {
            assert_eq!(sum.falls_to(cost(most)), Some(expected), "{most}");
        }
    }

    #[test]
    fn a_week_and_a_month_end_at_midnight_also_where_that_is_not_on_the_hour() {
        let zone = jiff::tz::TimeZone::get("Asia/Kolkata").unwrap();
        let calendar = Calendar::new(zone, jiff::civil::Weekday::Monday);
        // 31 May 2026 is a Sunday: its last minute is 18:29 UTC.
        let end = u64::try_from("2026-05-31T18:30:00Z".parse::<jiff::Timestamp>().unwrap().as_second())
            .unwrap()
            / 60;
        for window in [Window::CalendarDay, Window::CalendarWeek, Window::CalendarMonth] {
            let mut sum = WindowSum::new(window);
            sum.set_calendar(&calendar, end - 20);
            sum.add(end - 1, cost(5));
            sum.add(end, cost(7));
            assert_eq!(sum.falls_to(cost(7)), Some(end), "{window:?}");
            sum.advance(end);
            assert_eq!(sum.sum(), cost(7), "{window:?}");
        }
    }

    #[test]
    fn what_an_older_version_has_counted_in_a_longer_bucket_stays_until_its_end() {
        let mut sum = WindowSum::new(Window::CalendarMonth);
        sum.restore(1_000_845, cost(10));
        sum.subtract(1_000_801, cost(5), 1_000_850);
        assert_eq!(sum.sum(), cost(10));
        sum.add(1_000_920, cost(7));
        sum.advance(sum.falls_to(cost(7)).unwrap());
        assert_eq!(sum.sum(), cost(7), "what leaves takes nothing else with it");
    }

    #[test]
    fn a_calendar_day_ends_at_midnight_and_in_an_unknown_calendar_as_late_as_in_any() {
        let midnight = 1_000_800;
        assert_eq!(midnight % (24 * 60), 0);
        let mut sum = WindowSum::new(Window::CalendarDay);
        sum.add(midnight - 1, cost(5));
        sum.advance(midnight + 24 * 60);
        assert_eq!(sum.sum(), cost(5));
        sum.set_calendar(&Calendar::default(), midnight - 1);
        assert_eq!((sum.sum(), sum.falls_to(BudgetAmount::ZERO)), (cost(5), Some(midnight)));
        sum.add(midnight, cost(7));
        sum.advance(midnight);
        assert_eq!((sum.sum(), sum.falls_to(BudgetAmount::ZERO)), (cost(7), Some(midnight + 24 * 60)));
        // What no longer counts anywhere may be removed from the journal.
        for window in Window::ALL.into_iter().filter(|window| *window != Window::Total) {
            let oldest = window.oldest(midnight).unwrap();
            assert!(window.leaves(oldest - 1, None).unwrap() <= midnight, "{window:?}");
        }
    }
}
