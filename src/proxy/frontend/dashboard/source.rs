//! What the dashboard shows and changes, which the proxy itself does not know.

use futures_util::future::BoxFuture;
use serde_json::Value;

/// Knows what the dashboard shows, and does what its user wants.
pub trait DashboardSource: Send + Sync {
    /// What the page shows under this name; `query` narrows it down.
    fn read(&self, name: &str, query: &str) -> BoxFuture<'static, Result<Value, DashboardError>>;

    /// Does what the user wants under this name.
    fn change(&self, name: &str, wanted: Value) -> BoxFuture<'static, Result<Value, DashboardError>>;

    /// News for one page, from now on.
    fn news(&self) -> Box<dyn DashboardNews>;
}

/// The news for one page.
pub trait DashboardNews: Send {
    /// Waits for news; empty after a while without any.
    fn next(&mut self) -> BoxFuture<'_, Vec<NewsItem>>;
}

/// Something that has changed.
#[derive(Clone, Debug, PartialEq)]
pub struct NewsItem {
    /// What it is about: lower-case letters.
    pub name: &'static str,
    /// What it is now.
    pub data: Value,
}

/// Why something is not shown or done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DashboardError {
    /// There is nothing under this name.
    #[error("the dashboard has no such part")]
    Unknown,
    /// It was not asked for as it has to be.
    #[error("{0}")]
    Invalid(String),
    /// It was tried, and failed.
    #[error("{0}")]
    Failed(String),
}
