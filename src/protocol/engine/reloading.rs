//! Another policy, while purchases wait and channels hold money.
//!
//! A purchase keeps the limit and the hooks of the rule that it began with, but no budget: it counts in those of the new
//! policy. A client that is gone gets no further payment. What was spent stays with its budgets, as after a restart, so that
//! there is nothing to record.

use std::sync::Arc;
use std::time::Instant;

use super::{Engine, PurchaseId};
use crate::protocol::policy::SpendLimit;
use crate::protocol::{Address, ChannelId, Policy, Refusal};

impl Engine {
    /// Applies another policy.
    pub(super) fn change_policy(&mut self, policy: Arc<Policy>, now: Instant) {
        self.budgets.redefine(&policy.budgets);
        self.policy = Arc::clone(&policy);
        for purchase in self.one_shots.values_mut() {
            purchase.limit.budgets = policy.budgets_by_now(&purchase.limit);
        }
        let ids: Vec<PurchaseId> = self.purchases.keys().copied().collect();
        for id in ids {
            let Some(purchase) = self.purchases.get(&id) else { continue };
            let budgets = policy.budgets_by_now(&purchase.limit);
            let indices = self.open_budgets(&budgets);
            if let Some(purchase) = self.purchases.get_mut(&id) {
                (purchase.limit.budgets, purchase.budgets) = (budgets, indices);
            }
        }
        // The value of a token may have changed, and with it what a channel holds.
        let slots: Vec<ChannelId> = self.slots.keys().copied().collect();
        slots.iter().for_each(|id| self.update_held(id));
        self.refuse_waiting_if(|limit| removed_client(&policy, limit), now);
        // More may be deposited now, or less.
        let receivers: Vec<Address> = self.queues.keys().copied().collect();
        for receiver in receivers {
            self.dispatch(receiver, now);
        }
    }

    /// The limit of a request that was judged by an earlier policy, with the budgets of this one.
    pub(super) fn by_now(&self, limit: SpendLimit) -> SpendLimit {
        if limit.origin.version == self.policy.version {
            return limit;
        }
        SpendLimit { budgets: self.policy.budgets_by_now(&limit), ..limit }
    }

    /// Checks that payments are signed at all, and for the client of this limit.
    ///
    /// # Errors
    /// They are not.
    pub fn check_allowed(&self, limit: &SpendLimit) -> Result<(), Refusal> {
        if self.is_frozen {
            return Err(Refusal::Frozen);
        }
        removed_client(&self.policy, limit).map_or(Ok(()), Err)
    }
}

/// The refusal of a request whose client was removed since the request began.
fn removed_client(policy: &Policy, limit: &SpendLimit) -> Option<Refusal> {
    let proven = limit.origin.client.as_ref().filter(|_| limit.origin.version != policy.version)?;
    let is_gone = policy.clients.still(proven).is_none();
    is_gone.then(|| Refusal::ClientRemoved { client: proven.client.name.clone() })
}
