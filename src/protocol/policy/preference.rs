//! Which of several offers a rule prefers.

use std::cmp::Ordering;

use super::price_limit::PriceLimit;
use crate::protocol::Refusal;
use crate::protocol::asset::AssetId;
use crate::protocol::schemes::SchemeName;
use crate::protocol::terms::Terms;
use crate::protocol::usd::Usd;

/// The schemes that a rule allows, and the order in which it prefers schemes, networks and assets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Preference {
    /// The only schemes, the preferred one first; any if empty.
    pub schemes: Vec<SchemeName>,
    /// The networks that the rule names, by their CAIP-2 IDs, the preferred one first.
    pub networks: Vec<String>,
    /// The assets that the rule names, by their symbols, the preferred one first.
    pub assets: Vec<String>,
}

impl Preference {
    /// Checks that the scheme is allowed.
    ///
    /// # Errors
    /// [`Refusal::SchemeNotAllowed`].
    pub fn check(&self, scheme: SchemeName) -> Result<(), Refusal> {
        if self.schemes.is_empty() || self.schemes.contains(&scheme) {
            Ok(())
        } else {
            Err(Refusal::SchemeNotAllowed { scheme })
        }
    }

    /// Compares two offers: by scheme, then network, then asset, in the rule's order, and then by value in dollars. Prices in
    /// different assets are equal unless both have such a value. `Less` is preferred.
    pub fn compare(
        &self,
        max_price: &PriceLimit,
        (one, other): (&Terms, &Terms),
        channel_token: Option<&AssetId>,
    ) -> Ordering {
        let ranks = |terms: &Terms| {
            let asset = match &terms.price.asset {
                AssetId::ChannelToken => channel_token,
                asset @ AssetId::Token(_) => Some(asset),
            };
            let known = asset.and_then(|asset| max_price.known(asset));
            let network = known.map_or(usize::MAX, |known| place(&self.networks, &known.network));
            let symbol = known.map_or(usize::MAX, |known| place(&self.assets, &known.symbol));
            let usd: Option<Usd> =
                known.and_then(|known| known.usd?.worth(terms.price.amount, known.decimals));
            ((place(&self.schemes, &terms.scheme), network, symbol), usd)
        };
        let ((first, first_usd), (second, second_usd)) = (ranks(one), ranks(other));
        first.cmp(&second).then_with(|| match (first_usd, second_usd) {
            (Some(first), Some(second)) => first.cmp(&second),
            _ if one.price.asset == other.price.asset => one.price.amount.cmp(&other.price.amount),
            _ => Ordering::Equal,
        })
    }
}

/// The place of a name in a list; 0 in an empty one, which prefers none.
fn place<T: PartialEq>(names: &[T], name: &T) -> usize {
    names.iter().position(|known| known == name).unwrap_or(names.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::policy::well_known;
    use crate::protocol::{Address, Money};

    fn terms(network: &str, amount: u64, scheme: SchemeName) -> Terms {
        let known = well_known().into_iter().find(|known| known.network == network && known.symbol == "USDC");
        let price = Money { amount: amount.into(), asset: known.unwrap().asset };
        Terms { price, payee: Address([7; 20]), scheme }
    }

    #[test]
    fn the_rules_order_decides_and_then_the_value() {
        let usdc = || well_known().into_iter().filter(|known| known.symbol == "USDC");
        let max_price = PriceLimit::Tokens(usdc().map(|known| (100.into(), known)).collect());
        let (base, polygon, test) = ("eip155:8453", "eip155:137", "eip155:84532");
        let x402 = |network, amount| terms(network, amount, SchemeName::X402);
        let none = Preference::default();
        let networks = Preference { networks: vec![polygon.into(), base.into()], ..Preference::default() };
        let schemes =
            Preference { schemes: vec![SchemeName::X402, SchemeName::MicroRaiden], ..Preference::default() };
        for (preference, one, other, expected) in [
            (&none, x402(base, 5), x402(polygon, 6), Ordering::Less),
            (&none, x402(base, 6), x402(base, 5), Ordering::Greater),
            // The test token has no value.
            (&none, x402(base, 6), x402(test, 5), Ordering::Equal),
            (&networks, x402(base, 5), x402(polygon, 6), Ordering::Greater),
            (&networks, x402(polygon, 6), x402(polygon, 5), Ordering::Greater),
            (&networks, x402(test, 1), x402(base, 6), Ordering::Greater),
            (&schemes, x402(base, 6), terms(base, 5, SchemeName::MicroRaiden), Ordering::Less),
        ] {
            assert_eq!(preference.compare(&max_price, (&one, &other), None), expected, "{one:?} {other:?}");
            assert_eq!(preference.compare(&max_price, (&other, &one), None), expected.reverse());
        }
        assert!(schemes.check(SchemeName::X402).is_ok());
        let only = Preference { schemes: vec![SchemeName::MicroRaiden], ..Preference::default() };
        assert_eq!(only.check(SchemeName::X402), Err(Refusal::SchemeNotAllowed { scheme: SchemeName::X402 }));
    }
}
