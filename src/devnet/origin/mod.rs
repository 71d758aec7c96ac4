//! A seller: an HTTP origin whose resources cost money, paid over µRaiden channels.
//!
//! It answers as the original server does, quirk by quirk, so that a payer that gets on with it gets on with
//! the real ones. It keeps its book in memory, sends no transaction, and must not use the payer's code beyond
//! the header names and the plain types: a mistake there has to show here.

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

/// The path below which the REST interface lies.
pub const GATEWAY_PATH: &str = "/api/1";

/// What a seller needs.
#[derive(Clone)]
pub struct SellerSettings {
    /// Where to listen; loopback only, port 0 for any free one.
    pub listen: SocketAddr,
    /// Where to sell the same over TLS as well.
    pub secure: Option<Secure>,
    /// The node, `http://`.
    pub rpc_url: String,
    /// The channel contract.
    pub channel_manager: Address,
    /// The token that the contract holds.
    pub token: Address,
    /// The seller's own private key, big endian.
    pub key: [u8; 32],
    /// How many blocks must follow an opening or a top up before it counts.
    pub confirmations: u64,
    /// The pause between two looks at the chain.
    pub poll_every: Duration,
    /// What is for sale; see [`Resource::assortment`].
    pub resources: Vec<Resource>,
}

/// A second address, over TLS.
#[derive(Clone)]
pub struct Secure {
    /// Where to listen; loopback only, port 0 for any free one.
    pub listen: SocketAddr,
    /// The certificate and its key; `h2` is spoken where its ALPN offers it.
    pub config: Arc<ServerConfig>,
}

/// Why a seller did not start.
#[derive(Debug, thiserror::Error)]
pub enum SellerStartError {
    /// The key is zero or above the order of the curve.
    #[error("the seller's key is not a private key of secp256k1")]
    Key,
    /// Anyone may read and close the channels of this seller: it is for one machine.
    #[error("the origin listens on loopback only, not on {0}")]
    NotLoopback(SocketAddr),
    /// The port is taken, or may not be used.
    #[error("the origin cannot listen on {address}: {source}")]
    Listen {
        /// What was asked for.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The node's address cannot be used.
    #[error("{url} is not the URL of a node: {reason}")]
    Node {
        /// What was given.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A resource's path has no leading slash, is twice there, or belongs to the origin itself.
    #[error(
        "{0} cannot be the path of a resource: it must begin with / and be neither taken nor / nor below {GATEWAY_PATH}"
    )]
    Path(String),
}

/// A seller that runs. Dropping it stops it.
pub struct Origin {
    address: SocketAddr,
    secure_address: Option<SocketAddr>,
    shared: Arc<SellerShared>,
    tasks: TaskTracker,
    stop: DropGuard,
}

impl Origin {
    /// Listens, and serves until it is stopped or dropped. Does not wait for the node.
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

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://127.0.0.1:PORT`, without a slash at the end.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Where it listens for TLS, if it does.
    pub fn secure_address(&self) -> Option<SocketAddr> {
        self.secure_address
    }

    /// `https://127.0.0.1:PORT`, without a slash at the end, where it sells over TLS.
    pub fn secure_url(&self) -> Option<String> {
        self.secure_address.map(|address| format!("https://{address}"))
    }

    /// The account that is paid.
    pub fn receiver(&self) -> Address {
        self.shared.notary.receiver()
    }

    /// Cuts every connection and returns when all is ended.
    pub async fn stop(self) {
        drop(self.stop);
        self.tasks.wait().await;
    }

    /// The last total registered on a channel; `None` for one without enough confirmations or unknown.
    pub fn registered(&self, sender: Address, open_block: u32) -> Option<Amount> {
        self.shared.ledger().channels.get(&(sender, open_block)).map(|channel| channel.balance)
    }

    /// The sum of the last totals of all channels that were ever known.
    pub fn total_registered(&self) -> Amount {
        let balances =
            self.shared.ledger().channels.values().map(|channel| channel.balance).collect::<Vec<_>>();
        balances.into_iter().fold(Amount::ZERO, Amount::saturating_add)
    }

    /// How many payments were registered.
    pub fn payments(&self) -> u64 {
        self.shared.ledger().payments
    }

    /// How many requests for resources came in, paid or not. What asks nothing of a resource does not count:
    /// `OPTIONS`, unknown paths, methods not allowed, the front page, the REST interface.
    pub fn exchanges(&self) -> u64 {
        self.shared.counts.borrow().exchanges
    }

    /// Changes a price from now on and returns the old one; `None` if nothing is sold under that path.
    pub fn set_price(&self, path: &str, price: Amount) -> Option<Amount> {
        self.shared.shop.set_price(path, price)
    }

    /// Waits until at least this many channels, ended ones too, have had enough confirmations.
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

    /// Waits for a whole look at the chain that begins after this call; never ends while noticing is stopped.
    pub async fn await_look(&self) {
        // One may be under way already.
        let enough = self.shared.counts.borrow().looks + 2;
        self.await_counts(|counts| counts.looks >= enough).await;
    }

    async fn await_counts(&self, enough: impl FnMut(&Counts) -> bool) {
        // An error would say that the sender is gone, and we hold it.
        let _ = self.shared.counts.subscribe().wait_for(enough).await;
    }
}

async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), SellerStartError> {
    let cannot = |source| SellerStartError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(cannot)?;
    let address = listener.local_addr().map_err(cannot)?;
    Ok((listener, address))
}

/// What all tasks of one seller work on.
struct SellerShared {
    notary: Notary,
    letterhead: HeaderMap,
    token: Address,
    shop: Shop,
    ledger: Mutex<Ledger>,
    faults: Mutex<Faults>,
    /// True while answers to payments are held back.
    held: tokio::sync::watch::Sender<bool>,
    counts: tokio::sync::watch::Sender<Counts>,
}

/// What can be waited for.
#[derive(Clone, Copy, Default)]
struct Counts {
    exchanges: u64,
    payments: u64,
    channels: usize,
    looks: u64,
}

impl SellerShared {
    /// Reads or changes the book and tells those who wait for it.
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

    // No code that holds these locks can leave them half changed.
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        lock(&self.ledger)
    }

    fn faults(&self) -> MutexGuard<'_, Faults> {
        lock(&self.faults)
    }
}
