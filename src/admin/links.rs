//! Links to the dashboard, which the proxy's own port serves.

use std::fmt;

use super::endpoints::DashboardLink;

/// Makes links to the dashboard.
pub trait LinkIssuer: fmt::Debug + Send + Sync {
    /// A new link.
    fn issue(&self) -> DashboardLink;
}
