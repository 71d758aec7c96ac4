//! Whether payments can be made now, for those who watch the proxy. It is found without asking a node: the chain is watched
//! anyway.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::conditions::DiskCheck;
use super::handle::Payments;
use crate::chain::Chain;

/// How long a check of the disk may take before it counts as failed.
const DISK_WITHIN: Duration = Duration::from_secs(2);

/// What keeps payments that rules allow from being made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// There are rules, and no wallet.
    NoWallet,
    /// A rule pays from channels only, and there is no chain.
    NoChain,
    /// Nothing is signed in a dry run.
    DryRun,
    /// The key has not been unlocked yet.
    Locked,
    /// The operator has ended all signing.
    Frozen,
    /// The node of the chain has not been read yet, or gives no usable answers.
    Node,
    /// The wallet has none of the tokens that rules allow.
    NoFunds,
    /// The disk is full, too slow, or read-only.
    Journal,
    /// The proxy is shutting down.
    Stopping,
}

impl Obstacle {
    /// Its name for programs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoWallet => "no-wallet",
            Self::NoChain => "no-chain",
            Self::DryRun => "dry-run",
            Self::Locked => "key-locked",
            Self::Frozen => "frozen",
            Self::Node => "node-unavailable",
            Self::NoFunds => "no-funds",
            Self::Journal => "journal-unwritable",
            Self::Stopping => "shutting-down",
        }
    }

    /// What it means, for people.
    #[must_use]
    pub const fn details(self) -> &'static str {
        match self {
            Self::NoWallet => "there are [[pay]] entries without a [wallet]",
            Self::NoChain => "a [[pay]] entry pays from channels only, which needs a [chain]",
            Self::DryRun => "this is a dry run, which signs nothing",
            Self::Locked => "the key has not been unlocked yet",
            Self::Frozen => "nothing is signed until `tollpass thaw`",
            Self::Node => "the node of [chain] has not been read yet, or gives no usable answers",
            Self::NoFunds => "the wallet has none of the tokens that [[pay]] entries allow: send it some",
            Self::Journal => "the journal cannot be written",
            Self::Stopping => "tollpass is shutting down",
        }
    }
}

impl Payments {
    /// What is known to keep payments from being made. `uses_channels` is whether rules pay from channels.
    pub(crate) fn obstacles(&self, uses_channels: bool) -> Vec<Obstacle> {
        let (is_locked, conditions) = (self.wallet().is_none(), self.conditions());
        let is_reached = conditions.chain.get().is_some_and(Chain::is_reached);
        let found = [
            (is_locked, Obstacle::Locked),
            (self.is_frozen(), Obstacle::Frozen),
            // Without a key, the chain is not read.
            (uses_channels && !is_locked && !is_reached, Obstacle::Node),
            (conditions.is_unwritable.load(Ordering::Relaxed), Obstacle::Journal),
        ];
        found.into_iter().filter(|(is_there, _)| *is_there).map(|(_, obstacle)| obstacle).collect()
    }

    /// Finds out whether the journal can be written, which [`Self::obstacles`] then tells. A check that takes too long counts
    /// as failed, and no other begins until it has ended.
    pub(crate) async fn check_disk(&self) {
        let conditions = Arc::clone(self.conditions());
        let is_writable = if let Some(check) = DiskCheck::begin(&conditions) {
            let written = self.with_journal(move |journal| {
                let _check = check;
                journal.check_writable()
            });
            // Without an answer, the service has stopped.
            matches!(tokio::time::timeout(DISK_WITHIN, written).await, Ok(Some(Ok(()))))
        } else {
            false
        };
        conditions.is_unwritable.store(!is_writable, Ordering::Relaxed);
    }
}
