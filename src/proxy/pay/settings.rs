//! The settings and the state of the payment layer.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::dry_run::DryRun;
use super::orphans::Orphans;
use super::unreadable::Unreadable;
use super::webhook::{Approvals, Approver};
use crate::limits::Limits;
use crate::payments::Payments;
use crate::proxy::replay;
use crate::proxy::rulebook::CurrentRules;
use crate::shutdown::Shutdown;

/// The settings of the layer.
#[derive(Debug)]
pub struct PaySettings {
    /// The rules by which requests are paid.
    pub rules: CurrentRules,
    /// The payment service; without it, nothing is paid.
    pub payments: Option<Payments>,
    /// Every limit; this layer applies those on bodies and payments.
    pub limits: Limits,
    /// The directory for request bodies that are too large for memory.
    pub replay_directory: PathBuf,
    /// Waits for exchanges in flight.
    pub shutdown: Shutdown,
    /// Decides for hooks without a webhook.
    pub approver: Option<Arc<dyn Approver>>,
    /// Whether a request that neither a webhook nor `approver` can approve waits for `tollpass approve`.
    pub asks_operator: bool,
    /// In a dry run, nothing is signed, and this counts what it would have cost.
    pub dry_run: Option<DryRun>,
}

impl PaySettings {
    /// The longest time from a request's first 402 to the head of its paid response.
    pub(super) fn pay_timeout(&self) -> Duration {
        self.rules.get().policy.pay_timeout
    }

    /// How long a 402 that arrives during startup waits for the key and the chain.
    pub(super) fn ready_timeout(&self) -> Duration {
        self.rules.get().policy.ready_timeout
    }
}

/// What all requests share.
#[derive(Debug)]
pub(super) struct PayShared {
    pub(super) settings: PaySettings,
    pub(super) replay: replay::ReplayLimits,
    pub(super) approvals: Approvals,
    /// What was paid for in vain, and is not paid for again.
    pub(super) unreadable: Unreadable,
    /// Paid exchanges whose clients have left.
    pub(super) orphans: Arc<Orphans>,
}
