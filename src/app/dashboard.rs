//! What the dashboard shows, and what its user does: the same as the command line, by the same services.

mod changes;
mod history;
mod links;
mod news;
mod snapshot;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use tokio::runtime::Handle;

use self::changes::DashboardChange;
pub(super) use self::links::DashboardLinks;
use self::news::Watcher;
use self::snapshot::{Snapshots, WalletBalances};
use super::funds::WatchedTokens;
use crate::channels::Channels;
use crate::payments::journal::{JournalError, LedgerReader, LedgerSums};
use crate::protocol::policy::KnownAsset;
use crate::proxy::frontend::{DashboardError, DashboardNews, DashboardSource, Readiness};

/// What the dashboard of a proxy shows.
pub(super) struct Dashboard(Arc<DashboardState>);

/// The services that know what it shows.
pub(super) struct DashboardParts {
    pub channels: Channels,
    pub readiness: Readiness,
    /// The tokens whose balances are known to nodes. Of the start, like the nodes: that of a token which a reloaded rule allows
    /// is watched after a restart only.
    pub tokens: WatchedTokens,
    pub state_dir: PathBuf,
}

struct DashboardState {
    channels: Channels,
    state_dir: PathBuf,
    snapshots: Snapshots,
    /// What the ledger adds up to, as far as it was read.
    sums: Mutex<LedgerSums>,
    /// That of the main thread, to which connections to nodes belong.
    runtime: Handle,
}

impl Dashboard {
    /// Must be called on the main thread's runtime.
    pub(super) fn new(parts: DashboardParts) -> Self {
        let DashboardParts { channels, readiness, tokens, state_dir } = parts;
        let runtime = Handle::current();
        let balances = WalletBalances::new(channels.payments().clone(), tokens, runtime.clone());
        let payments = channels.payments().clone();
        let snapshots = Snapshots { payments, readiness, balances };
        let sums = Mutex::default();
        Self(Arc::new(DashboardState { channels, state_dir, snapshots, sums, runtime }))
    }
}

impl DashboardSource for Dashboard {
    fn read(&self, name: &str, query: &str) -> BoxFuture<'static, Result<Value, DashboardError>> {
        let state = Arc::clone(&self.0);
        match name {
            "now" => Box::pin(async move { Ok(state.snapshots.take()) }),
            "channels" => Box::pin(async move { state.list().await }),
            "refused" => Box::pin(async { Ok(snapshot::refused()) }),
            "ledger" => match history::LedgerQuery::parse(query) {
                Ok(query) => Box::pin(
                    state.with_ledger(move |reader, state| history::rows(reader, &query, &state.assets())),
                ),
                Err(invalid) => Box::pin(std::future::ready(Err(invalid))),
            },
            "history" => {
                let days = history::days(query);
                Box::pin(state.with_ledger(move |reader, state| {
                    history::sums(reader, &state.sums, days, &state.assets())
                }))
            }
            _ => Box::pin(std::future::ready(Err(DashboardError::Unknown))),
        }
    }

    fn change(&self, name: &str, wanted: Value) -> BoxFuture<'static, Result<Value, DashboardError>> {
        let change = match DashboardChange::read(name, wanted) {
            Ok(change) => change,
            Err(invalid) => return Box::pin(std::future::ready(Err(invalid))),
        };
        let state = &self.0;
        // In a task of its own: the page may be closed, but a transaction must be followed to its end.
        let done = state.runtime.spawn({
            let state = Arc::clone(state);
            async move { changes::apply(&state.channels, change).await }
        });
        Box::pin(async move {
            done.await.unwrap_or_else(|_| Err(DashboardError::Failed("tollpass is shutting down".to_owned())))
        })
    }

    fn news(&self) -> Box<dyn DashboardNews> {
        let state = &self.0;
        Box::new(Watcher::new(state.snapshots.clone(), state.state_dir.clone()))
    }
}

impl DashboardState {
    /// The tokens with symbols and decimals, as last reloaded.
    fn assets(&self) -> Arc<[KnownAsset]> {
        self.channels.payments().approvals().assets()
    }

    /// The channels, with their amounts as people read them.
    async fn list(&self) -> Result<Value, DashboardError> {
        let payments = self.channels.payments();
        let listing = payments.list().await;
        let listing =
            listing.ok_or_else(|| DashboardError::Failed("tollpass is shutting down".to_owned()))?;
        let asset = changes::channel_asset(payments);
        let channels = listing.channels.iter().map(|channel| {
            json!({
                "id": channel.id().to_string(),
                "receiver": channel.receiver,
                "host": channel.host,
                "phase": channel.phase,
                "deposit": asset.show(channel.deposit),
                "promised": asset.show(channel.promised),
                "acknowledged": asset.show(channel.acknowledged),
                "left": asset.show(channel.deposit.saturating_sub(channel.promised)),
                "used": asset.part(channel.promised, channel.deposit),
                "in_doubt": channel.in_doubt,
            })
        });
        let channels: Vec<_> = channels.collect();
        Ok(json!({ "is_ready": listing.owner.is_some(), "unit": asset.unit(), "channels": channels }))
    }

    /// Reads the ledger on a thread for work that blocks.
    async fn with_ledger(
        self: Arc<Self>,
        read: impl FnOnce(&mut LedgerReader, &Self) -> Result<Value, JournalError> + Send + 'static,
    ) -> Result<Value, DashboardError> {
        let reading = tokio::task::spawn_blocking(move || match LedgerReader::open(&self.state_dir)? {
            Some(mut reader) => read(&mut reader, &self),
            None => Ok(Value::Null),
        });
        match reading.await {
            Ok(read) => read.map_err(|error| DashboardError::Failed(error.to_string())),
            Err(error) => Err(DashboardError::Failed(error.to_string())),
        }
    }
}
