//! What happens to a payment, before it becomes a row.

use std::borrow::Cow;
use std::sync::Arc;

use super::request::PaidRequest;
use super::row::LedgerState;
use crate::protocol::{Amount, ChannelId, Terms};

/// The state of a payment at a time.
#[derive(Clone, Debug)]
pub(in crate::payments) struct PaymentEvent {
    /// The payment, unique in the journal.
    pub(super) payment: u64,
    /// When it happened, in milliseconds since 1970.
    pub(super) at: u64,
    pub(super) state: LedgerState,
    pub(super) request: Arc<PaidRequest>,
    pub(super) terms: Terms,
    /// The channel and its total with this payment.
    pub(super) channel: Option<(ChannelId, Amount)>,
    /// The nonce of a one-shot authorization.
    pub(super) nonce: Option<[u8; 32]>,
    /// An earlier request has begun the payment with this nonce, under a number that the journal knows.
    pub(super) is_joined: bool,
    /// What the seller has signed of its offer.
    pub(super) offer: Option<Arc<str>>,
    /// What the seller stated about the payment.
    pub(super) receipt: Cow<'static, str>,
}
