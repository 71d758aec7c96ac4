//! The operations that a user can request, with their plans and results.

use serde::{Deserialize, Serialize};

use super::error::OperationError;
use super::service::Channels;
use super::totals::{is_unused, on_chain, unilateral_total};
use crate::payments::{ChainContext, ChangedChannel, ChannelAccessError, ListedChannel};
use crate::protocol::{Address, Amount, Channel, ChannelId, ChannelOp, OnChain, Phase};

/// An operation on channels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Operation {
    /// Open a channel.
    Open {
        /// The payee.
        receiver: Address,
        /// The deposit, in base units.
        deposit: Amount,
    },
    /// Add to the deposit of a channel.
    TopUp {
        /// The channel.
        channel: ChannelId,
        /// The addition, in base units.
        added: Amount,
    },
    /// Close together with the seller, at once.
    CloseTogether {
        /// The channel.
        channel: ChannelId,
        /// The URL of the seller's REST interface, if no payment has revealed it.
        seller: Option<String>,
    },
    /// Close without the seller; the challenge period begins.
    CloseAlone {
        /// The channel.
        channel: ChannelId,
        /// The total to close on; by default what was promised.
        total: Option<Amount>,
        /// Allows a total below what was promised, which the seller may dispute.
        below_promised: bool,
    },
    /// Settle a closed channel after its challenge period, which returns what is left.
    Settle {
        /// The channel.
        channel: ChannelId,
    },
    /// Read all channels from the chain again.
    Sync,
}

/// What an operation will do and cost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// What it will do.
    pub action: PlannedAction,
    /// The most it can cost in fees, in wei as a decimal string; absent if unknown beforehand.
    pub wei: Option<String>,
}

/// What an operation will do. Amounts are base units of the token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlannedAction {
    /// Open a channel.
    Open {
        /// The payee.
        receiver: Address,
        /// The deposit.
        deposit: Amount,
    },
    /// Raise the deposit of a channel.
    TopUp {
        /// The channel.
        channel: ChannelId,
        /// By how much.
        added: Amount,
    },
    /// Start a unilateral close of a channel on which nothing was ever paid.
    CloseUnused {
        /// The channel.
        channel: ChannelId,
        /// Its deposit, which is returned in full.
        deposit: Amount,
    },
    /// Close a channel at once, with the seller's closing signature.
    CloseTogether {
        /// The channel.
        channel: ChannelId,
        /// Its deposit.
        deposit: Amount,
        /// The total to close on.
        total: ClosingTotal,
    },
    /// Start a unilateral close of a channel.
    CloseAlone {
        /// The channel.
        channel: ChannelId,
        /// Its deposit.
        deposit: Amount,
        /// The total to close on.
        total: Amount,
    },
    /// Settle a channel after its challenge period.
    Settle {
        /// The channel.
        channel: ChannelId,
    },
    /// Read all channels from the chain again.
    Sync,
}

/// The total of a cooperative close.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClosingTotal {
    /// This total.
    Exactly(Amount),
    /// What the seller can prove, at most this.
    AtMost(Amount),
}

/// What an operation did, and by which transaction.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OperationReport {
    /// What it did.
    #[serde(flatten)]
    pub outcome: OperationOutcome,
    /// The hash of its last transaction, as `0x` and 64 hexadecimal digits; absent if it was done without one.
    #[serde(default)]
    pub transaction: Option<String>,
}

/// What an operation did.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperationOutcome {
    /// The channels were read from the chain.
    Synced {
        /// The number of channels.
        channels: usize,
        /// The newest block.
        head: u64,
    },
    /// The channel is closed, and both sides are paid out.
    Ended(ChannelId),
    /// The channel's challenge period is running.
    Closing {
        /// The channel afterwards.
        channel: ListedChannel,
        /// The last block of the challenge period.
        settle_block: u32,
    },
    /// The channel was opened or topped up.
    Funded(ListedChannel),
}

impl Channels {
    /// What `operation` will do and cost, without executing it.
    ///
    /// # Errors
    /// The operation would fail, or the chain cannot be read.
    pub async fn plan(&self, operation: &Operation) -> Result<Plan, OperationError> {
        let context = self.payments.chain_context().await?;
        let (action, wei) = match *operation {
            Operation::Sync => return Ok(Plan { action: PlannedAction::Sync, wei: None }),
            Operation::CloseTogether { channel, .. } => {
                let (held, _) = self.read(&context, channel).await?;
                let deposit = held.deposit;
                if is_unused(&held) {
                    let op = ChannelOp::CloseAlone { channel, total: Amount::ZERO };
                    (PlannedAction::CloseUnused { channel, deposit }, self.cost(&context, &op).await?)
                } else {
                    let total = if held.is_uncertain() {
                        ClosingTotal::AtMost(held.exposure())
                    } else {
                        ClosingTotal::Exactly(held.acknowledged)
                    };
                    let wei = context.chain.fee_to_close_together().await?.to_string();
                    (PlannedAction::CloseTogether { channel, deposit, total }, wei)
                }
            }
            Operation::CloseAlone { channel, total, below_promised } => {
                let (held, on_chain) = self.read(&context, channel).await?;
                let held = self.best_known(&context, channel, held).await;
                let total = unilateral_total(&held, &on_chain, total, below_promised)?;
                let wei = self.cost(&context, &ChannelOp::CloseAlone { channel, total }).await?;
                (PlannedAction::CloseAlone { channel, deposit: held.deposit, total }, wei)
            }
            Operation::Settle { channel } => {
                let wei = self.cost(&context, &ChannelOp::Settle { channel }).await?;
                (PlannedAction::Settle { channel }, wei)
            }
            Operation::Open { receiver, deposit } => {
                let op = ChannelOp::Open { receiver, deposit };
                self.check_amount(&op)?;
                (PlannedAction::Open { receiver, deposit }, self.cost(&context, &op).await?)
            }
            Operation::TopUp { channel, added } => {
                let op = ChannelOp::TopUp { channel, added };
                self.check_amount(&op)?;
                (PlannedAction::TopUp { channel, added }, self.cost(&context, &op).await?)
            }
        };
        Ok(Plan { action, wei: Some(wei) })
    }

    /// Executes an operation and waits until it is confirmed.
    ///
    /// # Errors
    /// The operation failed; the error names the remedy.
    pub async fn operate(&self, operation: Operation) -> Result<OperationReport, OperationError> {
        let context = self.payments.chain_context().await?;
        let done = match operation {
            Operation::Sync => return self.sync(&context).await,
            Operation::Open { receiver, deposit } => {
                self.payments.start_op(ChannelOp::Open { receiver, deposit }).await?
            }
            Operation::TopUp { channel, added } => {
                self.read(&context, channel).await?;
                self.payments.start_op(ChannelOp::TopUp { channel, added }).await?
            }
            Operation::Settle { channel } => self.payments.start_op(ChannelOp::Settle { channel }).await?,
            Operation::CloseAlone { channel, total, below_promised } => {
                self.close_alone(&context, channel, total, below_promised).await?
            }
            Operation::CloseTogether { channel, seller } => {
                self.close_together(&context, channel, seller).await?
            }
        };
        Ok(self.report(done).await)
    }

    /// Checks before planning what is checked again on execution.
    fn check_amount(&self, op: &ChannelOp) -> Result<(), OperationError> {
        Ok(self.payments.check_amount(op)?)
    }

    async fn cost(&self, context: &ChainContext, op: &ChannelOp) -> Result<String, OperationError> {
        Ok(context.chain.estimate(op).await?.wei.to_string())
    }

    /// The channel as recorded and as on the chain.
    async fn read(
        &self,
        context: &ChainContext,
        id: ChannelId,
    ) -> Result<(Channel, OnChain), OperationError> {
        Ok((self.payments.channel(id).await?, on_chain(context, id).await?))
    }

    async fn report(&self, changed: ChangedChannel) -> OperationReport {
        let ChangedChannel { channel: id, on_chain, transaction } = changed;
        let listing = self.payments.list().await;
        let mut channels = listing.into_iter().flat_map(|listing| listing.channels);
        let outcome = outcome(id, on_chain, channels.find(|listed| listed.id() == id));
        OperationReport { outcome, transaction: transaction.map(|hash| hash.to_string()) }
    }

    async fn sync(&self, context: &ChainContext) -> Result<OperationReport, OperationError> {
        let known: Vec<ChannelId> = match self.payments.list().await {
            Some(listing) => listing.channels.iter().map(ListedChannel::id).collect(),
            None => return Err(ChannelAccessError::ShuttingDown.into()),
        };
        let synced = context.chain.sync(context.cursor, &known).await?;
        let (channels, head) = (synced.channels.len(), synced.head);
        self.payments.synced(synced).await?;
        Ok(OperationReport { outcome: OperationOutcome::Synced { channels, head }, transaction: None })
    }
}

/// What an operation made of a channel: `listed` if the payment service lists it, since only that knows what was promised,
/// and for which host.
fn outcome(id: ChannelId, on_chain: Option<OnChain>, listed: Option<ListedChannel>) -> OperationOutcome {
    let Some(on_chain) = on_chain else { return OperationOutcome::Ended(id) };
    let seen = Channel::new(on_chain);
    let channel = listed.unwrap_or_else(|| ListedChannel::new(&id, &seen, None));
    match seen.phase {
        Phase::Closing { settle_block } => OperationOutcome::Closing { channel, settle_block },
        Phase::Open | Phase::Gone => OperationOutcome::Funded(channel),
    }
}
