//! Says at the start whether the wallet can pay without a channel: what it holds of the tokens that rules allow, on the
//! networks whose nodes are configured.

use std::time::Duration;

use tokio::time::timeout;

use crate::chain::Network;
use crate::config::{Config, NetworkConfig};
use crate::protocol::policy::{Allow, KnownAsset, Rule};
use crate::protocol::{Address, AssetId};

/// How long to wait for the nodes.
const WITHIN: Duration = Duration::from_secs(10);

/// What the wallet holds.
#[derive(Debug, Default)]
struct Funds {
    /// Amounts, with their token and network.
    held: Vec<String>,
    /// The tokens that it does not have, with their network.
    lacking: Vec<String>,
    /// Why a balance is not known.
    unknown: Option<String>,
}

/// Logs whether the wallet can pay, according to the `nodes` of the configured networks. With a chain, that of channels is
/// logged elsewhere.
pub(super) async fn tell(config: &Config, nodes: &[Network], payer: Address, has_chain: bool) {
    let unanswered = || Funds { unknown: Some(format!("no answer within {WITHIN:?}")), ..Funds::default() };
    let Funds { held, lacking, unknown } =
        timeout(WITHIN, read(config, nodes, payer)).await.unwrap_or_else(|_| unanswered());
    let channels = if has_chain { "" } else { "; without [chain] there are no channels" };
    match (&held[..], &lacking[..], unknown) {
        ([], [_, ..], None) => tracing::warn!(
            %payer,
            "not ready to pay without a channel: the wallet has no {}; send it some",
            lacking.join(", no ")
        ),
        ([_, ..], _, _) => {
            tracing::info!(%payer, balance = held.join(", "), "ready to pay without a channel{channels}");
        }
        ([], _, Some(reason)) => {
            tracing::info!(%payer, reason, "ready to pay if the wallet has funds: its balance is not known{channels}");
        }
        ([], [], None) if !has_chain => tracing::info!(
            %payer,
            "ready to pay if the wallet has funds: without a [[network]] for the tokens of [[pay]] entries, its balance is \
             not known{channels}"
        ),
        ([], [], None) => {}
    }
}

async fn read(config: &Config, nodes: &[Network], payer: Address) -> Funds {
    let mut funds = Funds::default();
    for (entry, node) in config.networks.iter().zip(nodes) {
        for known in allowed(config, entry) {
            let AssetId::Token(token) = &known.asset else { continue };
            // A token without a contract has no balance there.
            let Ok(token) = token.token.parse() else { continue };
            let name = format!("{} on {}", known.symbol, entry.id);
            match node.balance(token, payer).await {
                Ok(amount) if amount.is_zero() => funds.lacking.push(name),
                Ok(amount) => funds.held.push(format!("{} on {}", known.show(amount), entry.id)),
                Err(error) => funds.unknown = Some(error.to_string()),
            }
        }
    }
    funds
}

/// The tokens of a network that some rule allows, each once.
fn allowed<'a>(config: &'a Config, entry: &NetworkConfig) -> Vec<&'a KnownAsset> {
    let clients = config.clients.iter().filter_map(|client| client.client.rules.as_deref());
    let rules = clients.chain([&config.policy.rules[..]]).flatten();
    let assets = rules.flat_map(|rule: &Rule| match &rule.allow {
        Allow::Pay { max_price, .. } => max_price.assets().collect::<Vec<_>>(),
        Allow::Deny => Vec::new(),
    });
    let mut allowed: Vec<&KnownAsset> = Vec::new();
    for known in assets.filter(|known| known.network == entry.id) {
        if !allowed.iter().any(|other| other.asset == known.asset) {
            allowed.push(known);
        }
    }
    allowed
}
