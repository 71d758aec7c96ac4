//! Which of several offers a rule prefers.

use super::price_limit::PriceLimit;
use crate::protocol::asset::{AssetId, Money};
use crate::protocol::schemes::SchemeName;
use crate::protocol::terms::Terms;
use crate::protocol::usd::Usd;
use crate::protocol::{Amount, Refusal};

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

    /// Whether it allows a scheme whose payments draw on channels.
    #[must_use]
    pub fn allows_channels(&self) -> bool {
        self.schemes.is_empty() || self.schemes.iter().any(|scheme| scheme.uses_channels())
    }

    /// Whether it allows no other scheme.
    #[must_use]
    pub fn requires_channels(&self) -> bool {
        !self.schemes.is_empty() && self.schemes.iter().all(|scheme| scheme.uses_channels())
    }

    /// Where each of these offers stands among the others: by scheme, then network, then asset, in the rule's order, and then
    /// by value in dollars. Prices in different assets are not compared unless both have such a value: what can be compared
    /// is together, in the order of the first ones.
    pub fn keys(
        &self,
        max_price: &PriceLimit,
        offers: &[Terms],
        channel_token: Option<&AssetId>,
    ) -> Vec<PreferenceKey> {
        // `None` stands for all that have a value in dollars.
        let mut groups: Vec<Option<&AssetId>> = Vec::new();
        let key = |terms| {
            let Terms { price: Money { amount, asset }, scheme, .. }: &Terms = terms;
            let named = if *asset == AssetId::ChannelToken { channel_token } else { Some(asset) };
            let known = named.and_then(|asset| max_price.known(asset));
            let usd = known.and_then(|known| known.usd?.worth(*amount, known.decimals));
            let group = if usd.is_some() { None } else { Some(asset) };
            let group = groups.iter().position(|other| *other == group).unwrap_or_else(|| {
                groups.push(group);
                groups.len() - 1
            });
            PreferenceKey {
                scheme: place(&self.schemes, scheme),
                network: known.map_or(usize::MAX, |known| place(&self.networks, &known.network)),
                asset: known.map_or(usize::MAX, |known| place(&self.assets, &known.symbol)),
                group,
                cost: usd.map_or(*amount, Usd::units),
            }
        };
        offers.iter().map(key).collect()
    }
}

/// Where an offer stands among others; the least is preferred. A total order, also for offers that cannot be compared, since
/// a seller chooses them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PreferenceKey {
    scheme: usize,
    network: usize,
    asset: usize,
    group: usize,
    cost: Amount,
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
        let order = |preference: &Preference, offers: &[Terms]| {
            let keys = preference.keys(&max_price, offers, None);
            let mut order: Vec<usize> = (0..offers.len()).collect();
            order.sort_by(|one, other| keys[*one].cmp(&keys[*other]));
            order
        };
        for (preference, offers, expected) in [
            (&none, vec![x402(base, 5), x402(polygon, 6)], vec![0, 1]),
            (&none, vec![x402(base, 6), x402(base, 5)], vec![1, 0]),
            // The test token has no value.
            (&none, vec![x402(base, 6), x402(test, 5)], vec![0, 1]),
            (&none, vec![x402(test, 6), x402(base, 5), x402(test, 5), x402(polygon, 4)], vec![2, 0, 3, 1]),
            (&networks, vec![x402(base, 5), x402(polygon, 6)], vec![1, 0]),
            (&networks, vec![x402(polygon, 6), x402(polygon, 5)], vec![1, 0]),
            (&networks, vec![x402(test, 1), x402(base, 6)], vec![1, 0]),
            (&schemes, vec![terms(base, 5, SchemeName::MicroRaiden), x402(base, 6)], vec![1, 0]),
        ] {
            assert_eq!(order(preference, &offers), expected, "{offers:?}");
        }
        // However many cannot be compared.
        let many: Vec<Terms> = (0..100)
            .map(|index| x402([base, test, polygon][index % 3], (index as u64 * 37) % 11 + 1))
            .collect();
        assert_eq!(order(&none, &many).len(), 100);
        assert!(schemes.check(SchemeName::X402).is_ok());
        let only = Preference { schemes: vec![SchemeName::MicroRaiden], ..Preference::default() };
        assert_eq!(only.check(SchemeName::X402), Err(Refusal::SchemeNotAllowed { scheme: SchemeName::X402 }));
    }
}
