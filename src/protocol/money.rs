//! Money: unsigned integers in a token's base units, with checked arithmetic only.
//!
//! A channel's totals are `uint192` in headers and on the chain, so [`Amount`] is bounded by 2^192 - 1 everywhere.
//! There are no operators on purpose: every sum states what happens on overflow.

use std::{fmt, str::FromStr};

use ethers_core::types::U256;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// An amount of money in base units of the token, at most 2^192 - 1.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Amount(U256);

/// Why a string or a number is not an [`Amount`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAnAmount {
    /// The string is empty or contains characters other than the digits 0-9.
    #[error("not a whole number of base units")]
    NotDecimal,
    /// The number needs more than 192 bits.
    #[error("larger than 2^192 - 1 base units")]
    TooLarge,
}

impl Amount {
    /// Zero.
    pub const ZERO: Self = Self(U256([0, 0, 0, 0]));
    /// The largest total a channel can carry: 2^192 - 1 base units.
    pub const MAX: Self = Self(U256([u64::MAX, u64::MAX, u64::MAX, 0]));

    /// This many base units.
    pub const fn from_units(units: u128) -> Self {
        Self(U256([units as u64, (units >> 64) as u64, 0, 0]))
    }

    /// The sum, or `None` above [`Amount::MAX`].
    pub fn checked_add(self, other: Self) -> Option<Self> {
        // Two numbers below 2^192 cannot overflow 256 bits.
        Self::try_from(self.0 + other.0).ok()
    }

    /// The difference, or `None` if `other` is larger.
    pub fn checked_sub(self, other: Self) -> Option<Self> {
        self.0.checked_sub(other.0).map(Self)
    }

    /// The difference, at least zero.
    pub fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// The sum, at most [`Amount::MAX`].
    pub fn saturating_add(self, other: Self) -> Self {
        self.checked_add(other).unwrap_or(Self::MAX)
    }

    /// The product, at most [`Amount::MAX`].
    pub fn saturating_mul(self, factor: u64) -> Self {
        Self::try_from(self.0.saturating_mul(U256::from(factor))).unwrap_or(Self::MAX)
    }

    /// Half of it, rounded down.
    pub fn halved(self) -> Self {
        Self(self.0 >> 1)
    }

    /// Whether the amount is zero.
    pub fn is_zero(self) -> bool {
        self.0.is_zero()
    }

    /// The 24 bytes, big endian, of a balance proof.
    pub fn to_be_bytes(self) -> [u8; 24] {
        let mut wide = [0; 32];
        self.0.to_big_endian(&mut wide);
        let mut bytes = [0; 24];
        bytes.copy_from_slice(&wide[8..]);
        bytes
    }
}

impl From<u64> for Amount {
    fn from(units: u64) -> Self {
        Self(U256::from(units))
    }
}

impl From<Amount> for U256 {
    fn from(amount: Amount) -> Self {
        amount.0
    }
}

impl TryFrom<U256> for Amount {
    type Error = NotAnAmount;

    fn try_from(units: U256) -> Result<Self, NotAnAmount> {
        if units > Self::MAX.0 { Err(NotAnAmount::TooLarge) } else { Ok(Self(units)) }
    }
}

impl FromStr for Amount {
    type Err = NotAnAmount;

    /// Parses decimal digits only: no sign, space, separator, exponent or `0x`.
    fn from_str(text: &str) -> Result<Self, NotAnAmount> {
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(NotAnAmount::NotDecimal);
        }
        let digits = text.trim_start_matches('0');
        // 2^192 has 58 digits; reject longer strings before parsing them.
        if digits.len() > 58 {
            return Err(NotAnAmount::TooLarge);
        }
        if digits.is_empty() {
            return Ok(Self::ZERO);
        }
        U256::from_dec_str(digits).map_err(|_| NotAnAmount::NotDecimal)?.try_into()
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Fast path for nearly every amount.
        match u128::try_from(self.0) {
            Ok(units) => fmt::Display::fmt(&units, f),
            Err(_) => fmt::Display::fmt(&self.0, f),
        }
    }
}

impl fmt::Debug for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Amount {
    /// A decimal string, since many JSON readers lose precision above 2^53.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Amount {
    /// An integer or a decimal string.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Amount;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an amount in base units: an integer or a string of decimal digits")
            }
            fn visit_u64<E: de::Error>(self, units: u64) -> Result<Amount, E> {
                Ok(Amount::from(units))
            }
            fn visit_i64<E: de::Error>(self, units: i64) -> Result<Amount, E> {
                u64::try_from(units)
                    .map(Amount::from)
                    .map_err(|_| E::custom(format!("{units} is negative; an amount is at least 0")))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Amount, E> {
                text.parse().map_err(|error| E::custom(format!("{text:?} is {error}")))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// An amount of ether, in wei; displayed in the largest unit that needs at most four decimals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wei(pub u128);

/// The string is not an amount of ether.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an amount of ether, such as 0.05 ETH, 300 gwei or 21000 wei")]
pub struct NotEther;

/// The units of ether: name and decimals relative to a wei, the largest first.
const UNITS: [(&str, u32); 3] = [("ETH", 18), ("gwei", 9), ("wei", 0)];
/// The most decimals to display before choosing a smaller unit.
const SHOWN_DECIMALS: u32 = 4;

impl FromStr for Wei {
    type Err = NotEther;

    /// Parses a number with at most as many decimals as its unit has, and the unit, by default wei.
    fn from_str(text: &str) -> Result<Self, NotEther> {
        let end = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(end);
        let unit = match unit.trim_start() {
            "" => "wei",
            unit if unit.eq_ignore_ascii_case("ether") => "ETH",
            unit => unit,
        };
        let (_, decimals) = UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).ok_or(NotEther)?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let is_whole = !number.contains('.');
        let missing = u32::try_from(fraction.len()).ok().and_then(|digits| decimals.checked_sub(digits));
        let missing = missing.filter(|_| is_whole || !fraction.is_empty()).ok_or(NotEther)?;
        let units = |digits: &str, zeros| digits.parse::<u128>().ok()?.checked_mul(10u128.pow(zeros));
        let fraction = if is_whole { Some(0) } else { units(fraction, missing) };
        let wei = units(whole, *decimals).zip(fraction).and_then(|(whole, part)| whole.checked_add(part));
        wei.map(Self).ok_or(NotEther)
    }
}

impl fmt::Display for Wei {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_short =
            |decimals: &u32| self.0.is_multiple_of(10u128.pow(decimals.saturating_sub(SHOWN_DECIMALS)));
        let fits = |(_, decimals): &&(&str, u32)| {
            is_short(decimals) && self.0 >= 10u128.pow(decimals.saturating_sub(SHOWN_DECIMALS))
        };
        let (unit, decimals) = UNITS.iter().find(fits).unwrap_or(&("wei", 0));
        let scale = 10u128.pow(*decimals);
        let (whole, part) = (self.0 / scale, self.0 % scale);
        if part == 0 {
            return write!(f, "{whole} {unit}");
        }
        let part = format!("{part:0width$}", width = *decimals as usize);
        write!(f, "{whole}.{} {unit}", part.trim_end_matches('0'))
    }
}

#[cfg(test)]
mod tests {
    use crate::protocol::money::*;

    #[test]
    fn reads_decimal_digits_only() {
        for (text, expected) in [
            ("0", Ok(Amount::ZERO)),
            ("007", Ok(Amount::from(7))),
            ("", Err(NotAnAmount::NotDecimal)),
            ("-1", Err(NotAnAmount::NotDecimal)),
            ("+1", Err(NotAnAmount::NotDecimal)),
            (" 1", Err(NotAnAmount::NotDecimal)),
            ("1e3", Err(NotAnAmount::NotDecimal)),
            ("0x10", Err(NotAnAmount::NotDecimal)),
            ("1.5", Err(NotAnAmount::NotDecimal)),
            ("6277101735386680763835789423207666416102355444464034512895", Ok(Amount::MAX)),
            ("6277101735386680763835789423207666416102355444464034512896", Err(NotAnAmount::TooLarge)),
            (&"9".repeat(100_000), Err(NotAnAmount::TooLarge)),
        ] {
            assert_eq!(text.parse::<Amount>(), expected, "{text:.60}");
        }
    }

    #[test]
    fn arithmetic_stops_at_the_bounds() {
        let one = Amount::from(1);
        assert_eq!(Amount::MAX.checked_add(one), None);
        assert_eq!(Amount::MAX.checked_add(Amount::ZERO), Some(Amount::MAX));
        assert_eq!(Amount::ZERO.checked_sub(one), None);
        assert_eq!(Amount::MAX.saturating_mul(u64::MAX), Amount::MAX);
        assert_eq!(Amount::from(3).saturating_mul(4), Amount::from(12));
        assert_eq!(Amount::MAX.to_be_bytes(), [0xff; 24]);
        assert_eq!(Amount::MAX.to_string().parse(), Ok(Amount::MAX));
    }

    #[test]
    fn ether_has_units() {
        for (text, expected) in [
            ("0", Some(0)),
            ("21000", Some(21_000)),
            ("7 wei", Some(7)),
            ("300 gwei", Some(300_000_000_000)),
            ("1.5gwei", Some(1_500_000_000)),
            ("0.05 ETH", Some(50_000_000_000_000_000)),
            ("1 ether", Some(1_000_000_000_000_000_000)),
            ("0.000000000000000001 eth", Some(1)),
            ("", None),
            ("ETH", None),
            (".5 ETH", None),
            ("5. ETH", None),
            ("1.2.3 ETH", None),
            ("-1 gwei", None),
            ("1,5 gwei", None),
            ("0.5", None),
            ("1.5 wei", None),
            ("0.0000000001 gwei", None),
            ("0.0000000000000000001 ETH", None),
            ("5 finney", None),
            ("1e18", None),
            ("999999999999999999999999 ETH", None),
        ] {
            let read = text.parse::<Wei>().ok();
            assert_eq!(read, expected.map(Wei), "{text}");
            assert_eq!(read.map(|wei| wei.to_string().parse()), read.map(Ok), "{text}");
        }
        for (wei, shown) in [
            (0, "0 wei"),
            (999, "999 wei"),
            (100_000_000_000_000_000, "0.1 ETH"),
            (500_000_000_000, "500 gwei"),
            (82_500_000_000_000_000_000, "82.5 ETH"),
            (1_000_000_000_000_000, "0.001 ETH"),
            (1_500_000_001, "1500000001 wei"),
        ] {
            assert_eq!(Wei(wei).to_string(), shown);
        }
    }
}
