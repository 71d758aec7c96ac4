//! Channels as listed for users.

use serde::{Deserialize, Serialize};

use super::account::AccountKey;
use crate::protocol::{Address, Amount, Channel, ChannelId};

/// All channels of one account.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Listing {
    /// The account, once it is known.
    pub owner: Option<AccountKey>,
    /// The channels.
    pub channels: Vec<ListedChannel>,
}

/// One channel.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ListedChannel {
    /// The payee.
    pub receiver: Address,
    /// The block in which the channel was opened.
    pub open_block: u32,
    /// The deposit, in base units.
    pub deposit: Amount,
    /// The highest total ever signed; after a crash, the most that may have been signed.
    pub promised: Amount,
    /// The total that the seller is believed to hold.
    pub acknowledged: Amount,
    /// `open`, `closing` or `gone`.
    pub phase: String,
    /// The channel's host; absent until a host has paid from it.
    #[serde(default)]
    pub host: Option<String>,
    /// True if `promised` is only an upper bound of what was signed.
    #[serde(default)]
    pub in_doubt: bool,
}

impl ListedChannel {
    /// The channel's key.
    pub fn id(&self) -> ChannelId {
        ChannelId { receiver: self.receiver, open_block: self.open_block }
    }

    /// Lists a channel with its host.
    pub fn new(id: &ChannelId, channel: &Channel, host: Option<&str>) -> Self {
        Self {
            receiver: id.receiver,
            open_block: id.open_block,
            deposit: channel.deposit,
            promised: channel.exposure(),
            acknowledged: channel.acknowledged,
            phase: channel.phase.name().to_owned(),
            host: host.map(str::to_owned),
            in_doubt: channel.has_doubt(),
        }
    }
}
