//! Requests that the proxy read its configuration again, from the command line or by a signal.

use tokio::sync::{mpsc, oneshot};

use super::endpoints::ReloadReport;

/// How many requests may wait: further ones by a signal would do the same.
const MAX_ORDERS: usize = 16;

/// Asks a proxy to read its configuration again; cheap to clone.
#[derive(Clone, Debug)]
pub struct Reloads(mpsc::Sender<ReloadOrder>);

/// A request.
#[derive(Debug)]
pub struct ReloadOrder {
    /// Receives the result; absent if it is only logged.
    pub reply: Option<oneshot::Sender<Result<ReloadReport, ReloadRefused>>>,
}

/// Why the configuration is not read again, or not applied. Nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum ReloadRefused {
    /// It is invalid.
    #[error("nothing has changed: {0}")]
    Invalid(String),
    /// The proxy belongs to another command.
    #[error(
        "the running proxy belongs to a `tollpass run` or `tollpass demo`, which reads its configuration at the start only; \
         run `tollpass serve`"
    )]
    NotServed,
    /// The proxy is shutting down.
    #[error("the running tollpass is shutting down")]
    Stopping,
}

impl Reloads {
    /// The proxy handles the orders one after the other.
    #[must_use]
    pub fn new() -> (Self, mpsc::Receiver<ReloadOrder>) {
        let (orders, received) = mpsc::channel(MAX_ORDERS);
        (Self(orders), received)
    }

    /// Waits until the configuration was read again.
    ///
    /// # Errors
    /// [`ReloadRefused`].
    pub async fn reload(&self) -> Result<ReloadReport, ReloadRefused> {
        let (reply, done) = oneshot::channel();
        let order = ReloadOrder { reply: Some(reply) };
        self.0.send(order).await.map_err(|_| ReloadRefused::Stopping)?;
        done.await.map_err(|_| ReloadRefused::Stopping)?
    }

    /// Has the configuration read again; the log says what came of it.
    pub fn request(&self) {
        // If so many wait, one of them reads what is there now.
        let _ = self.0.try_send(ReloadOrder { reply: None });
    }
}
