//! Switches that make the seller misbehave as real ones do: slow, forgetful, restored from a backup, broke.

use super::Origin;
use crate::protocol::{Address, Amount};

/// When the connection of a payment is cut instead of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lose {
    /// Before the payment is looked at: nothing is registered.
    BeforeRegistering,
    /// After it was judged, and registered if it was right.
    AfterRegistering,
}

/// How the switches stand.
pub(super) struct Faults {
    pub(super) lose_next: Option<Lose>,
    pub(super) notices: bool,
    pub(super) out_of_gas_money: bool,
}

impl Default for Faults {
    fn default() -> Self {
        Self { lose_next: None, notices: true, out_of_gas_money: false }
    }
}

impl Origin {
    /// Cuts the connection of the next request that carries a payment, once.
    pub fn lose_next_answer(&self, when: Lose) {
        self.shared.faults().lose_next = Some(when);
    }

    /// Holds back the answers to all requests that carry a payment, after it was registered.
    pub fn hold_answers(&self) {
        self.shared.held.send_replace(true);
    }

    /// Lets the held answers go.
    pub fn release(&self) {
        self.shared.held.send_replace(false);
    }

    /// Stops looking at the chain.
    pub fn stop_noticing(&self) {
        self.shared.faults().notices = false;
    }

    /// Looks at the chain again, from the next poll on.
    pub fn resume_noticing(&self) {
        self.shared.faults().notices = true;
    }

    /// Without money for gas the seller answers every request for a resource with 502 and takes no payment.
    pub fn set_out_of_gas_money(&self, out: bool) {
        self.shared.faults().out_of_gas_money = out;
    }

    /// Puts back an older state of a channel, as a seller restored from a backup has it. The signature is the
    /// payer's for that total; `None` where nothing had been paid. Returns false for an unknown channel.
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
