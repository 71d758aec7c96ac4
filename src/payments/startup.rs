//! From a key and a node to a manager that can pay: who we are on the chain, what the store knows of it, and what
//! the contract says of that now. Tried again until it succeeds; meanwhile the manager knows why it is not ready.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::journal::Contents;
use super::{Manager, Message};
use crate::chain::signer::Signer;
use crate::chain::{Chain, ChainError, Synced};
use crate::protocol::{Address, ChannelId, Facts};

/// What a manager needs to become ready.
pub struct Start {
    /// The node and the contract.
    pub chain: Chain,
    /// The key.
    pub signer: Arc<Signer>,
    /// The channel contract.
    pub contract: Address,
    /// The pause after a failure.
    pub retry_every: Duration,
}

/// Everything the manager's task needs to become ready.
pub(super) struct Prepared {
    pub facts: Facts,
    pub contents: Contents,
    pub synced: Synced,
    pub chain: Chain,
    pub signer: Arc<Signer>,
}

/// Why it did not work this time.
#[derive(Debug, thiserror::Error)]
enum NotYet {
    #[error(transparent)]
    Chain(#[from] ChainError),
    #[error("the journal cannot be read: {0}")]
    Store(#[from] super::journal::StoreError),
    #[error("tollpass is shutting down")]
    Gone,
}

/// Warns of open channels that this journal, which knows others, has nothing to do with: two programs that pay from one
/// channel do not know of each other's promises.
fn warn_of_strangers(contents: &Contents, synced: &Synced) {
    let is_ours = |id: &ChannelId| {
        contents.channels.iter().any(|(known, _)| known == id)
            || contents.intents.iter().any(|intent| intent.order.receiver() == id.receiver)
    };
    let strange = synced.channels.iter().filter(|(id, on_chain)| on_chain.is_some() && !is_ours(id));
    for (channel, _) in strange.filter(|_| !contents.channels.is_empty()) {
        tracing::warn!(
            %channel,
            "a channel of this key that this state directory did not open: if another program or state directory uses the \
             same key, give each a key of its own"
        );
    }
}

impl Manager {
    /// Says why the manager cannot pay yet.
    pub async fn unready(&self, reason: String) {
        // A manager that is gone needs no reason.
        let _ = self.tell(Message::Unready(reason)).await;
    }

    /// Makes the manager ready to pay; returns when it is, or when it has stopped.
    pub async fn start(&self, start: Start) {
        loop {
            let reason = match self.prepare_telling(&start).await {
                Ok(prepared) => {
                    let Facts { chain_id, payer, .. } = prepared.facts;
                    let channels = prepared.synced.channels.len();
                    tracing::info!(chain_id, %payer, channels, "ready to pay");
                    let _ = self.tell(Message::Ready(Box::new(prepared))).await;
                    return;
                }
                Err(NotYet::Gone) => return,
                Err(error) => error.to_string(),
            };
            tracing::warn!(%reason, retry_in = ?start.retry_every, "not ready to pay");
            self.unready(reason).await;
            tokio::time::sleep(start.retry_every).await;
        }
    }

    /// Prepares; meanwhile whoever waits to pay is told of the faults of the node that are being waited out.
    async fn prepare_telling(&self, start: &Start) -> Result<Prepared, NotYet> {
        let mut trouble = start.chain.trouble();
        let mut preparing = std::pin::pin!(self.prepare(start));
        loop {
            let reason = tokio::select! {
                prepared = &mut preparing => return prepared,
                changed = trouble.changed() => {
                    // The chain is there as long as it is prepared.
                    changed.map_err(|_| NotYet::Gone)?;
                    trouble.borrow_and_update().clone()
                }
            };
            if let Some(reason) = reason {
                self.unready(reason).await;
            }
        }
    }

    async fn prepare(&self, start: &Start) -> Result<Prepared, NotYet> {
        let chain = start.chain.facts().await?;
        let facts = Facts {
            chain_id: chain.chain_id,
            contract: start.contract,
            token: chain.token,
            payer: start.signer.address(),
        };
        let (reply, answer) = oneshot::channel();
        let is_chosen = start.chain.configured_chain().is_some();
        self.tell(Message::Load { facts, is_chosen, reply }).await.map_err(|_| NotYet::Gone)?;
        let contents = answer.await.map_err(|_| NotYet::Gone)??;
        start.chain.pin(facts.chain_id, facts.token);
        start.chain.remember(&contents.intents);
        match start.chain.gap(&contents.intents).await {
            Ok(Some(gap)) => tracing::warn!("{gap}"),
            Ok(None) => {}
            // What is paid from the channels that are there needs no transaction.
            Err(error) => tracing::warn!(%error, "whether a transaction is stranded is not known"),
        }
        let known: Vec<_> = contents.channels.iter().map(|(id, _)| *id).collect();
        let synced = start.chain.sync(contents.cursor, &known).await?;
        warn_of_strangers(&contents, &synced);
        let (chain, signer) = (start.chain.clone(), Arc::clone(&start.signer));
        Ok(Prepared { facts, contents, synced, chain, signer })
    }
}
