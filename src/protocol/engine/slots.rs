//! Access to the slots of all channels.

use super::Engine;
use super::slot::Slot;
use crate::protocol::{Channel, ChannelId};

impl Engine {
    /// The slot of a channel; a new one gets the host that the journal names for it.
    pub(super) fn slot_or_insert(&mut self, id: ChannelId, channel: Channel) -> &mut Slot {
        let hosts = &mut self.unclaimed_hosts;
        self.slots.entry(id).or_insert_with(|| Slot::new(channel, hosts.remove(&id)))
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
