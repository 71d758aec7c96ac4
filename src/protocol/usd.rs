//! US dollars, in which limits can be given across assets.

use std::fmt;
use std::str::FromStr;

use ethers_core::types::{U256, U512};

use super::decimal;
use super::decimal::NotDecimal;
use super::money::Amount;

/// An amount of US dollars, in units of 10^-18 dollars.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Usd(u128);

impl Usd {
    /// The decimals of its unit.
    const DECIMALS: u32 = 18;

    /// The value of this many base units of a token, at `self` for a whole token; rounded up, so that no limit is
    /// exceeded by what rounding hides. `None` if it is too large to represent.
    pub fn worth(self, amount: Amount, decimals: u32) -> Option<Self> {
        let product = U256::from(amount).full_mul(self.0.into());
        let unit = U512::from(10).checked_pow(decimals.into())?;
        let (whole, rest) = product.div_mod(unit);
        let whole = u128::try_from(whole).ok()?;
        if rest.is_zero() { Some(Self(whole)) } else { whole.checked_add(1).map(Self) }
    }

    /// How many base units of a token it buys at `rate` for a whole token; rounded down, at most [`Amount::MAX`].
    pub fn buys(self, rate: Self, decimals: u32) -> Amount {
        let unit = U512::from(10).checked_pow(decimals.into()).unwrap_or(U512::MAX);
        let units = U512::from(self.0).saturating_mul(unit).checked_div(rate.0.into());
        units
            .and_then(|units| U256::try_from(units).ok())
            .and_then(|units| Amount::try_from(units).ok())
            .unwrap_or(Amount::MAX)
    }

    /// Whether it is zero.
    pub fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// The number of its units.
    pub fn units(self) -> Amount {
        Amount::from_units(self.0)
    }
}

impl FromStr for Usd {
    type Err = NotDecimal;

    /// Parses a number of dollars, such as `0.05`, without a sign.
    fn from_str(text: &str) -> Result<Self, NotDecimal> {
        let units = decimal::parse(text, Self::DECIMALS)?;
        u128::try_from(units).map(Self).map_err(|_| NotDecimal::TooLarge)
    }
}

impl fmt::Display for Usd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "${}", decimal::show(self.0.into(), Self::DECIMALS))
    }
}

#[cfg(test)]
mod tests {
    use crate::protocol::usd::*;

    fn usd(text: &str) -> Usd {
        text.parse().unwrap()
    }

    #[test]
    fn a_value_is_rounded_up() {
        for (rate, units, decimals, expected) in [
            ("1", 50_000, 6, "$0.05"),
            ("1", 1, 6, "$0.000001"),
            ("0.03", 1, 18, "$0.000000000000000001"),
            ("0.03", 0, 18, "$0"),
            ("3500.5", 1_000_000_000_000_000_000, 18, "$3500.5"),
            ("1", 7, 0, "$7"),
            ("0.000000000000000001", 1, 6, "$0.000000000000000001"),
        ] {
            assert_eq!(usd(rate).worth(units.into(), decimals).unwrap().to_string(), expected);
        }
        assert_eq!(usd("1").worth(Amount::MAX, 0), None);
        assert_eq!(usd("100000000000000000000").worth(Amount::MAX, 18), None);
    }

    #[test]
    fn what_it_buys_is_rounded_down_and_within_its_value() {
        for (most, rate, decimals, expected) in
            [("0.05", "1", 6, 50_000), ("1", "3", 0, 0), ("1", "0.3", 1, 33), ("0.0000001", "1", 6, 0)]
        {
            let bought = usd(most).buys(usd(rate), decimals);
            assert_eq!(bought, expected.into(), "{most} at {rate}");
            assert!(usd(rate).worth(bought, decimals).unwrap() <= usd(most));
        }
        assert_eq!(usd("1").buys(Usd::default(), 6), Amount::MAX);
    }
}
