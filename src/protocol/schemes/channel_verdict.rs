//! The verdict on a channel payment.

use crate::protocol::policy::Complaint;
use crate::protocol::{Amount, Refusal};

/// What to do about a 402 in response to a payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Present the same payment again after a pause: it may be accepted later.
    Again(Complaint),
    /// The seller holds a different total: continue from there, as the policy on invalid amounts allows.
    Correct(Holding),
    /// The seller answers a query, or holds a total that an earlier request signed and whose response was lost:
    /// continue from there.
    Confirm(Holding),
    /// The seller claims that a payment first signed for this request is an old one.
    Registered(Amount),
    /// The response violates the protocol.
    Violation(Violation),
}

/// The total that the seller claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holding {
    /// The total.
    pub total: Amount,
    /// Whether our own signature proves it.
    pub proven: bool,
}

/// How a response violates the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// A total above ours without our signature.
    Unproven {
        /// The claimed total.
        claimed: Amount,
    },
    /// A 402 without a reason.
    Silent,
    /// The state of another payer's channel.
    ForeignState,
}

impl From<Violation> for Refusal {
    fn from(violation: Violation) -> Self {
        match violation {
            Violation::Unproven { claimed } => Self::UnprovenTotal { claimed },
            Violation::Silent => Self::NotAccepted,
            Violation::ForeignState => Self::ForeignState,
        }
    }
}
