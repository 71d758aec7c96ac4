//! The port for asking the user's webhook before a channel is closed without its seller.

use std::fmt;

use futures_util::future::BoxFuture;

use crate::protocol::ChannelId;
use crate::protocol::policy::{CloseDenied, Webhook};

/// Decides about a channel whose seller does not sign to close it.
pub trait CloseApprover: fmt::Debug + Send + Sync {
    /// Asks `webhook`. An error is the reason why this channel and the seller's other channels stay open.
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
    /// The HTTP status of the seller's response, if any.
    pub status: Option<u16>,
}
