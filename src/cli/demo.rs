//! `tollpass demo`: a development chain, a seller, a throw-away wallet with play money and the proxy as `serve` runs
//! it, all local, on a temporary state directory.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use ethers_core::rand::{RngCore as _, rngs::OsRng};
use ethers_core::utils::hex;
use rustls::ServerConfig;

use super::output::announce;
use super::parse::duration;
use super::rehearsal;
use crate::app::{App, StartError};
use crate::chain::signer::Signer;
use crate::config::Config;
use crate::devnet::chain;
use crate::devnet::chain::DevChain;
use crate::devnet::contracts;
use crate::devnet::deploy;
use crate::devnet::deploy::{Deployed, deploy};
use crate::devnet::origin;
use crate::devnet::origin::{AuthorizedSale, Origin, Resource, Secure, SellerStartError, X402_PATH};
use crate::protocol::{Address, Amount};
use crate::shutdown::Shutdown;
use crate::tls::{Authority, Leaves};

/// What `tollpass demo --help` shows below the options.
const AFTER_HELP: &str = "\
Everything runs on this machine, with worthless tokens, in a new directory below the
system's temporary directory that is deleted at the end. Once all is running, the demo
prints what to type, and this line for scripts:

  ready proxy=ADDRESS origin=URL rpc=URL secure=URL

To rehearse with your own key and configuration, let the demo give it play money, and run
your own proxy beside it:

  export TOLLPASS_CONFIG=~/rehearsal/proxy.toml    # in each terminal
  tollpass init --pay localhost --pay 127.0.0.1
  tollpass demo --fund ADDRESS";

/// Run a local demo: chain, seller, funded wallet and proxy
#[derive(Clone, Debug, Args)]
#[command(after_long_help = AFTER_HELP)]
pub struct DemoArgs {
    /// Port of the proxy, 0 for any free one; by default 8402, or with --fund any free one
    #[arg(long)]
    pub port: Option<u16>,
    /// Port of the seller; 0 for any free one
    #[arg(long, default_value_t = 8403)]
    pub origin_port: u16,
    /// HTTPS port of the seller; 0 for any free one
    #[arg(long, default_value_t = 8405)]
    pub secure_port: u16,
    /// JSON-RPC port of the development chain; 0 for any free one
    #[arg(long, default_value_t = 8404)]
    pub rpc_port: u16,
    /// Also sell the files in this directory, each at its own path
    #[arg(long, value_name = "DIR")]
    pub sell: Option<PathBuf>,
    /// Time between blocks, such as 2s; if omitted, each transaction gets a block at once
    #[arg(long, value_parser = duration, allow_hyphen_values = true)]
    pub block_time: Option<Duration>,
    /// Also give play money to this address, of your own `tollpass init`; repeatable
    #[arg(long, value_name = "ADDRESS")]
    pub fund: Vec<Address>,
}

impl DemoArgs {
    fn proxy_port(&self) -> u16 {
        self.port.unwrap_or(if self.fund.is_empty() { DEFAULT_PORT } else { 0 })
    }
}

/// How often the seller polls the chain.
const SELLER_POLL_INTERVAL: Duration = Duration::from_millis(200);
/// The directory of the seller's CA, in the demo's directory.
const SELLERS_DIRECTORY: &str = "seller";
/// The seller's price for one request.
const PRICE: u64 = 1000;
/// The port of the proxy.
const DEFAULT_PORT: u16 = 8402;
/// The script that sets the variables for a rehearsal, in the demo's directory.
const REHEARSAL: &str = "rehearsal.sh";

/// Runs the demo until a signal ends it.
pub async fn run(args: DemoArgs) -> anyhow::Result<()> {
    let shutdown = Shutdown::new();
    shutdown.on_signals(None)?;
    let directory = tempfile::Builder::new().prefix("tollpass-demo-").tempdir()?;
    let devchain = DevChain::spawn(chain::DevChainSettings {
        listen: local(args.rpc_port),
        ..chain::DevChainSettings::default()
    });
    let devchain =
        devchain.await.with_context(|| port_taken("development chain", args.rpc_port, "--rpc-port"))?;
    let deployed = deploy(&devchain.url(), deploy::Options::default()).await?;
    let dollar = deploy::deploy_authorized_token(&devchain.url()).await?;
    let secure =
        Secure { listen: local(args.secure_port), config: sellers_certificate(directory.path()).await? };
    let mut settings = seller_settings(&args, &devchain, (&deployed, dollar), secure);
    if let Some(directory) = &args.sell {
        let files = origin::directory(directory, Amount::from(PRICE));
        settings.resources.extend(files.with_context(|| format!("cannot sell {}", directory.display()))?);
    }
    let seller = Origin::spawn(settings).await;
    let seller = seller.map_err(|error| match &error {
        SellerStartError::Listen { address, .. } if *address == local(args.secure_port) => {
            let text = port_taken("seller", args.secure_port, "--secure-port");
            anyhow::Error::new(error).context(text)
        }
        _ => anyhow::Error::new(error).context(port_taken("seller", args.origin_port, "--origin-port")),
    })?;

    let (key, wallet) = new_key()?;
    for account in args.fund.iter().copied().chain([wallet.address()]) {
        rehearsal::fund(&devchain, (&deployed, dollar), account).await?;
    }
    // Until here, transactions were mined instantly.
    devchain.set_block_time(args.block_time);
    write_private(&directory.path().join("key"), &hex::encode(key))?;
    let text = configuration(&args, &devchain, (&deployed, dollar), &seller);
    write_private(&directory.path().join("proxy.toml"), &text)?;
    let config = Config::parse(&text, directory.path(), &Default::default())?;
    let app = App::build(config, None, shutdown.clone()).await.map_err(|error| match error {
        // The message of the error itself names an option of `serve`.
        StartError::Listen { source, .. } => {
            anyhow::Error::new(source).context(port_taken("proxy", args.proxy_port(), "--port"))
        }
        other => other.into(),
    })?;

    announce(what_to_type(app.address(), &seller, directory.path()));
    if !args.fund.is_empty() {
        let script = directory.path().join(REHEARSAL);
        let sellers_ca = directory.path().join(SELLERS_DIRECTORY).join("ca.pem");
        let variables = rehearsal::variables(&devchain, (&deployed, dollar), directory.path(), &sellers_ca);
        write_private(&script, &variables)?;
        let paid = format!("{}/paid", seller.secure_url().unwrap_or_default());
        let urls = (&*paid, &*x402_url(&seller));
        announce(rehearsal::what_to_type(&args.fund, (&program_name(), &script), urls));
    }
    let secure = seller.secure_url().unwrap_or_default();
    announce(format_args!(
        "ready proxy={} origin={} rpc={} secure={secure}\n",
        app.address(),
        seller.url(),
        devchain.url()
    ));
    app.run().await?;
    seller.stop().await;
    devchain.stop().await;
    Ok(())
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

fn port_taken(what: &str, port: u16, option: &str) -> String {
    format!("the {what} cannot listen on port {port}; choose another port with {option} (0 for any free one)")
}

/// The seller's TLS certificate is issued by a CA of its own, unrelated to the proxy's.
async fn sellers_certificate(directory: &Path) -> anyhow::Result<Arc<ServerConfig>> {
    let authority = Authority::open(&directory.join(SELLERS_DIRECTORY), &[])?;
    let config = Leaves::new(Arc::new(authority), 1)?.config_for(&local(0).ip().to_string()).await?;
    let mut config = ServerConfig::clone(&config);
    // The original server does not support HTTP/2.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn seller_settings(
    args: &DemoArgs,
    devchain: &DevChain,
    (deployed, dollar): (&Deployed, Address),
    secure: Secure,
) -> origin::SellerSettings {
    origin::SellerSettings {
        listen: local(args.origin_port),
        secure: Some(secure),
        rpc_url: devchain.url(),
        channel_manager: deployed.channel_manager,
        token: deployed.token,
        // The seller's key only protects play money on a chain that ends with the demo.
        key: [0xb0; 32],
        confirmations: 0,
        poll_every: SELLER_POLL_INTERVAL,
        authorized: Some(AuthorizedSale {
            token: dollar,
            price: Amount::from(PRICE),
            chain_id: chain::DevChainSettings::default().chain_id,
        }),
        resources: Resource::assortment(Amount::from(PRICE)),
    }
}

fn new_key() -> anyhow::Result<([u8; 32], Signer)> {
    let mut key = [0; 32];
    OsRng.try_fill_bytes(&mut key).context("no randomness")?;
    // All but a vanishing fraction of 32-byte numbers are valid keys.
    let signer = Signer::new(&key)?;
    Ok((key, signer))
}

fn write_private(path: &Path, text: &str) -> anyhow::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    Ok(file.write_all(text.as_bytes())?)
}

fn configuration(
    args: &DemoArgs,
    devchain: &DevChain,
    (deployed, dollar): (&Deployed, Address),
    seller: &Origin,
) -> String {
    let (port, origin_port) = (args.proxy_port(), seller.address().port());
    let secure_port = seller.secure_address().map_or(args.secure_port, |address| address.port());
    let (rpc, contract) = (devchain.url(), deployed.channel_manager);
    let start_block = deployed.start_block;
    let chain_id = chain::DevChainSettings::default().chain_id;
    let (name, version) = (contracts::AUTHORIZED_NAME, contracts::AUTHORIZED_VERSION);
    // Elsewhere, tollpass cannot find out whose programs make the requests; the money is play money.
    let local = if cfg!(target_os = "linux") { "own-user" } else { "any" };
    format!(
        r#"listen = "127.0.0.1:{port}"
local = "{local}"
state_dir = "state"

[wallet]
key_file = "key"

[chain]
rpc_url = "{rpc}"
channel_manager = "{contract}"
start_block = {start_block}
poll_every = "100ms"

[[asset]]
symbol = "DUSD"
network = "eip155:{chain_id}"
token = "{dollar}"
decimals = 6
eip712_name = "{name}"
eip712_version = "{version}"

[[pay]]
host = "localhost"
port = {origin_port}
max_price = "0.01 DUSD"

[[pay]]
host = "127.0.0.1"
port = {origin_port}
max_price = 10000

[[pay]]
host = "127.0.0.1"
port = {secure_port}
max_price = 10000

[upstream]
ca_file = "{SELLERS_DIRECTORY}/ca.pem"

[hooks]
nonexisting_channel = {{ action = "retry", every = "250ms", times = 240, timeout = "1m" }}
insufficient_confirmations = {{ action = "retry", every = "250ms", times = 240, timeout = "1m" }}
"#
    )
}

fn x402_url(seller: &Origin) -> String {
    format!("http://localhost:{}{X402_PATH}", seller.address().port())
}

/// As it was called.
fn program_name() -> String {
    std::env::args().next().unwrap_or_else(|| "tollpass".to_owned())
}

fn what_to_type(proxy: SocketAddr, seller: &Origin, directory: &Path) -> String {
    let origin = seller.url();
    let program = program_name();
    let state = directory.join("state");
    format!(
        "A development chain, a seller, and the proxy with a wallet of play money. In another terminal:\n\
         \n  \
         curl -i {origin}/paid\n      \
         without the proxy: 402 Payment Required\n  \
         curl -i -x http://{proxy} {origin}/paid\n      \
         through the proxy: 200; the first request opens a channel, later ones pay from it\n  \
         curl -i -x http://{proxy} --cacert {ca} {secure}/paid\n      \
         the same over HTTPS, which the proxy intercepts with its own certificate\n  \
         curl -i -x http://{proxy} {x402}\n      \
         x402: 200; the seller settles a signed transfer of another token\n  \
         {program} channels --state-dir {state}\n      \
         deposits and promised totals\n  \
         {program} ledger --state-dir {state}\n      \
         every payment\n  \
         {program} dashboard --state-dir {state}\n      \
         the same and more in a browser: prints a link that opens once\n\
         \n\
         The configuration is {config}. Ctrl-C stops everything. Payments appear below.\n",
        secure = seller.secure_url().unwrap_or_default(),
        x402 = x402_url(seller),
        ca = state.join("ca.pem").display(),
        state = state.display(),
        config = directory.join("proxy.toml").display(),
    )
}
