//! The key that sends allowances, and the journal that has them first.

use std::sync::Arc;
use std::time::Duration;

use ethers_core::types::U256;

use super::handle::Payments;
use crate::chain::{AllowanceRecorder, AllowanceTransaction, NotRecorded, WalletSigner};
use crate::protocol::Address;

impl Payments {
    /// The key; `None` until it is unlocked.
    pub(crate) fn signer(&self) -> Option<Arc<WalletSigner>> {
        self.wallet().map(|wallet| Arc::clone(wallet.signer()))
    }

    /// The most that each allowance of a payer on a network that was signed lately can cost, in wei, and its age.
    ///
    /// # Errors
    /// The journal cannot be read, or the service has stopped.
    pub(crate) async fn allowance_fees(
        &self,
        chain_id: u64,
        payer: Address,
    ) -> Result<Vec<(Duration, U256)>, NotRecorded> {
        let read = self.with_journal(move |journal| journal.allowance_fees(chain_id, payer)).await;
        read.ok_or_else(gone)?.map_err(|error| NotRecorded(error.to_string()))
    }
}

impl AllowanceRecorder for Payments {
    async fn record(&self, transaction: AllowanceTransaction) -> Result<(), NotRecorded> {
        let written = self.with_journal(move |journal| journal.record_allowance(&transaction)).await;
        written.ok_or_else(gone)?.map_err(|error| NotRecorded(error.to_string()))
    }
}

fn gone() -> NotRecorded {
    NotRecorded("tollpass is shutting down".to_owned())
}
