//! What the rules promise to pay, for probes.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::funds::PromisedFunds;
use crate::admin::ObstacleSource;
use crate::chain::Network;
use crate::config::Config;
use crate::payments::{Obstacle, Payments};
use crate::protocol::policy::{Allow, Preference, PriceLimit};
use crate::proxy::frontend::{Funds, PromisedPayments, Promises, Readiness};

impl ObstacleSource for Readiness {
    fn find(&self) -> BoxFuture<'static, Vec<Obstacle>> {
        let this = self.clone();
        Box::pin(async move {
            this.check().await;
            // Probes may get what was found a moment ago; the operator has perhaps just changed it.
            this.known()
        })
    }
}

/// What the rules promise to pay, those of clients included. Rules that deny promise nothing. `nodes` are those of the
/// networks.
pub(super) fn promises(
    config: &Config,
    nodes: &[Network],
    payments: Option<Payments>,
    is_dry_run: bool,
) -> Promises {
    let of_clients = config.clients.iter().filter_map(|client| client.client.rules.as_deref());
    let rules = std::iter::once(config.policy.rules.as_slice()).chain(of_clients).flatten();
    let promises: Vec<(&PriceLimit, &Preference)> = rules
        .filter_map(|rule| match &rule.allow {
            Allow::Pay { max_price, preference, .. } => Some((max_price, &**preference)),
            Allow::Deny => None,
        })
        .collect();
    let has_chain = config.chain.is_some();
    let uses_channels = has_chain && promises.iter().any(|(_, preference)| preference.allows_channels());
    let needs_chain = |(max_price, preference): &(&PriceLimit, &Preference)| {
        matches!(max_price, PriceLimit::ChannelToken(_)) || preference.requires_channels()
    };
    let lacks_chain = !has_chain && promises.iter().any(needs_chain);
    let (lasting, payments) = match payments {
        _ if promises.is_empty() => (None, None),
        None => (Some(Obstacle::NoWallet), None),
        Some(_) if is_dry_run => (Some(Obstacle::DryRun), None),
        Some(payments) => {
            (lacks_chain.then_some(Obstacle::NoChain), Some(PromisedPayments { payments, uses_channels }))
        }
    };
    // What is in channels can be paid, too.
    let promised = payments.as_ref().filter(|promised| !promised.uses_channels);
    let funds = promised
        .and_then(|promised| PromisedFunds::of(config, nodes, &promised.payments))
        .map(|funds| Arc::new(funds) as Arc<dyn Funds>);
    Promises { lasting, payments, funds }
}
