//! A complete environment for examples: a chain, the contracts, a seller, a wallet of play money, and a configuration.

use std::fs::OpenOptions;
use std::io;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ethers_core::types::U256;
use ethers_core::utils::hex;

use super::accounts;
use super::chain::{DevChain, DevChainSettings};
use super::deploy::{DeployError, Options, deploy, fund};
use super::origin::{self, Origin, Resource, SellerStartError};
use crate::protocol::Amount;

/// The seller's price for one request, in base units.
const PRICE: u64 = 1000;
/// The wallet's balance, in base units.
const WEALTH: u64 = 100_000_000;
/// The development account that serves as the wallet.
const WALLET: usize = 1;

/// A running chain with a seller; stops when dropped.
pub struct Sandbox {
    chain: DevChain,
    seller: Origin,
    config: PathBuf,
}

/// Why a sandbox could not start.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// A port or a file cannot be opened.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The contracts cannot be deployed.
    #[error(transparent)]
    Deploy(#[from] DeployError),
    /// The seller cannot start.
    #[error(transparent)]
    Seller(#[from] SellerStartError),
}

impl Sandbox {
    /// Starts a sandbox on free ports of this machine and writes `proxy.toml` and `key` to `directory`.
    ///
    /// # Errors
    /// A port cannot be bound, a file exists already, or the contracts cannot be deployed.
    pub async fn start(directory: &Path) -> Result<Self, SandboxError> {
        let chain = DevChain::spawn(DevChainSettings::default()).await?;
        let deployed = deploy(&chain.url(), Options::default()).await?;
        let seller = Origin::spawn(origin::SellerSettings {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            secure: None,
            authorized: None,
            rpc_url: chain.url(),
            channel_manager: deployed.channel_manager,
            token: deployed.token,
            key: [0xb0; 32],
            confirmations: 0,
            poll_every: Duration::from_millis(50),
            resources: Resource::assortment(Amount::from(PRICE)),
        });
        let seller = seller.await?;
        let no_wallet = || io::Error::other("no development account found for the wallet");
        let key = accounts::key(WALLET).ok_or_else(no_wallet)?;
        let address = accounts::addresses().get(WALLET).copied().ok_or_else(no_wallet)?;
        let tokens = [(deployed.token, Amount::from(WEALTH))];
        fund(&chain.url(), address.into(), U256::zero(), &tokens).await?;
        let (rpc, contract, port) = (chain.url(), deployed.channel_manager, seller.address().port());
        let text = format!(
            r#"state_dir = "state"

[wallet]
key_file = "key"

[chain]
rpc_url = "{rpc}"
channel_manager = "{contract}"
poll_every = "50ms"

[[pay]]
host = "127.0.0.1"
port = {port}
max_price = {PRICE}

[hooks]
nonexisting_channel = {{ action = "retry", every = "100ms", times = 100, timeout = "20s" }}
"#
        );
        let config = directory.join("proxy.toml");
        write_private(&directory.join("key"), &hex::encode(key))?;
        write_private(&config, &text)?;
        Ok(Self { chain, seller, config })
    }

    /// The configuration of a proxy that pays the seller.
    #[must_use]
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// The URL of a resource for sale.
    #[must_use]
    pub fn paid_url(&self) -> String {
        format!("{}/paid", self.seller.url())
    }

    /// Stops the seller and the chain.
    pub async fn stop(self) {
        self.seller.stop().await;
        self.chain.stop().await;
    }
}

fn write_private(path: &Path, text: &str) -> io::Result<()> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?.write_all(text.as_bytes())
}
