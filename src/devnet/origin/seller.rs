//! The running seller, and what tests observe of it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::authorized::AuthorizedShop;
use super::error::SellerStartError;
use super::proofs::Notary;
use super::resources::Shop;
use super::settings::{Secure, SellerSettings};
use super::shared::{Counts, SellerShared};
use super::watch::EventWatcher;
use super::{paywall, server};
use crate::protocol::{Address, Amount};

/// A running seller, which stops when dropped.
pub struct Origin {
    address: SocketAddr,
    secure_address: Option<SocketAddr>,
    pub(super) shared: Arc<SellerShared>,
    tasks: TaskTracker,
    stop: DropGuard,
}

impl Origin {
    /// Starts a seller that serves until it is stopped or dropped. Does not wait for the node.
    pub async fn spawn(settings: SellerSettings) -> Result<Self, SellerStartError> {
        let addresses = [Some(settings.listen), settings.secure.as_ref().map(|secure| secure.listen)];
        if let Some(exposed) = addresses.into_iter().flatten().find(|address| !address.ip().is_loopback()) {
            return Err(SellerStartError::NotLoopback(exposed));
        }
        let notary = Notary::new(settings.key, settings.channel_manager)?;
        let watcher = EventWatcher::new(
            &settings.rpc_url,
            settings.channel_manager,
            notary.receiver(),
            settings.confirmations,
        )?;
        let authorized =
            settings.authorized.map(|sale| AuthorizedShop::new(sale, notary.receiver(), &settings.rpc_url));
        let shared = Arc::new(SellerShared {
            authorized: authorized.transpose()?,
            letterhead: paywall::letterhead(&notary, settings.token),
            notary,
            token: settings.token,
            shop: Shop::new(settings.resources)?,
            ledger: Mutex::default(),
            faults: Mutex::default(),
            held: tokio::sync::watch::Sender::new(false),
            counts: tokio::sync::watch::Sender::default(),
        });
        let (listener, address) = listen(settings.listen).await?;
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        tasks.spawn(server::accept(listener, None, shared.clone(), tasks.clone(), stop.clone()));
        let mut secure_address = None;
        if let Some(Secure { listen: asked, config }) = settings.secure {
            let (listener, address) = listen(asked).await?;
            secure_address = Some(address);
            let (shared, stop) = (shared.clone(), stop.clone());
            tasks.spawn(server::accept(listener, Some(config), shared, tasks.clone(), stop));
        }
        let (watched, stopped) = (shared.clone(), stop.clone());
        tasks.spawn(async move {
            stopped.run_until_cancelled(watcher.run(&watched, settings.poll_every)).await;
        });
        tasks.close();
        Ok(Self { address, secure_address, shared, tasks, stop: stop.drop_guard() })
    }

    /// The address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://127.0.0.1:PORT`, without a trailing slash.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The address that it listens on for TLS, if any.
    pub fn secure_address(&self) -> Option<SocketAddr> {
        self.secure_address
    }

    /// `https://127.0.0.1:PORT`, without a trailing slash, if it sells over TLS.
    pub fn secure_url(&self) -> Option<String> {
        self.secure_address.map(|address| format!("https://{address}"))
    }

    /// The payee's account.
    pub fn receiver(&self) -> Address {
        self.shared.notary.receiver()
    }

    /// Cuts every connection and waits for all tasks to end.
    pub async fn stop(self) {
        drop(self.stop);
        self.tasks.wait().await;
    }

    /// The last total registered on a channel; `None` if it is unknown or lacks confirmations.
    pub fn registered(&self, sender: Address, open_block: u32) -> Option<Amount> {
        self.shared.ledger().channels.get(&(sender, open_block)).map(|channel| channel.balance)
    }

    /// The sum of the last totals of all channels ever known.
    pub fn total_registered(&self) -> Amount {
        let balances =
            self.shared.ledger().channels.values().map(|channel| channel.balance).collect::<Vec<_>>();
        balances.into_iter().fold(Amount::ZERO, Amount::saturating_add)
    }

    /// How many payments were registered.
    pub fn payments(&self) -> u64 {
        self.shared.ledger().payments
    }

    /// How many requests for resources were received, paid or not; excludes `OPTIONS`, unknown paths, methods not
    /// allowed, the front page and the REST interface.
    pub fn exchanges(&self) -> u64 {
        self.shared.counts.borrow().exchanges
    }

    /// Changes a price and returns the old one; `None` if nothing is sold at that path.
    pub fn set_price(&self, path: &str, price: Amount) -> Option<Amount> {
        self.shared.shop.set_price(path, price)
    }

    /// Waits until at least this many channels, including ended ones, have had enough confirmations.
    pub async fn await_channels(&self, count: usize) {
        self.await_counts(|counts| counts.channels >= count).await;
    }

    /// Waits until at least this many payments were registered.
    pub async fn await_payments(&self, count: u64) {
        self.await_counts(|counts| counts.payments >= count).await;
    }

    /// Waits until at least this many [`exchanges`](Self::exchanges) have begun.
    pub async fn await_exchanges(&self, count: u64) {
        self.await_counts(|counts| counts.exchanges >= count).await;
    }

    /// Waits for a complete poll of the chain that begins after this call; never returns while watching is stopped.
    pub async fn await_poll(&self) {
        // One may be in progress already.
        let enough = self.shared.counts.borrow().polls + 2;
        self.await_counts(|counts| counts.polls >= enough).await;
    }

    async fn await_counts(&self, enough: impl FnMut(&Counts) -> bool) {
        // The sender is alive, so this cannot fail.
        let _ = self.shared.counts.subscribe().wait_for(enough).await;
    }
}

async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), SellerStartError> {
    let cannot = |source| SellerStartError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(cannot)?;
    let address = listener.local_addr().map_err(cannot)?;
    Ok((listener, address))
}
