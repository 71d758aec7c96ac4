//! The seller's ledger: the known channels, the payments registered on each, and the verdict on each payment.
//!
//! Pure: no sockets, no node. Checks are made in the order of the original server, which decides the complaint that a
//! payer gets.

use std::collections::{BTreeMap, BTreeSet};

use revm::primitives::hex;

use super::proofs::Notary;
use crate::protocol::{Address, Amount};

/// The sender and the opening block of a channel; the receiver is always this seller.
pub(super) type ChannelKey = (Address, u32);

/// A payment as presented, not yet checked.
pub(super) struct Payment {
    pub(super) sender: Option<Address>,
    pub(super) open_block: Option<u32>,
    pub(super) total: Total,
    pub(super) signature: String,
}

/// The total of a payment.
pub(super) enum Total {
    Missing,
    /// Above 2^192 - 1.
    TooLarge,
    Of(Amount),
}

/// The result of checking a payment.
pub(super) enum SellerVerdict {
    /// Registered. Contains the state *before* this payment.
    Paid(ChannelState),
    /// The last proof again, or a total that the known deposit does not cover: state without a complaint.
    NotNow(ChannelState),
    InvalidAmount(ChannelState),
    NonexistingChannel,
    InsufficientConfirmations,
    InvalidBalanceProof,
    /// An error of the original server: 500 with this text.
    Unreadable(&'static str),
}

/// The channel state that the seller reveals to a client with a proof.
pub(super) struct ChannelState {
    pub(super) sender: Address,
    pub(super) balance: Amount,
    pub(super) signature: Option<[u8; 65]>,
}

/// A channel with enough confirmations, including ended ones.
#[derive(Default)]
pub(super) struct SellerChannel {
    pub(super) deposit: Amount,
    pub(super) balance: Amount,
    pub(super) last_signature: Option<[u8; 65]>,
    pub(super) withdrawn: Amount,
    pub(super) phase: SellerPhase,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum SellerPhase {
    #[default]
    Open,
    /// The payer requested a close, or the seller gave out its closing signature.
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
    pub(super) channels: BTreeMap<ChannelKey, SellerChannel>,
    /// Mined, but without enough confirmations. Rebuilt with each poll.
    pub(super) unconfirmed: BTreeMap<ChannelKey, Amount>,
    /// Channels with a top-up that is mined but not yet confirmed. Rebuilt with each poll.
    pub(super) topping_up: BTreeSet<ChannelKey>,
    pub(super) payments: u64,
}

impl Ledger {
    /// Checks a payment against the current price and registers it if it is valid.
    pub(super) fn present(&mut self, payment: &Payment, price: Amount, notary: &Notary) -> SellerVerdict {
        let (Some(sender), Some(open_block)) = (payment.sender, payment.open_block) else {
            return SellerVerdict::NonexistingChannel;
        };
        if self.unconfirmed.contains_key(&(sender, open_block)) {
            return SellerVerdict::InsufficientConfirmations;
        }
        let Some(channel) = self.channels.get_mut(&(sender, open_block)) else {
            return SellerVerdict::NonexistingChannel;
        };
        if channel.phase != SellerPhase::Open {
            return SellerVerdict::NonexistingChannel;
        }
        let total = match payment.total {
            Total::Of(total) => total,
            Total::Missing => return SellerVerdict::Unreadable("the payment names no total"),
            Total::TooLarge => return SellerVerdict::Unreadable("the total does not fit into 192 bits"),
        };
        let Some(signature) = signature(&payment.signature) else {
            return SellerVerdict::Unreadable("the signature is not 65 bytes in hexadecimal");
        };
        if notary.payer(open_block, total, &signature) != Some(sender) {
            return SellerVerdict::InvalidBalanceProof;
        }
        let state = ChannelState { sender, balance: channel.balance, signature: channel.last_signature };
        if total == channel.balance {
            return SellerVerdict::NotNow(state);
        }
        if channel.balance.checked_add(price) != Some(total) {
            return SellerVerdict::InvalidAmount(state);
        }
        if total > channel.deposit {
            return SellerVerdict::NotNow(state);
        }
        channel.balance = total;
        channel.last_signature = Some(signature);
        self.payments += 1;
        SellerVerdict::Paid(state)
    }

    /// Agrees to close a channel on `total`; no payment on it is accepted from then on.
    pub(super) fn close(
        &mut self,
        key: ChannelKey,
        total: Amount,
        notary: &Notary,
    ) -> Result<[u8; 65], NotClosed> {
        let channel = self.channels.get_mut(&key).ok_or(NotClosed::Unknown)?;
        match channel.phase {
            SellerPhase::Open => {}
            SellerPhase::Closing => return Err(NotClosed::AlreadyClosing),
            SellerPhase::Settled => return Err(NotClosed::Unknown),
        }
        if channel.balance != total {
            return Err(NotClosed::WrongTotal);
        }
        if channel.last_signature.is_none() {
            return Err(NotClosed::NeverPaid);
        }
        channel.phase = SellerPhase::Closing;
        Ok(notary.consent(key.0, key.1, total))
    }

    /// Adds a channel whose opening has enough confirmations.
    pub(super) fn opened(&mut self, key: ChannelKey, deposit: Amount) {
        self.channels.insert(key, SellerChannel { deposit, ..SellerChannel::default() });
    }

    /// Adds a top-up that has enough confirmations.
    pub(super) fn topped_up(&mut self, key: ChannelKey, added: Amount) {
        if let Some(channel) = self.channels.get_mut(&key) {
            channel.deposit = channel.deposit.saturating_add(added);
        }
    }

    /// Stops accepting payments on a channel that is closing or closed.
    pub(super) fn ends(&mut self, key: ChannelKey, phase: SellerPhase) {
        // A settled channel does not return to closing.
        if let Some(channel) =
            self.channels.get_mut(&key).filter(|channel| channel.phase != SellerPhase::Settled)
        {
            channel.phase = phase;
        }
    }

    /// Adds a withdrawal of the seller.
    pub(super) fn withdrew(&mut self, key: ChannelKey, amount: Amount) {
        if let Some(channel) = self.channels.get_mut(&key) {
            channel.withdrawn = channel.withdrawn.saturating_add(amount);
        }
    }
}

/// Parses 130 hexadecimal digits, with or without `0x`.
fn signature(text: &str) -> Option<[u8; 65]> {
    hex::decode_to_array(text).ok()
}
