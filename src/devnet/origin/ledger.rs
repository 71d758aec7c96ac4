//! The seller's book: which channels it knows, what was registered on each, and its verdict on each payment.
//!
//! Values in, values out: it never touches a socket or the node. The order of its checks is the order in which
//! the original server looks, and decides which complaint a payer sees.

use std::collections::{BTreeMap, BTreeSet};

use revm::primitives::hex;

use super::proofs::Notary;
use crate::protocol::{Address, Amount};

/// Whose channel, and the block that opened it; the receiver is always this seller.
pub(super) type Key = (Address, u32);

/// A payment as it was presented, before anything of it is believed.
pub(super) struct Payment {
    pub(super) sender: Option<Address>,
    pub(super) open_block: Option<u32>,
    pub(super) total: Total,
    pub(super) signature: String,
}

/// The total that a payment names.
pub(super) enum Total {
    Missing,
    /// Above 2^192 - 1.
    TooLarge,
    Of(Amount),
}

/// What becomes of a payment.
pub(super) enum Verdict {
    /// Registered. The state is the one *before* this payment.
    Paid(State),
    /// The last proof again, or a total that the known deposit does not cover: state, no complaint.
    NotNow(State),
    InvalidAmount(State),
    NonexistingChannel,
    InsufficientConfirmations,
    InvalidBalanceProof,
    /// Where the original server fails: 500 with this text.
    Unreadable(&'static str),
}

/// What the seller shows of a channel to somebody who holds a proof of it.
pub(super) struct State {
    pub(super) sender: Address,
    pub(super) balance: Amount,
    pub(super) signature: Option<[u8; 65]>,
}

/// A channel that has enough confirmations, also after its end.
#[derive(Default)]
pub(super) struct Channel {
    pub(super) deposit: Amount,
    pub(super) balance: Amount,
    pub(super) last_signature: Option<[u8; 65]>,
    pub(super) withdrawn: Amount,
    pub(super) phase: Phase,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Phase {
    #[default]
    Open,
    /// The payer asked the contract to close it, or the seller handed out its closing signature.
    Closing,
    Settled,
}

/// Why a closing signature is refused.
pub(super) enum NotClosed {
    Unknown,
    AlreadyClosing,
    WrongTotal,
    NeverPaid,
}

#[derive(Default)]
pub(super) struct Ledger {
    pub(super) channels: BTreeMap<Key, Channel>,
    /// Mined, but not deep enough. Known anew with each look at the chain.
    pub(super) unconfirmed: BTreeMap<Key, Amount>,
    /// Channels with a mined, but not yet counted, top up. Known anew with each look at the chain.
    pub(super) topping_up: BTreeSet<Key>,
    pub(super) payments: u64,
}

impl Ledger {
    /// Judges a payment at the current price and registers it if it is right.
    pub(super) fn present(&mut self, payment: &Payment, price: Amount, notary: &Notary) -> Verdict {
        let (Some(sender), Some(open_block)) = (payment.sender, payment.open_block) else {
            return Verdict::NonexistingChannel;
        };
        if self.unconfirmed.contains_key(&(sender, open_block)) {
            return Verdict::InsufficientConfirmations;
        }
        let Some(channel) = self.channels.get_mut(&(sender, open_block)) else {
            return Verdict::NonexistingChannel;
        };
        if channel.phase != Phase::Open {
            return Verdict::NonexistingChannel;
        }
        let total = match payment.total {
            Total::Of(total) => total,
            Total::Missing => return Verdict::Unreadable("the payment names no total"),
            Total::TooLarge => return Verdict::Unreadable("the total does not fit into 192 bits"),
        };
        let Some(signature) = signature(&payment.signature) else {
            return Verdict::Unreadable("the signature is not 65 bytes in hexadecimal digits");
        };
        if notary.payer(open_block, total, &signature) != Some(sender) {
            return Verdict::InvalidBalanceProof;
        }
        let state = State { sender, balance: channel.balance, signature: channel.last_signature };
        if total == channel.balance {
            return Verdict::NotNow(state);
        }
        if channel.balance.checked_add(price) != Some(total) {
            return Verdict::InvalidAmount(state);
        }
        if total > channel.deposit {
            return Verdict::NotNow(state);
        }
        channel.balance = total;
        channel.last_signature = Some(signature);
        self.payments += 1;
        Verdict::Paid(state)
    }

    /// Agrees to close a channel on `total`; from then on no payment on it is taken.
    pub(super) fn close(&mut self, key: Key, total: Amount, notary: &Notary) -> Result<[u8; 65], NotClosed> {
        let channel = self.channels.get_mut(&key).ok_or(NotClosed::Unknown)?;
        match channel.phase {
            Phase::Open => {}
            Phase::Closing => return Err(NotClosed::AlreadyClosing),
            Phase::Settled => return Err(NotClosed::Unknown),
        }
        if channel.balance != total {
            return Err(NotClosed::WrongTotal);
        }
        if channel.last_signature.is_none() {
            return Err(NotClosed::NeverPaid);
        }
        channel.phase = Phase::Closing;
        Ok(notary.consent(key.0, key.1, total))
    }

    /// Counts an opening that has enough confirmations.
    pub(super) fn opened(&mut self, key: Key, deposit: Amount) {
        self.channels.insert(key, Channel { deposit, ..Channel::default() });
    }

    /// Counts a top up that has enough confirmations.
    pub(super) fn topped_up(&mut self, key: Key, added: Amount) {
        if let Some(channel) = self.channels.get_mut(&key) {
            channel.deposit = channel.deposit.saturating_add(added);
        }
    }

    /// Stops taking payments on a channel: its end was asked for, or has come.
    pub(super) fn ends(&mut self, key: Key, phase: Phase) {
        // A channel settled is never closing again.
        if let Some(channel) = self.channels.get_mut(&key).filter(|channel| channel.phase != Phase::Settled) {
            channel.phase = phase;
        }
    }

    /// Counts what the seller took out.
    pub(super) fn withdrew(&mut self, key: Key, amount: Amount) {
        if let Some(channel) = self.channels.get_mut(&key) {
            channel.withdrawn = channel.withdrawn.saturating_add(amount);
        }
    }
}

/// Reads 130 hexadecimal digits, with or without `0x`.
fn signature(text: &str) -> Option<[u8; 65]> {
    hex::decode_to_array(text).ok()
}
