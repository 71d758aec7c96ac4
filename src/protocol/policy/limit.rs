//! What a rule permits one client request to cost.

use std::sync::Arc;

use super::Hooks;
use crate::protocol::asset::Money;
use crate::protocol::host_name::HostName;
use crate::protocol::terms::Terms;
use crate::protocol::{Address, Refusal};

/// What one `[[pay]]` rule permits one client request to cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpendLimit {
    /// The host that the request goes to: a channel is lent only to the host that it was opened for.
    pub host: HostName,
    /// The highest price. No other asset is paid.
    pub max_price: Money,
    /// Who may be paid; anyone when empty.
    pub receivers: Vec<Address>,
    /// What to do at each turn.
    pub hooks: Arc<Hooks>,
}

impl SpendLimit {
    /// Checks a seller's terms against the rule alone.
    ///
    /// # Errors
    /// Why the rule does not permit them.
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
