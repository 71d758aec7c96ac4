//! What we ask over HTTP when a channel is closed: a seller for its state and its signature, and whom the policy names
//! where the seller does not sign. Implemented over the proxy's own client and handed in by the composition root.

use std::fmt;

use futures_util::future::BoxFuture;

use crate::protocol::policy::{CloseDenied, Webhook};
use crate::protocol::{Address, Amount, ChannelId, Signature};

/// Asks sellers. `gateway` is the URL of a seller's REST interface, such as `http://bob.example/api/1`.
pub trait Seller: fmt::Debug + Send + Sync {
    /// What the seller holds of a channel.
    fn state<'a>(
        &'a self,
        gateway: &'a str,
        payer: Address,
        open_block: u32,
    ) -> BoxFuture<'a, Result<SellerState, SellerError>>;

    /// The seller's signature under the channel's last total, with which it can be closed at once.
    fn closing_signature<'a>(
        &'a self,
        gateway: &'a str,
        payer: Address,
        open_block: u32,
        total: Amount,
    ) -> BoxFuture<'a, Result<Signature, SellerError>>;

    /// Asks `webhook` what becomes of a channel that its seller does not sign to close; `Err` says why it stays open,
    /// and the seller's other channels with it.
    fn may_close_alone<'a>(
        &'a self,
        webhook: &'a Webhook,
        denied: Denied<'a>,
    ) -> BoxFuture<'a, Result<CloseDenied, String>>;
}

/// A close together that a seller did not sign.
#[derive(Clone, Copy, Debug)]
pub struct Denied<'a> {
    /// The URL of the seller's REST interface.
    pub gateway: &'a str,
    /// The channel.
    pub channel: ChannelId,
    /// The seller's answer, where it gave one.
    pub status: Option<u16>,
}

/// What a seller says it holds of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SellerState {
    /// The last registered total.
    pub total: Amount,
    /// The payer's signature of it, where something was paid.
    pub signature: Option<Signature>,
}

/// Why a seller did not give what was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SellerError {
    /// It was not reached, or did not answer in time.
    #[error("the seller was not reached: {0}")]
    Unreachable(String),
    /// It said no.
    #[error("the seller refused ({status}): {text}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// Its words, shortened.
        text: String,
    },
    /// It said something else.
    #[error("the seller's answer is not understood: {0}")]
    NotUnderstood(String),
}
