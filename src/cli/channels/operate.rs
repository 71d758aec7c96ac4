//! `tollpass channels open|topup|close|settle|sync`: prints the plan and its cost, asks for confirmation, and executes it.

use std::collections::BTreeSet;

use anyhow::bail;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::backend::Backend;
use crate::admin::AdminError;
use crate::channels::{Operation, OperationError, OperationOutcome, OperationReport};
use crate::cli::confirm::{Declined, confirm};
use crate::cli::output::{print, tell};
use crate::cli::progress::with_progress;
use crate::payments::ListedChannel;
use crate::protocol::{Address, Amount, ChannelId};

/// The subcommands of `tollpass channels`.
#[derive(Clone, Debug, Subcommand)]
pub enum ChannelCommand {
    /// List the channels
    List,
    /// Show one channel
    Show {
        /// RECEIVER@BLOCK, as in the list
        channel: ChannelId,
    },
    /// Open a channel
    Open {
        /// Address of the seller
        receiver: Address,
        /// Deposit, in base units
        deposit: Amount,
    },
    /// Add to the deposit of a channel
    Topup {
        /// RECEIVER@BLOCK, as in the list
        channel: ChannelId,
        /// Amount to add, in base units
        added: Amount,
    },
    /// Close channels together with their sellers, or unilaterally
    Close(CloseArgs),
    /// Recover the rest of unilaterally closed channels after the challenge period
    Settle(Chosen),
    /// Read all channels from the chain again, including deposits whose effect was not visible yet
    Sync,
}

/// The channels to work on.
#[derive(Clone, Debug, Args)]
#[group(required = true, multiple = false)]
pub struct Chosen {
    /// One channel: RECEIVER@BLOCK, as in the list
    pub channel: Option<ChannelId>,
    /// All channels to this receiver
    #[arg(long)]
    pub receiver: Option<Address>,
    /// All channels
    #[arg(long)]
    pub all: bool,
}

/// The option group of `--unilateral` and its old name.
const UNILATERALLY: &str = "unilaterally";

/// Arguments of `tollpass channels close`.
#[derive(Clone, Debug, Args)]
pub struct CloseArgs {
    /// Which channels.
    #[command(flatten)]
    pub chosen: Chosen,
    /// Close without the seller; `settle` after the challenge period
    #[arg(long, group = UNILATERALLY)]
    pub unilateral: bool,
    /// The old name of `--unilateral`
    #[arg(long, group = UNILATERALLY, hide = true)]
    pub alone: bool,
    /// Total to claim for the seller, in base units; by default, what was promised
    #[arg(long, requires = UNILATERALLY, conflicts_with_all = ["all", "receiver"])]
    pub total: Option<Amount>,
    /// Allow a --total below what was, or may have been, promised; the seller can dispute it
    #[arg(long, requires = "total")]
    pub below_promised: bool,
    /// URL of the seller's REST API, if no payment has revealed it
    #[arg(long, value_name = "URL", conflicts_with = UNILATERALLY)]
    pub seller: Option<String>,
}

/// Executes a command's operations one after the other.
pub(super) async fn run(
    backend: &Backend,
    command: ChannelCommand,
    is_agreed: bool,
    json: bool,
) -> anyhow::Result<()> {
    let operations = operations(backend, command).await?;
    if operations.is_empty() {
        tell("nothing to do");
        return Ok(());
    }
    let (mut failed, mut declined, mut printed) = (0, None, Ok(()));
    let mut denied_by = BTreeSet::new();
    for operation in operations {
        let closed = match &operation {
            Operation::CloseTogether { channel, .. } => Some(*channel),
            _ => None,
        };
        if let Some(channel) = closed.filter(|channel| denied_by.contains(&channel.receiver)) {
            failed += 1;
            tell(format_args!("tollpass: {channel} stays open: its seller did not sign for another channel"));
            continue;
        }
        match one(backend, &operation, is_agreed).await {
            Ok(report) => {
                let text = if json { json_of(&report)?.to_string() } else { text_of(&report) };
                // A failed write does not stop the other operations.
                printed = printed.and(print(text + "\n"));
            }
            Err(error) if error.downcast_ref() == Some(&Declined::NoTerminal) => return Err(error),
            // The others may still be wanted.
            Err(error) if error.is::<Declined>() => {
                tell(format_args!("tollpass: {error}"));
                declined = Some(error);
            }
            Err(error) => {
                failed += 1;
                tell(format_args!("tollpass: {error:#}"));
                if is_denied(&error) {
                    denied_by.extend(closed.map(|channel| channel.receiver));
                }
            }
        }
    }
    if failed > 0 {
        bail!("{failed} of the operations failed");
    }
    printed?;
    declined.map_or(Ok(()), Err)
}

/// An amount in base units, as options have it.
fn units(amount: Amount) -> String {
    amount.to_string()
}

/// The result for people.
fn text_of(done: &OperationReport) -> String {
    let text = done.outcome.describe(units);
    match &done.transaction {
        Some(hash) => format!("{text}\ntransaction: {hash}"),
        None => text,
    }
}

/// The result as JSON: the sentence, the channel afterwards if it still exists, and the transaction if there was one.
fn json_of(done: &OperationReport) -> serde_json::Result<Value> {
    let channel = match &done.outcome {
        OperationOutcome::Closing { channel, .. } | OperationOutcome::Funded(channel) => Some(channel),
        OperationOutcome::Synced { .. } | OperationOutcome::Ended(_) => None,
    };
    let (text, channel) = (done.outcome.describe(units), serde_json::to_value(channel)?);
    Ok(json!({ "text": text, "channel": channel, "transaction": done.transaction }))
}

/// Whether the policy says to leave all channels of this seller open.
fn is_denied(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(OperationError::Denied(_)))
        || matches!(error.downcast_ref(), Some(AdminError::Denied(_)))
}

/// Shows and executes an operation, if the user agrees. One that only reads the chain needs no agreement.
async fn one(backend: &Backend, operation: &Operation, is_agreed: bool) -> anyhow::Result<OperationReport> {
    if *operation == Operation::Sync {
        return with_progress(backend.operate(operation)).await;
    }
    let plan = backend.plan(operation).await?;
    let cost = match &plan.wei {
        Some(wei) => format!("\nfees: at most {wei} wei"),
        None => String::new(),
    };
    tell(format_args!("{}{cost}", plan.action.describe(units)));
    if !is_agreed {
        confirm()?;
    }
    with_progress(backend.operate(operation)).await
}

async fn operations(backend: &Backend, command: ChannelCommand) -> anyhow::Result<Vec<Operation>> {
    Ok(match command {
        ChannelCommand::List | ChannelCommand::Show { .. } => Vec::new(),
        ChannelCommand::Open { receiver, deposit } => vec![Operation::Open { receiver, deposit }],
        ChannelCommand::Topup { channel, added } => vec![Operation::TopUp { channel, added }],
        ChannelCommand::Sync => vec![Operation::Sync],
        ChannelCommand::Settle(chosen) => {
            let channels = chosen.among(backend, "closing").await?;
            channels.into_iter().map(|channel| Operation::Settle { channel }).collect()
        }
        ChannelCommand::Close(CloseArgs { chosen, unilateral, alone, total, below_promised, seller }) => {
            if alone {
                tell("tollpass: --alone is now called --unilateral; the old name still works");
            }
            let is_unilateral = unilateral || alone;
            let close = |channel| {
                if is_unilateral {
                    Operation::CloseAlone { channel, total, below_promised }
                } else {
                    Operation::CloseTogether { channel, seller: seller.clone() }
                }
            };
            chosen.among(backend, "open").await?.into_iter().map(close).collect()
        }
    })
}

impl Chosen {
    /// The named channel, or all selected channels in this state.
    async fn among(&self, backend: &Backend, state: &str) -> anyhow::Result<Vec<ChannelId>> {
        if let Some(channel) = self.channel {
            return Ok(vec![channel]);
        }
        let listing = backend.listing().await?;
        let is_meant = |channel: &&ListedChannel| {
            channel.phase == state && self.receiver.is_none_or(|receiver| receiver == channel.receiver)
        };
        Ok(listing.channels.iter().filter(is_meant).map(ListedChannel::id).collect())
    }
}
