//! Judges a 402 after a payment was presented, without exceeding what one request may cost.

use super::{ChannelOffer, SellerRecord, proof};
use crate::protocol::channel::{Channel, ChannelDraft};
use crate::protocol::policy::Complaint;
use crate::protocol::schemes::{Holding, Verdict, Violation};
use crate::protocol::{Account, Amount, ChannelId};

/// Judges a 402 in response to `presented`. `signed` are the totals of this channel that were first signed for the same
/// client request.
pub fn judge(
    offer: &ChannelOffer,
    channel: &Channel,
    presented: &ChannelDraft,
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
    let Some(state) = &offer.state else { return Verdict::Violation(Violation::Silent) };
    if state.sender.is_some_and(|sender| sender != account.payer) {
        return Verdict::Violation(Violation::ForeignState);
    }
    if lags(offer, presented) {
        return Verdict::Again(Complaint::InsufficientConfirmations);
    }
    let is_answer = channel.is_query(presented.total);
    if state.total <= channel.acknowledged {
        let proven = is_ours(state, presented.channel, account);
        let holding = Holding { total: state.total, proven };
        // A lower total is never a loss: what was signed above it stays counted as promised.
        let is_expected = is_answer && state.total == presented.total;
        return if is_expected { Verdict::Confirm(holding) } else { Verdict::Correct(holding) };
    }
    if !is_ours(state, presented.channel, account) {
        return Verdict::Violation(Violation::Unproven { claimed: state.total });
    }
    if signed.contains(&state.total) {
        return Verdict::Registered(state.total);
    }
    let holding = Holding { total: state.total, proven: true };
    if is_answer || channel.may_have_sent(state.total) || state.total == presented.total {
        return Verdict::Confirm(holding);
    }
    Verdict::Correct(holding)
}

/// The complaint of a 402 about `presented`, explicit or implied by its state; `None` if it only contains a total.
pub fn complaint(offer: &ChannelOffer, presented: &ChannelDraft) -> Option<Complaint> {
    offer.complaint.or_else(|| lags(offer, presented).then_some(Complaint::InsufficientConfirmations))
}

/// Right difference and no complaint: the seller has not seen our last top-up yet.
fn lags(offer: &ChannelOffer, presented: &ChannelDraft) -> bool {
    offer.complaint.is_none()
        && offer.price == presented.price
        && offer.state.as_ref().and_then(|state| state.total.checked_add(presented.price))
            == Some(presented.total)
}

/// Whether our own signature proves the seller's total.
pub fn is_ours(state: &SellerRecord, channel: ChannelId, account: &Account) -> bool {
    let Some(signature) = &state.signature else { return false };
    let digest = proof::balance_digest(channel, state.total, account.contract);
    proof::recover(digest, signature) == Some(account.payer)
}
