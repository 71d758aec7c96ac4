//! What a seller's answer says of a payment on a channel.

use crate::protocol::policy::Complaint;
use crate::protocol::{Amount, Refusal};

/// What to do about a 402 that answers a payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Present the same payment again after a pause: it may pass later.
    Again(Complaint),
    /// The seller holds another total than we believed: go on from there, as the policy on invalid amounts allows.
    Correct(Holding),
    /// The seller answers a question, or holds a total that an earlier request signed and whose answer was lost: go on
    /// from there.
    Confirm(Holding),
    /// The seller shows a payment that was first signed for this request as an old one.
    Registered(Amount),
    /// The answer violates the protocol.
    Violation(Violation),
}

/// What the seller says that it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holding {
    /// The total.
    pub total: Amount,
    /// True when our own signature proves it.
    pub proven: bool,
}

/// How an answer violates the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// A total above ours that no signature of ours proves.
    Unproven {
        /// What the seller claims to hold.
        claimed: Amount,
    },
    /// A 402 that does not say what is wrong.
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
