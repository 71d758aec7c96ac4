//! Reads `[limits]`.

use std::time::Duration;

use super::section::Section;
use super::values;
use super::values::{show_duration, show_size};
use crate::limits::{LIMITS, Limits, Quantity, Unit};

/// The keys of `[limits]`.
pub(super) const KEYS: &[&str] = &{
    let mut keys = [""; LIMITS.len()];
    let mut index = 0;
    while index < keys.len() {
        keys[index] = LIMITS[index].key;
        index += 1;
    }
    keys
};

/// Reads `[limits]`.
pub(super) fn read(section: &Section<'_>) -> Limits {
    Limits::read(|limit| Some(quantity(section, limit.key, limit.quantity)))
}

fn quantity(section: &Section<'_>, key: &str, quantity: Quantity) -> u64 {
    let Quantity { unit, default, min, max } = quantity;
    match unit {
        Unit::Count => section.bounded(key, default, min..=max, values::integer, |number| number.to_string()),
        Unit::Bytes => section.bounded(key, default, min..=max, values::size, show_size),
        Unit::Time => {
            let [default, min, max] = [default, min, max].map(Duration::from_nanos);
            let read = section.bounded(key, default, min..=max, values::duration, show_duration);
            // At most `max`, which was a `u64` of nanoseconds.
            u64::try_from(read.as_nanos()).unwrap_or(quantity.max)
        }
    }
}
