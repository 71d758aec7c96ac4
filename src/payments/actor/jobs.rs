//! Chain jobs: operations that wait for the chain run in separate tasks and return as messages.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tracing::field::display;

use super::Actor;
use crate::chain::{Balances, Chain, NotRecorded, OpError, OpResult, Resolution, TransactionRecorder};
use crate::failpoint;
use crate::payments::message::{ChangedChannel, Message};
use crate::protocol::engine::{Balance, Input, OpFailure};
use crate::protocol::{Address, ChannelOp, Intent, OnChain};

/// The timeout for the payer's balance; a request waits for it to decide whether to retry.
const BALANCE_TIMEOUT: Duration = Duration::from_secs(2);

impl Actor {
    /// Starts a channel operation.
    pub(super) fn submit(&self, op: ChannelOp) {
        let receiver = op.receiver();
        tracing::info!(operation = %op, "starting a channel operation");
        self.job(receiver, move |chain, journal| async move {
            chain.execute(&op, &journal).await.map(changed).map_err(|error| failure(op, &error))
        });
    }

    /// Resumes earlier transactions.
    pub(super) fn resume(&self, receiver: Address, intents: Vec<Intent>) {
        let Some(op) = intents.last().map(|intent| intent.op) else { return };
        tracing::info!(%receiver, operation = %op, "resuming an interrupted channel operation");
        self.job(receiver, move |chain, journal| async move {
            match chain.resume(&intents, &journal).await {
                Ok(Resolution::Done(done)) => Ok(changed(done)),
                Ok(Resolution::NothingMoved) => Ok(None),
                Err(error) => Err(failure(op, &error)),
            }
        });
    }

    /// Queries the payer's balance.
    pub(super) fn query_balance(&self) {
        // The mailbox keeps the actor running.
        let (Some(context), Some(mailbox)) = (&self.context, self.mailbox.upgrade()) else { return };
        let (chain, engine) = (context.chain.clone(), Arc::clone(&self.engine));
        tokio::spawn(async move {
            let balance = balance(&chain).await;
            engine.submit(Input::Balance(balance));
            drop(mailbox);
        });
    }

    /// Runs a chain job in a separate task; its result returns as a message.
    fn job<F>(&self, receiver: Address, work: impl FnOnce(Chain, Intents) -> F)
    where
        F: Future<Output = Result<Option<ChangedChannel>, OpFailure>> + Send + 'static,
    {
        let (Some(context), Some(mailbox)) = (&self.context, self.mailbox.upgrade()) else { return };
        let chain = context.chain.clone();
        let work = work(chain.clone(), Intents(mailbox.clone()));
        tokio::spawn(async move {
            let mut result = work.await;
            failpoint::point("chain job done");
            if let Err(failure) = &mut result {
                failure.balance = balance(&chain).await;
            }
            match &result {
                Ok(Some(ChangedChannel { channel, on_chain, transaction })) => {
                    let transaction = transaction.map(display);
                    match on_chain {
                        Some(OnChain { deposit, .. }) => {
                            tracing::info!(%channel, %deposit, transaction, "transaction confirmed");
                        }
                        None => tracing::info!(%channel, transaction, "channel is settled"),
                    }
                }
                Ok(None) => tracing::info!(%receiver, "the transaction was never mined"),
                Err(failure) => {
                    tracing::warn!(operation = %failure.op, reason = failure.reason, "channel operation failed")
                }
            }
            // If the actor has stopped, the next start resumes the operation.
            let _ = mailbox.send(Message::OpFinished { receiver, result }).await;
        });
    }
}

/// The payer's balance; `None` if the node does not respond in time.
async fn balance(chain: &Chain) -> Option<Balance> {
    let Balances { wei, tokens, .. } = timeout(BALANCE_TIMEOUT, chain.balances()).await.ok()?.ok()?;
    let wei = if wei.bits() > 128 { u128::MAX } else { wei.as_u128() };
    Some(Balance { wei, tokens })
}

/// Records a chain job's transactions through the actor.
struct Intents(mpsc::Sender<Message>);

impl TransactionRecorder for Intents {
    async fn record(&self, intent: Intent) -> Result<(), NotRecorded> {
        let gone = || NotRecorded("tollpass is shutting down".into());
        let (reply, answer) = oneshot::channel();
        self.0.send(Message::Intent { intent, reply }).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

fn changed(done: OpResult) -> Option<ChangedChannel> {
    let OpResult { channel, on_chain, transaction, .. } = done;
    Some(ChangedChannel { channel, on_chain, transaction })
}

fn failure(op: ChannelOp, error: &OpError) -> OpFailure {
    OpFailure { op, reason: error.to_string(), is_final: !error.is_unclear(), balance: None }
}
