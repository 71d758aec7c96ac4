//! Channels as listed for users.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::account::AccountKey;
use crate::protocol::engine::{HoldReason, OpenHold, ShownBy};
use crate::protocol::{Address, Amount, AssetId, Channel, ChannelId};

/// An amount that can be spent on nothing else now.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ListedHold {
    /// Why.
    pub reason: HoldReason,
    /// How much, in base units.
    pub amount: Amount,
    /// The network of the asset; absent until it is known.
    pub network: Option<String>,
    /// The token on this network.
    pub token: Option<String>,
    /// For whom.
    pub payee: Address,
    /// The channel; absent for an authorization.
    pub channel: Option<String>,
    /// The host, once it is known.
    pub host: Option<String>,
    /// The budgets that it counts in.
    pub budgets: Vec<String>,
    /// For how many seconds it has been held; of what an earlier run left, since the start.
    pub age_s: u64,
    /// In how many seconds it ends at the latest, if time alone ends it.
    pub free_in_s: Option<u64>,
    /// What ends it.
    pub until: String,
}

impl ListedHold {
    /// Lists a hold of `asset`, with its token if that is known.
    pub(super) fn new(hold: OpenHold, asset: AssetId) -> Self {
        let (network, token) = match asset {
            AssetId::ChannelToken => (None, None),
            AssetId::Token(token) => (Some(token.network.clone()), Some(token.token.clone())),
        };
        Self {
            reason: hold.reason,
            amount: hold.held.amount,
            network,
            token,
            payee: hold.payee,
            channel: hold.channel.map(|channel| channel.to_string()),
            host: hold.host.map(|host| host.to_string()),
            budgets: hold.budgets.iter().map(ToString::to_string).collect(),
            age_s: hold.age.as_secs(),
            free_in_s: hold.free_in.map(|time| time.as_secs()),
            until: hold.shown_by.map_or_else(|| hold.reason.end().to_owned(), shown_by),
        }
    }
}

/// What ends the doubt about an authorization.
fn shown_by(ShownBy { valid_before, chain }: ShownBy) -> String {
    match chain {
        Some((id, true)) => {
            let expires = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(valid_before));
            let expires = expires.unwrap_or(SystemTime::UNIX_EPOCH);
            let expires = humantime::format_rfc3339_seconds(expires);
            format!("by the chain eip155:{id}: once it was taken, or with a block after {expires}")
        }
        Some((id, false)) => format!("stays spent: no [[network]] for eip155:{id}"),
        None => "stays spent: no chain shows whether it was taken".to_owned(),
    }
}

/// All channels of one account.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Listing {
    /// The account, once it is known.
    pub owner: Option<AccountKey>,
    /// Whether there is no chain, and so no channel.
    #[serde(default)]
    pub has_no_chain: bool,
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
