//! The requests that the admin socket accepts.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use http::StatusCode;
use serde::{Deserialize, Serialize};

use crate::payments::{SpendingReport, UnsupportedOffers};

/// The status of a running proxy.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// The address for clients.
    pub listen: SocketAddr,
    /// Whether clients must speak TLS to it.
    #[serde(default)]
    pub is_tls: bool,
    /// The certificate that it then shows, PEM.
    #[serde(default)]
    pub certificate: Option<PathBuf>,
    /// Whether it has no wallet, so that it never pays.
    #[serde(default)]
    pub never_pays: bool,
    /// The CA that it signs with for the hosts that it intercepts; `None` if it intercepts none.
    #[serde(default)]
    pub ca: Option<CaLocation>,
    /// What it has paid so far.
    pub bill: SpendingReport,
    /// Whether nothing is signed (`tollpass freeze`).
    #[serde(default)]
    pub is_frozen: bool,
    /// What keeps it from paying what its entries allow, as `/ready` says it.
    #[serde(default)]
    pub obstacles: Vec<NamedObstacle>,
    /// The offers that could not be paid since the start.
    #[serde(default)]
    pub unsupported: Vec<UnsupportedOffers>,
}

/// What keeps a proxy from paying.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NamedObstacle {
    /// Its name, such as `node-unavailable`.
    pub name: String,
    /// What it means, for people.
    pub details: String,
}

/// The files of a CA.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CaLocation {
    /// Its certificate, PEM.
    pub certificate: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
}

impl CaLocation {
    /// Whether tollpass has created it in this state directory.
    #[must_use]
    pub fn is_in(&self, state_dir: &Path) -> bool {
        self.certificate.parent() == Some(state_dir)
    }
}

/// A link to the dashboard, which can be opened once. It has a secret: print it only for those who asked.
#[derive(Clone, Serialize, Deserialize)]
pub struct DashboardLink {
    /// The whole link.
    pub url: String,
    /// For how many seconds it can be opened.
    pub valid_for_s: u64,
}

/// A decision of the operator about a payment that waits for approval.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct OperatorDecision {
    /// The ID of the approval.
    pub(super) id: u64,
    pub(super) is_approved: bool,
    /// Also approves further payments like it for this time, in seconds.
    pub(super) always_for: Option<u64>,
}

/// Names a standing approval.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct StandingId {
    pub(super) id: u64,
}

/// What a run may spend.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct RunRequest {
    /// The most, written as in a `[[budget]]`.
    pub budget: Option<String>,
    /// For how long, in milliseconds.
    pub lasts_ms: Option<u64>,
    /// Whether its requests reach only what those of other machines do.
    #[serde(default)]
    pub is_confined: bool,
    /// The run that the process has been started in.
    pub within: Option<RunName>,
}

/// A run that was opened.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct RunOpened {
    /// What its programs call it.
    pub name: RunName,
    /// The address of its port.
    pub listen: SocketAddr,
}

/// What the proxy has taken over from its configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadReport {
    /// The keys that have changed, and apply; of a list of tables, its name.
    pub changed: Vec<String>,
    /// The keys that have changed, and need a restart.
    pub needs_restart: Vec<String>,
    /// What is valid but probably a mistake, unless it was reported before.
    pub warnings: Vec<String>,
}

/// Names a run, also after the proxy was restarted: the next one has a run of the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunName {
    /// Its number at the proxy.
    pub number: u64,
    /// The proxy: a random number.
    pub proxy: u64,
}

/// A text that is not the name of a run.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("not the name of a run, such as 1-0123456789abcdef")]
pub struct NotARunName;

impl fmt::Display for RunName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}-{:016x}", self.number, self.proxy)
    }
}

impl FromStr for RunName {
    type Err = NotARunName;

    fn from_str(text: &str) -> Result<Self, NotARunName> {
        let (number, proxy) = text.split_once('-').ok_or(NotARunName)?;
        let number = number.parse().map_err(|_| NotARunName)?;
        let proxy = u64::from_str_radix(proxy, 16).map_err(|_| NotARunName)?;
        Ok(Self { number, proxy })
    }
}

/// Returns the payments that wait for approval.
pub(super) const PENDING: &str = "/pending";
/// Approves or denies one of them.
pub(super) const DECIDE: &str = "/decide";
/// Returns the standing approvals.
pub(super) const APPROVALS: &str = "/approvals";
/// Revokes a standing approval.
pub(super) const REVOKE: &str = "/revoke";
/// Returns the list of channels.
pub(super) const CHANNELS: &str = "/channels";
/// Returns what budgets have spent.
pub(super) const BUDGETS: &str = "/budgets";
/// Returns what is held for payments without a certain outcome.
pub(super) const HOLDS: &str = "/holds";
/// Ends or allows signing: `true` or `false`.
pub(super) const FREEZE: &str = "/freeze";
/// Returns the paused hosts.
pub(super) const PAUSED: &str = "/paused";
/// Ends the pause of a host.
pub(super) const RESUME: &str = "/resume";
/// Reads the configuration again.
pub(super) const RELOAD: &str = "/reload";
/// Returns what an operation would do.
pub(super) const PLAN: &str = "/plan";
/// Performs an operation.
pub(super) const OPERATE: &str = "/operate";
/// Returns a link to the dashboard.
pub(super) const DASHBOARD: &str = "/dashboard";
/// Returns an allowance.
pub(super) const ALLOWANCE: &str = "/allowance";
/// Returns what it takes to set one.
pub(super) const PLAN_ALLOWANCE: &str = "/allowance/plan";
/// Sets one.
pub(super) const SET_ALLOWANCE: &str = "/allowance/set";
/// The status if a seller did not sign that a channel be closed, and the policy says to stop there.
pub(super) const DENIED: StatusCode = StatusCode::FAILED_DEPENDENCY;
/// Returns the proxy's address and what it has paid.
pub(super) const STATUS: &str = "/about";
/// Opens a port for a run, and stays open while the proxy runs; the port closes with the connection.
pub(super) const RUN: &str = "/run";
/// Returns what was paid for a run so far.
pub(super) const RUN_REPORT: &str = "/run/report";
/// Pays nothing more for a run, and returns the same, once no payment for it is in flight.
pub(super) const RUN_END: &str = "/run/end";
/// The largest request body, in bytes.
pub(super) const MAX_REQUEST: usize = 64 << 10;
