//! What a rule allows one client request to spend.

use std::sync::Arc;

use super::{Hooks, Preference, PriceLimit, ProvenClient};
use crate::protocol::asset::AssetId;
use crate::protocol::budget::BudgetSet;
use crate::protocol::host_name::HostName;
use crate::protocol::terms::Terms;
use crate::protocol::{Address, Refusal};

/// What one `[[pay]]` rule allows one client request to spend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpendLimit {
    /// The host of the request: a channel is leased only for the host that it was opened for.
    pub host: HostName,
    /// The highest price, and with it the assets that may be paid.
    pub max_price: PriceLimit,
    /// The payees that may be paid; any if empty.
    pub receivers: Vec<Address>,
    /// Which schemes it allows, and which of several offers it prefers.
    pub preference: Arc<Preference>,
    /// The hooks.
    pub hooks: Arc<Hooks>,
    /// The budgets that its payments count in.
    pub budgets: BudgetSet,
    /// Where the request comes from, to judge it by a policy that has replaced the one it began with.
    pub origin: SpendOrigin,
}

/// Where a request comes from, and by which policy it was judged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpendOrigin {
    /// The version of the policy.
    pub version: u64,
    /// The client that sent the request, if it has a name.
    pub client: Option<ProvenClient>,
    /// The port of the origin.
    pub port: u16,
}

impl SpendLimit {
    /// Checks a seller's terms against the rule; see `PriceLimit::check` about `channel_token`.
    ///
    /// # Errors
    /// Why the rule does not allow them.
    pub fn check(
        &self,
        terms: &Terms,
        channel_token: impl FnOnce() -> Option<AssetId>,
    ) -> Result<(), Refusal> {
        if !self.receivers.is_empty() && !self.receivers.contains(&terms.payee) {
            return Err(Refusal::ForeignReceiver(terms.payee));
        }
        if terms.price.amount.is_zero() {
            return Err(Refusal::PriceZero);
        }
        self.preference.check(terms.scheme)?;
        self.max_price.check(&terms.price, channel_token)
    }
}
