//! One-shot authorizations, and the purchases that are paid with them.

use std::time::{Duration, Instant};

use super::PurchaseId;
use super::purchase::Topic;
use super::purchase_key::PurchaseKey;
use crate::protocol::budget::{BudgetAmount, BudgetIndex, BudgetKey};
use crate::protocol::host_name::HostName;
use crate::protocol::policy::SpendLimit;
use crate::protocol::schemes::{Draft, Offer};
use crate::protocol::terms::Terms;
use crate::protocol::{Address, Money};

/// An authorization that is signed or about to be signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authorization {
    /// Makes it unique.
    pub nonce: [u8; 32],
    /// Its amount, payee and scheme.
    pub terms: Terms,
    /// The authorization itself, so that the same one can be presented again.
    pub draft: Draft,
    /// Who signs it.
    pub payer: Address,
    /// The purchase that it is for, if later requests can continue that.
    pub key: Option<PurchaseKey>,
    /// The host that it pays.
    pub host: HostName,
    /// What it counts for in its budgets, and since which minute.
    pub counted: Vec<(BudgetKey, BudgetAmount, u64)>,
}

/// What the journal has of an authorization of an earlier run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownAuthorization {
    /// The authorization.
    pub authorization: Authorization,
    /// When it was recorded, in seconds since 1970.
    pub since: u64,
    /// Until when its purchase, which was paid for and not delivered, is not repeated, in seconds since 1970.
    pub taken_until: Option<u64>,
    /// Whether the chain has shown that it was used.
    pub is_used: bool,
    /// Whether its payment was served, so that the chain only confirms it.
    pub is_served: bool,
}

/// Why a one-shot payment is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Occasion {
    /// The seller has asked for it.
    #[default]
    Asked,
    /// It goes with the first request, by a remembered offer: it is valid for a short time only.
    Ahead,
    /// The seller has asked for it in response to the payment of this purchase, which was sent ahead and stays redeemable:
    /// both together have to fit the limit of the request.
    Outdated(PurchaseId),
}

/// Why a client has not got the whole response to a payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The seller did not send all of it.
    CutOff,
    /// The client left, so long ago.
    ClientLeft {
        /// How long.
        ago: Duration,
    },
}

/// A client request that is paid with an authorization.
#[derive(Debug)]
pub(super) struct OneShotPurchase {
    pub(super) terms: Terms,
    pub(super) limit: SpendLimit,
    /// What it counts for in its budgets, and since when, once it is to be recorded.
    pub(super) counted: Vec<(BudgetIndex, BudgetAmount, u64)>,
    pub(super) nonce: [u8; 32],
    pub(super) key: Option<PurchaseKey>,
    pub(super) occasion: Occasion,
    /// What the seller offered: the payment is drawn once it is about to be recorded.
    pub(super) offer: Offer,
    pub(super) draft: Draft,
    /// Whether an earlier request for the same purchase has presented the payment.
    pub(super) is_joined: bool,
    /// When it is refused if the key is still locked.
    pub(super) ready_by: Instant,
    pub(super) deadline: Instant,
    pub(super) stage: OneShotStage,
    /// How often it was presented again.
    pub(super) retries: u32,
    /// Whether it was presented before and nobody knows what became of it: nothing that a seller then says of its verification
    /// shows that nothing moved.
    pub(super) was_unclear: bool,
    pub(super) since: Instant,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum OneShotStage {
    /// Approved, if that is required; waits until the key is unlocked.
    Starting,
    /// Waits until the journal has recorded the authorization.
    Recording,
    /// The payment is in flight.
    InFlight,
    /// An approver is asked, before the authorization is recorded or after it was presented.
    Consulting { topic: Topic },
    /// The same payment is to be presented again at this time.
    Backoff { until: Instant },
}

impl OneShotPurchase {
    pub(super) fn due(&self) -> Option<Instant> {
        match self.stage {
            OneShotStage::Starting => Some(self.ready_by.min(self.deadline)),
            OneShotStage::Recording => Some(self.deadline),
            OneShotStage::InFlight | OneShotStage::Consulting { .. } => None,
            OneShotStage::Backoff { until } => Some(until),
        }
    }

    /// Whether the journal has its authorization, or is about to.
    pub(super) fn is_recorded(&self) -> bool {
        match self.stage {
            OneShotStage::Starting | OneShotStage::Consulting { topic: Topic::Price } => false,
            OneShotStage::Recording
            | OneShotStage::InFlight
            | OneShotStage::Consulting { topic: Topic::Complaint(_) }
            | OneShotStage::Backoff { .. } => true,
        }
    }

    pub(super) fn price(&self) -> &Money {
        &self.terms.price
    }
}
