//! The settings and the state of the payment layer.

use std::path::PathBuf;
use std::sync::Arc;

use super::dry_run::DryRun;
use super::orphans::Orphans;
use super::unreadable::Unreadable;
use super::webhook::{Approvals, Approver};
use crate::limits::Limits;
use crate::payments::Payments;
use crate::protocol::Policy;
use crate::protocol::policy::LocalSpenders;
use crate::proxy::replay;
use crate::shutdown::Shutdown;

/// The settings of the layer.
#[derive(Debug)]
pub struct PaySettings {
    /// Rules: which hosts and payees may be paid, and the price limits.
    pub policy: Arc<Policy>,
    /// Which requests without a token may spend.
    pub local: LocalSpenders,
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
