//! What the user does to channels by hand: open, top up, close, settle, look at the chain. Each operation can say
//! beforehand what it will do and cost.

use serde::{Deserialize, Serialize};

use super::error::OperationError;
use super::service::Channels;
use super::totals::{is_unused, on_chain, unilateral_total};
use crate::payments::{ChainContext, ChangedChannel, ChannelAccessError, ListedChannel};
use crate::protocol::{Address, Amount, Channel, ChannelId, ChannelOp, OnChain, Phase};

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Operation {
    /// Open a channel.
    Open {
        /// Who will be paid.
        receiver: Address,
        /// What to lock up.
        deposit: Amount,
    },
    /// Add to a channel.
    TopUp {
        /// Which one.
        channel: ChannelId,
        /// How much.
        added: Amount,
    },
    /// Close together with the seller, at once.
    CloseTogether {
        /// Which one.
        channel: ChannelId,
        /// The URL of the seller's REST interface, where it is not known from a payment.
        seller: Option<String>,
    },
    /// Ask to close without the seller; the challenge period begins.
    CloseAlone {
        /// Which one.
        channel: ChannelId,
        /// The total to close on; what was promised where it is absent.
        total: Option<Amount>,
        /// True for a total below what was promised: the seller may dispute it.
        below_promised: bool,
    },
    /// Get back what is left after the challenge period.
    Settle {
        /// Which one.
        channel: ChannelId,
    },
    /// Read all channels from the chain again.
    Sync,
}

/// What an operation will do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// In words.
    pub text: String,
    /// The most it can cost in fees, in wei as decimal text; absent where that is not known beforehand.
    pub wei: Option<String>,
}

/// What an operation did.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// In words.
    pub text: String,
    /// The channel afterwards.
    pub channel: Option<ListedChannel>,
}

impl Channels {
    /// Says what `operation` will do and cost, and does nothing.
    pub async fn plan(&self, operation: &Operation) -> Result<Plan, OperationError> {
        let context = self.payments.chain_context().await?;
        let priced = |text: String, wei: Option<String>| Ok(Plan { text, wei });
        match operation {
            Operation::Sync => priced("read all channels from the chain again".to_owned(), None),
            Operation::CloseTogether { channel, .. } => {
                let (held, _) = self.look(&context, *channel).await?;
                if is_unused(&held) {
                    let op = ChannelOp::CloseAlone { channel: *channel, total: Amount::ZERO };
                    let text = format!(
                        "nothing was ever paid on {channel}: ask to close it alone on 0; after the challenge period \
                         it can be settled, and all of {} comes back",
                        held.deposit
                    );
                    return priced(text, Some(self.cost(&context, &op).await?));
                }
                let Channel { deposit, acknowledged, .. } = held;
                let ask = format!("ask the seller for its closing signature and close {channel} at once on");
                let text = if held.is_uncertain() {
                    format!(
                        "{ask} the total that the seller can prove, {} at most; the rest of {deposit} comes back",
                        held.exposure()
                    )
                } else {
                    format!(
                        "{ask} {acknowledged}: of {deposit} that is locked up, {} comes back",
                        held.left()
                    )
                };
                priced(text, Some(context.chain.fee_to_close_together().await?.to_string()))
            }
            Operation::CloseAlone { channel, total, below_promised } => {
                let (held, on_chain) = self.look(&context, *channel).await?;
                let held = self.best_known(&context, *channel, held).await;
                let total = unilateral_total(&held, &on_chain, *total, *below_promised)?;
                let text = format!(
                    "ask to close {channel} without the seller, on {total} of {}; the seller may dispute it until \
                     the challenge period is over, then it can be settled",
                    held.deposit
                );
                let op = ChannelOp::CloseAlone { channel: *channel, total };
                priced(text, Some(self.cost(&context, &op).await?))
            }
            Operation::Settle { channel } => {
                let op = ChannelOp::Settle { channel: *channel };
                let wei = self.cost(&context, &op).await?;
                priced(format!("settle {channel}: what is left comes back"), Some(wei))
            }
            Operation::Open { receiver, deposit } => {
                let op = ChannelOp::Open { receiver: *receiver, deposit: *deposit };
                self.check_amount(&op)?;
                let wei = self.cost(&context, &op).await?;
                priced(format!("open a channel to {receiver} and lock up {deposit}"), Some(wei))
            }
            Operation::TopUp { channel, added } => {
                let op = ChannelOp::TopUp { channel: *channel, added: *added };
                self.check_amount(&op)?;
                let wei = self.cost(&context, &op).await?;
                priced(format!("lock up {added} more in {channel}"), Some(wei))
            }
        }
    }

    /// Does it, and waits until the chain has confirmed it.
    pub async fn operate(&self, operation: Operation) -> Result<Report, OperationError> {
        let context = self.payments.chain_context().await?;
        let done = match operation {
            Operation::Sync => return self.sync(&context).await,
            Operation::Open { receiver, deposit } => {
                self.payments.start_op(ChannelOp::Open { receiver, deposit }).await?
            }
            Operation::TopUp { channel, added } => {
                self.look(&context, channel).await?;
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
        Ok(report(done))
    }

    /// Refuses at once what would be refused when it is ordered.
    fn check_amount(&self, op: &ChannelOp) -> Result<(), OperationError> {
        Ok(self.payments.check_amount(op)?)
    }

    async fn cost(&self, context: &ChainContext, op: &ChannelOp) -> Result<String, OperationError> {
        Ok(context.chain.estimate(op).await?.wei.to_string())
    }

    /// A channel as it is known here and on the chain.
    async fn look(
        &self,
        context: &ChainContext,
        id: ChannelId,
    ) -> Result<(Channel, OnChain), OperationError> {
        Ok((self.payments.channel(id).await?, on_chain(context, id).await?))
    }

    async fn sync(&self, context: &ChainContext) -> Result<Report, OperationError> {
        let known: Vec<ChannelId> = match self.payments.list().await {
            Some(listing) => listing.channels.iter().map(ListedChannel::id).collect(),
            None => return Err(ChannelAccessError::ShuttingDown.into()),
        };
        let synced = context.chain.sync(context.cursor, &known).await?;
        let text = format!("read {} channels up to block {}", synced.channels.len(), synced.head);
        self.payments.synced(synced).await?;
        Ok(Report { text, channel: None })
    }
}

fn report((id, on_chain): ChangedChannel) -> Report {
    let Some(on_chain) = on_chain else {
        return Report { text: format!("{id} is closed and paid out"), channel: None };
    };
    let channel = Channel::new(on_chain);
    let text = match channel.phase {
        Phase::Closing { settle_block } => {
            format!("{id} is closing; `tollpass channels settle` works after block {settle_block}")
        }
        Phase::Open | Phase::Gone => format!("{id} holds {}", on_chain.deposit),
    };
    Report { text, channel: Some(ListedChannel::new(&id, &channel, None)) }
}
