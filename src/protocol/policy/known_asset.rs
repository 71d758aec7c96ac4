//! Tokens that the user or this program knows: only these can be named in a rule.

use std::str::FromStr as _;

use crate::protocol::decimal;
use crate::protocol::safe_text::safe_text;
use crate::protocol::usd::Usd;
use crate::protocol::{Address, Amount, AssetId, Money};

/// A token whose symbol, decimals and value are known. What a seller claims about a token is never used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownAsset {
    /// Its symbol, such as `USDC`.
    pub symbol: String,
    /// Its network, as a CAIP-2 ID such as `eip155:8453`.
    pub network: String,
    /// The token.
    pub asset: AssetId,
    /// How many decimals its base unit has.
    pub decimals: u32,
    /// The value of a whole token, if it has one.
    pub usd: Option<Usd>,
    /// What signed transfers of it name, if it has them.
    pub domain: Option<TokenDomain>,
}

/// The name and version in a token contract's EIP-712 domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenDomain {
    /// Its name, such as `USD Coin`.
    pub name: String,
    /// Its version, such as `2`.
    pub version: String,
}

impl KnownAsset {
    /// A token contract on a network.
    pub fn new(symbol: &str, network: &str, token: Address, decimals: u32, usd: Option<Usd>) -> Self {
        let asset = AssetId::token(network, token.to_string());
        Self { symbol: symbol.to_owned(), network: network.to_owned(), asset, decimals, usd, domain: None }
    }

    /// The same with an EIP-712 domain.
    #[must_use]
    pub fn with_domain(self, domain: Option<TokenDomain>) -> Self {
        Self { domain, ..self }
    }

    /// An amount with its symbol, such as `0.05 USDC`.
    pub fn show(&self, amount: Amount) -> String {
        format!("{} {}", decimal::show(amount.into(), self.decimals), self.symbol)
    }
}

/// An amount with its symbol and decimals if the asset is known, else in base units. What a seller calls an unknown asset is
/// cut and made safe for terminals.
pub fn shown_price(price: &Money, assets: &[KnownAsset]) -> String {
    if let Some(known) = assets.iter().find(|known| known.asset == price.asset) {
        return known.show(price.amount);
    }
    let name = safe_text(&price.asset.to_string(), LONGEST_NAME);
    format!("{} units of {name}", price.amount)
}

/// Longer names of unknown assets are cut, in characters.
const LONGEST_NAME: usize = 120;

/// The tokens that are known without configuration. Those on test networks have no value.
pub fn well_known() -> Vec<KnownAsset> {
    let known = |(symbol, network, token, decimals, usd, name): &WellKnown| {
        let usd = usd.and_then(|usd| Usd::from_str(usd).ok());
        // Circle's contracts have version 2.
        let domain = name.map(|name| TokenDomain { name: name.to_owned(), version: "2".to_owned() });
        Some(KnownAsset::new(symbol, network, token.parse().ok()?, *decimals, usd).with_domain(domain))
    };
    WELL_KNOWN.iter().filter_map(known).collect()
}

/// Symbol, network, contract, decimals, dollars for a whole token, and the name in its EIP-712 domain.
type WellKnown = (&'static str, &'static str, &'static str, u32, Option<&'static str>, Option<&'static str>);

const WELL_KNOWN: &[WellKnown] = &[
    ("RDN", "eip155:1", "0x255Aa6DF07540Cb5d3d297f0D0D4D84cb52bc8e6", 18, None, None),
    ("USDC", "eip155:1", "0xA0b86991c6218b36c1d19D4a2e9Eb0cE3606eB48", 6, Some("1"), Some("USD Coin")),
    ("USDC", "eip155:137", "0x3c499c542cEF5E3811e1192ce70d8cC03d5c3359", 6, Some("1"), Some("USD Coin")),
    ("USDC", "eip155:8453", "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913", 6, Some("1"), Some("USD Coin")),
    ("USDC", "eip155:42161", "0xaf88d065e77c8cC2239327C5EDb3A432268e5831", 6, Some("1"), Some("USD Coin")),
    ("USDC", "eip155:43114", "0xB97EF9Ef8734C71904D8002F8b6Bc66Dd9c48a6E", 6, Some("1"), Some("USD Coin")),
    ("USDC", "eip155:84532", "0x036CbD53842c5426634e7929541eC2318f3dCF7e", 6, None, Some("USDC")),
];

#[cfg(test)]
mod tests {
    use crate::protocol::policy::known_asset::*;

    #[test]
    fn well_known_tokens_are_distinct_and_those_on_test_networks_are_worth_nothing() {
        let known = well_known();
        assert_eq!(known.len(), WELL_KNOWN.len(), "an address or a value is invalid");
        for (index, asset) in known.iter().enumerate() {
            for other in &known[..index] {
                assert_ne!(asset.asset, other.asset, "{asset:?}");
                assert_ne!((&asset.symbol, &asset.network), (&other.symbol, &other.network));
            }
            let is_test = asset.network == "eip155:84532";
            assert!(asset.usd.is_none() || !is_test, "{asset:?}");
        }
        let base = known.iter().find(|asset| asset.network == "eip155:8453").unwrap();
        assert_eq!(base.asset.to_string(), "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913 on eip155:8453");
        assert_eq!(base.show(50_000.into()), "0.05 USDC");
        assert_eq!(base.usd.unwrap().to_string(), "$1");
        let domain = base.domain.as_ref().unwrap();
        assert_eq!((&*domain.name, &*domain.version), ("USD Coin", "2"));
    }

    #[test]
    fn an_unknown_asset_is_shown_safely() {
        let known = well_known();
        let price = |asset| Money { amount: 50_000.into(), asset };
        assert_eq!(shown_price(&price(known[3].asset.clone()), &known), "0.05 USDC");
        let evil = AssetId::token("eip155:1", format!("\u{1b}[2J\u{9b}{}", "x".repeat(1000)));
        let shown = shown_price(&price(evil), &known);
        assert!(shown.starts_with("50000 units of ?[2J?xxx") && shown.len() == 15 + 120, "{shown}");
    }
}
