//! Everything that the engine keeps of one channel.

use std::collections::VecDeque;
use std::time::Instant;

use super::ids::{PurchaseId, Seq};
use crate::protocol::host_name::HostName;
use crate::protocol::{Amount, Channel};

/// One channel, and what the engine knows of it beside its totals.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) channel: Channel,
    /// The host that it belongs to. Without one, it goes to the first host that pays from it.
    pub(super) host: Option<HostName>,
    /// True if the journal may not know the host.
    pub(super) is_host_unwritten: bool,
    /// The purchase that it is lent to.
    pub(super) lease: Option<PurchaseId>,
    /// True while it is lent to no further purchase, because it is about to be closed.
    pub(super) is_locked: bool,
    /// When it was last seen to carry a payment; since the start if that is not known.
    pub(super) used: Option<Instant>,
    /// True while the journal has an older state of it.
    pub(super) is_dirty: bool,
    /// The writes of it that have not ended, and the durable limit that each will leave, in their order.
    pub(super) writes: VecDeque<(Seq, Amount)>,
    /// The write of its host, if that has not ended.
    pub(super) host_write: Option<Seq>,
    /// A lower deposit that the chain showed once.
    pub(super) lower: Option<Amount>,
    /// True if the contract did not know it at the last look, and no settlement explains that.
    pub(super) is_missing: bool,
    /// The total that it was settled on.
    pub(super) settled: Option<Amount>,
}

impl Slot {
    pub(super) fn new(channel: Channel, host: Option<HostName>) -> Self {
        Self {
            channel,
            host,
            is_host_unwritten: false,
            lease: None,
            is_locked: false,
            used: None,
            is_dirty: false,
            writes: VecDeque::new(),
            host_write: None,
            lower: None,
            is_missing: false,
            settled: None,
        }
    }
}
