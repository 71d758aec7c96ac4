//! What the rules promise to pay, for probes.

use crate::config::Config;
use crate::payments::{Obstacle, Payments};
use crate::protocol::policy::{Allow, Preference};
use crate::proxy::frontend::{PromisedPayments, Promises};

/// What the rules promise to pay, those of clients included. Rules that deny promise nothing.
pub(super) fn promises(config: &Config, payments: Option<Payments>, is_dry_run: bool) -> Promises {
    let of_clients = config.clients.iter().filter_map(|client| client.client.rules.as_deref());
    let rules = std::iter::once(config.policy.rules.as_slice()).chain(of_clients).flatten();
    let promises: Vec<&Preference> = rules
        .filter_map(|rule| match &rule.allow {
            Allow::Pay { preference, .. } => Some(&**preference),
            Allow::Deny => None,
        })
        .collect();
    let has_chain = config.chain.is_some();
    let uses_channels = has_chain && promises.iter().any(|preference| preference.allows_channels());
    let lacks_chain = !has_chain && promises.iter().any(|preference| preference.requires_channels());
    let (lasting, payments) = match payments {
        _ if promises.is_empty() => (None, None),
        None => (Some(Obstacle::NoWallet), None),
        Some(_) if is_dry_run => (Some(Obstacle::DryRun), None),
        Some(payments) => {
            (lacks_chain.then_some(Obstacle::NoChain), Some(PromisedPayments { payments, uses_channels }))
        }
    };
    Promises { lasting, payments }
}
