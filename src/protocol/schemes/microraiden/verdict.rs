//! What a 402 says of the payment that was just presented: the money rules of the seller's side of a channel.

use super::{Offer, State, proof};
use crate::protocol::channel::{Channel, ChannelDraft as Draft};
use crate::protocol::policy::Complaint;
use crate::protocol::{Account, Amount, ChannelId, Refusal};

/// What to do about a 402 that answers a payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Present the same payment again after a pause: it may pass later.
    Again(Complaint),
    /// The seller holds another total than we believed: go on from there, as the policy on invalid amounts allows.
    Adopt(Holding),
    /// The seller answers a question, or holds a total that an earlier request signed and whose answer was lost: go on
    /// from there.
    Resolve(Holding),
    /// The seller shows a payment that was first signed for this request as an old one.
    Registered(Amount),
    /// The seller's answer leads nowhere.
    Nowhere(Nowhere),
}

/// What the seller says that it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holding {
    /// The total.
    pub total: Amount,
    /// True when our own signature proves it.
    pub proven: bool,
}

/// Answers that lead nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nowhere {
    /// A total above ours that no signature of ours proves.
    Unproven {
        /// What the seller claims to hold.
        claimed: Amount,
    },
    /// A 402 that does not say what is wrong.
    Silent,
    /// A state of somebody else's channel.
    ForeignState,
}

impl From<Nowhere> for Refusal {
    fn from(nowhere: Nowhere) -> Self {
        match nowhere {
            Nowhere::Unproven { claimed } => Self::UnprovenTotal { claimed },
            Nowhere::Silent => Self::NotAccepted,
            Nowhere::ForeignState => Self::ForeignState,
        }
    }
}

/// Judges a 402 that came in answer to `presented`. `signed` are the totals of this channel that were first
/// signed for the client request in question.
pub fn judge(
    offer: &Offer,
    channel: &Channel,
    presented: &Draft,
    signed: &[Amount],
    account: &Account,
) -> Verdict {
    if let Some(
        complaint @ (Complaint::NonexistingChannel
        | Complaint::InsufficientConfirmations
        | Complaint::InvalidBalanceProof),
    ) = offer.complaint
    {
        return Verdict::Again(complaint);
    }
    let Some(state) = &offer.state else { return Verdict::Nowhere(Nowhere::Silent) };
    if state.sender.is_some_and(|sender| sender != account.payer) {
        return Verdict::Nowhere(Nowhere::ForeignState);
    }
    if lags(offer, presented) {
        return Verdict::Again(Complaint::InsufficientConfirmations);
    }
    let is_answer = channel.is_query(presented.total);
    if state.total <= channel.acknowledged {
        let proven = is_ours(state, presented.channel, account);
        let holding = Holding { total: state.total, proven };
        // Downwards is never a loss: what was signed above stays counted as promised.
        let is_expected = is_answer && state.total == presented.total;
        return if is_expected { Verdict::Resolve(holding) } else { Verdict::Adopt(holding) };
    }
    if !is_ours(state, presented.channel, account) {
        return Verdict::Nowhere(Nowhere::Unproven { claimed: state.total });
    }
    if signed.contains(&state.total) {
        return Verdict::Registered(state.total);
    }
    let holding = Holding { total: state.total, proven: true };
    if is_answer || channel.may_have_sent(state.total) || state.total == presented.total {
        return Verdict::Resolve(holding);
    }
    Verdict::Adopt(holding)
}

/// What a 402 that answers `presented` complains about, in words or by what it shows; `None` when it only shows a total.
pub fn complaint(offer: &Offer, presented: &Draft) -> Option<Complaint> {
    offer.complaint.or_else(|| lags(offer, presented).then_some(Complaint::InsufficientConfirmations))
}

/// Right difference and no complaint: the seller has not seen our last top up yet.
fn lags(offer: &Offer, presented: &Draft) -> bool {
    offer.complaint.is_none()
        && offer.price == presented.price
        && offer.state.as_ref().and_then(|state| state.total.checked_add(presented.price))
            == Some(presented.total)
}

/// True when the seller's total is proven by our own signature.
pub fn is_ours(state: &State, channel: ChannelId, account: &Account) -> bool {
    let Some(signature) = &state.signature else { return false };
    let digest = proof::balance_digest(channel, state.total, account.contract);
    proof::recover(digest, signature) == Some(account.payer)
}
