//! Errors of channel operations.

use super::seller::SellerError;
use crate::chain::signer::NotSigned;
use crate::chain::{AllowanceError, ChainError, NotRecorded, OpError};
use crate::payments::ChannelAccessError;
use crate::protocol::{Amount, ChannelId};

/// Why an operation on channels failed.
#[derive(Debug, thiserror::Error)]
pub enum OperationError {
    /// The channel cannot be used now, or the transaction failed.
    #[error(transparent)]
    Access(#[from] ChannelAccessError),
    /// The node cannot be read.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The operation cannot be executed, or its outcome is unknown.
    #[error(transparent)]
    ChannelOp(#[from] OpError),
    /// The allowance was not set, or may not have been.
    #[error(transparent)]
    Allowance(#[from] AllowanceError),
    /// The journal cannot be read or written.
    #[error(transparent)]
    NotRecorded(#[from] NotRecorded),
    /// No node of the network is known.
    #[error(
        "no node of eip155:{0} is configured: add a [[network]] with id = \"eip155:{0}\" and its rpc_url"
    )]
    NoNetwork(u64),
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
    /// The seller claims a total for which there is no signature of ours.
    #[error("the seller claims to hold {0}, but has no signature of ours for it")]
    Unproven(Amount),
    /// The closing signature is not from the receiver.
    #[error("the seller's closing signature is not from the receiver's key: nothing was sent")]
    ForeignSignature,
    /// It is unknown what was promised.
    #[error(
        "it is unknown what was signed on this channel: at least {least}, at most {most} (after a crash, or because the \
         journal does not have the channel). Close together with the seller, or give the total with --total, and \
         --below-promised if it is below {most}"
    )]
    InDoubt {
        /// The least that was signed.
        least: Amount,
        /// The most that may have been signed.
        most: Amount,
    },
    /// A unilateral close on less than was promised is an attempt to cheat, which the seller can dispute.
    #[error(
        "{total} is less than {promised}, which was or may have been promised: the seller can dispute it; add \
         --below-promised to proceed anyway"
    )]
    BelowPromised {
        /// The requested total.
        total: Amount,
        /// What was promised, or may have been.
        promised: Amount,
    },
    /// The receiver has withdrawn more, so closing on this total would lock the deposit permanently.
    #[error(
        "the receiver has already withdrawn {withdrawn}: a unilateral close at {total} would lock the deposit permanently"
    )]
    LockUp {
        /// The requested total.
        total: Amount,
        /// What the receiver has withdrawn.
        withdrawn: Amount,
    },
    /// Signing failed.
    #[error(transparent)]
    NotSigned(#[from] NotSigned),
}
