//! What tests may see of the engine. They change it only through inputs.

use super::purchase::Stage;
use super::{Engine, HostName, PurchaseId};
use crate::protocol::channel::ChannelDraft;
use crate::protocol::{Amount, Channel, ChannelId};

/// A read-only view of the engine.
#[derive(Clone, Copy)]
pub(super) struct View<'a>(&'a Engine);

impl Engine {
    pub(super) fn view(&self) -> View<'_> {
        View(self)
    }
}

impl<'a> View<'a> {
    pub(super) fn channels(self) -> impl Iterator<Item = (ChannelId, Channel)> + 'a {
        self.0.slots.iter().map(|(id, slot)| (*id, slot.channel))
    }

    /// A channel that must exist.
    pub(super) fn channel(self, id: ChannelId) -> Channel {
        self.0.slots[&id].channel
    }

    pub(super) fn host(self, id: ChannelId) -> Option<&'a HostName> {
        self.0.slots.get(&id)?.host.as_ref()
    }

    /// The purchase that leases a channel.
    pub(super) fn lease(self, id: ChannelId) -> Option<PurchaseId> {
        self.0.slots.get(&id)?.lease
    }

    pub(super) fn leases(self) -> impl Iterator<Item = (ChannelId, PurchaseId)> + 'a {
        self.0.slots.iter().filter_map(|(id, slot)| Some((*id, slot.lease?)))
    }

    /// The total that a channel was settled at.
    pub(super) fn settled(self, id: ChannelId) -> Option<Amount> {
        self.0.slots.get(&id)?.settled
    }

    /// True while a write of a channel is pending.
    pub(super) fn is_being_written(self, id: ChannelId) -> bool {
        self.0.slots.get(&id).is_some_and(|slot| !slot.writes.is_empty())
    }

    /// Channels that were missing at the last reading of the chain.
    pub(super) fn missing(self) -> Vec<ChannelId> {
        self.0.missing().copied().collect()
    }

    pub(super) fn knows(self, id: PurchaseId) -> bool {
        self.0.purchases.contains_key(&id)
    }

    /// The payments that purchases hold, or will present again.
    pub(super) fn drafts(self) -> impl Iterator<Item = (PurchaseId, ChannelDraft)> + 'a {
        self.0.purchases.iter().filter_map(|(id, purchase)| match purchase.stage {
            Stage::Recording { draft, .. }
            | Stage::InFlight { draft, .. }
            | Stage::Consulting { presented: Some(draft), .. }
            | Stage::Backoff { draft, .. } => Some((*id, draft)),
            Stage::Starting { .. } | Stage::Queued | Stage::Consulting { presented: None, .. } => None,
        })
    }

    /// True while no purchase waits or leases a channel.
    pub(super) fn is_at_rest(self) -> bool {
        self.0.purchases.is_empty() && self.0.queues.is_empty() && !self.0.has_leases()
    }
}
