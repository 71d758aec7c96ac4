//! Asking the user's webhook before a channel is closed without its seller.

use std::fmt;

use futures_util::future::BoxFuture;

use crate::protocol::ChannelId;
use crate::protocol::policy::{CloseDenied, Webhook};

/// Decides what becomes of a channel that its seller does not sign to close.
pub trait CloseApprover: fmt::Debug + Send + Sync {
    /// Asks `webhook`. The error says why the channel stays open, and the seller's other channels with it.
    fn approve<'a>(
        &'a self,
        webhook: &'a Webhook,
        request: CloseApprovalRequest<'a>,
    ) -> BoxFuture<'a, Result<CloseDenied, String>>;
}

/// A cooperative close that a seller did not sign.
#[derive(Clone, Copy, Debug)]
pub struct CloseApprovalRequest<'a> {
    /// The URL of the seller's REST interface.
    pub seller_url: &'a str,
    /// The channel.
    pub channel: ChannelId,
    /// The HTTP status of the seller's answer, if it gave one.
    pub status: Option<u16>,
}
