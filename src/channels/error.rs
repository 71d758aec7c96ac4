//! Why an operation on channels failed.

use super::seller::SellerError;
use crate::chain::signer::NotSigned;
use crate::chain::{ChainError, OpError};
use crate::payments::ChannelAccessError;
use crate::protocol::{Amount, ChannelId};

/// Why an operation on a channel failed.
#[derive(Debug, thiserror::Error)]
pub enum OperationError {
    /// The channel cannot be worked on now, or the transaction came to nothing.
    #[error(transparent)]
    Access(#[from] ChannelAccessError),
    /// The node cannot be read.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The transaction would fail.
    #[error(transparent)]
    ChannelOp(#[from] OpError),
    /// The contract no longer has the channel.
    #[error("the contract has no channel {0}: it is settled")]
    Settled(ChannelId),
    /// The URL of the seller is unknown.
    #[error("the URL of the seller of {0} is unknown: give the URL of its REST interface with --seller")]
    NoSeller(ChannelId),
    /// The seller did not cooperate.
    #[error(
        "{0}. Try again, or close without the seller: `tollpass channels close --unilateral`, and after the challenge \
         period `tollpass channels settle`"
    )]
    Seller(#[from] SellerError),
    /// The seller did not sign, and the policy says to stop there.
    #[error(
        "{0}; no further channel of this seller is closed (hooks.cooperative_close_denied). To close without the \
         seller, run `tollpass channels close --unilateral`"
    )]
    Denied(String),
    /// The seller claims a total that we did not sign.
    #[error("the seller claims to hold {0}, which no signature of ours proves")]
    Unproven(Amount),
    /// The closing signature is not the receiver's.
    #[error("the seller's closing signature is not the receiver's: nothing was sent")]
    ForeignSignature,
    /// What was promised is in doubt.
    #[error(
        "it is not known what was signed on this channel: at least {least}, at most {most} (after a crash, or because the \
         journal does not have the channel). Close together with the seller, or give the total with --total, and \
         --below-promised if it is below {most}"
    )]
    InDoubt {
        /// The least that was signed.
        least: Amount,
        /// The most that may have been signed.
        most: Amount,
    },
    /// Closing on less than was promised is an attempt to cheat, which the seller will dispute.
    #[error(
        "{total} is less than the {promised} that were promised, or may have been: the seller can dispute it; add \
         --below-promised if you mean it"
    )]
    BelowPromised {
        /// The total that was asked for.
        total: Amount,
        /// What was promised, or may have been.
        promised: Amount,
    },
    /// The receiver has withdrawn more: the channel would be locked for good.
    #[error(
        "the receiver has withdrawn {withdrawn} already: closing alone on {total} would lock the deposit for good"
    )]
    LockUp {
        /// The total that was asked for.
        total: Amount,
        /// What the receiver has withdrawn.
        withdrawn: Amount,
    },
    /// Signing failed.
    #[error(transparent)]
    NotSigned(#[from] NotSigned),
}
