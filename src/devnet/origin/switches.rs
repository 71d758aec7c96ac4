//! Switches that make the seller misbehave like real ones: slow, forgetful, restored from a backup, out of gas money.

use super::faults::Lose;
use super::seller::Origin;
use crate::protocol::{Address, Amount};

impl Origin {
    /// Cuts the connection of the next request that carries a payment, once.
    pub fn lose_next_answer(&self, when: Lose) {
        self.shared.faults().lose_next = Some(when);
    }

    /// Delays the responses to all requests that carry a payment, after it was registered.
    pub fn hold_answers(&self) {
        self.shared.held.send_replace(true);
    }

    /// Releases the delayed responses.
    pub fn release(&self) {
        self.shared.held.send_replace(false);
    }

    /// Stops watching the chain.
    pub fn stop_noticing(&self) {
        self.shared.faults().notices = false;
    }

    /// Resumes watching the chain with the next poll.
    pub fn resume_noticing(&self) {
        self.shared.faults().notices = true;
    }

    /// Without gas money, the seller responds to every request for a resource with 502 and accepts no payment.
    pub fn set_out_of_gas_money(&self, out: bool) {
        self.shared.faults().out_of_gas_money = out;
    }

    /// Restores an older state of a channel, like a seller restored from a backup. The signature is the payer's for
    /// that total; `None` if nothing had been paid. Returns false for an unknown channel.
    pub fn restore(
        &self,
        sender: Address,
        open_block: u32,
        total: Amount,
        signature: Option<[u8; 65]>,
    ) -> bool {
        self.shared.with_ledger(|ledger| match ledger.channels.get_mut(&(sender, open_block)) {
            Some(channel) => {
                (channel.balance, channel.last_signature) = (total, signature);
                true
            }
            None => false,
        })
    }
}
