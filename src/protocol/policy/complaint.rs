//! The complaints of sellers about payments.

use std::fmt;

/// A seller's complaint about a payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Complaint {
    /// The channel does not have enough confirmations for the seller.
    InsufficientConfirmations,
    /// The total is not the last one plus the price.
    InvalidAmount,
    /// The signature does not recover to the sender.
    InvalidBalanceProof,
    /// The seller does not know the channel.
    NonexistingChannel,
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InsufficientConfirmations => "the seller requires more confirmations of the channel",
            Self::InvalidAmount => "the seller holds another total",
            Self::InvalidBalanceProof => "the seller does not accept the signature",
            Self::NonexistingChannel => "the seller does not know the channel",
        })
    }
}

impl Complaint {
    /// The key below `[hooks]` for this complaint.
    pub fn hook(self) -> &'static str {
        match self {
            Self::InsufficientConfirmations => "insufficient_confirmations",
            Self::InvalidAmount => "invalid_amount",
            Self::InvalidBalanceProof => "invalid_balance_proof",
            Self::NonexistingChannel => "nonexisting_channel",
        }
    }
}
