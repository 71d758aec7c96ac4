//! Effects that wait for a write.

use super::ids::{PurchaseId, Seq};
use crate::protocol::channel::ChannelDraft;

/// An effect that depends on pending writes.
#[derive(Debug)]
pub(super) struct Blocked {
    /// The writes, none of which may fail.
    pub(super) after: [Option<Seq>; 2],
    /// No write from this one to the last of `after` may fail, either.
    pub(super) since: Option<Seq>,
    pub(super) action: Action,
}

#[derive(Debug)]
pub(super) enum Action {
    Grant(PurchaseId, ChannelDraft),
    GrantOneShot(PurchaseId),
    Send([u8; 32]),
}
