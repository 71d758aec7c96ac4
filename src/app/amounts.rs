//! Amounts for people, and as numbers for bars and charts.

use crate::payments::ledger::SignedAmount;
use crate::protocol::policy::KnownAsset;
use crate::protocol::{Amount, AssetId};

/// An amount with its symbol, or in base units of a token that is not known.
#[must_use]
pub fn shown_amount(amount: SignedAmount, network: &str, token: &str, assets: &[KnownAsset]) -> String {
    let (amount, is_negative) = amount.parts();
    let asset = AssetId::token(network, token);
    let shown = match assets.iter().find(|known| known.asset == asset) {
        Some(known) => known.show(amount),
        None if amount == Amount::ZERO || token.is_empty() => amount.to_string(),
        None => format!("{amount} units"),
    };
    if is_negative { format!("-{shown}") } else { shown }
}

/// The number and the unit of an amount as budgets show it: `$0.5`, `0.5 USDC` or `500`, base units.
pub(super) fn number_and_unit(amount: &str) -> Option<(f64, &str)> {
    if let Some(dollars) = amount.strip_prefix('$') {
        return Some((dollars.parse().ok()?, "USD"));
    }
    let (number, unit) = amount.split_once(' ').unwrap_or((amount, "base units"));
    Some((number.parse().ok()?, unit))
}

/// An amount of base units in units of 10^`decimals`, as exactly as a floating-point number can be.
pub(super) fn number(amount: Amount, decimals: u32) -> f64 {
    format!("{amount}e-{decimals}").parse().unwrap_or(f64::INFINITY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_of_budgets_have_a_number_and_a_unit() {
        for (text, expected) in
            [("$0.5", (0.5, "USD")), ("2 RDN", (2.0, "RDN")), ("500", (500.0, "base units"))]
        {
            assert_eq!(number_and_unit(text), Some(expected));
        }
        assert_eq!(number(1_500_000.into(), 6), 1.5);
    }
}
