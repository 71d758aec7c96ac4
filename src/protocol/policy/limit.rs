//! What a rule allows one client request to spend.

use std::sync::Arc;

use super::Hooks;
use crate::protocol::asset::Money;
use crate::protocol::host_name::HostName;
use crate::protocol::terms::Terms;
use crate::protocol::{Address, Refusal};

/// What one `[[pay]]` rule allows one client request to spend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpendLimit {
    /// The host of the request: a channel is leased only for the host that it was opened for.
    pub host: HostName,
    /// The highest price. Other assets are not paid.
    pub max_price: Money,
    /// The payees that may be paid; any if empty.
    pub receivers: Vec<Address>,
    /// The hooks.
    pub hooks: Arc<Hooks>,
}

impl SpendLimit {
    /// Checks a seller's terms against the rule.
    ///
    /// # Errors
    /// Why the rule does not allow them.
    pub fn check(&self, terms: &Terms) -> Result<(), Refusal> {
        if !self.receivers.is_empty() && !self.receivers.contains(&terms.payee) {
            return Err(Refusal::ForeignReceiver(terms.payee));
        }
        let (price, max) = (&terms.price, &self.max_price);
        if price.amount.is_zero() {
            return Err(Refusal::PriceZero);
        }
        if price.asset != max.asset {
            let assets = Box::new((price.asset.clone(), max.asset.clone()));
            return Err(Refusal::ForeignAsset { assets });
        }
        if price.amount > max.amount {
            return Err(Refusal::TooExpensive { price: price.amount, max_price: max.amount });
        }
        Ok(())
    }
}
