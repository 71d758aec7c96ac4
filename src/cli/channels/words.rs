//! What operations on channels will do and did, in sentences.

use serde_json::{Value, json};

use crate::channels::{ClosingTotal, OperationReport, PlannedAction};

/// What an operation will do.
pub(super) fn plan(action: &PlannedAction) -> String {
    match action {
        PlannedAction::Open { receiver, deposit } => {
            format!("open a channel to {receiver} and lock up {deposit}")
        }
        PlannedAction::TopUp { channel, added } => format!("lock up {added} more in {channel}"),
        PlannedAction::CloseUnused { channel, deposit } => format!(
            "nothing was ever paid on {channel}: ask to close it alone on 0; after the challenge period it can be \
             settled, and all of {deposit} comes back"
        ),
        PlannedAction::CloseTogether { channel, deposit, total } => {
            let ask = format!("ask the seller for its closing signature and close {channel} at once on");
            match total {
                ClosingTotal::Exactly(total) => {
                    let rest = deposit.saturating_sub(*total);
                    format!("{ask} {total}: of {deposit} that is locked up, {rest} comes back")
                }
                ClosingTotal::AtMost(most) => format!(
                    "{ask} the total that the seller can prove, at most {most}; the rest of {deposit} comes back"
                ),
            }
        }
        PlannedAction::CloseAlone { channel, deposit, total } => format!(
            "ask to close {channel} without the seller, on {total} of {deposit}; the seller may dispute it until the \
             challenge period is over, then it can be settled"
        ),
        PlannedAction::Settle { channel } => format!("settle {channel}: what is left comes back"),
        PlannedAction::Sync => "read all channels from the chain again".to_owned(),
    }
}

/// What an operation did.
pub(super) fn report(report: &OperationReport) -> String {
    match report {
        OperationReport::Synced { channels, head } => format!("read {channels} channels up to block {head}"),
        OperationReport::Ended(channel) => format!("{channel} is closed and paid out"),
        OperationReport::Closing { channel, settle_block } => {
            let id = channel.id();
            format!("{id} is closing; `tollpass channels settle` works after block {settle_block}")
        }
        OperationReport::Funded(channel) => format!("{} holds {}", channel.id(), channel.deposit),
    }
}

/// The same for programs: the sentence, and the channel afterwards if it still exists.
pub(super) fn json(done: &OperationReport) -> serde_json::Result<Value> {
    let channel = match done {
        OperationReport::Closing { channel, .. } | OperationReport::Funded(channel) => Some(channel),
        OperationReport::Synced { .. } | OperationReport::Ended(_) => None,
    };
    Ok(json!({ "text": report(done), "channel": serde_json::to_value(channel)? }))
}
