//! A seller: an HTTP origin whose resources cost money, paid over µRaiden channels.
//!
//! It behaves like the original server, quirks included, so that a payer that works with it works with real sellers. It
//! keeps its ledger in memory and sends no transactions. It must not use the payer's code apart from header names and
//! plain types, so that it detects mistakes there.

mod faults;
mod gateway;
mod ledger;
mod paywall;
mod proofs;
mod resources;
mod server;
mod watch;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use http::HeaderMap;
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

pub use self::faults::Lose;
#[cfg(feature = "testing")]
pub use self::resources::Kind;
pub use self::resources::{Resource, directory};

use self::faults::Faults;
use self::ledger::Ledger;
use self::proofs::Notary;
use self::resources::Shop;
use self::watch::EventWatcher;
use crate::mutex::lock;
use crate::protocol::{Address, Amount};

/// The base path of the REST interface.
pub const GATEWAY_PATH: &str = "/api/1";

/// The settings of a seller.
#[derive(Clone)]
pub struct SellerSettings {
    /// The address to listen on: loopback, port 0 for any free one.
    pub listen: SocketAddr,
    /// Where to sell the same over TLS, too.
    pub secure: Option<Secure>,
    /// The node's URL, `http://`.
    pub rpc_url: String,
    /// The channel contract.
    pub channel_manager: Address,
    /// The token that the contract holds.
    pub token: Address,
    /// The seller's own private key, big endian.
    pub key: [u8; 32],
    /// How many confirmations an opening or a top-up needs.
    pub confirmations: u64,
    /// The pause between two polls of the chain.
    pub poll_every: Duration,
    /// The resources for sale; see [`Resource::assortment`].
    pub resources: Vec<Resource>,
}

/// A second listener, with TLS.
#[derive(Clone)]
pub struct Secure {
    /// The address to listen on: loopback, port 0 for any free one.
    pub listen: SocketAddr,
    /// The certificate and its key; HTTP/2 is served if its ALPN offers `h2`.
    pub config: Arc<ServerConfig>,
}

/// Why a seller could not start.
#[derive(Debug, thiserror::Error)]
pub enum SellerStartError {
    /// The key is zero or not below the order of the curve.
    #[error("the seller's key is not a private key of secp256k1")]
    Key,
    /// A non-loopback address: anyone could read and close the channels of this seller.
    #[error("the origin listens on loopback only, not on {0}")]
    NotLoopback(SocketAddr),
    /// The address cannot be bound.
    #[error("the origin cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// The node's URL is invalid.
    #[error("{url} is not the URL of a node: {reason}")]
    Node {
        /// The URL.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A resource's path has no leading slash, is not unique, or belongs to the origin itself.
    #[error(
        "{0} cannot be the path of a resource: it must begin with / and be neither taken nor / nor below {GATEWAY_PATH}"
    )]
    Path(String),
}

/// A running seller, which stops when dropped.
pub struct Origin {
    address: SocketAddr,
    secure_address: Option<SocketAddr>,
    shared: Arc<SellerShared>,
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
        let shared = Arc::new(SellerShared {
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

/// State shared by the tasks of one seller.
struct SellerShared {
    notary: Notary,
    letterhead: HeaderMap,
    token: Address,
    shop: Shop,
    ledger: Mutex<Ledger>,
    faults: Mutex<Faults>,
    /// True while responses to payments are delayed.
    held: tokio::sync::watch::Sender<bool>,
    counts: tokio::sync::watch::Sender<Counts>,
}

/// Counters that tests can wait for.
#[derive(Clone, Copy, Default)]
struct Counts {
    exchanges: u64,
    payments: u64,
    channels: usize,
    polls: u64,
}

impl SellerShared {
    /// Reads or changes the ledger and notifies waiters.
    fn with_ledger<T>(&self, work: impl FnOnce(&mut Ledger) -> T) -> T {
        let mut ledger = self.ledger();
        let result = work(&mut ledger);
        let (payments, channels) = (ledger.payments, ledger.channels.len());
        self.counts.send_if_modified(|counts| {
            let changed = counts.payments != payments || counts.channels != channels;
            (counts.payments, counts.channels) = (payments, channels);
            changed
        });
        result
    }

    // No code that holds these locks can panic half-way through a change.
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        lock(&self.ledger)
    }

    fn faults(&self) -> MutexGuard<'_, Faults> {
        lock(&self.faults)
    }
}
