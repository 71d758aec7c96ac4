//! Decimal notation of amounts: exact in both directions, without floating point.

use ethers_core::types::U256;

/// Why a string is not a number of units with this many decimals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotDecimal {
    /// Not digits, optionally with a decimal point between digits.
    #[error("not a decimal number")]
    Shape,
    /// A fraction smaller than one unit.
    #[error("a number with more than {0} decimals")]
    TooFine(u32),
    /// More than 256 bits.
    #[error("too large")]
    TooLarge,
}

/// Parses digits with an optional fraction, such as `0.05`, into units of 10^-`decimals`.
///
/// # Errors
/// [`NotDecimal`]; nothing is rounded.
pub fn parse(text: &str, decimals: u32) -> Result<U256, NotDecimal> {
    let (whole, fraction) = match text.split_once('.') {
        None => (text, ""),
        Some((_, "")) => return Err(NotDecimal::Shape),
        Some(parts) => parts,
    };
    let is_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !is_digits(whole) || !is_digits(fraction) {
        return Err(NotDecimal::Shape);
    }
    let (whole, fraction) = (whole.trim_start_matches('0'), fraction.trim_end_matches('0'));
    let zeros = (decimals as usize).checked_sub(fraction.len()).ok_or(NotDecimal::TooFine(decimals))?;
    // 2^256 has 78 digits.
    if whole.len() + decimals as usize > 78 {
        return Err(NotDecimal::TooLarge);
    }
    let digits = [whole, fraction, &"0".repeat(zeros)].concat();
    if digits.is_empty() {
        return Ok(U256::zero());
    }
    U256::from_dec_str(&digits).map_err(|_| NotDecimal::TooLarge)
}

/// The shortest notation of this many units of 10^-`decimals`.
pub fn show(units: U256, decimals: u32) -> String {
    let decimals = decimals as usize;
    let digits = format!("{units:0>width$}", units = units.to_string(), width = decimals + 1);
    let (whole, fraction) = digits.split_at(digits.len() - decimals);
    match fraction.trim_end_matches('0') {
        "" => whole.to_owned(),
        fraction => [whole, ".", fraction].concat(),
    }
}

#[cfg(test)]
mod tests {
    use crate::protocol::decimal::*;

    #[test]
    fn notation_is_exact() {
        for (text, decimals, expected) in [
            ("0", 0, Ok(0)),
            ("5", 0, Ok(5)),
            ("007", 1, Ok(70)),
            ("0.05", 6, Ok(50_000)),
            ("1.50", 1, Ok(15)),
            ("1.000", 0, Ok(1)),
            ("123.456789", 6, Ok(123_456_789)),
            ("0.0000001", 6, Err(NotDecimal::TooFine(6))),
            ("1.5", 0, Err(NotDecimal::TooFine(0))),
            ("", 6, Err(NotDecimal::Shape)),
            (".", 6, Err(NotDecimal::Shape)),
            ("1.", 6, Err(NotDecimal::Shape)),
            (".5", 6, Err(NotDecimal::Shape)),
            ("1.2.3", 6, Err(NotDecimal::Shape)),
            ("-1", 6, Err(NotDecimal::Shape)),
            ("+1", 6, Err(NotDecimal::Shape)),
            ("1e3", 6, Err(NotDecimal::Shape)),
            ("1,5", 6, Err(NotDecimal::Shape)),
            ("1_000", 6, Err(NotDecimal::Shape)),
            (" 1", 6, Err(NotDecimal::Shape)),
            ("\u{661}", 6, Err(NotDecimal::Shape)),
            (&"9".repeat(78), 0, Err(NotDecimal::TooLarge)),
            (&"9".repeat(1000), 6, Err(NotDecimal::TooLarge)),
            ("1", 78, Err(NotDecimal::TooLarge)),
        ] {
            assert_eq!(parse(text, decimals), expected.map(U256::from), "{text} {decimals}");
        }
        assert_eq!(parse(&U256::MAX.to_string(), 0), Ok(U256::MAX));
        for (units, decimals, expected) in [
            (0, 0, "0"),
            (0, 6, "0"),
            (1, 6, "0.000001"),
            (50_000, 6, "0.05"),
            (1_000_000, 6, "1"),
            (1_500_000, 6, "1.5"),
            (123_456_789, 6, "123.456789"),
            (70, 0, "70"),
        ] {
            let shown = show(units.into(), decimals);
            assert_eq!(shown, expected);
            assert_eq!(parse(&shown, decimals), Ok(units.into()), "{shown}");
        }
    }
}
