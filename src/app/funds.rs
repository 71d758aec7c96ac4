//! What the wallet holds of the tokens that rules allow, on the networks whose nodes are configured; and whether it can pay
//! without a channel, which is said at the start.

use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::timeout;

use crate::chain::Network;
use crate::config::Config;
use crate::payments::Payments;
use crate::protocol::policy::{Allow, KnownAsset, Rule};
use crate::protocol::{Address, Amount, AssetId};
use crate::proxy::frontend::Funds;

/// How long to wait for the nodes.
pub(super) const WITHIN: Duration = Duration::from_secs(10);

/// The tokens that rules allow, with the nodes that know their balances.
#[derive(Clone, Debug)]
pub struct WatchedTokens(Vec<(Network, Address, KnownAsset)>);

/// What the wallet holds of a token, or why that is not known.
#[derive(Debug)]
pub struct HeldToken {
    /// The token.
    pub asset: KnownAsset,
    /// How much the wallet has of it.
    pub amount: Result<Amount, String>,
}

impl HeldToken {
    /// Whether the wallet is known to have none.
    pub fn is_lacking(&self) -> bool {
        self.amount.as_ref().is_ok_and(|amount| amount.is_zero())
    }
}

/// What the wallet holds.
#[derive(Debug, Default)]
struct HeldFunds {
    /// Amounts, with their token and network.
    held: Vec<String>,
    /// The tokens that it does not have, with their network.
    lacking: Vec<String>,
    /// Why a balance is not known.
    unknown: Option<String>,
}

impl WatchedTokens {
    /// Those of a configuration, on the networks of these nodes.
    pub fn new(config: &Config, nodes: &[Network]) -> Self {
        let mut tokens = Vec::new();
        for node in nodes {
            let id = format!("eip155:{}", node.chain_id());
            for known in allowed(config, |known| known.network == id) {
                let AssetId::Token(token) = &known.asset else { continue };
                // A token without a contract has no balance there.
                let Ok(token) = token.token.parse() else { continue };
                tokens.push((node.clone(), token, known.clone()));
            }
        }
        Self(tokens)
    }

    /// Whether these are all tokens that rules allow, so that they tell whether the wallet can pay without a channel.
    pub fn are_all(&self, config: &Config) -> bool {
        let all = allowed(config, |_| true);
        !all.is_empty() && self.0.len() == all.len()
    }

    /// Asks the nodes for the balances of `payer`, one after the other.
    pub async fn read(&self, payer: Address) -> Vec<HeldToken> {
        let mut held = Vec::new();
        for (node, token, asset) in &self.0 {
            let amount = node.balance(*token, payer).await.map_err(|error| error.to_string());
            held.push(HeldToken { asset: asset.clone(), amount });
        }
        held
    }
}

impl From<Vec<HeldToken>> for HeldFunds {
    fn from(tokens: Vec<HeldToken>) -> Self {
        let mut funds = Self::default();
        for HeldToken { asset, amount } in tokens {
            match amount {
                Ok(amount) if amount.is_zero() => {
                    funds.lacking.push(format!("{} on {}", asset.symbol, asset.network));
                }
                Ok(amount) => funds.held.push(format!("{} on {}", asset.show(amount), asset.network)),
                Err(error) => funds.unknown = Some(error),
            }
        }
        funds
    }
}

/// Logs whether the wallet can pay. With a chain, that of channels is logged elsewhere.
pub(super) async fn tell(tokens: &WatchedTokens, payer: Address, has_chain: bool) {
    let unanswered =
        || HeldFunds { unknown: Some(format!("no answer within {WITHIN:?}")), ..HeldFunds::default() };
    let read = timeout(WITHIN, tokens.read(payer)).await;
    let HeldFunds { held, lacking, unknown } = read.map_or_else(|_| unanswered(), HeldFunds::from);
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

/// The funds for the tokens that rules allow.
#[derive(Debug)]
pub(super) struct PromisedFunds {
    tokens: WatchedTokens,
    payments: Payments,
}

impl PromisedFunds {
    /// Those of a configuration; `None` unless the nodes of its networks know the balances of all tokens that rules allow.
    pub(super) fn of(config: &Config, nodes: &[Network], payments: &Payments) -> Option<Self> {
        let tokens = WatchedTokens::new(config, nodes);
        tokens.are_all(config).then(|| Self { tokens, payments: payments.clone() })
    }
}

impl Funds for PromisedFunds {
    fn are_lacking(&self) -> BoxFuture<'static, bool> {
        // Without a key it is not known whose funds these are.
        let Some(payer) = self.payments.payer() else { return Box::pin(std::future::ready(false)) };
        let tokens = self.tokens.clone();
        Box::pin(async move {
            let read = timeout(WITHIN, tokens.read(payer)).await;
            // What is not known is not lacking.
            read.is_ok_and(|held| held.iter().all(HeldToken::is_lacking))
        })
    }
}

/// The tokens that some rule allows, each once, of the networks that `is_meant`.
fn allowed(config: &Config, is_meant: impl Fn(&KnownAsset) -> bool) -> Vec<&KnownAsset> {
    let clients = config.clients.iter().filter_map(|client| client.client.rules.as_deref());
    let rules = clients.chain([&config.policy.rules[..]]).flatten();
    let assets = rules.flat_map(|rule: &Rule| match &rule.allow {
        Allow::Pay { max_price, .. } => max_price.assets().collect::<Vec<_>>(),
        Allow::Deny => Vec::new(),
    });
    let mut allowed: Vec<&KnownAsset> = Vec::new();
    for known in assets.filter(|known| is_meant(known)) {
        if !allowed.iter().any(|other| other.asset == known.asset) {
            allowed.push(known);
        }
    }
    allowed
}
