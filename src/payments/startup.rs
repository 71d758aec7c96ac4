//! Start-up: reads the account from the node and the journal and syncs with the contract, until it succeeds. Meanwhile
//! the engine knows why it cannot pay yet.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::handle::Payments;
use super::journal::{JournalError, StoredAccount};
use super::message::{Message, StartupState};
use crate::chain::WalletSigner;
use crate::chain::{Balances, Chain, ChainError, Synced};
use crate::protocol::{Account, Address, ChannelId};

/// How long to wait for the balance.
const BALANCE_TIMEOUT: Duration = Duration::from_secs(5);

/// What the payment service needs to become ready.
pub struct Startup {
    /// The node and the contract.
    pub chain: Chain,
    /// The key.
    pub signer: Arc<WalletSigner>,
    /// The channel contract.
    pub contract: Address,
    /// The pause after a failed attempt.
    pub retry_every: Duration,
}

/// Why an attempt failed.
#[derive(Debug, thiserror::Error)]
enum StartupError {
    #[error(transparent)]
    Chain(#[from] ChainError),
    #[error("the journal cannot be read: {0}")]
    Journal(#[from] JournalError),
    #[error("tollpass is shutting down")]
    Gone,
}

/// Warns of open channels that are not in this journal, which contains others: two programs that pay from one channel
/// do not know each other's promises.
fn warn_of_unknown_channels(stored: &StoredAccount, synced: &Synced) {
    let is_ours = |id: &ChannelId| {
        stored.channels.iter().any(|(known, _)| known == id)
            || stored.intents.iter().any(|intent| intent.op.receiver() == id.receiver)
    };
    let unknown = synced.channels.iter().filter(|(id, on_chain)| on_chain.is_some() && !is_ours(id));
    for (channel, _) in unknown.filter(|_| !stored.channels.is_empty()) {
        tracing::warn!(
            %channel,
            "this key has a channel that this state directory did not open: if another program or state directory uses the \
             same key, give each a key of its own"
        );
    }
}

/// What the wallet lacks to open a channel; `None` if it has all, or the node does not say so in time.
async fn lack(chain: &Chain, token: Address) -> Option<String> {
    let Balances { wei, tokens, .. } = timeout(BALANCE_TIMEOUT, chain.balances()).await.ok()?.ok()?;
    match (tokens.is_zero(), wei.is_zero()) {
        (true, true) => {
            Some(format!("the wallet is empty: send it tokens ({token}), and some ether for fees"))
        }
        (true, false) => Some(format!("the wallet has no tokens ({token}): send it some")),
        (false, true) => Some("the wallet has no ether for fees: send it some".to_owned()),
        (false, false) => None,
    }
}

impl Payments {
    /// Reports to waiting clients why payments are not possible yet.
    pub async fn not_ready(&self, reason: String) {
        // After shutdown no client waits.
        let _ = self.send(Message::Unready(reason)).await;
    }

    /// Prepares the service for payments without a chain, in schemes that need none.
    pub async fn start_without_chain(&self, signer: Arc<WalletSigner>) {
        // A service that has stopped pays nothing.
        let _ = self.send(Message::Unlocked { signer, has_chain: false }).await;
    }

    /// Prepares the service for payments; returns when it is ready or has stopped. Schemes that need no chain can pay at
    /// once.
    pub async fn start(&self, startup: Startup) {
        let signer = Arc::clone(&startup.signer);
        // As above.
        let _ = self.send(Message::Unlocked { signer, has_chain: true }).await;
        loop {
            let reason = match self.prepare_and_report(&startup).await {
                Ok(prepared) => {
                    let Account { chain_id, payer, token, .. } = prepared.account;
                    let channels =
                        prepared.synced.channels.iter().filter(|(_, on_chain)| on_chain.is_some()).count();
                    let _ = self.send(Message::Ready(Box::new(prepared))).await;
                    // It can pay from a channel that it has, whatever the wallet holds.
                    let lack = if channels == 0 { lack(&startup.chain, token).await } else { None };
                    match lack {
                        None => tracing::info!(chain_id, %payer, channels, "ready to pay"),
                        Some(lack) => {
                            tracing::warn!(chain_id, %payer, "not ready to pay from a channel: {lack}")
                        }
                    }
                    return;
                }
                Err(StartupError::Gone) => return,
                Err(error) => error.to_string(),
            };
            tracing::warn!(%reason, retry_in = ?startup.retry_every, "not ready to pay");
            self.not_ready(reason).await;
            tokio::time::sleep(startup.retry_every).await;
        }
    }

    /// Prepares, and meanwhile reports node errors that are being retried to waiting clients.
    async fn prepare_and_report(&self, startup: &Startup) -> Result<StartupState, StartupError> {
        let (mut outage, mut is_told) = (startup.chain.outage(), false);
        let mut preparing = std::pin::pin!(self.prepare(startup));
        loop {
            let reason = tokio::select! {
                prepared = &mut preparing => return prepared,
                changed = outage.changed() => {
                    // The sender lives as long as `startup.chain`.
                    changed.map_err(|_| StartupError::Gone)?;
                    outage.borrow_and_update().clone()
                }
            };
            if let Some(reason) = reason {
                // Without this, the log is silent until chain.retry_timeout is over.
                if !std::mem::replace(&mut is_told, true) {
                    tracing::warn!(%reason, "not ready to pay: retrying");
                }
                self.not_ready(reason).await;
            }
        }
    }

    async fn prepare(&self, startup: &Startup) -> Result<StartupState, StartupError> {
        let chain = startup.chain.contract_info().await?;
        let account = Account {
            chain_id: chain.chain_id,
            contract: startup.contract,
            token: chain.token,
            payer: startup.signer.address(),
        };
        let (reply, answer) = oneshot::channel();
        let is_chosen = startup.chain.configured_chain().is_some();
        self.send(Message::Load { account, is_chosen, reply }).await.map_err(|_| StartupError::Gone)?;
        let stored = answer.await.map_err(|_| StartupError::Gone)??;
        startup.chain.pin(account.chain_id, account.token);
        startup.chain.remember(&stored.intents);
        startup.chain.remember_fees(&stored.fees);
        match startup.chain.gap(&stored.intents).await {
            Ok(Some(gap)) => tracing::warn!("{gap}"),
            Ok(None) => {}
            // Payments from existing channels need no transaction.
            Err(error) => tracing::warn!(%error, "cannot determine whether a transaction is stranded"),
        }
        let known: Vec<_> = stored.channels.iter().map(|(id, _)| *id).collect();
        let synced = startup.chain.sync(stored.cursor, &known).await?;
        warn_of_unknown_channels(&stored, &synced);
        let (chain, signer) = (startup.chain.clone(), Arc::clone(&startup.signer));
        Ok(StartupState { account, stored, synced, chain, signer })
    }
}
