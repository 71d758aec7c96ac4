//! The highest price that a rule allows for one request.

use std::fmt;
use std::sync::Arc;

use super::known_asset::KnownAsset;
use crate::protocol::decimal;
use crate::protocol::usd::Usd;
use crate::protocol::{Amount, AssetId, Money, Refusal};

/// The highest price of one request, and with it the assets that may be paid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PriceLimit {
    /// Base units of the channel contract's token. No other asset is paid.
    ChannelToken(Amount),
    /// An amount of each of these tokens. No other asset is paid.
    Tokens(Arc<[(Amount, KnownAsset)]>),
    /// A value in US dollars, in one of these tokens, which all have one.
    Usd(Usd, Arc<[KnownAsset]>),
}

impl PriceLimit {
    /// Checks a price. `channel_token` names the channel contract's token, once it is known; until then a price in it
    /// passes, and must be checked again.
    ///
    /// # Errors
    /// Why the price is not allowed.
    pub fn check(
        &self,
        price: &Money,
        channel_token: impl FnOnce() -> Option<AssetId>,
    ) -> Result<(), Refusal> {
        let above = |known: &KnownAsset| {
            let (price, max_price) = (known.show(price.amount).into(), self.to_string().into());
            Refusal::TooExpensive { price, max_price }
        };
        if let Self::ChannelToken(max_price) = self {
            return match price.asset {
                AssetId::ChannelToken if price.amount <= *max_price => Ok(()),
                AssetId::ChannelToken => {
                    let (price, max_price) = (price.amount.to_string().into(), max_price.to_string().into());
                    Err(Refusal::TooExpensive { price, max_price })
                }
                AssetId::Token(_) => Err(self.not_allowed(&price.asset)),
            };
        }
        let asset = match &price.asset {
            AssetId::ChannelToken => match channel_token() {
                Some(token) => token,
                None => return Ok(()),
            },
            token @ AssetId::Token(_) => token.clone(),
        };
        match self {
            Self::ChannelToken(_) => Ok(()),
            Self::Tokens(tokens) => match tokens.iter().find(|(_, known)| known.asset == asset) {
                Some((most, _)) if price.amount <= *most => Ok(()),
                Some((_, known)) => Err(above(known)),
                None => Err(self.not_allowed(&asset)),
            },
            Self::Usd(most, tokens) => match tokens.iter().find(|known| known.asset == asset) {
                Some(known) => {
                    let value = known.usd.and_then(|rate| rate.worth(price.amount, known.decimals));
                    if value.is_some_and(|value| value <= *most) { Ok(()) } else { Err(above(known)) }
                }
                None => Err(self.not_allowed(&asset)),
            },
        }
    }

    /// Whether a price is above this, or in an asset that it does not name. The same is assumed of the channel contract's
    /// token while that is not known.
    pub fn is_exceeded(&self, price: &Money, channel_token: Option<AssetId>) -> bool {
        let is_unknown = price.asset == AssetId::ChannelToken && channel_token.is_none();
        is_unknown && !matches!(self, Self::ChannelToken(_)) || self.check(price, || channel_token).is_err()
    }

    /// The most that it allows in base units of the channel contract's token, if it allows that token.
    pub fn channel_token(&self, token: &AssetId) -> Option<Amount> {
        match self {
            Self::ChannelToken(most) => Some(*most),
            Self::Tokens(tokens) => {
                tokens.iter().find(|(_, known)| known.asset == *token).map(|(most, _)| *most)
            }
            Self::Usd(most, tokens) => {
                let known = tokens.iter().find(|known| known.asset == *token)?;
                Some(most.buys(known.usd?, known.decimals))
            }
        }
    }

    /// What is known about an asset that it allows.
    pub fn known(&self, asset: &AssetId) -> Option<&KnownAsset> {
        self.assets().find(|known| known.asset == *asset)
    }

    /// The assets that it names; that of the channel contract is not among them.
    pub fn assets(&self) -> impl Iterator<Item = &KnownAsset> {
        let (tokens, valued): (&[(Amount, KnownAsset)], &[KnownAsset]) = match self {
            Self::ChannelToken(_) => (&[], &[]),
            Self::Tokens(tokens) => (tokens, &[]),
            Self::Usd(_, tokens) => (&[], tokens),
        };
        tokens.iter().map(|(_, known)| known).chain(valued)
    }

    fn not_allowed(&self, asset: &AssetId) -> Refusal {
        Refusal::ForeignAsset { asset: Box::new(asset.clone()), max_price: self.to_string().into() }
    }
}

impl<T: Into<Amount>> From<T> for PriceLimit {
    fn from(amount: T) -> Self {
        Self::ChannelToken(amount.into())
    }
}

impl fmt::Display for PriceLimit {
    /// As in the configuration: `10000`, `0.05 USDC` or `$0.05`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ChannelToken(most) => most.fmt(f),
            Self::Tokens(tokens) => {
                let mut shown: Vec<String> = tokens
                    .iter()
                    .map(|(most, known)| {
                        format!("{} {}", decimal::show((*most).into(), known.decimals), known.symbol)
                    })
                    .collect();
                // A number of base units can be another amount on each network.
                shown.dedup();
                f.write_str(&shown.join(" or "))
            }
            Self::Usd(most, _) => most.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::protocol::policy::price_limit::*;
    use crate::protocol::policy::well_known;

    const USDC: [&str; 2] = ["eip155:8453", "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913"];
    const TEST_USDC: [&str; 2] = ["eip155:84532", "0x036CbD53842c5426634e7929541eC2318f3dCF7e"];
    const RDN: [&str; 2] = ["eip155:1", "0x255Aa6DF07540Cb5d3d297f0D0D4D84cb52bc8e6"];

    fn known(symbol: &str) -> impl Iterator<Item = KnownAsset> {
        well_known().into_iter().filter(move |asset| asset.symbol == symbol)
    }

    /// `0.05 USDC` on any network.
    fn five_cents() -> PriceLimit {
        PriceLimit::Tokens(known("USDC").map(|asset| (50_000.into(), asset)).collect())
    }

    fn dollars(text: &str) -> PriceLimit {
        let worth = known("USDC").filter(|asset| asset.usd.is_some());
        PriceLimit::Usd(text.parse().unwrap(), worth.collect())
    }

    #[test]
    fn only_the_named_assets_are_paid_and_no_more_than_the_limit() {
        let token = |[network, token]: [&str; 2]| AssetId::token(network, token);
        let own = AssetId::ChannelToken;
        for (limit, asset, amount, channel_token, expected) in [
            (7.into(), own.clone(), 7, None, Ok(())),
            (7.into(), own.clone(), 8, None, Err("the price 8 is above max_price 7")),
            (7.into(), token(USDC), 1, None, Err("the rule's max_price (7) does not allow")),
            (five_cents(), token(USDC), 50_000, None, Ok(())),
            (five_cents(), token(TEST_USDC), 50_000, None, Ok(())),
            (
                five_cents(),
                token(USDC),
                50_001,
                None,
                Err("the price 0.050001 USDC is above max_price 0.05 USDC"),
            ),
            (five_cents(), token(RDN), 1, None, Err("does not allow")),
            (five_cents(), token([USDC[0], RDN[1]]), 1, None, Err("does not allow")),
            (five_cents(), token([RDN[0], USDC[1]]), 1, None, Err("does not allow")),
            // The channel contract's token is allowed by what it is.
            (five_cents(), own.clone(), 50_000, Some(token(USDC)), Ok(())),
            (five_cents(), own.clone(), 50_001, Some(token(USDC)), Err("0.050001 USDC")),
            (five_cents(), own.clone(), 1, Some(token(RDN)), Err("does not allow")),
            (dollars("0.05"), token(USDC), 50_000, None, Ok(())),
            (
                dollars("0.05"),
                token(USDC),
                50_001,
                None,
                Err("the price 0.050001 USDC is above max_price $0.05"),
            ),
            // It has no value.
            (dollars("0.05"), token(TEST_USDC), 1, None, Err("does not allow")),
            (dollars("0.05"), own.clone(), 50_000, Some(token(USDC)), Ok(())),
            (dollars("0.05"), own.clone(), 1, Some(token(RDN)), Err("does not allow")),
            (dollars("100000000000000000000"), own, u64::MAX, Some(token(USDC)), Ok(())),
        ] {
            let price = Money { amount: amount.into(), asset };
            let checked = limit.check(&price, || channel_token.clone()).map_err(|error| error.to_string());
            match expected {
                Ok(()) => {
                    assert_eq!(checked, Ok(()), "{limit} {price}");
                    assert!(!limit.is_exceeded(&price, channel_token.clone()), "{limit} {price}");
                }
                Err(expected) => {
                    assert!(limit.is_exceeded(&price, channel_token.clone()), "{limit} {price}");
                    let told = checked.unwrap_err();
                    assert!(told.contains(expected), "{limit} {price}: {told}");
                }
            }
        }
    }

    #[test]
    fn a_price_in_a_token_that_is_not_known_yet_counts_as_above() {
        let price = Money::channel_token(1.into());
        assert!(five_cents().check(&price, || None).is_ok());
        assert!(five_cents().is_exceeded(&price, None) && dollars("0.05").is_exceeded(&price, None));
        assert!(!PriceLimit::from(1).is_exceeded(&price, None));
    }

    #[test]
    fn a_value_that_is_too_large_to_represent_is_above_every_limit() {
        let price = Money { amount: Amount::MAX, asset: AssetId::token(USDC[0], USDC[1]) };
        assert!(dollars("300000000000000000000").check(&price, || None).is_err());
    }

    #[test]
    fn the_allowed_amount_of_the_channel_token_agrees_with_the_check() {
        let [usdc, rdn] = [USDC, RDN].map(|[network, token]| AssetId::token(network, token));
        for (limit, token, expected) in [
            (7.into(), &rdn, Some(7)),
            (five_cents(), &usdc, Some(50_000)),
            (five_cents(), &rdn, None),
            (dollars("0.05"), &usdc, Some(50_000)),
            (dollars("0.05"), &rdn, None),
        ] {
            assert_eq!(limit.channel_token(token), expected.map(Amount::from), "{limit}");
            if let Some(most) = expected {
                let check = |amount: u64| {
                    limit.check(&Money::channel_token(amount.into()), || Some(token.clone())).is_ok()
                };
                assert!(check(most) && !check(most + 1), "{limit}");
            }
        }
    }
}
