//! Amounts with their assets.

use std::fmt;
use std::sync::Arc;

use crate::protocol::Amount;

/// The asset that an amount is denominated in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AssetId {
    /// The token of the channel contract in `[chain]`. Its network and address are those of the
    /// [`Account`](crate::protocol::Account): a seller does not name them, or they must match.
    ChannelToken,
    /// A token on a network.
    Token(Arc<Token>),
}

/// A token on a network.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token {
    /// The network, as a CAIP-2 ID such as `eip155:8453`.
    pub network: String,
    /// The token on this network: the address of its contract, or a symbol if it has none.
    pub token: String,
}

/// An amount in base units of an asset.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Money {
    /// The amount, in base units.
    pub amount: Amount,
    /// The asset.
    pub asset: AssetId,
}

impl AssetId {
    /// A token on a network.
    pub fn token(network: impl Into<String>, token: impl Into<String>) -> Self {
        Self::Token(Arc::new(Token { network: network.into(), token: token.into() }))
    }
}

impl Money {
    /// An amount of the channel contract's token.
    pub fn channel_token(amount: Amount) -> Self {
        Self { amount, asset: AssetId::ChannelToken }
    }
}

impl<T: Into<Amount>> From<T> for Money {
    fn from(amount: T) -> Self {
        Self::channel_token(amount.into())
    }
}

impl fmt::Display for AssetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ChannelToken => f.write_str("the channel contract's token"),
            Self::Token(token) => write!(f, "{} on {}", token.token, token.network),
        }
    }
}

impl fmt::Display for Money {
    /// Amounts of the channel contract's token are displayed without their asset, as in the configuration.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.asset {
            AssetId::ChannelToken => self.amount.fmt(f),
            AssetId::Token(_) => write!(f, "{} of {}", self.amount, self.asset),
        }
    }
}
