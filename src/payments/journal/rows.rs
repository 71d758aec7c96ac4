//! When the journal writes rows of the ledger.

use std::sync::Arc;

use super::file::Journal;
use super::load::AccountId;
use crate::payments::ledger::{LedgerBounds, LedgerKey, LedgerQueue, LedgerWriter};
use crate::protocol::{Account, Address, Channel, ChannelId, Phase};

impl Journal {
    /// Adds a row to the ledger for each event of `queue`, once the wallet is unlocked.
    pub(in crate::payments) fn keep_ledger(&mut self, queue: Arc<LedgerQueue>, bounds: LedgerBounds) {
        self.ledger = Some(LedgerWriter::new(&self.path, queue, bounds));
    }

    /// The wallet is unlocked: rows can be written.
    pub(in crate::payments) fn unlock_ledger(&mut self, key: LedgerKey, payer: Address) {
        if let Some(ledger) = &mut self.ledger {
            ledger.unlock(key, payer);
        }
        self.flush_ledger();
    }

    /// The account is known, with its channels as they were recorded: what the ledger lacks is added.
    pub(in crate::payments) fn start_ledger(
        &mut self,
        account: &Account,
        id: AccountId,
        channels: &[(ChannelId, Channel)],
    ) {
        let there = channels.iter().filter(|(_, channel)| channel.phase != Phase::Gone);
        let held = there.map(|(id, channel)| (*id, channel.recover().may_be_held())).collect();
        if let Some(ledger) = &mut self.ledger {
            ledger.set_account(account, id.0, held);
        }
        self.flush_ledger();
    }

    /// Writes the rows of settlements, before a write that may make the next start pass over them.
    pub(super) fn flush_settled(&mut self) {
        if self.ledger.as_ref().is_some_and(LedgerWriter::has_settled) {
            self.flush_ledger();
        }
    }

    /// Writes the rows of the events that wait.
    pub(in crate::payments) fn flush_ledger(&mut self) {
        #[cfg(feature = "testing")]
        super::write_hook::call_for_ledger(&self.path);
        if let Some(ledger) = &mut self.ledger {
            ledger.flush(&mut self.connection);
            // Rows are written with less, and an error may have left it so.
            self.is_durable = false;
        }
    }
}
