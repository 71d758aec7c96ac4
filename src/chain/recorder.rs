//! The port to the journal of signed transactions.

use crate::chain::error::NotRecorded;
use crate::protocol::Intent;

/// Stores intents durably.
pub trait TransactionRecorder: Send + Sync {
    /// Stores `intent` so that it survives a crash. Its transaction is sent only after this returns `Ok`.
    ///
    /// # Errors
    /// [`NotRecorded`] if the write failed; the transaction is not sent.
    fn record(&self, intent: Intent) -> impl Future<Output = Result<(), NotRecorded>> + Send;
}
