//! Access to the slots of all channels.

use super::Engine;
use super::slot::{CoveredTotals, Slot};
use crate::protocol::budget::CoveredBy;
use crate::protocol::{Channel, ChannelId};

impl Engine {
    /// The slot of a channel; a new one gets the host that the journal names for it.
    pub(super) fn slot_or_insert(&mut self, id: ChannelId, channel: Channel) -> &mut Slot {
        let (hosts, holds) = (&mut self.unclaimed_hosts, &mut self.unclaimed_holds);
        let budgets = &mut self.budgets;
        self.slots.entry(id).or_insert_with(|| {
            let mut slot = Slot::new(channel, hosts.remove(&id));
            let covered = holds.remove(&id).map(|hold| hold.covered).unwrap_or_default();
            slot.covered.extend(covered.into_iter().map(|CoveredBy { budget, each, coverage }| {
                CoveredTotals { index: budgets.index_of(budget), each, coverage, lost: Vec::new() }
            }));
            slot
        })
    }

    /// Changes a channel without recording it at once.
    pub(super) fn change(&mut self, id: &ChannelId, change: impl FnOnce(&mut Channel)) {
        if let Some(slot) = self.slots.get_mut(id) {
            change(&mut slot.channel);
            slot.is_dirty = true;
            self.is_dirty = true;
        }
    }
}
