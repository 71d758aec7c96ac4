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
    let usdc = USDC.iter().filter_map(|(network, token, name)| {
        let usd = if TEST_NETWORKS.contains(network) { None } else { Usd::from_str("1").ok() };
        // Circle's contracts, and copies of them for bridged tokens, have version 2.
        let domain = TokenDomain { name: (*name).to_owned(), version: "2".to_owned() };
        let symbol = if name.starts_with("Bridged") || *name == "USDC.e" { "USDC.e" } else { "USDC" };
        Some(KnownAsset::new(symbol, network, token.parse().ok()?, 6, usd).with_domain(Some(domain)))
    });
    let rdn = RDN.parse().ok().map(|token| KnownAsset::new("RDN", "eip155:1", token, 18, None));
    rdn.into_iter().chain(usdc).collect()
}

/// The token of Raiden.
const RDN: &str = "0x255Aa6DF07540Cb5d3d297f0D0D4D84cb52bc8e6";

/// USDC: network, contract, and the name in its EIP-712 domain. Sources: Circle's list of contracts, the tables of
/// published clients, and for SKALE the domain separator of the contract.
const USDC: &[(&str, &str, &str)] = &[
    // Ethereum, and Sepolia.
    ("eip155:1", "0xA0b86991c6218b36c1d19D4a2e9Eb0cE3606eB48", "USD Coin"),
    ("eip155:11155111", "0x1c7D4B196Cb0C7B01d743Fbc6116a902379C7238", "USDC"),
    // Polygon, and Amoy.
    ("eip155:137", "0x3c499c542cEF5E3811e1192ce70d8cC03d5c3359", "USD Coin"),
    ("eip155:80002", "0x41E94Eb019C0762f9Bfcf9Fb1E58725BfB0e7582", "USDC"),
    // XDC, and Apothem.
    ("eip155:50", "0xfA2958CB79b0491CC627c1557F441eF849Ca8eb1", "USDC"),
    ("eip155:51", "0xb5AB69F7bBada22B28e79C8FFAECe55eF1c771D4", "USDC"),
    // Monad.
    ("eip155:143", "0x754704Bc059F8C67012fEd69BC8A327a5aafb603", "USDC"),
    // X Layer, and its test network: issued by Circle since August 2026. The bridged token of X Layer is another one.
    ("eip155:196", "0xB6CEceAB302E2E4948951eE7843FC24E92933061", "USDC"),
    ("eip155:1952", "0xDec90b78111Ba2fc6FC6d84d8B9ec159A2d4b9B3", "USDC"),
    // World Chain, and its Sepolia.
    ("eip155:480", "0x79A02482A880bCE3F13e09Da970dC34db4CD24d1", "USDC"),
    ("eip155:4801", "0x66145f38cBAC35Ca6F1Dfb4914dF98F1614aeA88", "USDC"),
    // Sei, and its test network.
    ("eip155:1329", "0xe15fC38F6D8c56aF07bbCBe3BAf5708A2Bf42392", "USDC"),
    ("eip155:1328", "0x4fCF1784B31630811181f670Aea7A7bEF803eaED", "USDC"),
    // Base, and its Sepolia.
    ("eip155:8453", "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913", "USD Coin"),
    ("eip155:84532", "0x036CbD53842c5426634e7929541eC2318f3dCF7e", "USDC"),
    // Arbitrum One, and its Sepolia.
    ("eip155:42161", "0xaf88d065e77c8cC2239327C5EDb3A432268e5831", "USD Coin"),
    ("eip155:421614", "0x75faf114eafb1BDbe2F0316DF893fd58CE46AA4d", "USD Coin"),
    // Celo, and its Sepolia.
    ("eip155:42220", "0xcebA9300f2b948710d2653dD7B07f33A8B32118C", "USDC"),
    ("eip155:11142220", "0x01C5C0122039549AD1493B8220cABEdD739BC44E", "USDC"),
    // Avalanche, and Fuji.
    ("eip155:43114", "0xB97EF9Ef8734C71904D8002F8b6Bc66Dd9c48a6E", "USD Coin"),
    ("eip155:43113", "0x5425890298aed601595a70AB815c96711a31Bc65", "USD Coin"),
    // ADI Chain.
    ("eip155:36900", "0x9cb8142aEBBcdc60AF7c97Af897A67A8f3CA71C2", "USDC.e"),
    // HPP, and its Sepolia.
    ("eip155:190415", "0x401eCb1D350407f13ba348573E5630B83638E30D", "Bridged USDC"),
    ("eip155:181228", "0x401eCb1D350407f13ba348573E5630B83638E30D", "Bridged USDC"),
    // SKALE on Base, and its Sepolia.
    ("eip155:1187947933", "0x85889c8c714505E0c94b30fcfcF64fE3Ac8FCb20", "Bridged USDC (SKALE Bridge)"),
    ("eip155:324705682", "0x2e08028E3C4c2356572E096d8EF835cD5C6030bD", "Bridged USDC (SKALE Bridge)"),
];

/// Tokens on these networks are worth nothing.
const TEST_NETWORKS: [&str; 12] = [
    "eip155:51",
    "eip155:1328",
    "eip155:1952",
    "eip155:4801",
    "eip155:43113",
    "eip155:80002",
    "eip155:84532",
    "eip155:181228",
    "eip155:421614",
    "eip155:11142220",
    "eip155:11155111",
    "eip155:324705682",
];

#[cfg(test)]
mod tests {
    use crate::protocol::policy::known_asset::*;

    #[test]
    fn well_known_tokens_are_distinct_and_those_on_test_networks_are_worth_nothing() {
        let known = well_known();
        assert_eq!(known.len(), USDC.len() + 1, "an address is invalid");
        for (index, asset) in known.iter().enumerate() {
            for other in &known[..index] {
                assert_ne!(asset.asset, other.asset, "{asset:?}");
                assert_ne!((&asset.symbol, &asset.network), (&other.symbol, &other.network));
            }
            let is_test = TEST_NETWORKS.contains(&&*asset.network);
            assert_eq!(asset.usd.is_none(), is_test || asset.symbol == "RDN", "{asset:?}");
        }
        let base = known.iter().find(|asset| asset.network == "eip155:8453").unwrap();
        assert_eq!(base.asset.to_string(), "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913 on eip155:8453");
        assert_eq!(base.show(50_000.into()), "0.05 USDC");
        assert_eq!(base.usd.unwrap().to_string(), "$1");
        let domain = base.domain.as_ref().unwrap();
        assert_eq!((&*domain.name, &*domain.version), ("USD Coin", "2"));
        let bridged =
            |network| known.iter().any(|asset| asset.network == network && asset.symbol == "USDC.e");
        assert!(bridged("eip155:36900") && bridged("eip155:190415") && !bridged("eip155:196"));
    }

    #[test]
    fn an_unknown_asset_is_shown_safely() {
        let known = well_known();
        let price = |asset| Money { amount: 50_000.into(), asset };
        assert_eq!(shown_price(&price(known[1].asset.clone()), &known), "0.05 USDC");
        let evil = AssetId::token("eip155:1", format!("\u{1b}[2J\u{9b}{}", "x".repeat(1000)));
        let shown = shown_price(&price(evil), &known);
        assert!(shown.starts_with("50000 units of ?[2J?xxx") && shown.len() == 15 + 120, "{shown}");
    }
}
