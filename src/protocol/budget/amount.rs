//! What payments cost in the unit of a budget.

use std::fmt;
use std::str::FromStr;

use ethers_core::types::U256;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::protocol::Amount;

/// A sum in the smallest unit of a budget; see [`BudgetUnit`](super::BudgetUnit).
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BudgetAmount(U256);

/// The text is not a sum of a budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a decimal number of at most 256 bits")]
pub struct NotABudgetAmount;

impl BudgetAmount {
    /// Nothing.
    pub const ZERO: Self = Self(U256([0; 4]));
    /// One unit.
    pub const ONE: Self = Self(U256([1, 0, 0, 0]));
    /// More than any budget has.
    pub const MAX: Self = Self(U256([u64::MAX; 4]));

    /// The sum, at most [`BudgetAmount::MAX`].
    #[must_use]
    pub fn plus(self, more: Self) -> Self {
        Self(self.0.saturating_add(more.0))
    }

    /// The difference, at least zero.
    #[must_use]
    pub fn minus(self, less: Self) -> Self {
        Self(self.0.saturating_sub(less.0))
    }

    /// What this many base units cost, at `self` for each; at most [`BudgetAmount::MAX`].
    #[must_use]
    pub fn of(self, units: Amount) -> Self {
        Self(self.0.saturating_mul(units.into()))
    }

    /// How many base units it pays for, at `each` for one; rounded down, at most [`Amount::MAX`].
    pub fn buys(self, each: Self) -> Amount {
        let units = self.0.checked_div(each.0).unwrap_or(U256::MAX);
        Amount::try_from(units).unwrap_or(Amount::MAX)
    }

    /// How many base units cost at least this much, at `each` for one; rounded up, at most [`Amount::MAX`].
    pub fn requires(self, each: Self) -> Amount {
        let units = self.buys(each);
        if each.of(units) >= self { units } else { units.saturating_add(Amount::from_units(1)) }
    }

    /// A quarter of it, rounded down.
    #[must_use]
    pub fn quarter(self) -> Self {
        Self(self.0 >> 2)
    }

    /// Whether it is at least this many percent of a limit, which is above 0.
    pub fn is_at_least(self, percent: u64, limit: Self) -> bool {
        let scaled = |amount: Self, factor: u64| amount.0.full_mul(U256::from(factor));
        !limit.is_zero() && scaled(self, 100) >= scaled(limit, percent)
    }

    /// Whether it is zero.
    pub fn is_zero(self) -> bool {
        self.0.is_zero()
    }
}

impl From<U256> for BudgetAmount {
    fn from(units: U256) -> Self {
        Self(units)
    }
}

impl From<BudgetAmount> for U256 {
    fn from(cost: BudgetAmount) -> Self {
        cost.0
    }
}

impl FromStr for BudgetAmount {
    type Err = NotABudgetAmount;

    fn from_str(text: &str) -> Result<Self, NotABudgetAmount> {
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = is_number.then(|| U256::from_dec_str(text).ok()).flatten();
        number.map(Self).ok_or(NotABudgetAmount)
    }
}

impl fmt::Display for BudgetAmount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for BudgetAmount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for BudgetAmount {
    /// A decimal string.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for BudgetAmount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use crate::protocol::budget::amount::*;

    #[test]
    fn sums_stop_at_the_bounds_and_quotients_are_on_the_safe_side() {
        let cost = |units: u64| BudgetAmount(units.into());
        assert_eq!(BudgetAmount::MAX.plus(cost(1)), BudgetAmount::MAX);
        assert_eq!(cost(1).minus(cost(2)), BudgetAmount::ZERO);
        assert_eq!(BudgetAmount::MAX.of(2.into()), BudgetAmount::MAX);
        for (sum, each, bought, required) in [(10, 3, 3, 4), (9, 3, 3, 3), (2, 3, 0, 1), (0, 3, 0, 0)] {
            assert_eq!(cost(sum).buys(cost(each)), bought.into());
            assert_eq!(cost(sum).requires(cost(each)), required.into());
        }
        assert_eq!(cost(1).buys(BudgetAmount::ZERO), Amount::MAX);
        assert_eq!("12".parse(), Ok(cost(12)));
        for invalid in ["", "-1", "0x1", "1.0", &"9".repeat(79)] {
            assert_eq!(invalid.parse::<BudgetAmount>(), Err(NotABudgetAmount), "{invalid}");
        }
        assert_eq!(BudgetAmount::MAX.to_string().parse(), Ok(BudgetAmount::MAX));
    }
}
