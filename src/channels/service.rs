//! The service behind `tollpass channels`, the reaper and the shutdown of `serve`.

use std::sync::Arc;

use super::approver::CloseApprover;
use super::seller::SellerEndpoint;
use crate::payments::Payments;
use crate::protocol::policy::{CloseDenied, Hook};

/// Opens, tops up, closes and settles channels; cheap to clone.
#[derive(Clone, Debug)]
pub struct Channels {
    pub(super) payments: Payments,
    pub(super) seller: Arc<dyn SellerEndpoint>,
    pub(super) approver: Arc<dyn CloseApprover>,
    pub(super) close_denied: Hook<CloseDenied>,
}

impl Channels {
    /// Operates on the channels of `payments`. If a seller does not sign, `close_denied` decides, after asking
    /// `approver` if it names a webhook.
    #[must_use]
    pub fn new(
        payments: Payments,
        seller: Arc<dyn SellerEndpoint>,
        approver: Arc<dyn CloseApprover>,
        close_denied: Hook<CloseDenied>,
    ) -> Self {
        Self { payments, seller, approver, close_denied }
    }

    /// The payment service that owns the channels.
    #[must_use]
    pub fn payments(&self) -> &Payments {
        &self.payments
    }
}
