//! The development chain as a whole: a node in memory, its JSON-RPC server on the loopback, its clock.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use jsonrpsee::server::{BatchRequestConfig, Server, ServerConfig, ServerHandle};
use tokio::sync::watch;
use tokio::time::{Instant, interval_at};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::node::Node;
use super::rpc;
use super::rpc::Control;

/// How long a request may be, in bytes.
const MAX_REQUEST: u32 = 512 * 1024;
/// How many calls one request may hold.
const MAX_BATCH: u32 = 200;
/// How many clients may be connected.
const MAX_CONNECTIONS: u32 = 256;

/// What kind of chain is wanted.
#[derive(Clone, Debug)]
pub struct DevChainSettings {
    /// Where to listen; port 0 is any free one. The default is a free port of the loopback.
    pub listen: SocketAddr,
    /// The time between blocks; `None` (the default) makes a block for each transaction.
    pub block_time: Option<Duration>,
    /// The chain's id, 31337 by default.
    pub chain_id: u64,
    /// True (the default) for the fees of EIP-1559; false for a network from before it, which knows no base
    /// fee, no fee history and no transaction that names them.
    pub has_base_fee: bool,
    /// The most blocks that one query of events may cover; `None` (the default) is no limit.
    pub max_log_range: Option<u64>,
}

impl Default for DevChainSettings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            block_time: None,
            chain_id: 31337,
            has_base_fee: true,
            max_log_range: None,
        }
    }
}

/// A running development chain. It ends when this is dropped.
pub struct DevChain {
    address: SocketAddr,
    control: Arc<Control>,
    server: ServerHandle,
    _clock: DropGuard,
}

impl DevChain {
    /// Starts a chain that has its first block and the development accounts, and serves it.
    pub async fn spawn(settings: DevChainSettings) -> io::Result<Self> {
        let node = Node::new(settings.chain_id, settings.has_base_fee, settings.max_log_range);
        let control = Arc::new(Control::new(node, settings.has_base_fee));
        control.set_period(settings.block_time);
        let methods = rpc::methods(control.clone()).map_err(io::Error::other)?;
        let config = ServerConfig::builder()
            .http_only()
            .max_request_body_size(MAX_REQUEST)
            .max_connections(MAX_CONNECTIONS)
            .set_batch_request_config(BatchRequestConfig::Limit(MAX_BATCH))
            .build();
        let server = Server::builder().set_config(config).build(settings.listen).await?;
        let address = server.local_addr()?;
        let stop = CancellationToken::new();
        tokio::spawn(mine_in_time(control.clone(), control.period.subscribe(), stop.clone()));
        Ok(Self { address, control, server: server.start(methods), _clock: stop.drop_guard() })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its URL, for `rpc_url`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on blocks at that distance, or `None` for a block per transaction.
    pub fn set_block_time(&self, block_time: Option<Duration>) {
        self.control.set_period(block_time);
    }

    /// Ends it, and returns when the port is free again.
    pub async fn stop(self) {
        // An error only says that it has stopped already.
        let _ = self.server.stop();
        self.server.stopped().await;
    }
}

async fn mine_in_time(
    control: Arc<Control>,
    mut period: watch::Receiver<Option<Duration>>,
    stop: CancellationToken,
) {
    loop {
        let current = *period.borrow_and_update();
        tokio::select! {
            () = tick(&control, current) => {}
            changed = period.changed() => if changed.is_err() { return },
            () = stop.cancelled() => return,
        }
    }
}

/// Mines for ever, or waits for ever where there is no period.
async fn tick(control: &Control, period: Option<Duration>) {
    let Some(period) = period else { return std::future::pending().await };
    let mut ticks = interval_at(Instant::now() + period, period);
    loop {
        ticks.tick().await;
        if let Err(error) = control.node().mine(1, 1) {
            tracing::error!(%error, "the clock could not mine a block");
        }
    }
}
