//! What the user does to channels by hand: open, top up, close, settle, look at the chain. Each operation can say
//! beforehand what it will do and cost.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::seller::SellerError;
use super::{ListedChannel, Manager, Message};
use crate::chain::signer::{NotSigned, Signer};
use crate::chain::{Chain, ChainError, OrderError};
use crate::protocol::engine::{OrderFailure, Unorderable};
use crate::protocol::{Address, Amount, Channel, ChannelId, Facts, OnChain, Order, Phase};

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

/// Why an operation did not happen.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// The manager cannot take an order now.
    #[error(transparent)]
    Unorderable(#[from] Unorderable),
    /// The chain could not be asked.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The order would not work.
    #[error(transparent)]
    Order(#[from] OrderError),
    /// The order was tried and came to nothing.
    #[error("{0}")]
    Failed(String),
    /// There is no such channel.
    #[error("channel {0} not found: see `tollpass channels`")]
    Unknown(ChannelId),
    /// The contract does not know the channel any more.
    #[error("the contract knows no channel {0}: it is settled")]
    Gone(ChannelId),
    /// Nobody knows where the seller is.
    #[error("it is not known where the seller of {0} is: give the URL of its REST interface with --seller")]
    NoSeller(ChannelId),
    /// The seller did not help.
    #[error(
        "{0}. Try again, or close without the seller: `tollpass channels close --unilateral`, and after the challenge \
         period `tollpass channels settle`"
    )]
    Seller(#[from] SellerError),
    /// The seller did not sign, and the policy says to stop there.
    #[error(
        "{0}; no further channel of this seller is closed (hooks.cooperative_close_denied): closing alone is for you \
         to decide, `tollpass channels close --unilateral`"
    )]
    Denied(String),
    /// Another operation on the channel is under way.
    #[error("channel {0} is being closed already; wait for that")]
    Held(ChannelId),
    /// The seller claims a total that we did not sign.
    #[error("the seller claims to hold {0}, which no signature of ours proves")]
    Unproven(Amount),
    /// The closing signature is not the receiver's.
    #[error("the seller's closing signature is not the receiver's: nothing was sent")]
    ForeignSignature,
    /// What was promised is in doubt.
    #[error(
        "it is not known what was signed on this channel: at least {least}, at most {most} (after a crash, or because the \
         journal does not have the channel). Close together with the seller, or give the total with --total, and \
         --below-promised if it is below {most}"
    )]
    InDoubt {
        /// What is certain.
        least: Amount,
        /// What may be.
        most: Amount,
    },
    /// Closing on less than was promised is an attempt to cheat, which the seller will dispute.
    #[error(
        "{total} is less than the {promised} that were promised, or may have been: the seller can dispute it; add \
         --below-promised if you mean it"
    )]
    BelowPromised {
        /// What was asked for.
        total: Amount,
        /// What was promised, or may have been.
        promised: Amount,
    },
    /// The receiver has withdrawn more: the channel would be locked for good.
    #[error(
        "the receiver has withdrawn {withdrawn} already: closing alone on {total} would lock the deposit for good"
    )]
    LockUp {
        /// What was asked for.
        total: Amount,
        /// What is gone.
        withdrawn: Amount,
    },
    /// Signing failed.
    #[error(transparent)]
    NotSigned(#[from] NotSigned),
    /// The manager has stopped.
    #[error("tollpass is shutting down")]
    ShuttingDown,
}

/// What it takes to act on the chain.
#[derive(Clone)]
pub(super) struct Means {
    pub facts: Facts,
    pub chain: Chain,
    pub signer: Arc<Signer>,
    pub cursor: u64,
}

impl Manager {
    /// Says what `operation` will do and cost, and does nothing.
    pub async fn plan(&self, operation: &Operation) -> Result<Plan, Trouble> {
        let means = self.means().await?;
        let priced = |text: String, wei: Option<String>| Ok(Plan { text, wei });
        match operation {
            Operation::Sync => priced("read all channels from the chain again".to_owned(), None),
            Operation::CloseTogether { channel, .. } => {
                let (held, _) = self.look(&means, *channel).await?;
                if is_unused(&held) {
                    let order = Order::CloseAlone { channel: *channel, total: Amount::ZERO };
                    let text = format!(
                        "nothing was ever paid on {channel}: ask to close it alone on 0; after the challenge period \
                         it can be settled, and all of {} comes back",
                        held.deposit
                    );
                    return priced(text, Some(self.cost(&means, &order).await?));
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
                priced(text, Some(means.chain.fee_to_close_together().await?.to_string()))
            }
            Operation::CloseAlone { channel, total, below_promised } => {
                let (held, on_chain) = self.look(&means, *channel).await?;
                let held = self.best_known(&means, *channel, held).await;
                let total = alone_on(&held, &on_chain, *total, *below_promised)?;
                let text = format!(
                    "ask to close {channel} without the seller, on {total} of {}; the seller may dispute it until \
                     the challenge period is over, then it can be settled",
                    held.deposit
                );
                let order = Order::CloseAlone { channel: *channel, total };
                priced(text, Some(self.cost(&means, &order).await?))
            }
            Operation::Settle { channel } => {
                let order = Order::Settle { channel: *channel };
                let wei = self.cost(&means, &order).await?;
                priced(format!("settle {channel}: what is left comes back"), Some(wei))
            }
            Operation::Open { receiver, deposit } => {
                let order = Order::Open { receiver: *receiver, deposit: *deposit };
                self.check_amount(&order)?;
                let wei = self.cost(&means, &order).await?;
                priced(format!("open a channel to {receiver} and lock up {deposit}"), Some(wei))
            }
            Operation::TopUp { channel, added } => {
                let order = Order::TopUp { channel: *channel, added: *added };
                self.check_amount(&order)?;
                let wei = self.cost(&means, &order).await?;
                priced(format!("lock up {added} more in {channel}"), Some(wei))
            }
        }
    }

    /// Does it, and waits until the chain has confirmed it.
    pub async fn operate(&self, operation: Operation) -> Result<Report, Trouble> {
        let means = self.means().await?;
        let done = match operation {
            Operation::Sync => return self.sync(&means).await,
            Operation::Open { receiver, deposit } => self.order(Order::Open { receiver, deposit }).await?,
            Operation::TopUp { channel, added } => {
                self.look(&means, channel).await?;
                self.order(Order::TopUp { channel, added }).await?
            }
            Operation::Settle { channel } => self.order(Order::Settle { channel }).await?,
            Operation::CloseAlone { channel, total, below_promised } => {
                self.close_alone(&means, channel, total, below_promised).await?
            }
            Operation::CloseTogether { channel, seller } => {
                self.close_together(&means, channel, seller).await?
            }
        };
        Ok(report(done))
    }

    /// Refuses at once what would be refused when it is ordered.
    fn check_amount(&self, order: &Order) -> Result<(), Trouble> {
        Ok(self.engine.lock().engine.check_amount(order)?)
    }

    async fn cost(&self, means: &Means, order: &Order) -> Result<String, Trouble> {
        Ok(means.chain.estimate(order).await?.wei.to_string())
    }

    /// A channel as it is known here and on the chain.
    async fn look(&self, means: &Means, id: ChannelId) -> Result<(Channel, OnChain), Trouble> {
        Ok((self.known(id).await?, on_chain(means, id).await?))
    }

    /// A channel as it is known here.
    pub(super) async fn known(&self, id: ChannelId) -> Result<Channel, Trouble> {
        let (reply, answer) = oneshot::channel();
        self.send(Message::Look { channel: id, reply }).await?;
        answer.await.map_err(|_| Trouble::ShuttingDown)?.ok_or(Trouble::Unknown(id))
    }

    pub(super) async fn order(&self, order: Order) -> Result<super::Funded, Trouble> {
        let (reply, answer) = oneshot::channel();
        self.send(Message::Order { order, reply }).await?;
        match answer.await.map_err(|_| Trouble::ShuttingDown)?? {
            Ok(Some(done)) => Ok(done),
            Ok(None) => Err(Trouble::Failed("nothing moved; try again".to_owned())),
            Err(OrderFailure { reason, .. }) => Err(Trouble::Failed(reason)),
        }
    }

    async fn sync(&self, means: &Means) -> Result<Report, Trouble> {
        let known: Vec<ChannelId> = match self.list().await {
            Some(listing) => listing.channels.iter().map(ListedChannel::id).collect(),
            None => return Err(Trouble::ShuttingDown),
        };
        let synced = means.chain.sync(means.cursor, &known).await?;
        let text = format!("read {} channels up to block {}", synced.channels.len(), synced.head);
        self.send(Message::Synced(synced)).await?;
        Ok(Report { text, channel: None })
    }

    pub(super) async fn means(&self) -> Result<Means, Trouble> {
        let (reply, answer) = oneshot::channel();
        self.send(Message::Means(reply)).await?;
        let means = answer.await.map_err(|_| Trouble::ShuttingDown)?;
        means.ok_or(Trouble::Unorderable(Unorderable::NotReady))
    }

    pub(super) async fn send(&self, message: Message) -> Result<(), Trouble> {
        self.mailbox.send(message).await.map_err(|_| Trouble::ShuttingDown)
    }
}

pub(super) async fn on_chain(means: &Means, id: ChannelId) -> Result<OnChain, Trouble> {
    means.chain.channel(id).await?.ok_or(Trouble::Gone(id))
}

/// True when nothing was ever promised on the channel, for certain.
pub(super) fn is_unused(channel: &Channel) -> bool {
    channel.exposure().is_zero()
}

/// The total to close alone on.
pub(super) fn alone_on(
    held: &Channel,
    on_chain: &OnChain,
    given: Option<Amount>,
    below_promised: bool,
) -> Result<Amount, Trouble> {
    let total = match given {
        Some(total) if total < held.exposure() && !below_promised => {
            return Err(Trouble::BelowPromised { total, promised: held.exposure() });
        }
        Some(total) => total,
        None if held.exposure() > held.promised => {
            return Err(Trouble::InDoubt { least: held.promised, most: held.exposure() });
        }
        // What the receiver has withdrawn, the contract has seen promised.
        None => held.promised.max(on_chain.withdrawn),
    };
    if total < on_chain.withdrawn {
        return Err(Trouble::LockUp { total, withdrawn: on_chain.withdrawn });
    }
    Ok(total)
}

fn report((id, on_chain): super::Funded) -> Report {
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
