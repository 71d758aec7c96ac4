//! The development chain: an in-memory node, its JSON-RPC server on loopback, and its block timer.

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

/// The largest request, in bytes.
const MAX_REQUEST: u32 = 512 * 1024;
/// The most calls in one batch.
const MAX_BATCH: u32 = 200;
/// The most connected clients.
const MAX_CONNECTIONS: u32 = 256;

/// The settings of a development chain.
#[derive(Clone, Debug)]
pub struct DevChainSettings {
    /// The address to listen on; port 0 means any free one. The default is a free port on loopback.
    pub listen: SocketAddr,
    /// The time between blocks; `None` (the default) mines a block for each transaction.
    pub block_time: Option<Duration>,
    /// The chain ID, by default 31337.
    pub chain_id: u64,
    /// True (the default) for EIP-1559 fees; false for an older network without base fee, fee history and type-2
    /// transactions.
    pub has_base_fee: bool,
    /// The most blocks of one event query; `None` (the default) means no limit.
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

/// A running development chain, which stops when dropped.
pub struct DevChain {
    address: SocketAddr,
    control: Arc<Control>,
    server: ServerHandle,
    _clock: DropGuard,
}

impl DevChain {
    /// Starts and serves a chain with its genesis block and the development accounts.
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

    /// The address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its URL, for `rpc_url`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Sets the time between blocks; `None` mines a block per transaction.
    pub fn set_block_time(&self, block_time: Option<Duration>) {
        self.control.set_period(block_time);
    }

    /// Stops the chain and waits until its port is free.
    pub async fn stop(self) {
        // An error only means that it has already stopped.
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

/// Mines periodically; waits forever without a period.
async fn tick(control: &Control, period: Option<Duration>) {
    let Some(period) = period else { return std::future::pending().await };
    let mut ticks = interval_at(Instant::now() + period, period);
    loop {
        ticks.tick().await;
        if let Err(error) = control.node().mine(1, 1) {
            tracing::error!(%error, "mining a block on schedule failed");
        }
    }
}
