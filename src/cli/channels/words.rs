//! Sentences about operations on channels: plans and results.

use serde_json::{Value, json};

use crate::channels::{ClosingTotal, OperationReport, PlannedAction};

/// Describes what an operation will do.
pub(super) fn plan(action: &PlannedAction) -> String {
    match action {
        PlannedAction::Open { receiver, deposit } => {
            format!("open a channel to {receiver} and lock up {deposit}")
        }
        PlannedAction::TopUp { channel, added } => format!("lock up {added} more in {channel}"),
        PlannedAction::CloseUnused { channel, deposit } => format!(
            "nothing was ever paid on {channel}: request a unilateral close at 0; after the challenge period it can be \
             settled, which returns all of {deposit}"
        ),
        PlannedAction::CloseTogether { channel, deposit, total } => {
            let ask = format!("ask the seller for its closing signature and close {channel} immediately at");
            match total {
                ClosingTotal::Exactly(total) => {
                    let rest = deposit.saturating_sub(*total);
                    format!("{ask} {total}, which returns {rest} of the deposit of {deposit}")
                }
                ClosingTotal::AtMost(most) => format!(
                    "{ask} the total that the seller can prove, at most {most}, which returns the rest of {deposit}"
                ),
            }
        }
        PlannedAction::CloseAlone { channel, deposit, total } => format!(
            "request a unilateral close of {channel} at {total} of {deposit}; the seller may dispute it until the \
             challenge period is over, then it can be settled"
        ),
        PlannedAction::Settle { channel } => {
            format!("settle {channel}, which returns the rest of the deposit")
        }
        PlannedAction::Sync => "read all channels from the chain again".to_owned(),
    }
}

/// Describes what an operation did.
pub(super) fn report(report: &OperationReport) -> String {
    match report {
        OperationReport::Synced { channels, head } => format!("read {channels} channels up to block {head}"),
        OperationReport::Ended(channel) => format!("{channel} is closed and paid out"),
        OperationReport::Closing { channel, settle_block } => {
            let id = channel.id();
            format!("{id} is closing; run `tollpass channels settle` after block {settle_block}")
        }
        OperationReport::Funded(channel) => format!("{} holds {}", channel.id(), channel.deposit),
    }
}

/// The result as JSON: the sentence, and the channel afterwards if it still exists.
pub(super) fn json(done: &OperationReport) -> serde_json::Result<Value> {
    let channel = match done {
        OperationReport::Closing { channel, .. } | OperationReport::Funded(channel) => Some(channel),
        OperationReport::Synced { .. } | OperationReport::Ended(_) => None,
    };
    Ok(json!({ "text": report(done), "channel": serde_json::to_value(channel)? }))
}
