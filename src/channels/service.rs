//! The service behind `tollpass channels`, the reaper and the shutdown of `serve`.

use std::sync::Arc;

use super::approver::CloseApprover;
use super::seller::SellerEndpoint;
use crate::chain::NetworkAccount;
use crate::payments::Payments;

/// Opens, tops up, closes and settles channels; cheap to clone.
#[derive(Clone, Debug)]
pub struct Channels {
    pub(super) payments: Payments,
    pub(super) seller: Arc<dyn SellerEndpoint>,
    pub(super) approver: Arc<dyn CloseApprover>,
    /// The payer's accounts on the networks without channels.
    pub(super) networks: Arc<[Arc<NetworkAccount>]>,
}

impl Channels {
    /// Operates on the channels of `payments`. If a seller does not sign, the hook `cooperative_close_denied` decides, after
    /// asking `approver` if it names a webhook.
    #[must_use]
    pub fn new(
        payments: Payments,
        seller: Arc<dyn SellerEndpoint>,
        approver: Arc<dyn CloseApprover>,
    ) -> Self {
        Self { payments, seller, approver, networks: Arc::default() }
    }

    /// The same with the payer's accounts on networks without channels, for allowances.
    #[must_use]
    pub fn with_networks(self, networks: impl IntoIterator<Item = NetworkAccount>) -> Self {
        Self { networks: networks.into_iter().map(Arc::new).collect(), ..self }
    }

    /// The payment service that owns the channels.
    #[must_use]
    pub fn payments(&self) -> &Payments {
        &self.payments
    }
}
