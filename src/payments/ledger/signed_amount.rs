//! Amounts that may be negative: corrections and sums of corrections.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use crate::protocol::Amount;
use crate::protocol::money::NotAnAmount;

/// An amount in base units that may be negative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SignedAmount {
    /// Zero if `minus` is not.
    plus: Amount,
    minus: Amount,
}

impl SignedAmount {
    /// The difference of two amounts.
    #[must_use]
    pub fn difference(plus: Amount, minus: Amount) -> Self {
        Self { plus: plus.saturating_sub(minus), minus: minus.saturating_sub(plus) }
    }

    /// The sum, within the bounds of [`Amount`].
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self::difference(self.plus.saturating_add(other.plus), self.minus.saturating_add(other.minus))
    }

    /// The amount, and whether it is negative.
    #[must_use]
    pub fn parts(self) -> (Amount, bool) {
        if self.minus.is_zero() { (self.plus, false) } else { (self.minus, true) }
    }
}

impl From<Amount> for SignedAmount {
    fn from(plus: Amount) -> Self {
        Self { plus, minus: Amount::ZERO }
    }
}

impl fmt::Display for SignedAmount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (amount, is_negative) = self.parts();
        if is_negative { write!(f, "-{amount}") } else { amount.fmt(f) }
    }
}

impl FromStr for SignedAmount {
    type Err = NotAnAmount;

    fn from_str(text: &str) -> Result<Self, NotAnAmount> {
        match text.strip_prefix('-') {
            Some(digits) => Ok(Self::difference(Amount::ZERO, digits.parse()?)),
            None => text.parse().map(Amount::into),
        }
    }
}

impl Serialize for SignedAmount {
    /// A decimal string, like [`Amount`].
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
