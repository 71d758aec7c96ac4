//! Days, weeks and months of a time zone.

use jiff::civil::{Date, Weekday};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};

/// When the days, weeks and months of a budget begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Calendar {
    zone: TimeZone,
    /// The first day of a week.
    week_start: Weekday,
}

/// A period of the calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CalendarPeriod {
    Day,
    Week,
    Month,
}

impl CalendarPeriod {
    /// The longest that it can take, in minutes: clocks may be set back meanwhile, or a day be repeated.
    pub(super) fn most_minutes(self) -> u64 {
        let days = match self {
            Self::Day => 1,
            Self::Week => 7,
            Self::Month => 31,
        };
        (days + 1) * 24 * 60
    }
}

impl Default for Calendar {
    /// UTC; weeks begin on Monday.
    fn default() -> Self {
        Self { zone: TimeZone::UTC, week_start: Weekday::Monday }
    }
}

impl Calendar {
    /// The calendar of a time zone.
    #[must_use]
    pub fn new(zone: TimeZone, week_start: Weekday) -> Self {
        Self { zone, week_start }
    }

    /// The first minute after the period that a minute (since 1970, in UTC) is in; the maximum if that is beyond the calendar.
    pub(super) fn end(&self, period: CalendarPeriod, minute: u64) -> u64 {
        self.try_end(period, minute).unwrap_or(u64::MAX)
    }

    fn try_end(&self, period: CalendarPeriod, minute: u64) -> Option<u64> {
        let second = i64::try_from(minute.checked_mul(60)?).ok()?;
        let day = Timestamp::from_second(second).ok()?.to_zoned(self.zone.clone()).date();
        let next = self.next(period, day)?;
        // Where clocks skip midnight, the day begins later.
        let begins = next.to_zoned(self.zone.clone()).ok()?.timestamp().as_second();
        Some(u64::try_from(begins).ok()?.div_ceil(60))
    }

    /// The first day of the next period.
    fn next(&self, period: CalendarPeriod, day: Date) -> Option<Date> {
        match period {
            CalendarPeriod::Day => day.tomorrow().ok(),
            CalendarPeriod::Week => {
                let passed = i64::from(day.weekday().since(self.week_start));
                day.checked_add((7 - passed).days()).ok()
            }
            CalendarPeriod::Month => day.last_of_month().tomorrow().ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minute(time: &str) -> u64 {
        let second = time.parse::<Timestamp>().unwrap().as_second();
        u64::try_from(second).unwrap() / 60
    }

    #[test]
    fn periods_end_at_local_midnight() {
        use CalendarPeriod::{Day, Month, Week};
        for (zone, week_start, period, at, end) in [
            ("UTC", Weekday::Monday, Day, "2026-11-29T23:59:00Z", "2026-11-30T00:00:00Z"),
            ("UTC", Weekday::Monday, Day, "2026-11-29T00:00:00Z", "2026-11-30T00:00:00Z"),
            ("Asia/Tokyo", Weekday::Monday, Day, "2026-11-29T14:59:00Z", "2026-11-29T15:00:00Z"),
            ("Asia/Tokyo", Weekday::Monday, Day, "2026-11-29T15:00:00Z", "2026-11-30T15:00:00Z"),
            ("Asia/Kathmandu", Weekday::Monday, Day, "2026-11-29T12:00:00Z", "2026-11-29T18:15:00Z"),
            // Clocks go forward, and back: days of 23 and 25 hours.
            ("Europe/Berlin", Weekday::Monday, Day, "2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z"),
            ("Europe/Berlin", Weekday::Monday, Day, "2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z"),
            // Clocks skip midnight.
            ("America/Santiago", Weekday::Monday, Day, "2026-09-05T12:00:00Z", "2026-09-06T04:00:00Z"),
            // 29 November 2026 is a Sunday.
            ("UTC", Weekday::Monday, Week, "2026-11-29T12:00:00Z", "2026-11-30T00:00:00Z"),
            ("UTC", Weekday::Monday, Week, "2026-11-30T00:00:00Z", "2026-12-07T00:00:00Z"),
            ("UTC", Weekday::Sunday, Week, "2026-11-29T12:00:00Z", "2026-12-06T00:00:00Z"),
            ("UTC", Weekday::Sunday, Week, "2026-11-28T12:00:00Z", "2026-11-29T00:00:00Z"),
            ("UTC", Weekday::Monday, Month, "2026-11-29T12:00:00Z", "2026-12-01T00:00:00Z"),
            ("UTC", Weekday::Monday, Month, "2026-12-31T23:59:00Z", "2027-01-01T00:00:00Z"),
            ("America/New_York", Weekday::Monday, Month, "2026-12-01T04:59:00Z", "2026-12-01T05:00:00Z"),
            ("America/New_York", Weekday::Monday, Month, "2028-02-10T00:00:00Z", "2028-03-01T05:00:00Z"),
        ] {
            let calendar = Calendar::new(TimeZone::get(zone).unwrap(), week_start);
            let (at, end) = (minute(at), minute(end));
            assert_eq!(calendar.end(period, at), end, "{zone} {period:?}");
            assert!(end - at <= period.most_minutes());
            assert!(calendar.end(period, end - 1) == end && calendar.end(period, end) > end);
        }
        assert_eq!(Calendar::default().end(Day, u64::MAX), u64::MAX);
        assert_eq!(Calendar::default().end(Month, 9_999 * 366 * 24 * 60), u64::MAX);
    }
}
