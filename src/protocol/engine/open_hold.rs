//! A hold as shown to the user: its reason, age and end.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::protocol::host_name::HostName;
use crate::protocol::{Address, ChannelId, Money};

/// Why an amount is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HoldReason {
    /// A payment is about to be sent, or waits for the seller's response.
    InFlight,
    /// The outcome of a payment is unknown.
    InDoubt,
    /// It may have been signed before a crash.
    AfterCrash,
    /// A channel may sign it without another record on disk.
    Ready,
}

impl HoldReason {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::InFlight => "in-flight",
            Self::InDoubt => "in-doubt",
            Self::AfterCrash => "after-crash",
            Self::Ready => "ready",
        }
    }

    /// What ends it.
    #[must_use]
    pub fn end(self) -> &'static str {
        match self {
            Self::InFlight => "the seller responds, or limits.pay_timeout passes",
            Self::InDoubt => "the next payment to the seller, or closing the channel, shows what it took",
            Self::AfterCrash => "closing the channel shows what was signed; it counts as spent until then",
            Self::Ready => "at once, if a budget runs short",
        }
    }
}

/// An amount that can be spent on nothing else now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenHold {
    /// Why.
    pub reason: HoldReason,
    /// How much.
    pub held: Money,
    /// For whom.
    pub payee: Address,
    /// The channel; `None` for an authorization.
    pub channel: Option<ChannelId>,
    /// The host, once it is known.
    pub host: Option<HostName>,
    /// The budgets that it counts in.
    pub budgets: Vec<Arc<str>>,
    /// For how long it has been held; of what an earlier run left, since the start.
    pub age: Duration,
    /// When it ends at the latest, if time alone ends it.
    pub free_in: Option<Duration>,
    /// What shows the outcome of an authorization in doubt.
    pub shown_by: Option<ShownBy>,
}

/// What shows the outcome of an authorization in doubt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShownBy {
    /// When it expires, in seconds since 1970.
    pub valid_before: u64,
    /// The chain that knows its outcome, and whether that is asked.
    pub chain: Option<(u64, bool)>,
}
